"""Expand and Tile, which copy elements.

https://onnx.ai/onnx/operators/onnx__Expand.html
https://onnx.ai/onnx/operators/onnx__Tile.html

Expand broadcasts X to a shape (axes aligned at the end, new ones in front), Tile repeats it ``repeats[a]``
times along each axis. Forward, always exact: an affine of X is broadcast or tiled with it. Backward: all
copies of an element must ask the same. Expand: nothing may vary on an axis that X has only one of; Tile: what
varies must have the period of X. Only axes that the affine varies on have to be known.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from normfold.affine import Affine, Array64, alike, varying_axes
from normfold.planning.crossing import Crossing, Operator
from normfold.planning.operators._layout import mapped
from normfold.preparation.node_view import NodeView
from normfold.preparation.shape_expressions import numbers
from normfold.refusal import Refused


class Expand(Operator):
    op_types = ("Expand",)

    def backward(self, node: NodeView, wanted: Mapping[int, Affine]) -> Crossing:
        rank = node.rank(0)
        return Crossing(affines={0: mapped(wanted[0], lambda array: self._unexpanded(array, rank, node))})

    def forward(self, node: NodeView, given: Mapping[int, Affine]) -> Crossing:
        output = node.output_dims()
        shape = node.dims(1)
        if output is not None:
            rank = len(output)
        elif shape is not None and isinstance(shape[0], int):
            rank = max(given[0].rank, shape[0])
        else:
            rank = 0
        if rank < given[0].rank:
            raise Refused("NF112", f"the rank of Expand {node.name!r} is not known")
        return Crossing(affines={0: Affine.of(given[0].scale, given[0].shift, rank=rank)})

    def _unexpanded(self, array: Array64, rank: int, node: NodeView) -> Array64:
        dims = node.dims(0) or ()
        new = array.ndim - rank
        for axis in varying_axes(array):
            own = 1 if axis < new else dims[axis - new]
            if own == 1:
                raise Refused("NF119", f"copies that Expand {node.name!r} makes ask for different affines")
            if own != array.shape[axis]:
                raise Refused(
                    "NF112",
                    f"Expand {node.name!r} may make copies along axis {axis}, whose size is not known",
                )
        return array.reshape(array.shape[new:])


class Tile(Operator):
    op_types = ("Tile",)

    def backward(self, node: NodeView, wanted: Mapping[int, Affine]) -> Crossing:
        return Crossing(affines={0: mapped(wanted[0], lambda array: self._untiled(array, node))})

    def forward(self, node: NodeView, given: Mapping[int, Affine]) -> Crossing:
        return Crossing(affines={0: mapped(given[0], lambda array: self._tiled(array, node))})

    def _tiled(self, array: Array64, node: NodeView) -> Array64:
        repeats = self._repeats(node, array.ndim)
        for axis in varying_axes(array):
            count = repeats[axis]
            if count is None:
                raise self._unknown(node, axis)
            if count < 0:
                raise Refused("NF113", f"Tile {node.name!r} repeats axis {axis} {count} times")
            array = np.concatenate([array] * count, axis=axis) if count else array.take([0], axis=axis)
        return array

    def _untiled(self, array: Array64, node: NodeView) -> Array64:
        repeats = self._repeats(node, array.ndim)
        dims = node.dims(0)
        for axis in varying_axes(array):
            own = None if dims is None else dims[axis]
            count = repeats[axis]
            if isinstance(own, int) and own:
                count = array.shape[axis] // own
            if not count:
                raise self._unknown(node, axis)
            parts = np.split(array, count, axis=axis)
            if not all(alike(part, parts[0]).all() for part in parts):
                raise Refused("NF119", f"copies that Tile {node.name!r} makes ask for different affines")
            array = parts[0]
        return array

    def _repeats(self, node: NodeView, rank: int) -> list[int | None]:
        """How often each axis is repeated, ``None`` where that is computed. Opset 1 names one axis."""
        if node.opset >= 6:
            repeats = numbers(node, 1)
            return [None] * rank if repeats is None else list(repeats)
        tiles, axis = node.array(1), node.array(2)
        if tiles is None or axis is None:
            return [None] * rank
        repeated: list[int | None] = [1] * rank
        repeated[int(axis.item())] = int(tiles.item())
        return repeated

    def _unknown(self, node: NodeView, axis: int) -> Refused:
        return Refused("NF112", f"how often Tile {node.name!r} repeats axis {axis} is not known")


OPERATORS: tuple[Operator, ...] = (Expand(), Tile())
