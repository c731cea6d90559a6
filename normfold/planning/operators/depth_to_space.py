"""DepthToSpace and SpaceToDepth: blocks of b × b pixels to and from channels.

https://onnx.ai/onnx/operators/onnx__DepthToSpace.html
https://onnx.ai/onnx/operators/onnx__SpaceToDepth.html

DepthToSpace takes X [N, C·b², H, W] to Y [N, C, H·b, W·b], where (i, j) is the place in a block: DCR ``Y[n,
c, h·b + i, w·b + j] = X[n, (i·b + j)·C + c, h, w]``, CRD ``= X[n, c·b² + i·b + j, h, w]``. SpaceToDepth is
the inverse of DCR. From the small channels to the large ones an affine on C is tiled b² times (DCR) or each
entry repeated b² times (CRD), which is always exact. The other way it has to be the same for all b² channels
of a block: a pixel's place in its block is not an axis of the value.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from normfold.affine import Affine, Array64, alike, move_axes
from normfold.planning.crossing import Crossing, Operator
from normfold.planning.operators._layout import mapped
from normfold.preparation.node_view import NodeView
from normfold.refusal import Refused


class DepthToSpace(Operator):
    op_types = ("DepthToSpace",)

    def backward(self, node: NodeView, wanted: Mapping[int, Affine]) -> Crossing:
        return Crossing(affines={0: mapped(wanted[0], lambda array: _deepened(array, node))})

    def forward(self, node: NodeView, given: Mapping[int, Affine]) -> Crossing:
        return Crossing(affines={0: mapped(given[0], lambda array: _spread(array, node))})


class SpaceToDepth(Operator):
    op_types = ("SpaceToDepth",)

    def backward(self, node: NodeView, wanted: Mapping[int, Affine]) -> Crossing:
        return Crossing(affines={0: mapped(wanted[0], lambda array: _spread(array, node))})

    def forward(self, node: NodeView, given: Mapping[int, Affine]) -> Crossing:
        return Crossing(affines={0: mapped(given[0], lambda array: _deepened(array, node))})


def _order(node: NodeView) -> tuple[list[int | None], list[int | None]]:
    """Axes of [C, i, j] as the large channel axis holds them, and back. SpaceToDepth has no mode: DCR."""
    depth_first = node.string_attribute("mode", "DCR") == "DCR"
    return ([1, 2, 0], [2, 0, 1]) if depth_first else ([0, 1, 2], [0, 1, 2])


def _deepened(array: Array64, node: NodeView) -> Array64:
    """[N, C, H·b, W·b] → [N, C·b², H, W], each dimension 1 or full."""
    _require_uniform_pixels(array, node)
    block = node.int_attribute("blocksize", 1)
    channels = array.shape[1]
    if channels == 1:
        return array
    order, _ = _order(node)
    laid = np.broadcast_to(
        array.reshape(array.shape[0], channels, 1, 1), (array.shape[0], channels, block, block)
    )
    parts = [move_axes(sample, order).reshape(-1) for sample in laid]
    return np.stack(parts).reshape(array.shape[0], channels * block**2, 1, 1)


def _spread(array: Array64, node: NodeView) -> Array64:
    """[N, C·b², H, W] → [N, C, H·b, W·b], each dimension 1 or full."""
    _require_uniform_pixels(array, node)
    block = node.int_attribute("blocksize", 1)
    if array.shape[1] == 1:
        return array
    order, back = _order(node)
    if block < 1 or array.shape[1] % block**2:
        raise Refused("NF113", f"{array.shape[1]} channels do not make blocks of {block}×{block}")
    channels = array.shape[1] // block**2
    stored = [(channels, block, block)[axis] for axis in order if axis is not None]
    laid = np.stack([move_axes(sample.reshape(stored), back) for sample in array])
    first = laid[..., :1, :1]
    if not alike(laid, first).all():
        raise Refused("NF114", f"the affine differs within the blocks of {node.op_type} {node.name!r}")
    return first


def _require_uniform_pixels(array: Array64, node: NodeView) -> None:
    if array.shape[2:] != (1, 1):
        raise Refused(
            "NF114", f"{node.op_type} {node.name!r} rearranges the pixels that the affine varies on"
        )


OPERATORS: tuple[Operator, ...] = (DepthToSpace(), SpaceToDepth())
