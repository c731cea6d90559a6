"""Squeeze and Unsqueeze, which take axes of size 1 away or add them.

https://onnx.ai/onnx/operators/onnx__Squeeze.html
https://onnx.ai/onnx/operators/onnx__Unsqueeze.html

An affine is uniform on axes of size 1. ``axes`` is an attribute before opset 13, then an operand that has to
be constant. A Squeeze without axes removes every axis of size 1, so every dimension of X has to be known.
"""

from __future__ import annotations

from collections.abc import Mapping

from normfold.affine import Affine, Array64
from normfold.planning.crossing import Crossing, Operator
from normfold.planning.operators._layout import mapped, normalised
from normfold.preparation.node_view import NodeView
from normfold.refusal import Refused


class Squeeze(Operator):
    """X [..., 1, ...] → Y without the axes ``axes`` of X."""

    op_types = ("Squeeze",)

    def backward(self, node: NodeView, wanted: Mapping[int, Affine]) -> Crossing:
        axes = _squeezed(node)
        rank = wanted[0].rank + len(axes)
        return Crossing(affines={0: mapped(wanted[0], lambda array: _insert(array, axes, rank))})

    def forward(self, node: NodeView, given: Mapping[int, Affine]) -> Crossing:
        axes = _squeezed(node)
        return Crossing(affines={0: mapped(given[0], lambda array: _remove(array, axes, node))})


class Unsqueeze(Operator):
    """X → Y [..., 1, ...] with new axes ``axes`` of Y."""

    op_types = ("Unsqueeze",)

    def backward(self, node: NodeView, wanted: Mapping[int, Affine]) -> Crossing:
        axes = _given_axes(node)
        return Crossing(affines={0: mapped(wanted[0], lambda array: _remove(array, axes, node))})

    def forward(self, node: NodeView, given: Mapping[int, Affine]) -> Crossing:
        axes = _given_axes(node)
        rank = given[0].rank + len(axes)
        return Crossing(affines={0: mapped(given[0], lambda array: _insert(array, axes, rank))})


def _given_axes(node: NodeView) -> list[int]:
    axes = node.ints_attribute("axes") if node.opset < 13 else node.integers(1)
    if axes is None:
        raise Refused("NF112", f"the axes of {node.op_type} {node.name!r} are computed at run time")
    return axes


def _squeezed(node: NodeView) -> list[int]:
    if node.has_attribute("axes") or node.has(1):
        return _given_axes(node)
    dims = node.dims(0)
    if dims is None or not all(isinstance(dim, int) for dim in dims):
        raise Refused(
            "NF112", f"which axes Squeeze {node.name!r} removes depends on a size that is not known"
        )
    return [axis for axis, dim in enumerate(dims) if dim == 1]


def _insert(array: Array64, axes: list[int], rank: int) -> Array64:
    new = {normalised(axis, rank) for axis in axes}
    if len(new) != rank - array.ndim:
        raise Refused("NF113", f"axes {axes} do not make {array.ndim} axes {rank}")
    sizes = iter(array.shape)
    return array.reshape([1 if axis in new else next(sizes) for axis in range(rank)])


def _remove(array: Array64, axes: list[int], node: NodeView) -> Array64:
    gone = {normalised(axis, array.ndim) for axis in axes}
    if any(array.shape[axis] != 1 for axis in gone):
        raise Refused("NF113", f"an axis of {node.op_type} {node.name!r} that should have size 1 has another")
    return array.reshape([size for axis, size in enumerate(array.shape) if axis not in gone])


OPERATORS: tuple[Operator, ...] = (Squeeze(), Unsqueeze())
