"""Reductions: means, sums as means times the number of elements, and lengths as roots of sums."""

from __future__ import annotations

from normfold.preparation.node_view import NodeView
from normfold.preparation.reductions import reduced_axes
from normfold.preparation.sizes import Size
from normfold.recognition.groupnorm.frame import Laid, NotRead, uncut
from normfold.recognition.groupnorm.reader import Reader, Reading
from normfold.recognition.groupnorm.terms import Expression, product
from normfold.refusal import Refused


def _mean(node: NodeView, reader: Reader) -> Expression:
    return _reduced(node, reader, reader.expression(node, 0))


def _sum(node: NodeView, reader: Reader) -> Expression:
    x = reader.expression(node, 0)
    return _times_count(node, reader, x, _reduced(node, reader, x))


def _sum_of_squares(node: NodeView, reader: Reader) -> Expression:
    x = reader.expression(node, 0)
    return _times_count(node, reader, x, _reduced(node, reader, x.computed(product(x.terms, x.terms))))


def _length(node: NodeView, reader: Reader) -> Expression:
    """The root of a sum of squares."""
    x = _sum_of_squares(node, reader)
    return x.computed({reader.statistics.root(x): Laid.number(1.0)})


def _times_count(node: NodeView, reader: Reader, x: Expression, mean: Expression) -> Expression:
    size = Size.product(piece.size for axis in _axes(node) for piece in uncut(x.view[axis]))
    return Expression(mean.view, product(mean.terms, reader.statistics.count(size)))


def _global_average(node: NodeView, reader: Reader) -> Expression:
    x = reader.expression(node, 0)
    return _over(reader, x, set(range(2, len(x.view))), keep=True)


def _reduced(node: NodeView, reader: Reader, x: Expression) -> Expression:
    return _over(reader, x, _axes(node), keep=node.int_attribute("keepdims", 1) == 1)


def _over(reader: Reader, x: Expression, axes: set[int], *, keep: bool) -> Expression:
    terms = reader.averaged(x, axes)
    if keep:
        return Expression(tuple(() if place in axes else axis for place, axis in enumerate(x.view)), terms)
    return Expression(tuple(axis for place, axis in enumerate(x.view) if place not in axes), terms)


def _axes(node: NodeView) -> set[int]:
    try:
        return set(reduced_axes(node))
    except Refused as refused:
        raise NotRead(refused.detail) from refused


READINGS: dict[tuple[str, str], Reading] = {
    ("", "ReduceMean"): _mean,
    ("", "ReduceSum"): _sum,
    ("", "ReduceSumSquare"): _sum_of_squares,
    ("", "ReduceL2"): _length,
    ("", "GlobalAveragePool"): _global_average,
}
