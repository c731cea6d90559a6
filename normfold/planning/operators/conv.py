"""Conv of any rank, and DeformConv: https://onnx.ai/onnx/operators/onnx__Conv.html

X [N, Cin, *spatial], W [O, Cin/G, *kernel], B [O], Y [N, O, *spatial'].

Backward, ``s ⊙ Y + t`` with s, t of [O] on axis 1: ``W'[o] = s[o]·W[o]``, ``B' = s·B + t``.

Forward, X replaced by ``s ⊙ X + t`` with s, t of [Cin] on axis 1: ``W'[o, j] = W[o, j]·s[c]`` where
``c = g(o)·Cin/G + j``, ``B'[o] = B[o] + Σ_{j,k} W[o, j, k]·t[c]``. Where the kernel reads padding, whose
zeros stay zeros, the sum is over the taps k that read real elements: no bias, but a constant map
[1, O, *spatial'] that the output lacks, known where the padded axes are static.

DeformConv (https://onnx.ai/onnx/operators/onnx__DeformConv.html) reads X at places that its offsets move, and
zeros outside of X: scales as above, shifts backward only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from normfold.affine import Affine, Array64
from normfold.planning.crossing import Crossing, Operator, require_axes
from normfold.planning.operators._windows import inside, never_reads_padding, summed_over_taps
from normfold.planning.operators.quantized import Request, stored_shape
from normfold.preparation.constant64 import Constant64
from normfold.preparation.node_view import NodeView
from normfold.refusal import Refused


class Conv(Operator):
    op_types = ("Conv",)
    bias_slot = 2

    def backward(self, node: NodeView, wanted: Mapping[int, Affine]) -> Crossing:
        affine = wanted[0]
        out_channels, *rest = stored_shape(node, 1)
        require_axes(affine.scale, {1}, "scale", node)
        require_axes(affine.shift, {1}, "shift", node)
        scale, shift = affine.channel(1, out_channels)
        request = Request(node)
        if affine.has_scale:
            request.ask(1, Affine.on_axis(scale, 0.0, axis=0, rank=1 + len(rest)))
        ask_bias(node, request, scale, shift, self.bias_slot)
        return request.crossing()

    def forward(self, node: NodeView, given: Mapping[int, Affine]) -> Crossing:
        affine = given.get(0)
        if affine is None or len(given) > 1:
            raise Refused("NF115", f"an operand of {node.op_type} {node.name!r} is computed at run time")
        weight = node.weight(1)
        groups = node.int_attribute("group", 1)
        out_channels, per_group = weight.shape[:2]
        if groups < 1 or out_channels % groups:
            raise Refused(
                "NF113", f"{node.op_type} {node.name!r} has {out_channels} outputs, {groups} groups"
            )
        require_axes(affine.scale, {1}, "scale", node)
        require_axes(affine.shift, {1}, "shift", node)
        scale, _ = affine.channel(1, per_group * groups)
        constants = {}
        if affine.has_scale:
            factor = per_output(scale, groups, out_channels).reshape(
                out_channels, per_group, *(1 for _ in weight.shape[2:])
            )
            constants[1] = weight.scaled(factor)
        if not affine.has_shift:
            return Crossing(constants=constants)
        return self._shifted(node, weight, affine, constants)

    def _shifted(
        self, node: NodeView, weight: Constant64, affine: Affine, constants: dict[int, Constant64]
    ) -> Crossing:
        """``constants`` and what takes the shift of ``affine``."""
        groups = node.int_attribute("group", 1)
        out_channels, per_group = weight.shape[:2]
        _, shift = affine.channel(1, per_group * groups)
        taps = per_output(shift, groups, out_channels)
        kernel = weight.shape[2:]
        if never_reads_padding(node, kernel):

            def added() -> Array64:
                return weight.rowwise(lambda w, rows: (w.sum(tuple(range(2, w.ndim))) * taps[rows]).sum(1))

            constants[2] = add_bias(node, added, out_channels)
            return Crossing(constants=constants)
        tables = inside(node, kernel)
        per_tap = weight.rowwise(lambda w, rows: np.einsum("oc...,oc->o...", w, taps[rows]))
        left = Affine.of(1.0, summed_over_taps(per_tap, tables), rank=affine.rank)
        return Crossing(constants=constants, affines={0: left})


class DeformConv(Conv):
    op_types = ("DeformConv",)
    bias_slot = 3

    def _shifted(
        self, node: NodeView, weight: Constant64, affine: Affine, constants: dict[int, Constant64]
    ) -> Crossing:
        raise Refused("NF116", f"DeformConv {node.name!r} reads zeros wherever its offsets leave the image")


def per_output(values: Array64, groups: int, out_channels: int) -> Array64:
    """[Cin] → [O, Cin/G]: what each output channel's own group reads. Of one group a view: it is as large as
    a 1×1 weight."""
    if groups == 1:
        return np.broadcast_to(values, (out_channels, len(values)))
    return np.repeat(values.reshape(groups, -1), out_channels // groups, axis=0)


def ask_bias(node: NodeView, request: Request, scale: Array64, shift: Array64, slot: int = 2) -> None:
    """Ask the bias (of shape [O]) for ``scale·B + shift``; without one, a shift makes it."""
    if node.has(slot):
        _require_one_each(stored_shape(node, slot, "bias"), len(scale), node)
        request.ask(slot, Affine.of(scale, shift, rank=1))
    elif shift.any():
        request.constants[slot] = Constant64.of(shift, request.dtype)


def add_bias(node: NodeView, added: Callable[[], Array64], channels: int) -> Constant64:
    """The node's bias (slot 2, shape [O]) plus ``added``, which is asked for when the sum is."""
    if not node.has(2):
        return Constant64.later((channels,), node.weight(1).dtype, added)
    bias = node.weight(2, "bias")
    _require_one_each(bias.shape, channels, node)
    return Constant64.later(bias.shape, bias.dtype, lambda: bias.compute() + added())


def _require_one_each(shape: tuple[int, ...], channels: int, node: NodeView) -> None:
    """torch's default exporter, unoptimised, gives a Conv3d without bias one of [O, 2]."""
    if shape != (channels,):
        raise Refused("NF113", f"{node.op_type} {node.name!r} has {channels} channels and a bias of {shape}")


OPERATORS: tuple[Operator, ...] = (Conv(), DeformConv())
