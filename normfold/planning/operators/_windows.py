"""Windows that slide over the spatial axes and may reach into padding, for Conv and pools.

``kernel`` is the spatial part of the kernel's shape everywhere; ``node`` has X [N, C, *spatial] in slot 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from normfold.affine import Array64
from normfold.preparation.node_view import NodeView
from normfold.refusal import Refused


def never_reads_padding(node: NodeView, kernel: tuple[int, ...]) -> bool:
    """Whether no output position reads a padded element, for every input size that the model allows."""
    pads = resolved_pads(node, kernel)
    return pads is not None and not any((*pads[0], *pads[1]))


def resolved_pads(node: NodeView, kernel: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Padding in front of and behind each spatial axis of a Conv or pool, ``auto_pad`` resolved.

    ``None`` where it depends on a size that is not static.
    """
    spatial = len(kernel)
    mode = node.string_attribute("auto_pad", "NOTSET")
    if mode == "NOTSET":
        pads = node.ints_attribute("pads") or [0] * (2 * spatial)
        return tuple(pads[:spatial]), tuple(pads[spatial:])
    if mode == "VALID":
        return (0,) * spatial, (0,) * spatial
    dilations = node.ints_attribute("dilations") or [1] * spatial
    strides = node.ints_attribute("strides") or [1] * spatial
    sizes = (node.dims(0) or (None,) * (spatial + 2))[2:]
    begin, end = [], []
    for size, extent, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        reach = (extent - 1) * dilation + 1
        if reach == 1 or stride == 1:
            total = reach - 1
        elif isinstance(size, int):
            total = max((math.ceil(size / stride) - 1) * stride + reach - size, 0)
        else:
            return None
        small = total // 2
        begin.append(small if mode == "SAME_UPPER" else total - small)
        end.append(total - begin[-1])
    return tuple(begin), tuple(end)


def inside(node: NodeView, kernel: tuple[int, ...]) -> list[Array64]:
    """Which taps read real elements: per spatial axis [P, K], 1 where tap k at output position p does.

    An axis without padding has one row, which stands for all positions.

    Raises:
        Refused: NF116 where padding is read and the size of its axis is not static.
    """
    spatial = len(kernel)
    pads = resolved_pads(node, kernel)
    dilations = node.ints_attribute("dilations") or [1] * spatial
    strides = node.ints_attribute("strides") or [1] * spatial
    sizes = (node.dims(0) or (None,) * (spatial + 2))[2:]
    tables = []
    for axis, extent in enumerate(kernel):
        begin, end = (None, None) if pads is None else (pads[0][axis], pads[1][axis])
        if begin == end == 0:
            tables.append(np.ones((1, extent)))
            continue
        size = sizes[axis]
        if begin is None or end is None or not isinstance(size, int):
            raise Refused(
                "NF116",
                f"{node.op_type} {node.name!r} pads with zeros, which a shift in front of it would not touch",
            )
        reach = (extent - 1) * dilations[axis] + 1
        positions = np.arange((size + begin + end - reach) // strides[axis] + 1) * strides[axis] - begin
        read = positions[:, None] + np.arange(extent) * dilations[axis]
        tables.append(((read >= 0) & (read < size)).astype(np.float64))
    return tables


def summed_over_taps(taps: Array64, tables: Sequence[Array64]) -> Array64:
    """[C, *kernel] → [1, C, *positions]: what each output position sums of taps that read real elements."""
    for table in tables:
        taps = np.tensordot(taps, table, axes=(1, 1))
    return taps[None]
