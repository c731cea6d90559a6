"""Shape and Size: https://onnx.ai/onnx/operators/onnx__Shape.html, https://onnx.ai/onnx/operators/onnx__Size.html

They read no element of X, so an affine in front of them is dead.
"""

from __future__ import annotations

from collections.abc import Mapping

from normfold.affine import Affine
from normfold.planning.crossing import Crossing, Operator
from normfold.preparation.node_view import NodeView


class Shape(Operator):
    op_types = ("Shape", "Size")

    def forward(self, node: NodeView, given: Mapping[int, Affine]) -> Crossing:
        return Crossing()


OPERATORS: tuple[Operator, ...] = (Shape(),)
