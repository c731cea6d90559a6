"""Gather: https://onnx.ai/onnx/operators/onnx__Gather.html

``Y[*outer, *i, *inner] = X[*outer, indices[*i], *inner]``: X's gather axis is replaced by the axes of the
indices. Negative indices count from the end. Forward: the affine is gathered with the elements; if it varies
on the gather axis the indices must be constant. Backward: all places that read one element must ask the same;
elements that are not read are free. If nothing varies on the axes of the indices these may be computed at run
time, so an embedding table absorbs on its other axes.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from normfold.affine import Affine, Array64, alike
from normfold.planning.crossing import Crossing, Operator
from normfold.planning.operators._layout import mapped, normalised
from normfold.preparation.node_view import NodeView
from normfold.refusal import Refused


class Gather(Operator):
    op_types = ("Gather",)

    def backward(self, node: NodeView, wanted: Mapping[int, Affine]) -> Crossing:
        indexed = node.rank(1)
        rank = wanted[0].rank + 1 - indexed
        axis = normalised(node.int_attribute("axis", 0), rank)
        scale = self._scattered(wanted[0].scale, axis, indexed, 1.0, node)
        shift = self._scattered(wanted[0].shift, axis, indexed, 0.0, node)
        return Crossing(affines={0: Affine.of(scale, shift, rank=rank)})

    def narrowed(self, node: NodeView, asked: Affine) -> Affine:
        axis = normalised(node.int_attribute("axis", 0), asked.rank)
        unread = np.ones(self._size(node, axis), dtype=bool)
        unread[self._indices(node).reshape(-1)] = False
        return asked.except_where(np.expand_dims(unread, [i for i in range(asked.rank) if i != axis]))

    def forward(self, node: NodeView, given: Mapping[int, Affine]) -> Crossing:
        axis = normalised(node.int_attribute("axis", 0), given[0].rank)
        return Crossing(affines={0: mapped(given[0], lambda array: self._gathered(array, axis, node))})

    def _gathered(self, array: Array64, axis: int, node: NodeView) -> Array64:
        if array.shape[axis] == 1:
            return array.reshape((*array.shape[:axis], *[1] * node.rank(1), *array.shape[axis + 1 :]))
        size, indices = array.shape[axis], self._indices(node)
        if indices.size and not (-size <= indices.min() and indices.max() < size):
            raise Refused("NF113", f"Gather {node.name!r} reads beyond the {size} elements of axis {axis}")
        return array.take(indices, axis=axis)

    def _scattered(self, array: Array64, axis: int, indexed: int, free: float, node: NodeView) -> Array64:
        """The array over X's axes; ``free`` at elements that are not read."""
        outer, own, inner = (
            array.shape[:axis],
            array.shape[axis : axis + indexed],
            array.shape[axis + indexed :],
        )
        if all(size == 1 for size in own):
            return array.reshape((*outer, 1, *inner))
        indices = self._indices(node)
        size = self._size(node, axis)
        wanted = np.broadcast_to(array, (*outer, *indices.shape, *inner)).reshape(
            *outer, indices.size, *inner
        )
        whole = np.full((*outer, size, *inner), free)
        np.moveaxis(whole, axis, 0)[indices.reshape(-1)] = np.moveaxis(wanted, axis, 0)
        if not alike(whole.take(indices.reshape(-1), axis=axis), wanted).all():
            raise Refused(
                "NF119", f"places of Gather {node.name!r} that read one element ask for different affines"
            )
        return whole

    def _size(self, node: NodeView, axis: int) -> int:
        dims = node.dims(0)
        size = None if dims is None else dims[axis]
        if not isinstance(size, int):
            raise Refused("NF112", f"the size of axis {axis} in front of Gather {node.name!r} is not known")
        return size

    def _indices(self, node: NodeView) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
        indices = node.array(1)
        if indices is None:
            raise Refused("NF112", f"the indices of Gather {node.name!r} are computed at run time")
        return indices.astype(np.int64)


OPERATORS: tuple[Operator, ...] = (Gather(),)
