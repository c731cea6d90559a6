"""Reshape and Flatten, which keep the row-major order of elements.

https://onnx.ai/onnx/operators/onnx__Reshape.html
https://onnx.ai/onnx/operators/onnx__Flatten.html

Axes of X and Y correspond where prefix or suffix products of dimensions are provably equal (equal sizes alone
prove nothing: in [N, 64, 64] → [-1, 64] it is X's *last* axis that stays). Within a segment, say [A, C, B] →
[A·C·B], an affine on C is tiled over the axes before it and repeated over those behind it: ``s'[a·C·B + c·B +
b] = s[c]``. Backward the same map is read from Y to X.

Exact iff every element of a merged row asks the same where its axis does not survive, and the sizes that this
takes are known: those behind a varying axis, or those in front of it. A symbolic batch or length that is not
mixed with it may stay unknown.
"""

from __future__ import annotations

from collections.abc import Mapping

from normfold.affine import Affine
from normfold.planning.crossing import Crossing, Operator
from normfold.planning.operators._layout import Correspondence, carried, normalised
from normfold.preparation.node_view import NodeView
from normfold.preparation.shape_expressions import sizes, sizes_of, target_sizes
from normfold.preparation.sizes import Size
from normfold.refusal import Refused


class Reshape(Operator):
    """Y as the target says: 0 copies X's dimension (unless ``allowzero``), −1 is the remainder."""

    op_types = ("Reshape",)

    def backward(self, node: NodeView, wanted: Mapping[int, Affine]) -> Crossing:
        before = sizes_of(node, 0)
        if before is None:
            raise Refused("NF112", f"the rank in front of Reshape {node.name!r} is not known")
        axes = Correspondence.of(before, target_sizes(node, before))
        return Crossing(affines={0: carried(wanted[0], axes.reversed(), _described(node))})

    def forward(self, node: NodeView, given: Mapping[int, Affine]) -> Crossing:
        before = sizes_of(node, 0) or _unknown(node, given[0].rank)
        axes = Correspondence.of(before, target_sizes(node, before))
        return Crossing(affines={0: carried(given[0], axes, _described(node))})


class Flatten(Operator):
    """X [d0, …] → Y [d0·…·d(axis−1), d(axis)·…], always of rank 2."""

    op_types = ("Flatten",)

    def backward(self, node: NodeView, wanted: Mapping[int, Affine]) -> Crossing:
        before = sizes_of(node, 0)
        if before is None:
            raise Refused("NF112", f"the rank in front of Flatten {node.name!r} is not known")
        return Crossing(
            affines={0: carried(wanted[0], self._axes(node, before).reversed(), _described(node))}
        )

    def forward(self, node: NodeView, given: Mapping[int, Affine]) -> Crossing:
        before = sizes_of(node, 0) or _unknown(node, given[0].rank)
        return Crossing(affines={0: carried(given[0], self._axes(node, before), _described(node))})

    def _axes(self, node: NodeView, before: list[Size]) -> Correspondence:
        axis = node.int_attribute("axis", 1)
        if axis != len(before):  # where a Flatten may put all axes in front
            axis = normalised(axis, len(before))
        after = [Size.product(before[:axis]), Size.product(before[axis:])]
        return Correspondence.of(before, after)


def _unknown(node: NodeView, rank: int) -> list[Size]:
    value = node.value(0)
    assert value is not None
    return sizes(value, (None,) * rank)


def _described(node: NodeView) -> str:
    return f"{node.op_type} {node.name!r}"


OPERATORS: tuple[Operator, ...] = (Reshape(), Flatten())
