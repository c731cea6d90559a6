"""Concat: https://onnx.ai/onnx/operators/onnx__Concat.html

Y is X_0, X_1, … laid one behind the other along ``axis``. Backward each input is asked for its own part of
the affine; forward Y lacks what the inputs bring, part by part, and nothing in the part of an input that
brings nothing. Always exact. Where the affine is the same in all parts no size has to be known; otherwise
those along ``axis`` have to be static, one may follow from the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np

from normfold.affine import Affine, Array64
from normfold.planning.crossing import Crossing, Operator
from normfold.planning.operators._layout import joined, mapped, normalised
from normfold.preparation.node_view import NodeView
from normfold.refusal import Refused


class Concat(Operator):
    op_types = ("Concat",)

    def backward(self, node: NodeView, wanted: Mapping[int, Affine]) -> Crossing:
        affine = wanted[0]
        axis = self._axis(node, affine.rank)
        slots = range(len(node.node.inputs))
        if axis not in affine.axes:
            return Crossing(affines=dict.fromkeys(slots, affine))
        total = max(affine.scale.shape[axis], affine.shift.shape[axis])
        starts = np.cumsum([0, *self._sizes(node, axis, total)])

        def part(array: Array64, slot: int) -> Array64:
            if array.shape[axis] == 1:
                return array
            return array.take(range(starts[slot], starts[slot + 1]) or [0], axis=axis)

        return Crossing(affines={i: mapped(affine, partial(part, slot=i)) for i in slots})

    def forward(self, node: NodeView, given: Mapping[int, Affine]) -> Crossing:
        rank = next(iter(given.values())).rank
        axis = self._axis(node, rank)
        nothing = Affine.of(rank=rank)
        brought = [given.get(slot, nothing) for slot in range(len(node.node.inputs))]
        return Crossing(affines={0: joined(brought, axis, lambda: self._sizes(node, axis, None))})

    def _axis(self, node: NodeView, rank: int) -> int:
        # Before opset 4 the axis had a default.
        return normalised(node.int_attribute("axis", 1), rank)

    def _sizes(self, node: NodeView, axis: int, total: int | None) -> list[int]:
        """Sizes of the inputs along ``axis``."""
        every = [node.dims(slot) for slot in range(len(node.node.inputs))]
        sizes = [None if dims is None else dims[axis] for dims in every]
        known = [size for size in sizes if isinstance(size, int)]
        output = node.output_dims()
        if total is None and output is not None:
            whole = output[axis]
            total = whole if isinstance(whole, int) else None
        if len(known) == len(sizes) - 1 and total is not None:
            return [size if isinstance(size, int) else total - sum(known) for size in sizes]
        if len(known) < len(sizes):
            raise Refused(
                "NF112", f"the sizes of the inputs of Concat {node.name!r} on axis {axis} are not known"
            )
        return known


OPERATORS: tuple[Operator, ...] = (Concat(),)
