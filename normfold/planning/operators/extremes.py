"""Max, Min and Clip: https://onnx.ai/onnx/operators/onnx__Max.html

``Y = max_k X_k``, X_k broadcast to Y. An increasing function commutes with a maximum, a decreasing one
turns it into a minimum: ``s·max(x, c) + t = max(s·x + t, s·c + t)`` for s ≥ 0 and ``min(s·x + t, s·c + t)``
for s < 0.

Backward every operand takes s and t. Forward every computed operand must bring the same ones; constants
become ``(c − t)/s``. Clip is ``min(max(x, lo), hi)`` with scalar bounds, so its affine is uniform; s < 0
exchanges the bounds, for lo ≤ hi. A Clip with a lower bound only is a Max, which can have one bound per
channel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from normfold.affine import Affine
from normfold.planning.broadcasting import output_rank, to_operand, to_output
from normfold.planning.crossing import Crossing, Operator
from normfold.planning.numbers import attribute, largest, operand, output_type, scalar, uniform
from normfold.preparation.node_view import NodeView
from normfold.refusal import Refused

_SWAPPED = {"Max": "Min", "Min": "Max"}
_CLIP_TAKES_INPUTS = 11
_MAX_BROADCASTS = 8


class MaxMin(Operator):
    """Max and Min of any number of operands."""

    op_types = ("Max", "Min")

    def backward(self, node: NodeView, wanted: Mapping[int, Affine]) -> Crossing:
        affine = wanted[0]
        asked = {slot: to_operand(affine, node, slot) for slot in range(len(node.node.inputs))}
        return Crossing(affines=asked, op_type=_operator(node, affine))

    def forward(self, node: NodeView, given: Mapping[int, Affine]) -> Crossing:
        affine, *others = [to_output(brought, node, slot) for slot, brought in given.items()]
        rest = [slot for slot in range(len(node.node.inputs)) if slot not in given]
        if not all(affine.same_as(other) for other in others) or any(
            node.constant(slot) is None for slot in rest
        ):
            raise Refused("NF114", f"the operands of {node.op_type} {node.name!r} do not all bring the same")
        inverse = invert(affine, node) if rest else affine
        constants = {}
        for slot in rest:
            constant, back = node.constant(slot), to_operand(inverse, node, slot)
            assert constant is not None
            shape = np.broadcast_shapes(constant.shape, back.scale.shape, back.shift.shape)
            constants[slot] = constant.map(back.apply, shape)
        return Crossing({0: affine}, constants, op_type=_operator(node, affine))


def _operator(node: NodeView, affine: Affine) -> str | None:
    """What the node becomes under the affine; ``None`` if it stays."""
    if (affine.scale >= 0).all():
        return None
    if (affine.scale < 0).all():
        return _SWAPPED[node.op_type]
    raise Refused("NF117", f"the scale at {node.op_type} {node.name!r} has both signs")


def invert(affine: Affine, node: NodeView) -> Affine:
    """``(y − t) / s``.

    Raises:
        Refused: NF127 where s is zero.
    """
    if not affine.scale.all():
        raise Refused("NF127", f"a scale at {node.op_type} {node.name!r} is zero")
    with np.errstate(over="ignore", invalid="ignore"):
        return Affine.of(1.0 / affine.scale, -affine.shift / affine.scale, rank=affine.rank)


class Clip(Operator):
    """Bounds are attributes before opset 11 and scalar inputs since."""

    op_types = ("Clip",)

    def backward(self, node: NodeView, wanted: Mapping[int, Affine]) -> Crossing:
        affine = wanted[0]
        return self._transformed(node, affine, affine)

    def forward(self, node: NodeView, given: Mapping[int, Affine]) -> Crossing:
        if list(given) != [0]:
            raise Refused("NF115", f"a bound of Clip {node.name!r} is computed at run time")
        return self._transformed(node, given[0], invert(given[0], node))

    def _transformed(self, node: NodeView, affine: Affine, bounds: Affine) -> Crossing:
        """The Clip whose bounds ``bounds`` has been applied to; ``affine`` crosses."""
        if affine.axes:
            return self._as_max(node, affine, bounds)
        scale, shift = uniform(bounds, node)
        if scale == 0:
            raise Refused("NF127", f"the scale at Clip {node.name!r} is zero")
        limit = largest(output_type(node))
        before = self._bounds(node, limit)
        if before[0] > before[1]:
            raise Refused("NF114", f"the bounds of Clip {node.name!r} are the wrong way round")
        after = sorted(_moved(bound, scale, shift, limit) for bound in before)
        changed = [i for i in (0, 1) if after[i] != before[i]]
        if node.opset < _CLIP_TAKES_INPUTS:
            names = ("min", "max")
            return Crossing({0: affine}, attributes={names[i]: attribute(after[i], node) for i in changed})
        return Crossing({0: affine}, constants={i + 1: scalar(after[i], node) for i in changed})

    def _bounds(self, node: NodeView, limit: float) -> tuple[float, float]:
        """Lower and upper bound; ±``limit``, the largest number of the type, where there is none."""
        found = [-limit, limit]
        for index, name in enumerate(("min", "max")):
            if node.opset < _CLIP_TAKES_INPUTS:
                bound = node.float_attribute(name, found[index])
            elif node.has(index + 1):
                constant = node.weight(index + 1, "bound").compute()
                if constant.size != 1:
                    raise Refused("NF113", f"a bound of Clip {node.name!r} is not a scalar")
                bound = float(constant.item())
            else:
                continue
            if math.isnan(bound):
                raise Refused("NF108", f"a bound of Clip {node.name!r} is NaN")
            found[index] = min(max(bound, -limit), limit)
        return found[0], found[1]

    def _as_max(self, node: NodeView, affine: Affine, bounds: Affine) -> Crossing:
        """A lower bound per channel: ``Clip(x, lo)`` as Max, or for s < 0 as Min."""
        if node.opset < max(_CLIP_TAKES_INPUTS, _MAX_BROADCASTS) or len(node.node.inputs) != 2:
            uniform(affine, node)
        low = node.weight(1, "bound")
        op_type = "Max" if (affine.scale >= 0).all() else "Min"
        if op_type == "Min" and (affine.scale >= 0).any():
            raise Refused("NF117", f"the scale at Clip {node.name!r} has both signs")
        values = bounds.apply(np.broadcast_to(low.compute().reshape(()), (1,) * output_rank(node)))
        return Crossing({0: affine}, {1: operand(values, node)}, op_type=op_type)


def _moved(bound: float, scale: float, shift: float, limit: float) -> float:
    """A bound under the affine; what is no bound stays none."""
    if abs(bound) >= limit:
        return math.copysign(limit, bound * scale)
    return scale * bound + shift


OPERATORS: tuple[Operator, ...] = (MaxMin(), Clip())
