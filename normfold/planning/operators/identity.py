"""Identity and Dropout in evaluation, which do nothing, and Cast and CastLike between floating types.

https://onnx.ai/onnx/operators/onnx__Identity.html
https://onnx.ai/onnx/operators/onnx__Dropout.html
https://onnx.ai/onnx/operators/onnx__Cast.html
https://onnx.ai/onnx/operators/onnx__CastLike.html

``Y = X`` in real arithmetic, so an affine crosses unchanged. Dropout drops nothing when its training mode is
off: ``is_test`` is set (opset 1, 6), always (7 to 11), or the operand ``training_mode`` is absent or a
constant false (from 12 on). A Cast from or to integers or booleans rounds, and is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from normfold.affine import Affine
from normfold.planning.crossing import Crossing, Operator
from normfold.preparation.constant64 import FLOAT_TYPES
from normfold.preparation.node_view import NodeView
from normfold.refusal import Refused


class Identity(Operator):
    op_types: ClassVar[tuple[str, ...]] = ("Identity",)

    def backward(self, node: NodeView, wanted: Mapping[int, Affine]) -> Crossing:
        self._require_unchanged(node)
        return Crossing(affines={0: wanted[0]} if 0 in wanted else {})

    def forward(self, node: NodeView, given: Mapping[int, Affine]) -> Crossing:
        self._require_unchanged(node)
        return Crossing(affines={0: given[0]} if 0 in given else {})

    def _require_unchanged(self, node: NodeView) -> None:
        """Refuse a node that changes its operand."""


class Dropout(Identity):
    op_types = ("Dropout",)

    def _require_unchanged(self, node: NodeView) -> None:
        if node.opset < 7:
            active = node.int_attribute("is_test", 0) == 0
        elif not node.has(2):
            active = False
        else:
            mode = node.array(2)
            active = mode is None or bool(mode.any())
        if active:
            raise Refused("NF107", f"Dropout {node.name!r} is in training mode, or may be")


class Cast(Identity):
    # The second operand of CastLike only lends its type.
    op_types = ("Cast", "CastLike")

    def _require_unchanged(self, node: NodeView) -> None:
        source, target = node.dtype(0), node.output_dtype()
        if source is None or target is None:
            raise Refused("NF112", f"a type of {node.op_type} {node.name!r} is not known")
        for dtype in (source, target):
            if dtype not in FLOAT_TYPES:
                raise Refused("NF114", f"{node.op_type} {node.name!r} rounds to or from {dtype.name.lower()}")


OPERATORS: tuple[Operator, ...] = (Identity(), Dropout(), Cast())
