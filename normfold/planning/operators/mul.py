"""Mul and Div of computed operands: https://onnx.ai/onnx/operators/onnx__Mul.html

``Y = Π_k X_k^σ_k``, X_k broadcast to Y, σ_k = −1 for the divisor of Div and 1 otherwise.

Backward, ``s ⊙ Y``: one operand takes s (the divisor 1/s). An operand that is in both slots of Mul takes √s
twice, for s ≥ 0. It must be full-size wherever s varies. Forward: scales multiply or divide. A shift
crosses in neither direction.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from normfold.affine import Affine, Array64
from normfold.planning.broadcasting import fits, output_rank, to_operand, to_output
from normfold.planning.crossing import Crossing, Operator
from normfold.planning.outlook import outlook
from normfold.preparation.node_view import NodeView
from normfold.refusal import Refused


class Mul(Operator):
    op_types = ("Mul", "Div")

    def backward(self, node: NodeView, wanted: Mapping[int, Affine]) -> Crossing:
        affine = wanted[0]
        _require_scale(affine, node)
        if node.value(0) is node.value(1):
            root = Affine.of(self._square_root(node, affine.scale), rank=affine.rank)
            return Crossing(affines={slot: to_operand(root, node, slot) for slot in (0, 1)})
        able = [slot for slot in (0, 1) if fits(affine, node, slot)]
        if not able:
            raise Refused(
                "NF113",
                f"no operand of {node.op_type} {node.name!r} has full size where the scale varies",
            )
        slot = max(able, key=lambda one: outlook(node, one))
        scale = _reciprocal(affine.scale, node) if _divides(node, slot) else affine.scale
        return Crossing(affines={slot: to_operand(Affine.of(scale, rank=affine.rank), node, slot)})

    def _square_root(self, node: NodeView, scale: Array64) -> Array64:
        if node.op_type == "Div":
            raise Refused("NF114", f"Div {node.name!r} divides a value by itself")
        if (scale < 0).any():
            raise Refused("NF117", f"Mul {node.name!r} is a square, which no negative scale leaves one")
        return np.sqrt(scale)

    def forward(self, node: NodeView, given: Mapping[int, Affine]) -> Crossing:
        rank = output_rank(node)
        scale = np.ones((1,) * rank)
        for slot, affine in given.items():
            _require_scale(affine, node)
            brought = to_output(affine, node, slot).scale
            scale = scale * (_reciprocal(brought, node) if _divides(node, slot) else brought)
        return Crossing(affines={0: Affine.of(scale, rank=rank)})


def _divides(node: NodeView, slot: int) -> bool:
    return node.op_type == "Div" and slot == 1


def _require_scale(affine: Affine, node: NodeView) -> None:
    if affine.has_shift:
        raise Refused("NF114", f"a shift does not cross {node.op_type} {node.name!r}")


def _reciprocal(scale: Array64, node: NodeView) -> Array64:
    if not scale.all():
        raise Refused("NF127", f"the divisor of Div {node.name!r} would be scaled by zero or its reciprocal")
    with np.errstate(over="ignore"):
        return 1.0 / scale


OPERATORS: tuple[Operator, ...] = (Mul(),)
