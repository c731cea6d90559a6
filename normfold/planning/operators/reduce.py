"""ReduceMean, ReduceSum, ReduceMax and ReduceMin: https://onnx.ai/onnx/operators/onnx__ReduceMean.html

``Y = reduce(X, axes)``; without ``keepdims`` the reduced axes are gone from Y, otherwise they are 1. Off
the reduced axes the arrays are only re-indexed; n is the number of elements reduced into one.

* mean: ``mean(s·x + t) = s·mean(x) + mean(t)``. Forward the shift may vary on the reduced axes too.
* sum: ``Σ(s·x + t) = s·Σx + Σt``. A shift needs n static.
* max, min: ``max(s·x + t) = s·max(x) + t`` for s ≥ 0, ``min`` for s < 0: ReduceMax and ReduceMin exchange.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from normfold.affine import Affine, Array64, move_axes, varying_axes
from normfold.planning.crossing import Crossing, Operator
from normfold.preparation.node_view import NodeView
from normfold.preparation.reductions import reduced_axes
from normfold.refusal import Refused


class Reduction(Operator):
    """What all four share: which axes are reduced, and how arrays lose and regain them."""

    def backward(self, node: NodeView, wanted: Mapping[int, Affine]) -> Crossing:
        affine, axes = wanted[0], reduced_axes(node)
        scale, shift = (self._in_front(node, array, axes) for array in (affine.scale, affine.shift))
        if affine.has_shift:
            shift = self._spread(node, shift, axes)
        inner = Affine(scale, shift)
        return Crossing(affines={0: inner}, op_type=self._operator(node, inner))

    def forward(self, node: NodeView, given: Mapping[int, Affine]) -> Crossing:
        if list(given) != [0]:
            raise Refused("NF114", f"the axes of {node.op_type} {node.name!r} are scaled")
        affine, axes = given[0], reduced_axes(node)
        if set(affine.scale_axes) & set(axes):
            raise Refused("NF110", f"{node.op_type} {node.name!r} reduces an axis that the scale varies on")
        shift = self._collected(node, affine.shift, axes) if affine.has_shift else affine.shift
        keeps = node.int_attribute("keepdims", 1)
        kept = [axis for axis in range(affine.rank) if keeps or axis not in axes]
        outer = Affine(move_axes(affine.scale, kept), move_axes(shift, kept))
        return Crossing(affines={0: outer}, op_type=self._operator(node, affine))

    def _in_front(self, node: NodeView, array: Array64, axes: tuple[int, ...]) -> Array64:
        """An array of the output as the input sees it: reduced axes are back, with size 1."""
        if node.int_attribute("keepdims", 1):
            return array
        source = iter(range(array.ndim))
        return move_axes(array, [None if axis in axes else next(source) for axis in range(node.rank(0))])

    def _spread(self, node: NodeView, shift: Array64, axes: tuple[int, ...]) -> Array64:
        """The shift of each input element that makes up the output's."""
        return shift

    def _collected(self, node: NodeView, shift: Array64, axes: tuple[int, ...]) -> Array64:
        """What the input's shift adds to the output; reduced axes keep size 1."""
        if set(varying_axes(shift)) & set(axes):
            raise Refused("NF110", f"{node.op_type} {node.name!r} reduces an axis that the shift varies on")
        return shift

    def _operator(self, node: NodeView, affine: Affine) -> str | None:
        """What the node becomes under the affine; ``None`` if it stays."""
        return None


class ReduceMean(Reduction):
    op_types = ("ReduceMean",)

    def _collected(self, node: NodeView, shift: Array64, axes: tuple[int, ...]) -> Array64:
        return _mean(shift, axes)


class ReduceSum(Reduction):
    op_types = ("ReduceSum",)

    def _spread(self, node: NodeView, shift: Array64, axes: tuple[int, ...]) -> Array64:
        return shift / _count(node, axes)

    def _collected(self, node: NodeView, shift: Array64, axes: tuple[int, ...]) -> Array64:
        return _mean(shift, axes) * _count(node, axes)


class ReduceMaxMin(Reduction):
    op_types = ("ReduceMax", "ReduceMin")

    def _operator(self, node: NodeView, affine: Affine) -> str | None:
        if (affine.scale >= 0).all():
            return None
        if (affine.scale < 0).all():
            return "ReduceMin" if node.op_type == "ReduceMax" else "ReduceMax"
        raise Refused("NF117", f"the scale at {node.op_type} {node.name!r} has both signs")


def _mean(array: Array64, axes: tuple[int, ...]) -> Array64:
    return np.asarray(np.mean(array, axis=axes, keepdims=True), dtype=np.float64)


def _count(node: NodeView, axes: tuple[int, ...]) -> int:
    dims = node.dims(0)
    sizes = [] if dims is None else [dims[axis] for axis in axes]
    known = [size for size in sizes if isinstance(size, int)]
    if dims is None or len(known) != len(sizes):
        raise Refused("NF112", f"{node.op_type} {node.name!r} sums a number of elements that is not static")
    return math.prod(known)


OPERATORS: tuple[Operator, ...] = (ReduceMean(), ReduceSum(), ReduceMaxMin())
