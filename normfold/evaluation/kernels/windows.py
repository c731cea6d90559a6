"""Sliding windows: the padding and output-size arithmetic that convolutions and pools share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from normfold.evaluation.call import NodeCall
from normfold.evaluation.dtypes import Array


@dataclass(frozen=True)
class Windows:
    """Resolved geometry, one entry per spatial axis."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    output: tuple[int, ...]

    def taps(self, axis: int) -> range:
        """Offsets, in the padded input, of the taps of the first window along a spatial axis."""
        return range(0, self.kernel[axis] * self.dilations[axis], self.dilations[axis])

    def reach(self, axis: int) -> int:
        """Extent of padded input that all windows together touch along a spatial axis."""
        span = (self.kernel[axis] - 1) * self.dilations[axis] + 1
        return (self.output[axis] - 1) * self.strides[axis] + span

    def tap_slice(self, axis: int, offset: int) -> slice:
        """Padded positions that the tap at ``offset`` reads, one per output position."""
        step = self.strides[axis]
        return slice(offset, offset + (self.output[axis] - 1) * step + 1, step)


def same_padding(size: int, kernel: int, stride: int, dilation: int, upper: bool) -> tuple[int, int, int]:
    """(output size, pad begin, pad end) of SAME_UPPER / SAME_LOWER: ``output = ceil(size / stride)``."""
    output = -(-size // stride)
    total = max((output - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    small, large = total // 2, total - total // 2
    return (output, small, large) if upper else (output, large, small)


def resolve_windows(
    call: NodeCall, spatial: Sequence[int], kernel: Sequence[int], *, ceil_mode: bool = False
) -> Windows:
    """Apply auto_pad, pads, strides, dilations and ceil_mode (ONNX Conv and pooling attributes).

    With ceil_mode, a last window that would start beyond the input and its begin padding is dropped.

    Args:
        call: the node; reads ``auto_pad``, ``pads``, ``strides``, ``dilations``.
        spatial: spatial sizes of the input.
        kernel: kernel sizes.
        ceil_mode: round output sizes up.

    Raises:
        NotCovered: for attributes of the wrong length or an unknown auto_pad.
    """
    rank = len(spatial)
    strides = call.integers("strides", [1] * rank) or [1] * rank
    dilations = call.integers("dilations", [1] * rank) or [1] * rank
    pads = call.integers("pads", [0] * 2 * rank) or [0] * 2 * rank
    if not (len(kernel) == len(strides) == len(dilations) == rank and len(pads) == 2 * rank):
        raise call.refuse("attributes do not match the spatial rank")
    auto_pad = call.text("auto_pad", "NOTSET") or "NOTSET"
    if auto_pad not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise call.refuse(f"auto_pad {auto_pad!r}")
    begin, end, output = [], [], []
    for axis, size in enumerate(spatial):
        stride, span = strides[axis], (kernel[axis] - 1) * dilations[axis] + 1
        if auto_pad.startswith("SAME"):
            out, head, tail = same_padding(
                size, kernel[axis], stride, dilations[axis], auto_pad == "SAME_UPPER"
            )
        else:
            head, tail = (0, 0) if auto_pad == "VALID" else (pads[axis], pads[axis + rank])
            free = size + head + tail - span
            if free < 0:
                raise call.refuse("a kernel larger than the padded input")
            out = (-(-free // stride) if ceil_mode else free // stride) + 1
            if ceil_mode and (out - 1) * stride >= size + head:
                out -= 1
        begin.append(head)
        end.append(tail)
        output.append(max(out, 0))
    return Windows(tuple(kernel), tuple(strides), tuple(dilations), tuple(begin), tuple(end), tuple(output))


def pad_spatial(x: Array, windows: Windows, fill: Any) -> Array:
    """Pad or crop ``[N, C, *S]`` so that every tap of every window is inside, and nothing else."""
    spatial = x.shape[2:]
    reach = [max(windows.reach(axis), 0) for axis in range(len(spatial))]
    if not any(windows.begin) and tuple(reach) == spatial:
        return x
    padded = np.full((*x.shape[:2], *reach), fill, dtype=x.dtype)
    source, target = [slice(None), slice(None)], [slice(None), slice(None)]
    for axis, size in enumerate(spatial):
        head = windows.begin[axis]
        start, stop = max(-head, 0), min(size, reach[axis] - head)
        source.append(slice(start, max(stop, start)))
        target.append(slice(start + head, max(stop, start) + head))
    padded[tuple(target)] = x[tuple(source)]
    return padded
