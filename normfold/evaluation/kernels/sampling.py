"""AffineGrid, GridSample and DeformConv: reading an image at arbitrary points."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from normfold.evaluation.call import Kernel, NodeCall
from normfold.evaluation.deadline import check_deadline
from normfold.evaluation.dtypes import Array, working
from normfold.evaluation.kernels.resizing import cubic_weight
from normfold.evaluation.kernels.windows import resolve_windows

_CUBIC_A = -0.75


def affine_grid(call: NodeCall) -> Sequence[Array]:
    """AffineGrid: ``grid[n, p] = theta[n] · (p, 1)`` over the normalised positions p of an output image.

    theta is [N, r, r+1], size [N, C, *S] with r spatial sizes; the grid is [N, *S, r], its last axis x first.
    https://onnx.ai/onnx/operators/onnx__AffineGrid.html
    """
    theta = working(call.tensor(0))
    spatial = [int(size) for size in call.tensor(1)][2:]
    align_corners = call.integer("align_corners", 0)
    if align_corners and 1 in spatial:
        raise call.refuse("align_corners with an axis of size 1")
    axes = []
    for size in spatial:
        index = np.arange(size, dtype=theta.dtype)
        axes.append(2 * index / (size - 1) - 1 if align_corners else (2 * index + 1) / size - 1)
    positions = np.stack([*np.meshgrid(*axes, indexing="ij")[::-1], np.ones(spatial, theta.dtype)], axis=-1)
    grid = positions.reshape(-1, len(spatial) + 1) @ theta.transpose(0, 2, 1)
    return (grid.reshape(-1, *spatial, len(spatial)).astype(call.tensor(0).dtype, copy=False),)


def grid_sample(call: NodeCall) -> Sequence[Array]:
    """GridSample: X [N, C, *S] read at grid [N, *T, r], whose last axis holds x first; Y is [N, C, *T].

    https://onnx.ai/onnx/operators/onnx__GridSample.html
    """
    x, grid = working(call.tensor(0)), working(call.tensor(1))
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(text := call.text("mode", "linear"), text)
    padding = call.text("padding_mode", "zeros")
    align_corners = bool(call.integer("align_corners", 0))
    if mode not in ("linear", "nearest", "cubic") or padding not in ("zeros", "border", "reflection"):
        raise call.refuse(f"mode {mode!r} with padding_mode {padding!r}")
    taps: list[list[tuple[Array, Array]]] = []
    for axis, size in enumerate(x.shape[2:]):
        n = grid[..., grid.shape[-1] - 1 - axis]
        position = (n + 1) / 2 * (size - 1) if align_corners else ((n + 1) * size - 1) / 2
        if mode != "cubic":
            position = _inside(position, size, padding, align_corners)
        taps.append(
            [
                _tap(index, weight, size, padding, align_corners)
                for index, weight in _neighbours(position, mode)
            ]
        )
    y = np.zeros((x.shape[0], *grid.shape[1:-1], x.shape[1]), x.dtype)
    last = np.moveaxis(x, 1, -1)
    images = np.arange(x.shape[0]).reshape(-1, *[1] * (grid.ndim - 2))
    for combination in itertools.product(*taps):
        weight = np.ones((), x.dtype)
        for _, factor in combination:
            weight = weight * factor
        y += last[(images, *(index for index, _ in combination))] * weight[..., None]
    return (np.ascontiguousarray(np.moveaxis(y, -1, 1)).astype(call.tensor(0).dtype, copy=False),)


def deform_conv(call: NodeCall) -> Sequence[Array]:
    """DeformConv: a Conv whose tap k at output p reads X at ``p·stride + k·dilation − pad + offset``.

    Read linearly, zero outside of X, and times ``mask`` where there is one. X is [N, C, *S], W [M, C/G, *K],
    offset [N, D·K·r, *T] with r spatial axes and D offset groups of C/D channels, mask [N, D·K, *T], B [M],
    Y [N, M, *T]. https://onnx.ai/onnx/operators/onnx__DeformConv.html
    """
    x, w, offset = (working(call.tensor(index)) for index in range(3))
    bias, mask = call.optional(3), call.optional(4)
    groups, fields = call.integer("group", 1), call.integer("offset_group", 1)
    n, channels = x.shape[:2]
    kernel, rank = w.shape[2:], x.ndim - 2
    taps = math.prod(kernel)
    if x.ndim != w.ndim or channels != w.shape[1] * groups or w.shape[0] % groups or channels % fields:
        raise call.misfit(f"shapes {x.shape} and {w.shape} in {groups} groups, {fields} of offsets")
    windows = resolve_windows(call, x.shape[2:], kernel)
    points = math.prod(windows.output)
    if offset.shape != (n, fields * taps * rank, *windows.output):
        raise call.misfit(f"offsets {offset.shape} where the output is {windows.output}")
    by_tap = offset.reshape(n, fields, taps, rank, points)
    shares = None if mask is None else working(mask).reshape(n, fields, 1, taps, points)
    y = np.empty((n, w.shape[0], *windows.output), x.dtype)
    for image in range(n):
        check_deadline()
        pairs = []
        for axis, size in enumerate(x.shape[2:]):
            start = np.indices(windows.output)[axis].ravel() * windows.strides[axis] - windows.begin[axis]
            tap = np.indices(kernel)[axis].reshape(-1, 1) * windows.dilations[axis]
            position = start + tap + by_tap[image, :, :, axis]
            pairs.append(
                [_tap(i, weight, size, "zeros", False) for i, weight in _neighbours(position, "linear")]
            )
        split = x[image].reshape(fields, channels // fields, *x.shape[2:])
        read = np.zeros((fields, channels // fields, taps, points), x.dtype)
        field = np.arange(fields).reshape(-1, 1, 1)
        for combination in itertools.product(*pairs):
            weight = np.ones((), x.dtype)
            for _, factor in combination:
                weight = weight * factor
            values = split[(field, slice(None), *(index for index, _ in combination))]
            read += np.moveaxis(values, -1, 1) * weight[:, None]
        if shares is not None:
            read *= shares[image]
        matrix = w.reshape(groups, w.shape[0] // groups, -1)
        y[image] = np.matmul(matrix, read.reshape(groups, -1, points)).reshape(y.shape[1:])
    if bias is not None:
        y += working(bias).reshape(-1, *[1] * rank)
    return (y.astype(call.tensor(0).dtype, copy=False),)


def _inside(position: Array, size: int, padding: str, align_corners: bool) -> Array:
    """Bring positions into the image, for border and reflection padding."""
    if padding == "zeros":
        return position
    if padding == "reflection":
        low, high = (0.0, size - 1.0) if align_corners else (-0.5, size - 0.5)
        span = high - low
        if span == 0:
            return np.zeros_like(position)
        away = np.abs(position - low) % (2 * span)
        position = low + np.minimum(away, 2 * span - away)
    return np.clip(position, 0, size - 1)


def _neighbours(position: Array, mode: str) -> list[tuple[Array, Array]]:
    """(index, weight) of the pixels around each position."""
    if mode == "nearest":
        return [(np.rint(position), np.ones_like(position))]
    floor = np.floor(position)
    if mode == "linear":
        fraction = position - floor
        return [(floor, 1 - fraction), (floor + 1, fraction)]
    return [(floor + k, cubic_weight(floor + k - position, _CUBIC_A)) for k in range(-1, 3)]


def _tap(index: Array, weight: Array, size: int, padding: str, align_corners: bool) -> tuple[Array, Array]:
    """A readable index, and the weight it keeps: none outside the image under zero padding."""
    if padding == "zeros":
        weight = np.where((index >= 0) & (index < size), weight, 0)
    else:
        index = _inside(index, size, padding, align_corners)
    return np.clip(index, 0, size - 1).astype(np.int64), weight


KERNELS: dict[tuple[str, str], Kernel] = {
    ("", "AffineGrid"): affine_grid,
    ("", "DeformConv"): deform_conv,
    ("", "GridSample"): grid_sample,
}
