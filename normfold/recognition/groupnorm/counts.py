"""Numbers that a graph computes from the shapes of its values: ``h·w·c/g``, ``K − 1``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import onnx_ir as ir

from normfold.preparation.node_view import NodeView
from normfold.preparation.shape_expressions import elements, is_read
from normfold.recognition.groupnorm.frame import Laid, NotRead
from normfold.recognition.groupnorm.terms import ONE, Monomial, product, total

if TYPE_CHECKING:
    from normfold.recognition.groupnorm.reader import Reader

_DEEPEST = 12
_ARITY = {
    **dict.fromkeys(("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze"), 1),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), 2),
}


def count_of(node: NodeView, slot: int, reader: Reader, depth: int = 0) -> dict[Monomial, Laid]:
    """The terms of an operand that is a single number and depends on sizes only.

    Raises:
        NotRead: where it is something else.
    """
    value, dims = node.value(slot), node.dims(slot)
    if value is None or dims is None or any(dim != 1 for dim in dims) or depth > _DEEPEST:
        raise NotRead("an operand is computed at run time")
    constant = reader.workspace.constants.array(value)
    if constant is not None:
        number = float(constant.reshape(()))
        if not math.isfinite(number):
            raise NotRead("a constant is NaN or infinite")
        return {ONE: Laid.number(number)} if number else {}
    is_float = reader.workspace.is_float(value)
    counted = None if is_float else elements(node, slot)
    if counted is not None and len(counted) == 1 and is_read(counted[0]):
        return reader.statistics.count(reader.resolved(counted[0]))
    maker = node.producer(slot)
    if maker is None or maker.node.domain not in ("", "ai.onnx"):
        raise NotRead("an operand is computed at run time")
    if not is_float and (maker.op_type == "Div" or _reads_float(maker.node, reader)):
        raise NotRead("a number computed from sizes is cut off to an integer")
    operands = [count_of(maker, i, reader, depth + 1) for i in range(_ARITY.get(maker.op_type, 0))]
    return _combined(maker.op_type, operands, reader)


def _reads_float(node: ir.Node, reader: Reader) -> bool:
    return any(value is not None and reader.workspace.is_float(value) for value in node.inputs)


def _combined(op_type: str, operands: list[dict[Monomial, Laid]], reader: Reader) -> dict[Monomial, Laid]:
    if len(operands) == 1:
        return operands[0]
    if op_type in ("Add", "Sub"):
        return total(operands[0], operands[1], -1.0 if op_type == "Sub" else 1.0)
    if op_type == "Mul":
        return product(operands[0], operands[1])
    if op_type == "Div":
        return product(operands[0], reader.statistics.inverse(operands[1]))
    raise NotRead("an operand is computed at run time")
