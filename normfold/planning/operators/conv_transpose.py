"""ConvTranspose of any rank: https://onnx.ai/onnx/operators/onnx__ConvTranspose.html

X [N, Cin, *spatial], W [Cin, O/G, *kernel] (grouped along the *input* channels), B [O], Y [N, O, *spatial'].

Backward: output channel ``o = g·O/G + m`` is written by W[i, m] for the inputs i of group g:
``W'[i, m] = s[g(i)·O/G + m]·W[i, m]``.
Forward: ``W'[i] = s[i]·W[i]``; a shift only where every output position sums the same taps (kernel 1,
stride 1, no padding).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from normfold.affine import Affine, Array64
from normfold.planning.crossing import Crossing, Operator, require_axes
from normfold.planning.operators.conv import add_bias, ask_bias
from normfold.planning.operators.quantized import Request, stored_shape
from normfold.preparation.node_view import NodeView
from normfold.refusal import Refused


class ConvTranspose(Operator):
    op_types = ("ConvTranspose",)

    def backward(self, node: NodeView, wanted: Mapping[int, Affine]) -> Crossing:
        affine = wanted[0]
        groups = node.int_attribute("group", 1)
        in_channels, per_group, *kernel = stored_shape(node, 1)
        require_axes(affine.scale, {1}, "scale", node)
        require_axes(affine.shift, {1}, "shift", node)
        scale, shift = affine.channel(1, per_group * groups)
        request = Request(node)
        if affine.has_scale:
            factor = np.repeat(scale.reshape(groups, per_group), in_channels // groups, axis=0)
            factor = factor.reshape(in_channels, per_group, *(1 for _ in kernel))
            request.ask(1, Affine.of(factor, rank=factor.ndim))
        ask_bias(node, request, scale, shift)
        return request.crossing()

    def forward(self, node: NodeView, given: Mapping[int, Affine]) -> Crossing:
        affine = given.get(0)
        if affine is None or len(given) > 1:
            raise Refused("NF115", f"the weight of ConvTranspose {node.name!r} is computed at run time")
        weight = node.weight(1)
        groups = node.int_attribute("group", 1)
        in_channels, per_group = weight.shape[:2]
        require_axes(affine.scale, {1}, "scale", node)
        require_axes(affine.shift, {1}, "shift", node)
        scale, shift = affine.channel(1, in_channels)
        constants = {}
        if affine.has_scale:
            factor = scale.reshape(-1, *(1 for _ in weight.shape[1:]))
            constants[1] = weight.scaled(factor)
        if affine.has_shift:
            if not _is_pointwise(node, weight.shape[2:]):
                raise Refused(
                    "NF116", f"ConvTranspose {node.name!r} sums a different number of taps at its borders"
                )

            def added() -> Array64:
                taps = weight.compute().reshape(groups, in_channels // groups, per_group)
                total: Array64 = (taps * shift.reshape(groups, -1, 1)).sum(1)
                return total.reshape(-1)

            constants[2] = add_bias(node, added, per_group * groups)
        return Crossing(constants=constants)


def _is_pointwise(node: NodeView, kernel: tuple[int, ...]) -> bool:
    ones = [1] * len(kernel)
    return (
        list(kernel) == ones
        and (node.ints_attribute("strides") or ones) == ones
        and not any(node.ints_attribute("pads") or [])
        and not any(node.ints_attribute("output_padding") or [])
        and not node.has_attribute("output_shape")
    )


OPERATORS: tuple[Operator, ...] = (ConvTranspose(),)
