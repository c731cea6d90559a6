"""Pools of any spatial rank. Windows are separable, so every axis is reduced on its own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from normfold.evaluation.call import Kernel, NodeCall
from normfold.evaluation.dtypes import Array, is_floating, working
from normfold.evaluation.kernels.windows import Windows, pad_spatial, resolve_windows


def _windows(call: NodeCall, x: Array) -> Windows:
    kernel = call.integers("kernel_shape")
    if kernel is None or x.ndim != len(kernel) + 2:
        raise call.refuse(f"kernel_shape {kernel} does not fit an input of rank {x.ndim}")
    windows = resolve_windows(call, x.shape[2:], kernel, ceil_mode=bool(call.integer("ceil_mode", 0)))
    if call.text("auto_pad", "NOTSET").startswith("SAME"):
        # The specification leaves these open, and runtimes differ.
        if any(d > 1 for d in windows.dilations):
            raise call.refuse("auto_pad SAME with dilations")
        if any(windows.reach(axis) < size for axis, size in enumerate(x.shape[2:])):
            raise call.refuse("auto_pad SAME with windows that skip input")
    return windows


def _reduce(padded: Array, windows: Windows, combine: Callable[..., Any]) -> Array:
    """Combine the taps of every window, one spatial axis after the other."""
    for axis in range(len(windows.kernel)):
        parts = iter(
            padded[(slice(None),) * (axis + 2) + (windows.tap_slice(axis, offset),)]
            for offset in windows.taps(axis)
        )
        total = next(parts).copy()
        for part in parts:
            combine(total, part, out=total)
        padded = total
    return padded


def _lowest(dtype: np.dtype[Any]) -> Any:
    return -np.inf if is_floating(dtype) else np.iinfo(dtype).min


def max_pool(call: NodeCall) -> Sequence[Array | None]:
    """MaxPool with its optional Indices. Padding never wins. X is [N, C, *S].

    https://onnx.ai/onnx/operators/onnx__MaxPool.html
    """
    x = call.tensor(0)
    windows = _windows(call, x)
    padded = pad_spatial(x, windows, _lowest(x.dtype))
    y = _reduce(padded, windows, np.maximum)
    if len(call.wanted) < 2 or not call.wanted[1]:
        return (y,)
    return y, _max_indices(x, padded, windows, column_major=bool(call.integer("storage_order", 0)))


def _max_indices(x: Array, padded: Array, windows: Windows, *, column_major: bool) -> Array:
    """Flat position in X of the first maximum of every window, scanned in row-major order."""
    spatial = x.shape[2:]
    best = np.full((*x.shape[:2], *windows.output), _lowest(x.dtype), dtype=x.dtype)
    found = np.full(best.shape, -1, dtype=np.int64)
    strides = np.cumprod([1, *(spatial[:-1] if column_major else spatial[:0:-1])])
    strides = strides if column_major else strides[::-1]
    grids = [
        np.arange(out).reshape(-1, *[1] * (len(spatial) - axis - 1)) * windows.strides[axis]
        - windows.begin[axis]
        for axis, out in enumerate(windows.output)
    ]
    for tap in itertools.product(*(windows.taps(axis) for axis in range(len(spatial)))):
        where = tuple(windows.tap_slice(axis, offset) for axis, offset in enumerate(tap))
        position, inside = np.int64(0), np.bool_(True)
        for axis, offset in enumerate(tap):
            coordinate = grids[axis] + offset
            position = position + coordinate * strides[axis]
            inside = inside & (coordinate >= 0) & (coordinate < spatial[axis])
        value = padded[(slice(None), slice(None), *where)]
        better = inside & ((value > best) | (found < 0))
        best = np.where(better, value, best)
        found = np.where(better, position, found)
    images = np.arange(x.shape[0] * x.shape[1]).reshape(*x.shape[:2], *[1] * len(spatial))
    return np.asarray(found + images * int(np.prod(spatial)))


def average_pool(call: NodeCall) -> Sequence[Array]:
    """AveragePool. X is [N, C, *S].

    The divisor counts real cells, or with count_include_pad also the cells of ``pads``; the overhang that
    ceil_mode adds behind them is never counted. https://onnx.ai/onnx/operators/onnx__AveragePool.html
    """
    x = call.tensor(0)
    windows = _windows(call, x)
    total = _reduce(pad_spatial(working(x), windows, 0), windows, np.add)
    include = bool(call.integer("count_include_pad", 0))
    for axis, size in enumerate(x.shape[2:]):
        head, tail = windows.begin[axis], windows.end[axis]
        first = np.arange(windows.output[axis])[:, None] * windows.strides[axis] - head
        cells = first + np.asarray(windows.taps(axis))[None]
        low, high = (-head, size + tail) if include else (0, size)
        count = ((cells >= low) & (cells < high)).sum(axis=1)
        total /= count.reshape(-1, *[1] * (x.ndim - 3 - axis)).astype(total.dtype)
    return (total.astype(x.dtype, copy=False),)


def lp_pool(call: NodeCall) -> Sequence[Array]:
    """LpPool: ``(Σ |x|^p)^(1/p)`` over every window. https://onnx.ai/onnx/operators/onnx__LpPool.html"""
    x = call.tensor(0)
    windows = _windows(call, x)
    p = call.number("p", 2.0) if call.version < 2 else call.integer("p", 2)
    powers = np.abs(pad_spatial(working(x), windows, 0)) ** p
    return ((_reduce(powers, windows, np.add) ** (1 / p)).astype(x.dtype, copy=False),)


def _spatial_axes(x: Array) -> tuple[int, ...]:
    return tuple(range(2, x.ndim))


def global_average_pool(call: NodeCall) -> Sequence[Array]:
    """Mean over all spatial axes, kept with size 1."""
    x = call.tensor(0)
    return (working(x).mean(axis=_spatial_axes(x), keepdims=True).astype(x.dtype, copy=False),)


def global_max_pool(call: NodeCall) -> Sequence[Array]:
    """Maximum over all spatial axes, kept with size 1."""
    x = call.tensor(0)
    return (x.max(axis=_spatial_axes(x), keepdims=True),)


def global_lp_pool(call: NodeCall) -> Sequence[Array]:
    """p-norm over all spatial axes, kept with size 1."""
    x = call.tensor(0)
    p = call.number("p", 2.0) if call.version < 2 else call.integer("p", 2)
    norm = (np.abs(working(x)) ** p).sum(axis=_spatial_axes(x), keepdims=True) ** (1 / p)
    return (norm.astype(x.dtype, copy=False),)


KERNELS: dict[tuple[str, str], Kernel] = {
    ("", "MaxPool"): max_pool,
    ("", "AveragePool"): average_pool,
    ("", "LpPool"): lp_pool,
    ("", "GlobalAveragePool"): global_average_pool,
    ("", "GlobalMaxPool"): global_max_pool,
    ("", "GlobalLpPool"): global_lp_pool,
}
