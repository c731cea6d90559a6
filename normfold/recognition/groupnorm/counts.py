"""Numbers that a graph computes from the shapes of its values: ``h·w·c/g``, ``K − 1``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from normfold.preparation.node_view import NodeView
from normfold.preparation.shape_expressions import elements, is_read
from normfold.recognition.groupnorm.frame import Laid, NotRead
from normfold.recognition.groupnorm.terms import ONE, Monomial, product, total

if TYPE_CHECKING:
    from normfold.recognition.groupnorm.reader import Reader

_DEEPEST = 12
_PASSING = frozenset({"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze"})


def count_of(value: ir.Value, reader: Reader, depth: int = 0) -> dict[Monomial, Laid]:
    """The terms of a single number that depends on sizes only.

    Raises:
        NotRead: where it is something else.
    """
    dims = reader.workspace.dims(value)
    if dims is None or any(dim != 1 for dim in dims) or depth > _DEEPEST:
        raise NotRead("an operand is computed at run time")
    constant = reader.workspace.constants.array(value)
    if constant is not None:
        number = float(constant.reshape(()))
        return {ONE: Laid.number(number)} if number else {}
    maker = value.producer()
    if maker is None or maker.domain not in ("", "ai.onnx"):
        raise NotRead("an operand is computed at run time")
    counted = elements(NodeView(maker, reader.workspace), 0) if maker.op_type in _PASSING else None
    if counted is not None and len(counted) == 1 and is_read(counted[0]):
        return reader.statistics.count(reader.resolved(counted[0]))
    operands = [count_of(v, reader, depth + 1) for v in maker.inputs[:2] if v is not None]
    return _combined(maker.op_type, operands, reader)


def _combined(op_type: str, operands: list[dict[Monomial, Laid]], reader: Reader) -> dict[Monomial, Laid]:
    if op_type in _PASSING:
        return operands[0]
    if len(operands) == 2 and op_type in ("Add", "Sub"):
        return total(operands[0], operands[1], -1.0 if op_type == "Sub" else 1.0)
    if len(operands) == 2 and op_type == "Mul":
        return product(operands[0], operands[1])
    if len(operands) == 2 and op_type == "Div":
        return product(operands[0], reader.statistics.inverse(operands[1]))
    raise NotRead("an operand is computed at run time")
