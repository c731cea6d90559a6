"""Conv of any rank: https://onnx.ai/onnx/operators/onnx__Conv.html

X [N, Cin, *spatial], W [O, Cin/G, *kernel], B [O], Y [N, O, *spatial'].

Backward, ``s ⊙ Y + t`` with s, t of [O] on axis 1: ``W'[o] = s[o]·W[o]``, ``B' = s·B + t``.

Forward, X replaced by ``s ⊙ X + t`` with s, t of [Cin] on axis 1: ``W'[o, j] = W[o, j]·s[c]`` where
``c = g(o)·Cin/G + j``, ``B'[o] = B[o] + Σ_{j,k} W[o, j, k]·t[c]``. The shift needs a kernel that never
reads padding: padded zeros stay zeros.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from normfold.affine import Affine, Array64
from normfold.planning.crossing import Crossing, Operator, require_axes
from normfold.planning.operators.quantized import Request, stored_shape
from normfold.preparation.constants import Constant64
from normfold.preparation.node_view import NodeView
from normfold.refusal import Refused


class Conv(Operator):
    op_types = ("Conv",)

    def backward(self, node: NodeView, wanted: Mapping[int, Affine]) -> Crossing:
        affine = wanted[0]
        out_channels, *rest = stored_shape(node, 1)
        require_axes(affine.scale, {1}, "scale", node)
        require_axes(affine.shift, {1}, "shift", node)
        scale, shift = affine.channel(1, out_channels)
        request = Request(node)
        if affine.has_scale:
            request.ask(1, Affine.on_axis(scale, 0.0, axis=0, rank=1 + len(rest)))
        ask_bias(node, request, scale, shift)
        return request.crossing()

    def forward(self, node: NodeView, given: Mapping[int, Affine]) -> Crossing:
        affine = given.get(0)
        if affine is None or len(given) > 1:
            raise Refused("NF115", f"the weight of Conv {node.name!r} is computed at run time")
        weight = node.weight(1)
        groups = node.int_attribute("group", 1)
        out_channels, per_group = weight.shape[:2]
        require_axes(affine.scale, {1}, "scale", node)
        require_axes(affine.shift, {1}, "shift", node)
        scale, shift = affine.channel(1, per_group * groups)
        constants = {}
        if affine.has_scale:
            factor = per_output(scale, groups, out_channels).reshape(
                out_channels, per_group, *(1 for _ in weight.shape[2:])
            )
            constants[1] = weight.map(lambda w: w * factor)
        if affine.has_shift:
            if not never_reads_padding(node, weight.shape[2:]):
                raise Refused(
                    "NF116",
                    f"Conv {node.name!r} pads with zeros, which a shift in front of it would not touch",
                )
            taps = per_output(shift, groups, out_channels)
            added = weight.map(
                lambda w: (w.reshape(out_channels, per_group, -1).sum(2) * taps).sum(1), (out_channels,)
            )
            constants[2] = add_bias(node, added)
        return Crossing(constants=constants)


def per_output(values: Array64, groups: int, out_channels: int) -> Array64:
    """[Cin] → [O, Cin/G]: what each output channel's own group reads."""
    return np.repeat(values.reshape(groups, -1), out_channels // groups, axis=0)


def ask_bias(node: NodeView, request: Request, scale: Array64, shift: Array64) -> None:
    """Ask the bias (slot 2, shape [O]) for ``scale·B + shift``; without one, a shift makes it."""
    if node.has(2):
        stored_shape(node, 2, "bias")
        request.ask(2, Affine.of(scale, shift, rank=1))
    elif shift.any():
        request.constants[2] = Constant64.of(shift, request.dtype)


def add_bias(node: NodeView, added: Constant64) -> Constant64:
    """The node's bias (slot 2, shape [O]) plus ``added``."""
    if not node.has(2):
        return Constant64.of(added.compute(), added.dtype)
    extra = added.compute()
    return node.weight(2, "bias").map(lambda b: b + extra)


def never_reads_padding(node: NodeView, kernel: tuple[int, ...]) -> bool:
    """Whether no output position reads a padded element, for every input size that the model allows."""
    pads = resolved_pads(node, kernel)
    return pads is not None and not any((*pads[0], *pads[1]))


def resolved_pads(node: NodeView, kernel: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Padding in front of and behind each spatial axis of a Conv or pool, ``auto_pad`` resolved.

    ``None`` where it depends on a size that is not static.
    """
    spatial = len(kernel)
    mode = node.string_attribute("auto_pad", "NOTSET")
    if mode == "NOTSET":
        pads = node.ints_attribute("pads") or [0] * (2 * spatial)
        return tuple(pads[:spatial]), tuple(pads[spatial:])
    if mode == "VALID":
        return (0,) * spatial, (0,) * spatial
    dilations = node.ints_attribute("dilations") or [1] * spatial
    strides = node.ints_attribute("strides") or [1] * spatial
    sizes = (node.dims(0) or (None,) * (spatial + 2))[2:]
    begin, end = [], []
    for size, extent, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        reach = (extent - 1) * dilation + 1
        if reach == 1 or stride == 1:
            total = reach - 1
        elif isinstance(size, int):
            total = max((math.ceil(size / stride) - 1) * stride + reach - size, 0)
        else:
            return None
        small = total // 2
        begin.append(small if mode == "SAME_UPPER" else total - small)
        end.append(total - begin[-1])
    return tuple(begin), tuple(end)


OPERATORS: tuple[Operator, ...] = (Conv(),)
