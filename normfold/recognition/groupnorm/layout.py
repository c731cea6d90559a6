"""Operators that only arrange elements: Reshape, Transpose, Squeeze, Unsqueeze, Flatten, idle Expand."""

from __future__ import annotations

from normfold.preparation.node_view import NodeView
from normfold.preparation.shape_expressions import elements, target_sizes
from normfold.preparation.sizes import Size
from normfold.recognition.groupnorm.frame import NotRead, reshaped, sizes_of_view
from normfold.recognition.groupnorm.reader import Reader, Reading
from normfold.recognition.groupnorm.terms import Expression
from normfold.refusal import Refused

_AXES_ARE_INPUT = 13


def _reshape(node: NodeView, reader: Reader) -> Expression:
    x = reader.any_form(node, 0)
    try:
        target = target_sizes(node, sizes_of_view(x.view))
    except Refused as refused:
        raise NotRead(refused.detail) from refused
    return x.viewed(reshaped(x.view, [reader.resolved(size) for size in target]))


def _flatten(node: NodeView, reader: Reader) -> Expression:
    x = reader.any_form(node, 0)
    sizes, axis = sizes_of_view(x.view), node.int_attribute("axis", 1)
    axis = axis + len(sizes) if axis < 0 else axis
    return x.viewed(reshaped(x.view, [Size.product(sizes[:axis]), Size.product(sizes[axis:])]))


def _transpose(node: NodeView, reader: Reader) -> Expression:
    x = reader.any_form(node, 0)
    order = node.ints_attribute("perm") or list(reversed(range(len(x.view))))
    return x.viewed(tuple(x.view[axis] for axis in order))


def _unsqueeze(node: NodeView, reader: Reader) -> Expression:
    x, axes = reader.any_form(node, 0), _axes(node)
    if axes is None:
        raise NotRead("the axes of an Unsqueeze are not known")
    rank = len(x.view) + len(axes)
    added = {axis % rank for axis in axes}
    left = iter(x.view)
    return x.viewed(tuple(() if axis in added else next(left) for axis in range(rank)))


def _squeeze(node: NodeView, reader: Reader) -> Expression:
    x, axes = reader.any_form(node, 0), _axes(node)
    if axes is None:
        raise NotRead("the axes of a Squeeze are not known")
    gone = {axis % len(x.view) for axis in axes}
    if any(x.view[axis] for axis in gone):
        raise NotRead("an axis of more than one element is squeezed")
    return x.viewed(tuple(axis for place, axis in enumerate(x.view) if place not in gone))


def _expand(node: NodeView, reader: Reader) -> Expression:
    x, target = reader.any_form(node, 0), elements(node, 1)
    if target is None or len(target) > len(x.view):
        raise NotRead("an Expand to an unknown shape")
    own = sizes_of_view(x.view)[len(x.view) - len(target) :]
    if any(reader.resolved(wanted) not in (Size(1), size) for wanted, size in zip(target, own, strict=True)):
        raise NotRead("a value is expanded")
    return x


def _axes(node: NodeView) -> list[int] | None:
    return node.ints_attribute("axes") if node.opset < _AXES_ARE_INPUT else node.integers(1)


READINGS: dict[tuple[str, str], Reading] = {
    ("", "Reshape"): _reshape,
    ("", "Flatten"): _flatten,
    ("", "Transpose"): _transpose,
    ("", "Unsqueeze"): _unsqueeze,
    ("", "Squeeze"): _squeeze,
    ("", "Expand"): _expand,
}
