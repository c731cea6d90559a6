"""Add, Sub and Sum of computed operands: https://onnx.ai/onnx/operators/onnx__Add.html

``Y = Σ_k σ_k · X_k``, X_k broadcast to Y, σ_k = −1 for the second operand of Sub and 1 otherwise.

Backward, ``s ⊙ Y + t``: every slot takes s, and the slots of one operand that is there n = Σ σ ≠ 0 times
take ``t / n`` each (n = 1: t; the second operand of Sub: −t). An operand that takes an array must be
full-size wherever that array varies. Forward: shifts sum with their signs. A scale crosses only where every
computed slot brings the same one; constants become ``c / s``.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from normfold.affine import Affine, summed
from normfold.planning.broadcasting import fits, output_rank, to_operand, to_output
from normfold.planning.crossing import Crossing, Operator
from normfold.planning.outlook import outlook
from normfold.planning.sums import SUMS, sign
from normfold.preparation.node_view import NodeView
from normfold.refusal import Refused


class Add(Operator):
    op_types = SUMS

    def backward(self, node: NodeView, wanted: Mapping[int, Affine]) -> Crossing:
        affine = wanted[0]
        takers, count = self._takers(node, affine) if affine.has_shift else ((), 1)
        affines = {}
        for slot in range(len(node.node.inputs)):
            asked = Affine(affine.scale, affine.shift / count) if slot in takers else affine.only_scale()
            if not asked.is_identity:
                affines[slot] = to_operand(asked, node, slot)
        return Crossing(affines=affines)

    def _takers(self, node: NodeView, affine: Affine) -> tuple[tuple[int, ...], int]:
        """The slots of the one operand that takes the shift, and how often it counts (its signs summed)."""
        groups: dict[ir.Value, list[int]] = {}
        for slot, value in enumerate(node.node.inputs):
            assert value is not None
            groups.setdefault(value, []).append(slot)
        shift = affine.only_shift()
        able = [
            (tuple(slots), count)
            for slots in groups.values()
            if (count := sum(sign(node.node, slot) for slot in slots)) and fits(shift, node, slots[0])
        ]
        if not able:
            raise Refused(
                "NF113",
                f"no operand of {node.op_type} {node.name!r} has full size where the shift varies",
            )
        return max(able, key=lambda one: outlook(node, one[0][0]))

    def forward(self, node: NodeView, given: Mapping[int, Affine]) -> Crossing:
        rank = output_rank(node)
        shift = np.zeros((1,) * rank)
        for slot, affine in given.items():
            shift = summed(shift, sign(node.node, slot) * to_output(affine, node, slot).shift)
        scales = [to_output(affine, node, slot) for slot, affine in given.items()]
        if not any(affine.has_scale for affine in scales):
            return Crossing(affines={0: Affine.of(1.0, shift, rank=rank)})
        scale = scales[0].only_scale()
        rest = [slot for slot in range(len(node.node.inputs)) if slot not in given]
        if not all(other.only_scale().same_as(scale) for other in scales) or any(
            node.constant(slot) is None for slot in rest
        ):
            raise Refused(
                "NF114", f"the operands of {node.op_type} {node.name!r} do not all bring the same scale"
            )
        if rest and not scale.scale.all():
            raise Refused("NF127", f"a constant of {node.op_type} {node.name!r} cannot be divided by zero")
        constants = {}
        for slot in rest:
            constant = node.constant(slot)
            assert constant is not None
            inverse = to_operand(Affine.of(1.0 / scale.scale, rank=rank), node, slot)
            constants[slot] = constant.map(
                inverse.apply, np.broadcast_shapes(constant.shape, inverse.scale.shape)
            )
        return Crossing(affines={0: Affine.of(scale.scale, shift, rank=rank)}, constants=constants)


OPERATORS: tuple[Operator, ...] = (Add(),)
