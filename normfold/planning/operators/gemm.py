"""Gemm: https://onnx.ai/onnx/operators/onnx__Gemm.html

``Y = alpha · A' @ B' + beta · C`` with A' [M, K] (A transposed if transA), B' [K, N], C broadcastable to
[M, N].

Backward, ``s ⊙ Y + t``: the constant operand that owns the axis is scaled, ``beta = 1`` and
``C' = s·beta·C + t``. Forward on A, which varies along K: ``B'[k] = s[k]·B'[k]``,
``C' = beta·C + alpha·t @ B'``; likewise on B with A constant.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from normfold.affine import Affine, Array64
from normfold.planning.broadcasting import to_operand
from normfold.planning.crossing import Crossing, Operator, require_axes
from normfold.planning.operators.quantized import Request, is_dequantised, stored_shape
from normfold.preparation.constant64 import Constant64
from normfold.preparation.node_view import NodeView
from normfold.refusal import Refused

_A, _B, _C = 0, 1, 2


class Gemm(Operator):
    op_types = ("Gemm",)

    def backward(self, node: NodeView, wanted: Mapping[int, Affine]) -> Crossing:
        affine = wanted[0]
        request = Request(node)
        if affine.has_scale:
            slot, owned = self._owner(node, affine.scale)
            stored_shape(node, slot)
            request.ask(slot, Affine.of(_laid_out(affine.scale, slot, owned, node), rank=2))
        beta = node.float_attribute("beta", 1.0)
        if beta != 0.0 and node.constant(_C) is None and is_dequantised(node, _C):
            request.ask(_C, to_operand(Affine.of(beta * affine.scale, affine.shift, rank=2), node, _C))
            return request.crossing() if beta == 1.0 else request.crossing(beta=1.0)
        offset = self._offset(node, affine.scale, affine.shift)
        return dataclasses.replace(_with_offset(node, request.constants, offset), affines=request.affines)

    def _owner(self, node: NodeView, scale: Array64) -> tuple[int, int]:
        """The slot of the constant operand that has the scale's axis of Y, and that axis (0: M, 1: N)."""
        axes = [axis for axis in (0, 1) if scale.shape[axis] != 1]
        if len(axes) == 2:
            raise Refused("NF110", f"the scale varies on both axes of Gemm {node.name!r}")
        for slot, axis in ((_B, 1), (_A, 0)):
            if _is_stored(node, slot) and axes in ([], [axis]):
                return slot, axis
        if axes == [0] and _is_stored(node, _B):
            raise Refused(
                "NF110", f"the scale varies on the rows of Gemm {node.name!r}, which its weight does not have"
            )
        node.weight(_B)
        raise Refused(
            "NF115", f"the operand of Gemm {node.name!r} that has the scale's axis is computed at run time"
        )

    def _offset(self, node: NodeView, scale: Array64, shift: Array64) -> Constant64 | None:
        """``s · beta · C + t``; ``None`` if nothing needs to be there."""
        beta = node.float_attribute("beta", 1.0)
        if node.has(_C) and beta != 0.0:
            bias = node.weight(_C, "C operand")
            if np.broadcast_shapes(bias.shape, scale.shape, shift.shape) == bias.shape:
                return bias.map(lambda c: beta * c * scale + shift)
            grown = beta * bias.compute() * scale + shift
            return Constant64.of(_squeezed(grown, len(bias.shape)), bias.dtype)
        if not shift.any():
            return None
        return Constant64.of(_squeezed(shift, 1), _weight_type(node))

    def forward(self, node: NodeView, given: Mapping[int, Affine]) -> Crossing:
        if len(given) != 1 or _C in given:
            raise Refused("NF114", f"the operands of Gemm {node.name!r} are both computed at run time")
        ((slot, affine),) = given.items()
        other = _B if slot == _A else _A
        weight = node.weight(other)
        transposed = node.int_attribute("transA" if slot == _A else "transB", 0) != 0
        # A' is [M, K] and B' is [K, N]: the contracted axis K is the last of A' and the first of B'.
        contracted = (1 if slot == _A else 0) ^ transposed
        require_axes(affine.scale, {contracted}, "scale", node)
        require_axes(affine.shift, {contracted}, "shift", node)
        length = weight.shape[_k_axis(node, other)]
        scale, shift = affine.channel(contracted, length)
        layout = [1, 1]
        layout[_k_axis(node, other)] = length
        constants: dict[int, Constant64] = {}
        if affine.has_scale:
            factor = scale.reshape(layout)
            constants[other] = weight.scaled(factor)
        if not affine.has_shift:
            return Crossing(constants=constants)
        alpha = node.float_attribute("alpha", 1.0)
        added = alpha * weight.contracted(shift, _k_axis(node, other))
        row = added.reshape(1, -1) if slot == _A else added.reshape(-1, 1)
        return _with_offset(node, constants, self._offset(node, np.ones((1, 1)), row))


def _is_stored(node: NodeView, slot: int) -> bool:
    return node.constant(slot) is not None or is_dequantised(node, slot)


def _k_axis(node: NodeView, slot: int) -> int:
    """The contracted axis of A or B as it is stored."""
    if slot == _A:
        return 0 if node.int_attribute("transA", 0) else 1
    return 1 if node.int_attribute("transB", 0) else 0


def _laid_out(scale: Array64, slot: int, axis: int, node: NodeView) -> Array64:
    """Y's scale as a factor of the stored operand: the operand's free axis is the one that is not
    contracted."""
    layout = [1, 1]
    layout[1 - _k_axis(node, slot)] = scale.shape[axis]
    return scale.reshape(layout)


def _squeezed(values: Array64, rank: int) -> Array64:
    """Drop leading axes of size 1 down to ``rank``."""
    while values.ndim > max(rank, 1) and values.shape[0] == 1:
        values = values[0]
    return values


def _weight_type(node: NodeView) -> ir.DataType:
    for slot in (_B, _A):
        constant = node.constant(slot)
        if constant is not None:
            return constant.dtype
    dtype = node.output_dtype()
    if dtype is None:
        raise Refused("NF112", f"the type of Gemm {node.name!r} is not known")
    return dtype


def _with_offset(node: NodeView, constants: dict[int, Constant64], offset: Constant64 | None) -> Crossing:
    if offset is None:
        return Crossing(constants=constants)
    attributes: dict[str, float | int] = {}
    if node.float_attribute("beta", 1.0) != 1.0:
        attributes["beta"] = 1.0
    if node.opset < 7 and offset.shape != node.output_dims():
        attributes["broadcast"] = 1
    return Crossing(constants={**constants, _C: offset}, attributes=attributes)


OPERATORS: tuple[Operator, ...] = (Gemm(),)
