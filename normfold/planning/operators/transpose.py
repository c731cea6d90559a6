"""Transpose: https://onnx.ai/onnx/operators/onnx__Transpose.html

Y's axis i is X's axis ``perm[i]`` (by default the axes in reverse order). The arrays of an affine are
re-indexed likewise. Always exact.
"""

from __future__ import annotations

from collections.abc import Mapping

from normfold.affine import Affine, move_axes
from normfold.planning.crossing import Crossing, Operator
from normfold.planning.operators._layout import mapped
from normfold.preparation.node_view import NodeView


class Transpose(Operator):
    op_types = ("Transpose",)

    def backward(self, node: NodeView, wanted: Mapping[int, Affine]) -> Crossing:
        permutation = _permutation(node, wanted[0].rank)
        inverse = [permutation.index(axis) for axis in range(len(permutation))]
        return Crossing(affines={0: mapped(wanted[0], lambda array: move_axes(array, inverse))})

    def forward(self, node: NodeView, given: Mapping[int, Affine]) -> Crossing:
        permutation = _permutation(node, given[0].rank)
        return Crossing(affines={0: mapped(given[0], lambda array: move_axes(array, permutation))})


def _permutation(node: NodeView, rank: int) -> list[int]:
    return node.ints_attribute("perm") or list(reversed(range(rank)))


OPERATORS: tuple[Operator, ...] = (Transpose(),)
