"""Slice and Split, which take parts.

https://onnx.ai/onnx/operators/onnx__Slice.html
https://onnx.ai/onnx/operators/onnx__Split.html

Forward, always exact: a part brings the same part of the affine. Backward: X is asked for the affine at the
elements that are read: elements that no part holds are free, and a part of a Split that asks for nothing
keeps its values. Only on an axis that is cut *and* varied on, or where another reader has to be left alone,
do the bounds and sizes have to be known. They are attributes in old opsets (Slice before 10, Split before
13), then operands.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from normfold.affine import Affine, Array64
from normfold.planning.crossing import Crossing, Operator
from normfold.planning.operators._layout import joined, mapped, normalised
from normfold.preparation.node_view import NodeView
from normfold.preparation.shape_expressions import bounds, numbers
from normfold.refusal import Refused


class Slice(Operator):
    """Y = X[starts : ends : steps] along ``axes``, clamped to X; negative bounds count from the end."""

    op_types = ("Slice",)

    def backward(self, node: NodeView, wanted: Mapping[int, Affine]) -> Crossing:
        scale, shift = wanted[0].scale, wanted[0].shift
        for axis in self._axes(node, wanted[0].rank):
            scale = self._put(scale, axis, 1.0, node)
            shift = self._put(shift, axis, 0.0, node)
        return Crossing(affines={0: Affine.of(scale, shift, rank=wanted[0].rank)})

    def narrowed(self, node: NodeView, asked: Affine) -> Affine:
        unread = np.zeros((1,) * asked.rank, dtype=bool)
        for axis in self._axes(node, asked.rank):
            size, read = self._read_of(node, axis, asked.rank)
            skipped = np.ones(size, dtype=bool)
            skipped[read] = False
            unread = unread | np.expand_dims(skipped, [i for i in range(asked.rank) if i != axis])
        return asked.except_where(unread)

    def forward(self, node: NodeView, given: Mapping[int, Affine]) -> Crossing:
        return Crossing(affines={0: mapped(given[0], lambda array: self._taken(array, node))})

    def _put(self, array: Array64, axis: int, free: float, node: NodeView) -> Array64:
        """The array over X's axis; ``free`` at elements that are not read."""
        if array.shape[axis] == 1:
            return array
        size, read = self._read_of(node, axis, array.ndim)
        if len(read) != array.shape[axis]:
            raise Refused(
                "NF113", f"Slice {node.name!r} does not have the {array.shape[axis]} elements it should"
            )
        whole = np.full([size if i == axis else n for i, n in enumerate(array.shape)], free)
        np.moveaxis(whole, axis, 0)[read] = np.moveaxis(array, axis, 0)
        return whole

    def _taken(self, array: Array64, node: NodeView) -> Array64:
        for axis in self._axes(node, array.ndim):
            if array.shape[axis] != 1:
                read = self._read(node, axis, array.shape[axis], array.ndim)
                # An empty slice may bring anything.
                array = array.take(read or [0], axis=axis)
        return array

    def _read_of(self, node: NodeView, axis: int, rank: int) -> tuple[int, list[int]]:
        """The size of X on ``axis``, and the indices that are read there."""
        dims = node.dims(0)
        size = None if dims is None else dims[axis]
        if not isinstance(size, int):
            raise Refused("NF112", f"the size of axis {axis} in front of Slice {node.name!r} is not known")
        return size, self._read(node, axis, size, rank)

    def _axes(self, node: NodeView, rank: int) -> list[int]:
        named = node.has_attribute("axes") if node.opset < 10 else node.has(3)
        if named:
            axes = bounds(node, 3, "axes")
        else:
            starts = bounds(node, 1, "starts")
            dims = node.dims(1) if node.opset >= 10 else None
            count = len(starts) if starts is not None else dims[0] if dims else None
            axes = list(range(count)) if isinstance(count, int) else None
        if axes is None:
            raise Refused("NF112", f"the axes of Slice {node.name!r} are computed at run time")
        return [normalised(axis, rank) for axis in axes]

    def _read(self, node: NodeView, axis: int, size: int, rank: int) -> list[int]:
        """Indices on ``axis`` that are read, in order."""
        place = self._axes(node, rank).index(axis)
        starts, ends = bounds(node, 1, "starts"), bounds(node, 2, "ends")
        steps = bounds(node, 4, "steps") if node.opset >= 10 and node.has(4) else [1] * rank
        if starts is None or ends is None or steps is None:
            raise Refused("NF112", f"the bounds of Slice {node.name!r} are computed at run time")
        if not all(place < len(part) for part in (starts, ends, steps)) or not steps[place]:
            raise Refused("NF113", f"Slice {node.name!r} has no bounds or no step on axis {axis}")
        return list(range(size)[starts[place] : ends[place] : steps[place]])


class Split(Operator):
    """X is cut along ``axis`` into parts of given sizes, or of equal size but for a smaller last one."""

    op_types = ("Split",)

    def backward(self, node: NodeView, wanted: Mapping[int, Affine]) -> Crossing:
        rank = next(iter(wanted.values())).rank
        axis = normalised(node.int_attribute("axis", 0), rank)
        first, nothing = next(iter(wanted.values())), Affine.of(rank=rank)
        # A part that nothing reads is free: the same as its neighbours where that needs no sizes.
        free = nothing if axis in first.axes else first
        asked = [
            wanted[i] if i in wanted else nothing if node.is_used(i) else free
            for i in range(len(node.node.outputs))
        ]
        whole = joined(asked, axis, lambda: self._sizes(node, axis))
        return Crossing(affines={0: whole})

    def forward(self, node: NodeView, given: Mapping[int, Affine]) -> Crossing:
        affine = given[0]
        axis = normalised(node.int_attribute("axis", 0), affine.rank)
        outputs = range(len(node.node.outputs))
        if axis not in affine.axes:
            return Crossing(affines=dict.fromkeys(outputs, affine))
        starts = np.cumsum([0, *self._sizes(node, axis)])

        def part(array: Array64, index: int) -> Array64:
            if array.shape[axis] == 1:
                return array
            return array.take(range(starts[index], starts[index + 1]) or [0], axis=axis)

        return Crossing(affines={i: mapped(affine, partial(part, index=i)) for i in outputs})

    def _sizes(self, node: NodeView, axis: int) -> list[int]:
        count = len(node.node.outputs)
        said = node.ints_attribute("split") or (numbers(node, 1) if node.has(1) else None)
        dims = node.dims(0)
        size = None if dims is None else dims[axis]
        if said is not None:
            whole = size if isinstance(size, int) else sum(said)
            if len(said) != count or min(said) < 0 or sum(said) != whole:
                raise Refused(
                    "NF113", f"Split {node.name!r} cuts {whole} elements into {count} parts of sizes {said}"
                )
            return said
        if node.has(1) or not isinstance(size, int):
            raise Refused("NF112", f"the sizes of the parts of Split {node.name!r} are not known")
        part = -(-size // count)
        return [min(part, max(size - part * i, 0)) for i in range(count)]


OPERATORS: tuple[Operator, ...] = (Slice(), Split())
