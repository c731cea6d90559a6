"""Resize and Upsample: every output position is a weighted sum of a few inputs, one axis after the other.

https://onnx.ai/onnx/operators/onnx__Resize.html
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from normfold.evaluation.call import Kernel, NodeCall
from normfold.evaluation.dtypes import Array, working

_COORDINATES = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_half_pixel_for_nn",
    "tf_crop_and_resize",
)


@dataclass(frozen=True)
class _Axis:
    """One axis to resize.

    Attributes:
        size: input size.
        output: output size.
        scale: the scale that coordinates are divided by.
        roi: region of interest, normalised to [0, 1].
    """

    size: int
    output: int
    scale: float
    roi: tuple[float, float] = (0.0, 1.0)


def _coordinates(axis: _Axis, mode: str, dtype: type[np.floating]) -> Array:
    """Input coordinate of every output position."""
    x = np.arange(axis.output, dtype=dtype)
    scale, half = dtype(axis.scale), dtype(0.5)
    last = dtype(axis.size - 1)
    match mode:
        case "asymmetric":
            return np.asarray(x / scale)
        case "tf_half_pixel_for_nn":
            return np.asarray((x + half) / scale)
        case "align_corners":
            return np.zeros_like(x) if axis.output == 1 else np.asarray(x * last / dtype(axis.output - 1))
        case "tf_crop_and_resize":
            start, stop = (dtype(bound) for bound in axis.roi)
            if axis.output == 1:
                return np.full(1, half * (start + stop) * last, dtype)
            return np.asarray(start * last + x * (stop - start) * last / dtype(axis.output - 1))
        case "half_pixel_symmetric":
            adjustment = dtype(axis.output) / (scale * dtype(axis.size))
            offset = dtype(axis.size) / dtype(2) * (dtype(1) - adjustment)
            return np.asarray(offset + (x + half) / scale - half)
        case "pytorch_half_pixel" if axis.output == 1:
            return np.zeros(1, dtype)
    return np.asarray((x + half) / scale - half)


def _nearest(coordinates: Array, mode: str, shrinks: bool) -> Array:
    """Index of the input that a coordinate takes. ``simple`` is what opset 10 and Upsample do."""
    match mode:
        case "floor":
            chosen = np.floor(coordinates)
        case "ceil":
            chosen = np.ceil(coordinates)
        case "round_prefer_ceil":
            chosen = np.floor(coordinates)
            chosen += coordinates - chosen >= 0.5
        case "round_prefer_floor":
            chosen = np.floor(coordinates)
            chosen += coordinates - chosen > 0.5
        case _:
            chosen = np.ceil(coordinates) if shrinks else np.floor(coordinates)
    return chosen.astype(np.int64)


def _chosen(call: NodeCall, axis: _Axis, coordinate_mode: str, nearest_mode: str) -> Array:
    """Input index of every output position in nearest mode.

    Raises:
        NotCovered: where float32 and exact arithmetic choose different pixels, as then runtimes do too.
    """
    ratio = axis.output / axis.size
    exact = replace(axis, scale=ratio) if np.float32(ratio) == np.float32(axis.scale) else axis
    narrow, wide = (
        np.clip(_nearest(_coordinates(a, coordinate_mode, t), nearest_mode, axis.scale < 1), 0, axis.size - 1)
        for a, t in ((axis, np.float32), (exact, np.float64))
    )
    close = False
    if coordinate_mode == "half_pixel_symmetric":
        around = [_coordinates(exact, coordinate_mode, np.float64) + shift for shift in (-1e-5, 1e-5)]
        low, high = (_nearest(c, nearest_mode, axis.scale < 1) for c in around)
        close = not np.array_equal(low, high)
    if close or not np.array_equal(narrow, wide):
        raise call.refuse("a nearest pixel that rounding decides")
    return narrow


def cubic_weight(distance: Array, a: float) -> Array:
    """Keys' cubic convolution kernel."""
    d = np.abs(distance)
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


def _interpolation(
    call: NodeCall, axis: _Axis, mode: str, coordinates: Array, antialias: bool
) -> tuple[Array, Array]:
    """(indices, weights), each [output, taps], for linear and cubic modes."""
    stretch = min(axis.scale, 1.0) if antialias else 1.0
    reach = {"linear": 1, "cubic": 2}[mode] / stretch
    taps = np.arange(-int(np.ceil(reach)), int(np.ceil(reach)) + 1)
    indices = np.floor(coordinates).astype(np.int64)[:, None] + taps
    distance = (indices - coordinates[:, None]) * stretch
    if mode == "linear":
        weights = np.clip(1 - np.abs(distance), 0, 1)
    else:
        weights = cubic_weight(distance, call.number("cubic_coeff_a", -0.75))
    if call.integer("exclude_outside", 0):
        weights = np.where((indices < 0) | (indices >= axis.size), 0, weights)
        weights = weights / weights.sum(axis=1, keepdims=True)
    elif antialias:
        weights = weights / weights.sum(axis=1, keepdims=True)
    return np.clip(indices, 0, axis.size - 1), weights


def resize(call: NodeCall) -> Sequence[Array]:
    """Resize of opset 10 and later.

    Where ``align_corners`` and ``tf_crop_and_resize`` meet a fractional output size, and where rounding
    decides which pixel is nearest, runtimes disagree: not covered.
    """
    x = call.tensor(0)
    if call.version < 11:
        axes = [_scaled(size, scale) for size, scale in zip(x.shape, call.tensor(1), strict=True)]
        return (_apply(call, x, dict(enumerate(axes)), "asymmetric", "simple"),)
    mode = call.text("coordinate_transformation_mode", "half_pixel")
    if mode not in _COORDINATES:
        raise call.refuse(f"coordinate_transformation_mode {mode!r}")
    chosen = [axis % x.ndim for axis in call.integers("axes", range(x.ndim)) or []]
    scales, sizes = (_unless_empty(call.optional(index)) for index in (2, 3))
    if sizes is not None:
        resized = _from_sizes(call, [x.shape[axis] for axis in chosen], [int(size) for size in sizes])
    elif scales is not None:
        resized = [_scaled(x.shape[axis], scale) for axis, scale in zip(chosen, scales, strict=True)]
    else:
        raise call.refuse("neither scales nor sizes")
    if mode == "tf_crop_and_resize":
        roi = call.tensor(1).astype(np.float64)
        resized = [
            _Axis(a.size, a.output, a.scale, (float(roi[i]), float(roi[i + len(chosen)])))
            for i, a in enumerate(resized)
        ]
        if sizes is None and any(a.roi != (0.0, 1.0) for a in resized):
            raise call.refuse("tf_crop_and_resize by scales")
    if mode in ("align_corners", "tf_crop_and_resize", "half_pixel_symmetric") and sizes is None:
        for axis in resized:
            if mode != "half_pixel_symmetric" and not np.isclose(
                axis.scale * axis.size, axis.output, rtol=1e-6
            ):
                raise call.refuse(f"{mode} with a fractional output size")
    nearest_mode = call.text("nearest_mode", "round_prefer_floor")
    return (_apply(call, x, dict(zip(chosen, resized, strict=True)), mode, nearest_mode),)


def upsample(call: NodeCall) -> Sequence[Array]:
    """Upsample, deprecated since opset 10: Resize with asymmetric coordinates and rounding down."""
    x = call.tensor(0)
    if call.version < 7:
        scales = [1.0, 1.0, call.number("height_scale"), call.number("width_scale")]
    elif call.version < 9:
        scales = call.numbers("scales")
    else:
        scales = [float(scale) for scale in call.tensor(1)]
    axes = [_scaled(size, scale) for size, scale in zip(x.shape, scales, strict=True)]
    return (_apply(call, x, dict(enumerate(axes)), "asymmetric", "simple"),)


def _unless_empty(array: Array | None) -> Array | None:
    return array if array is not None and array.size else None


def _scaled(size: int, scale: float) -> _Axis:
    """Output sizes are rounded down in float32: 10 · 0.7f is 7, though 0.7f < 0.7."""
    narrow = np.float32(scale)
    return _Axis(size, int(narrow * np.float32(size)), float(narrow))


def _from_sizes(call: NodeCall, inputs: Sequence[int], sizes: Sequence[int]) -> list[_Axis]:
    policy = call.text("keep_aspect_ratio_policy", "stretch")
    ratios = [size / before for size, before in zip(sizes, inputs, strict=True)]
    if policy == "stretch":
        return [_Axis(b, s, r) for b, s, r in zip(inputs, sizes, ratios, strict=True)]
    if policy not in ("not_larger", "not_smaller"):
        raise call.refuse(f"keep_aspect_ratio_policy {policy!r}")
    ratio = min(ratios) if policy == "not_larger" else max(ratios)
    return [_Axis(before, int(np.floor(ratio * before + 0.5)), ratio) for before in inputs]


def _apply(
    call: NodeCall, x: Array, axes: dict[int, _Axis], coordinate_mode: str, nearest_mode: str
) -> Array:
    mode = call.text("mode", "nearest")
    antialias = bool(call.integer("antialias", 0))
    if mode == "bilinear":
        mode = "linear"
    if mode not in ("nearest", "linear", "cubic"):
        raise call.refuse(f"mode {mode!r}")
    y = x if mode == "nearest" else working(x)
    if not np.issubdtype(y.dtype, np.floating) and mode != "nearest":
        raise call.refuse(f"mode {mode} of {x.dtype}")
    outside = np.zeros((), bool)
    for position, axis in axes.items():
        if axis.scale == 1 and axis.output == axis.size and axis.roi == (0.0, 1.0):
            continue
        if not axis.size or not axis.output:
            raise call.refuse("an empty axis")
        if antialias and axis.output == axis.size:
            raise call.refuse("antialias of an axis that keeps its size")
        tail = (1,) * (x.ndim - position - 1)
        if mode == "nearest":
            y = np.take(y, _chosen(call, axis, coordinate_mode, nearest_mode), axis=position)
        else:
            coordinates = _coordinates(axis, coordinate_mode, np.float64)
            taken, weights = _interpolation(call, axis, mode, coordinates, antialias)
            total = np.zeros((*y.shape[:position], axis.output, *y.shape[position + 1 :]), y.dtype)
            for tap in np.flatnonzero(weights.any(axis=0)):
                weight = weights[:, tap].astype(y.dtype).reshape(-1, *tail)
                total += np.take(y, taken[:, tap], axis=position) * weight
            y = total
        if coordinate_mode == "tf_crop_and_resize":
            if axis.output == axis.size:
                raise call.refuse("tf_crop_and_resize of an axis that keeps its size")
            coordinates = _coordinates(axis, coordinate_mode, np.float32)
            beyond = (coordinates < 0) | (coordinates > axis.size - 1)
            outside = outside | beyond.reshape(-1, *tail)
    if outside.any():
        y = np.where(outside, call.number("extrapolation_value", 0.0), y)
    return y.astype(x.dtype, copy=False)


KERNELS: dict[tuple[str, str], Kernel] = {("", "Resize"): resize, ("", "Upsample"): upsample}
