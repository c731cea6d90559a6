"""Where: https://onnx.ai/onnx/operators/onnx__Where.html

``Y = C ? A : B``, all broadcast to Y. Backward both branches take the affine. Forward both must bring the
same one; a branch that is constant becomes ``(c − t)/s``.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from normfold.affine import Affine
from normfold.planning.broadcasting import to_operand, to_output
from normfold.planning.crossing import Crossing, Operator
from normfold.planning.operators.extremes import invert
from normfold.preparation.node_view import NodeView
from normfold.refusal import Refused

_BRANCHES = (1, 2)


class Where(Operator):
    op_types = ("Where",)

    def backward(self, node: NodeView, wanted: Mapping[int, Affine]) -> Crossing:
        return Crossing(affines={slot: to_operand(wanted[0], node, slot) for slot in _BRANCHES})

    def forward(self, node: NodeView, given: Mapping[int, Affine]) -> Crossing:
        affine, *others = [to_output(brought, node, slot) for slot, brought in given.items()]
        constants = {}
        for slot in _BRANCHES:
            constant = node.constant(slot)
            if slot in given:
                continue
            if constant is None:
                raise Refused("NF114", f"only one branch of Where {node.name!r} brings it")
            back = to_operand(invert(affine, node), node, slot)
            shape = np.broadcast_shapes(constant.shape, back.scale.shape, back.shift.shape)
            constants[slot] = constant.map(back.apply, shape)
        if not all(affine.same_as(other) for other in others):
            raise Refused("NF114", f"the branches of Where {node.name!r} bring different affines")
        return Crossing({0: affine}, constants)


OPERATORS: tuple[Operator, ...] = (Where(),)
