"""Normalisations and activations spelled out in arithmetic, as exporters and authors leave them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tests.fuzz.draft import Draft, Shape, Value, require
from tests.fuzz.steps.affines import reduce


def group_norm(d: Draft, x: Value) -> Value:
    """Rows of a Reshape [N, G, …] are standardised, and the channels of the result get a scale and shift."""
    require(x.rank in (2, 3, 4, 5))
    n, channels, *sizes = x.shape
    groups = d.choose(*(g for g in (2, 1, channels) if channels % g == 0))
    rest = channels // groups * math.prod(sizes)
    require(rest > 1)
    if d.chance(3) and sizes:
        rows: Shape = (n, groups, channels // groups, *sizes)
        target = d.integers(0, groups, channels // groups, *sizes)
        axes = d.choose(list(range(2, len(rows))), [i - len(rows) for i in range(2, len(rows))])
    else:
        rows, target, axes = (n, groups, rest), d.integers(0, groups, -1), d.choose([2], [-1])
    normal = standardised(d, d.emit("Reshape", [x, target], rows), axes)
    outer = d.emit("Reshape", [normal, d.integers(n, channels, *sizes)], x.shape)
    return _scaled(d, outer, (channels, *(1 for _ in sizes)))


def channel_layer_norm(d: Draft, x: Value) -> Value:
    """Over axis 1 of an image."""
    require(x.rank >= 3 and x.shape[1] > 1)
    shape = (x.shape[1], *(1 for _ in x.shape[2:]))
    return _scaled(d, standardised(d, x, [1]), shape)


def layer_norm(d: Draft, x: Value) -> Value:
    """Over the last axis, or the last two: what runtimes fuse."""
    require(x.rank >= 2)
    count = d.choose(1, 1, 2)
    require(count < x.rank and math.prod(x.shape[-count:]) > 1)
    shape = x.shape[-count:]
    return _scaled(d, standardised(d, x, [-1 - i for i in reversed(range(count))]), shape)


def instance_norm(d: Draft, x: Value) -> Value:
    require(x.rank >= 3 and math.prod(x.shape[2:]) > 1)
    normal = standardised(d, x, list(range(2, x.rank)))
    return _scaled(d, normal, (x.shape[1], *(1 for _ in x.shape[2:])))


def rms_norm(d: Draft, x: Value) -> Value:
    require(x.rank >= 2 and x.shape[-1] > 1)
    shape = (*x.shape[:-1], 1)
    mean = reduce(d, "ReduceMean", _squared(d, x), [-1], shape)
    return _scaled(d, _divided(d, x, mean, shape), x.shape[-1:], shift=False)


def standardised(d: Draft, x: Value, axes: Sequence[int]) -> Value:
    """``(x − mean) / √(variance + epsilon)``, the variance in one or two passes, biased or not."""
    shape = tuple(1 if i in axes or i - x.rank in axes else n for i, n in enumerate(x.shape))
    count = math.prod(x.shape) // math.prod(shape)
    require(count > 1 and d.opset >= 11)
    mean = reduce(d, "ReduceMean", x, axes, shape)
    centred = d.emit("Sub", [x, mean], x.shape)
    if d.chance(4):
        squares = reduce(d, "ReduceMean", _squared(d, x), axes, shape)
        variance = d.emit("Sub", [squares, _squared(d, mean)], shape)
    else:
        variance = reduce(d, "ReduceMean", _squared(d, centred), axes, shape)
        if d.chance(4):
            many = d.emit("Mul", [variance, d.constant(np.array(float(count)), x.dtype)], shape)
            variance = d.emit("Div", [many, d.constant(np.array(float(count - 1)), x.dtype)], shape)
    return _divided(d, centred, variance, shape)


def _squared(d: Draft, x: Value) -> Value:
    if d.chance(3):
        return d.emit("Pow", [x, d.constant(np.array(2.0), x.dtype)], x.shape)
    return d.emit("Mul", [x, x], x.shape)


def _divided(d: Draft, x: Value, variance: Value, shape: Shape) -> Value:
    epsilon = d.constant(np.array(d.choose(1e-3, 1e-2)), x.dtype)
    deviation = d.emit("Sqrt", [d.emit("Add", [variance, epsilon], shape)], shape)
    if d.chance(3):
        return d.emit("Mul", [x, d.emit("Reciprocal", [deviation], shape)], x.shape)
    return d.emit("Div", [x, deviation], x.shape)


def _scaled(d: Draft, x: Value, shape: Shape, *, shift: bool = True) -> Value:
    parts = d.choose(("Mul", "Add"), ("Mul", "Add"), ("Mul",), ())
    for op_type in parts if shift else parts[:1]:
        pair = [x, d.floats(shape, dtype=x.dtype)]
        if d.chance(3):
            pair.reverse()
        x = d.emit(op_type, pair, x.shape, dtype=x.dtype)
    return x


def gelu(d: Draft, x: Value) -> Value:
    """``x/2 · (1 + erf(x/√2))``, or its approximation with tanh."""
    require(d.opset >= 9)
    one, half = (d.constant(np.array(number), x.dtype) for number in (1.0, 0.5))
    if d.chance(3):
        cubed = d.emit("Mul", [d.emit("Mul", [x, x], x.shape), x], x.shape)
        little = d.emit("Mul", [cubed, d.constant(np.array(0.044715), x.dtype)], x.shape)
        inner = d.emit("Add", [x, little], x.shape)
        inner = d.emit("Mul", [inner, d.constant(np.array(math.sqrt(2 / math.pi)), x.dtype)], x.shape)
        curve = d.emit("Tanh", [inner], x.shape)
    else:
        inner = d.emit("Div", [x, d.constant(np.array(math.sqrt(2.0)), x.dtype)], x.shape)
        curve = d.emit("Erf", [inner], x.shape)
    moved = d.emit("Add", [curve, one], x.shape)
    if d.chance(2):
        return d.emit("Mul", [d.emit("Mul", [x, moved], x.shape), half], x.shape)
    return d.emit("Mul", [d.emit("Mul", [x, half], x.shape), moved], x.shape)


STEPS = (group_norm, layer_norm, channel_layer_norm, instance_norm, rms_norm, gelu)
