"""Pools over the spatial axes of X [N, C, *spatial]: https://onnx.ai/onnx/operators/onnx__AveragePool.html

An affine that is uniform over the spatial axes crosses unchanged, in both directions:

* MaxPool, GlobalMaxPool: ``max(s·x + t) = s·max(x) + t`` for s ≥ 0. Padding is −∞ and never wins, so a
  shift crosses too. Not where the indices of the maxima are read.
* AveragePool: a scale always; a shift only where the weights of every window sum to 1, so no padded zero is
  counted (``count_include_pad``) and no window overhangs (``ceil_mode``). Forward over counted zeros a
  shift leaves a map: the share of each window that is real, known where the padded axes are static.
* GlobalAveragePool: both; forward a shift that varies over space leaves its mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from normfold.affine import Affine
from normfold.planning.crossing import Crossing, Operator
from normfold.planning.operators._windows import inside, never_reads_padding, summed_over_taps
from normfold.preparation.node_view import NodeView
from normfold.refusal import Refused

_AVERAGE_COUNTS = 7


class MaxPool(Operator):
    op_types = ("MaxPool", "GlobalMaxPool")

    def backward(self, node: NodeView, wanted: Mapping[int, Affine]) -> Crossing:
        return self._cross(node, wanted[0])

    def forward(self, node: NodeView, given: Mapping[int, Affine]) -> Crossing:
        return self._cross(node, given[0])

    def _cross(self, node: NodeView, affine: Affine) -> Crossing:
        require_uniform_over_space(affine, node)
        if len(node.node.outputs) > 1 and node.is_used(1):
            raise Refused("NF114", f"the indices of {node.op_type} {node.name!r} are read")
        if (affine.scale < 0).any():
            raise Refused("NF117", f"{node.op_type} {node.name!r} would become a minimum")
        return Crossing(affines={0: affine})


class AveragePool(Operator):
    op_types = ("AveragePool",)

    def backward(self, node: NodeView, wanted: Mapping[int, Affine]) -> Crossing:
        return self._cross(node, wanted[0])

    def forward(self, node: NodeView, given: Mapping[int, Affine]) -> Crossing:
        affine = given[0]
        kernel = tuple(node.ints_attribute("kernel_shape") or ())
        if not affine.has_shift or averages_input_only(node) or may_overhang(node, kernel):
            return self._cross(node, affine)
        require_uniform_over_space(affine, node)
        share = summed_over_taps(np.full((1, *kernel), 1.0 / math.prod(kernel)), inside(node, kernel))
        return Crossing(affines={0: Affine.of(affine.scale, affine.shift * share, rank=affine.rank)})

    def _cross(self, node: NodeView, affine: Affine) -> Crossing:
        require_uniform_over_space(affine, node)
        if affine.has_shift and not averages_input_only(node):
            raise Refused(
                "NF116",
                f"AveragePool {node.name!r} counts padding, which a shift in front of it would not touch",
            )
        return Crossing(affines={0: affine})


class GlobalAveragePool(Operator):
    op_types = ("GlobalAveragePool",)

    def backward(self, node: NodeView, wanted: Mapping[int, Affine]) -> Crossing:
        require_uniform_over_space(wanted[0], node)
        return Crossing(affines={0: wanted[0]})

    def forward(self, node: NodeView, given: Mapping[int, Affine]) -> Crossing:
        affine = given[0]
        require_uniform_over_space(affine.only_scale(), node)
        shift = affine.shift.mean(axis=tuple(range(2, affine.rank)), keepdims=True)
        return Crossing(affines={0: Affine.of(affine.scale, shift, rank=affine.rank)})


def require_uniform_over_space(affine: Affine, node: NodeView) -> None:
    """Refuse an affine that varies on a spatial axis.

    Raises:
        Refused: NF110.
    """
    if any(axis > 1 for axis in affine.axes):
        raise Refused("NF110", f"{node.op_type} {node.name!r} pools over an axis that the affine varies on")


def averages_input_only(node: NodeView) -> bool:
    """Whether every window of an AveragePool is a mean of real elements, for every size the model allows."""
    kernel = tuple(node.ints_attribute("kernel_shape") or ())
    if not kernel or may_overhang(node, kernel):
        return False
    counts_padding = node.opset < _AVERAGE_COUNTS or node.int_attribute("count_include_pad", 0)
    return not counts_padding or never_reads_padding(node, kernel)


def may_overhang(node: NodeView, kernel: tuple[int, ...]) -> bool:
    """Whether rounding the output size up may add a window that reaches beyond the input and its pads."""
    if not node.int_attribute("ceil_mode", 0):
        return False
    spatial = len(kernel)
    if node.string_attribute("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return True
    dims = node.dims(0)
    if dims is None:
        return True
    pads = node.ints_attribute("pads") or [0] * (2 * spatial)
    strides = node.ints_attribute("strides") or [1] * spatial
    dilations = node.ints_attribute("dilations") or [1] * spatial
    for axis, extent in enumerate(kernel):
        size, stride = dims[axis + 2], strides[axis]
        if stride == 1:
            continue
        reach = (extent - 1) * dilations[axis] + 1
        if not isinstance(size, int) or (size + pads[axis] + pads[axis + spatial] - reach) % stride:
            return True
    return False


OPERATORS: tuple[Operator, ...] = (MaxPool(), AveragePool(), GlobalAveragePool())
