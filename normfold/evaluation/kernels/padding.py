"""Pad of every opset and mode, with negative (cropping) pads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from normfold.evaluation.call import Kernel, NodeCall
from normfold.evaluation.dtypes import Array


def pad(call: NodeCall) -> Sequence[Array]:
    """Pad in the modes constant, edge, reflect and wrap; negative pads crop before the others pad.

    https://onnx.ai/onnx/operators/onnx__Pad.html
    """
    x = call.tensor(0)
    mode = call.text("mode", "constant")
    if mode not in ("constant", "edge", "reflect", "wrap"):
        raise call.refuse(f"mode {mode!r}")
    axes = list(range(x.ndim))
    fill: Any = 0
    if call.version < 11:
        amounts = call.integers("paddings" if call.version < 2 else "pads") or []
        fill = call.number("value", 0.0)
    else:
        amounts = [int(v) for v in call.tensor(1)]
        if (value := call.optional(2)) is not None:
            fill = value.reshape(-1)[0]
        if (chosen := call.optional(3)) is not None:
            axes = [int(v) % x.ndim for v in chosen]
    if len(amounts) != 2 * len(axes):
        raise call.refuse(f"{len(amounts)} pads for {len(axes)} axes")
    widths = [(0, 0)] * x.ndim
    for index, axis in enumerate(axes):
        widths[axis] = (amounts[index], amounts[index + len(axes)])
    crop = tuple(
        slice(max(-head, 0), size - max(-tail, 0)) for (head, tail), size in zip(widths, x.shape, strict=True)
    )
    grow = [(max(head, 0), max(tail, 0)) for head, tail in widths]
    cropped = x[crop]
    if mode == "constant":
        inside = tuple(slice(head, head + size) for (head, _), size in zip(grow, cropped.shape, strict=True))
        y = np.full([size + sum(w) for size, w in zip(cropped.shape, grow, strict=True)], fill, dtype=x.dtype)
        y[inside] = cropped
        return (y,)
    for axis, (head, tail) in enumerate(grow):
        if head or tail:
            cropped = np.take(cropped, _source(cropped.shape[axis], head, tail, mode), axis=axis)
    return (cropped,)


def _source(size: int, head: int, tail: int, mode: str) -> Array:
    """Position that each padded position reads along one axis."""
    if size < 1:
        raise ValueError("cannot pad an empty axis from itself")
    positions = np.arange(-head, size + tail)
    if mode == "edge":
        return np.clip(positions, 0, size - 1)
    if mode == "wrap":
        return positions % size
    if size == 1:
        return np.zeros_like(positions)
    period = 2 * (size - 1)
    folded = positions % period
    return np.minimum(folded, period - folded)


KERNELS: dict[tuple[str, str], Kernel] = {("", "Pad"): pad}
