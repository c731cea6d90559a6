"""Softmax and LogSoftmax: https://onnx.ai/onnx/operators/onnx__Softmax.html

``softmax(x + t) = softmax(x)`` where t is uniform along the axis: numerator and denominator both carry
exp(t). So forward such a shift is dead. Before opset 13 the operator flattens X at ``axis`` and normalises
over all axes from there on.
"""

from __future__ import annotations

from collections.abc import Mapping

from normfold.affine import Affine
from normfold.planning.crossing import Crossing, Operator
from normfold.preparation.node_view import NodeView
from normfold.refusal import Refused

_ONE_AXIS = 13


class Softmax(Operator):
    op_types = ("LogSoftmax", "Softmax")

    def forward(self, node: NodeView, given: Mapping[int, Affine]) -> Crossing:
        affine = given[0]
        if affine.has_scale:
            raise Refused("NF114", f"a scale does not cross {node.op_type} {node.name!r}")
        if set(affine.shift_axes) & set(_normalised(node, affine.rank)):
            raise Refused("NF114", f"the shift varies along the axis of {node.op_type} {node.name!r}")
        return Crossing()


def _normalised(node: NodeView, rank: int) -> range:
    if node.opset >= _ONE_AXIS:
        axis = node.int_attribute("axis", -1) % rank
        return range(axis, axis + 1)
    return range(node.int_attribute("axis", 1) % rank, rank)


OPERATORS: tuple[Operator, ...] = (Softmax(),)
