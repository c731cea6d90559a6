"""Elementwise operators: sums, products, quotients, powers, roots, casts, and SiLU."""

from __future__ import annotations

import numpy as np

from normfold.affine import Array64
from normfold.preparation.constant64 import FLOAT_TYPES
from normfold.preparation.node_view import NodeView
from normfold.recognition.batchnorm import read_batchnorm
from normfold.recognition.groupnorm.frame import Laid, NotRead, broadcast
from normfold.recognition.groupnorm.reader import Reader, Reading, with_affine
from normfold.recognition.groupnorm.terms import ONE, Expression, product, total
from normfold.refusal import Refused


def _add(node: NodeView, reader: Reader) -> Expression:
    a, b = _summands(node, reader)
    return a.computed(total(a.terms, b.terms))


def _sub(node: NodeView, reader: Reader) -> Expression:
    a, b = _summands(node, reader)
    return a.computed(total(a.terms, b.terms, -1.0))


def _mul(node: NodeView, reader: Reader) -> Expression:
    gated = _gated(node, reader)
    if gated is not None:
        return gated
    a, b = _operands(node, reader)
    return a.computed(reader.statistics.expanded(product(a.terms, b.terms)))


def _div(node: NodeView, reader: Reader) -> Expression:
    a, b = _operands(node, reader)
    return a.computed(product(a.terms, reader.statistics.inverse(b.terms)))


def _neg(node: NodeView, reader: Reader) -> Expression:
    x = reader.expression(node, 0)
    return x.computed(total({}, x.terms, -1.0))


def _pow(node: NodeView, reader: Reader) -> Expression:
    x, power = reader.expression(node, 0), node.array(1)
    if power is None:
        raise NotRead("an exponent is computed at run time")
    exponent = _scalar(power.astype(np.float64))
    if exponent == 2.0:
        return x.computed(reader.statistics.expanded(product(x.terms, x.terms)))
    if exponent == -1.0:
        return x.computed(reader.statistics.inverse(x.terms))
    if exponent in (0.5, -0.5):
        root = {reader.statistics.root(x): Laid.number(1.0)}
        return x.computed(root if exponent > 0 else reader.statistics.inverse(root))
    raise NotRead(f"a power of {exponent:g}")


def _sqrt(node: NodeView, reader: Reader) -> Expression:
    x = reader.expression(node, 0)
    return x.computed({reader.statistics.root(x): Laid.number(1.0)})


def _reciprocal(node: NodeView, reader: Reader) -> Expression:
    x = reader.expression(node, 0)
    return x.computed(reader.statistics.inverse(x.terms))


def _not_negative(node: NodeView, reader: Reader) -> Expression:
    """``max(variance, 0)``, which only guards against rounding."""
    x = reader.expression(node, 0)
    if node.op_type == "Max" and (len(node.node.inputs) != 2 or _scalar(reader.constant(node, 1)) != 0.0):
        raise NotRead("a maximum with something else than zero")
    if node.op_type == "Clip":
        least = node.float_attribute("min", 1.0) if node.opset < 11 else _scalar(reader.constant(node, 1))
        if least != 0.0 or node.has(2) or node.has_attribute("max"):
            raise NotRead("it is clipped elsewhere than at zero")
    variance = reader.statistics.radicand(x.terms)
    if variance.constant < 0 or variance.mean < -variance.square * (1 + 1e-12):
        raise NotRead("it may be negative")
    return x


def _cast(node: NodeView, reader: Reader) -> Expression:
    x = reader.any_form(node, 0)
    if node.output_dtype() not in FLOAT_TYPES:
        raise NotRead("it is cast to something that is not floating-point")
    return x


def _identity(node: NodeView, reader: Reader) -> Expression:
    return reader.any_form(node, 0)


def _batchnorm(node: NodeView, reader: Reader) -> Expression:
    x = reader.expression(node, 0)
    try:
        affine = read_batchnorm(node.node, reader.workspace)
    except Refused as refused:
        raise NotRead(refused.detail) from refused
    return with_affine(x, affine.scale, affine.shift)


def _sigmoid(node: NodeView, reader: Reader) -> Expression:
    x = reader.expression(node, 0)
    return Expression(x.view, x.terms, "gate")


def _swish(node: NodeView, reader: Reader) -> Expression:
    x = reader.expression(node, 0)
    if node.float_attribute("alpha", 1.702 if node.op_type == "QuickGelu" else 1.0) != 1.0:
        raise NotRead("a Swish with another slope")
    return Expression(x.view, x.terms, "silu")


def _gated(node: NodeView, reader: Reader) -> Expression | None:
    """``v · sigmoid(v)``."""
    for slot in (0, 1):
        source, gate = node.value(slot), node.value(1 - slot)
        known = None if gate is None else reader.known.get(gate)
        maker = None if gate is None else gate.producer()
        if known is not None and known.form == "gate" and maker is not None:
            if source is None or maker.inputs[0] is not source:
                raise NotRead("a gate on another value")
            return Expression(known.view, known.terms, "silu")
    return None


def _operands(node: NodeView, reader: Reader) -> tuple[Expression, Expression]:
    """Both operands under the view of the result."""
    found = [reader.operand(node, slot) for slot in (0, 1)]
    first, second = found
    if isinstance(first, Expression) and isinstance(second, Expression):
        view = broadcast(first.view, second.view)
        return Expression(view, first.terms), Expression(view, second.terms)
    known = first if isinstance(first, Expression) else second
    constant = second if isinstance(first, Expression) else first
    assert isinstance(known, Expression) and not isinstance(constant, Expression)
    laid, view = Laid.over(known.view, constant)
    sides = [Expression(view, known.terms), Expression(view, {ONE: laid})]
    return (sides[0], sides[1]) if known is first else (sides[1], sides[0])


def _summands(node: NodeView, reader: Reader) -> tuple[Expression, Expression]:
    """Both operands of a sum: a constant of zeros is no term of it. Of a product it is a factor, as a γ of
    zeros is."""
    first, second = _operands(node, reader)
    return _without_zeros(first), _without_zeros(second)


def _without_zeros(operand: Expression) -> Expression:
    laid = operand.terms.get(ONE)
    return operand if laid is None or len(operand.terms) > 1 or laid.array.any() else operand.computed({})


def _scalar(array: Array64) -> float:
    if array.size != 1:
        raise NotRead("a constant is not a single number")
    return float(array.reshape(()))


READINGS: dict[tuple[str, str], Reading] = {
    ("", "Add"): _add,
    ("", "Sub"): _sub,
    ("", "Mul"): _mul,
    ("", "Div"): _div,
    ("", "Neg"): _neg,
    ("", "Pow"): _pow,
    ("", "Sqrt"): _sqrt,
    ("", "Reciprocal"): _reciprocal,
    ("", "Relu"): _not_negative,
    ("", "Max"): _not_negative,
    ("", "Clip"): _not_negative,
    ("", "Cast"): _cast,
    ("", "Identity"): _identity,
    ("", "BatchNormalization"): _batchnorm,
    ("", "Sigmoid"): _sigmoid,
    ("", "Swish"): _swish,
    ("com.microsoft", "QuickGelu"): _swish,
}
