"""Numbers that a graph computes from the shapes of its values: ``h·w·c/g``, ``K − 1``."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping

import onnx_ir as ir

from normfold.preparation.node_view import NodeView
from normfold.preparation.shape_expressions import elements, is_read
from normfold.preparation.sizes import Size
from normfold.preparation.workspace import Workspace
from normfold.recognition.groupnorm.frame import Laid, NotRead
from normfold.recognition.groupnorm.terms import ONE, Monomial, Statistics, product, total

_DEEPEST = 12
_ARITY = {
    **dict.fromkeys(("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze"), 1),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), 2),
}


class Counts:
    """Reads single numbers that depend on sizes only.

    Args:
        workspace: of the model.
        statistics: of the base value; counts of elements are among them.
        aliases: symbols of sizes as sizes of the base value.
    """

    def __init__(
        self, workspace: Workspace, statistics: Statistics, aliases: Mapping[Hashable, Size]
    ) -> None:
        self._workspace, self._statistics, self._aliases = workspace, statistics, aliases

    def read(self, node: NodeView, slot: int, depth: int = 0) -> dict[Monomial, Laid]:
        """The terms of an operand.

        Raises:
            NotRead: where it is no such number.
        """
        value, dims = node.value(slot), node.dims(slot)
        if value is None or dims is None or any(dim != 1 for dim in dims) or depth > _DEEPEST:
            raise NotRead("an operand is computed at run time")
        constant = self._workspace.constants.array(value)
        if constant is not None:
            number = float(constant.reshape(()))
            if not math.isfinite(number):
                raise NotRead("a constant is NaN or infinite")
            return {ONE: Laid.number(number)} if number else {}
        is_float = self._workspace.is_float(value)
        counted = None if is_float else elements(node, slot)
        if counted is not None and len(counted) == 1 and is_read(counted[0]):
            return self._statistics.count(counted[0].resolved(self._aliases))
        maker = node.producer(slot)
        if maker is None or maker.node.domain not in ("", "ai.onnx"):
            raise NotRead("an operand is computed at run time")
        if not is_float and (maker.op_type == "Div" or self._reads_float(maker.node)):
            raise NotRead("a number computed from sizes is cut off to an integer")
        operands = [self.read(maker, i, depth + 1) for i in range(_ARITY.get(maker.op_type, 0))]
        return self._combined(maker.op_type, operands)

    def _reads_float(self, node: ir.Node) -> bool:
        return any(value is not None and self._workspace.is_float(value) for value in node.inputs)

    def _combined(self, op_type: str, operands: list[dict[Monomial, Laid]]) -> dict[Monomial, Laid]:
        if len(operands) == 1:
            return operands[0]
        if op_type in ("Add", "Sub"):
            return total(operands[0], operands[1], -1.0 if op_type == "Sub" else 1.0)
        if op_type == "Mul":
            return product(operands[0], operands[1])
        if op_type == "Div":
            return product(operands[0], self._statistics.inverse(operands[1]))
        raise NotRead("an operand is computed at run time")
