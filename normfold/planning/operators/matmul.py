"""MatMul with a constant on either side, N-D: https://onnx.ai/onnx/operators/onnx__MatMul.html

``Y[…, M, N] = A[…, M, K] @ B[…, K, N]``, batch axes broadcast (numpy.matmul).

Backward: a scale on the constant's free axis (N for B, M for A) or on its batch axes goes into the
constant; a scale on axes that only the other operand has crosses to that operand. MatMul has no bias: a
shift stays behind it.
Forward on A: a scale along K is ``B'[k] = s[k]·B[k]``; a shift along K leaves ``t @ B`` on the output, one
number per n. With two computed operands a uniform scale goes to the first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from normfold.affine import Affine, Array64, varying_axes, vector
from normfold.planning.crossing import Crossing, Operator
from normfold.planning.operators.quantized import Request, is_dequantised, stored_shape
from normfold.preparation.node_view import NodeView
from normfold.refusal import Refused

_A, _B = 0, 1


class MatMul(Operator):
    op_types = ("MatMul",)

    def backward(self, node: NodeView, wanted: Mapping[int, Affine]) -> Crossing:
        affine = wanted[0]
        if not affine.has_shift:
            return self._scaled(node, affine.scale)
        rest = {0: affine.only_shift()}
        if not affine.has_scale:
            return Crossing(leaves=rest)
        return dataclasses.replace(self._scaled(node, affine.scale), leaves=rest)

    def _scaled(self, node: NodeView, scale: Array64) -> Crossing:
        slots = [slot for slot in (_B, _A) if node.constant(slot) is not None]
        slots += [slot for slot in (_B, _A) if is_dequantised(node, slot)]
        if not slots:
            return self._uniform(node, scale)
        slot = slots[0]
        shape = stored_shape(node, slot)
        full = self._with_both_axes(node, scale)
        axes = varying_axes(full)
        if set(axes) <= self._owned_axes(shape, slot, full.ndim):
            request = Request(node)
            factor = full.reshape(full.shape[full.ndim - len(shape) :])
            request.ask(slot, Affine.of(factor, rank=len(shape)))
            return request.crossing()
        other = 1 - slot
        rank = node.rank(other)
        free = full.ndim - 2 if other == _A else full.ndim - 1
        if (
            rank < 2
            or any(axis != free and axis >= full.ndim - 2 for axis in axes)
            or any(axis < full.ndim - rank for axis in axes)
        ):
            raise Refused(
                "NF110", f"the scale varies on an axis that no operand of MatMul {node.name!r} has alone"
            )
        return Crossing(affines={other: Affine.of(full.reshape(full.shape[full.ndim - rank :]), rank=rank)})

    def _with_both_axes(self, node: NodeView, scale: Array64) -> Array64:
        """The scale with trailing axes M and N, one of which the result lacks where an operand is a
        vector."""
        if node.rank(_B) == 1:
            scale = np.expand_dims(scale, -1)
        return np.expand_dims(scale, -2) if node.rank(_A) == 1 else scale

    def _uniform(self, node: NodeView, scale: Array64) -> Crossing:
        if scale.size != 1:
            node.weight(_B)
            raise Refused("NF115", f"both operands of MatMul {node.name!r} are computed at run time")
        return Crossing(affines={_A: Affine.of(float(scale.item()), rank=node.rank(_A))})

    def _owned_axes(self, shape: tuple[int, ...], slot: int, rank: int) -> set[int]:
        """Axes of […, M, N] that the constant in ``slot`` has, none of them merely broadcast."""
        if len(shape) < 2:
            return set()
        free = rank - 1 if slot == _B else rank - 2
        batch = {rank - 1 - i for i, size in enumerate(reversed(shape)) if i >= 2 and size != 1}
        return {free, *batch}

    def forward(self, node: NodeView, given: Mapping[int, Affine]) -> Crossing:
        if len(given) == 2:
            return self._both(node, given)
        ((slot, affine),) = given.items()
        other = 1 - slot
        weight = node.constant(other)
        if weight is None:
            if affine.has_shift or affine.scale.size != 1:
                node.weight(other, "other operand")
            return self._cross(node, affine)
        contracted = max(affine.rank - (1 if slot == _A else 2), 0)
        outside = [axis for axis in affine.scale_axes if axis != contracted]
        if outside and contracted in affine.scale_axes:
            raise Refused(
                "NF110", f"the scale varies on the contracted and another axis of MatMul {node.name!r}"
            )
        if any(axis != contracted for axis in affine.shift_axes):
            raise Refused("NF110", f"the shift varies on a free axis of MatMul {node.name!r}")
        is_matrix = len(weight.shape) > 1
        axis = len(weight.shape) - (2 if slot == _A and is_matrix else 1)
        layout = [-1 if i == axis else 1 for i in range(len(weight.shape))]
        length = weight.shape[axis]
        constants = {}
        out_scale: Array64 | float = 1.0
        if outside:
            out_scale = affine.scale if is_matrix else affine.scale.squeeze(contracted)
        elif affine.has_scale:
            factor = vector(affine.scale, contracted, length).reshape(layout)
            constants[other] = weight.scaled(factor)
        out_shift: Array64 | float = 0.0
        if affine.has_shift:
            out_shift = weight.contracted(vector(affine.shift, contracted, length), axis)
            if is_matrix and affine.rank > 1:
                out_shift = np.expand_dims(out_shift, axis)
        rank = self._result_rank(affine.rank, len(weight.shape))
        return Crossing(affines={0: Affine.of(out_scale, out_shift, rank=rank)}, constants=constants)

    def _result_rank(self, first: int, second: int) -> int:
        """An operand that is a vector loses its only axis."""
        return max(first, second) - (first == 1) - (second == 1) if max(first, second) > 1 else 0

    def _cross(self, node: NodeView, affine: Affine) -> Crossing:
        output = node.output_dims()
        if output is None:
            raise Refused("NF112", f"the rank of {node.name!r} is not known")
        return Crossing(affines={0: Affine.of(float(affine.scale.item()), rank=len(output))})

    def _both(self, node: NodeView, given: Mapping[int, Affine]) -> Crossing:
        if any(a.has_shift or a.scale.size != 1 for a in given.values()):
            raise Refused("NF115", f"both operands of MatMul {node.name!r} are computed at run time")
        output = node.output_dims()
        if output is None:
            raise Refused("NF112", f"the rank of {node.name!r} is not known")
        product = float(given[_A].scale.item()) * float(given[_B].scale.item())
        return Crossing(affines={0: Affine.of(product, rank=len(output))})


OPERATORS: tuple[Operator, ...] = (MatMul(),)
