"""Operators that move elements and compute nothing."""

from __future__ import annotations

import math

import numpy as np
from onnx import TensorProto

from tests.fuzz.draft import Draft, Shape, Value, require


def transpose(d: Draft, x: Value) -> Value:
    require(x.rank >= 2)
    order = d.choose(*_orders(x.rank))
    explicit = order != tuple(reversed(range(x.rank))) or d.chance(2)
    return d.emit("Transpose", [x], tuple(x.shape[i] for i in order), perm=list(order) if explicit else None)


def _orders(rank: int) -> list[tuple[int, ...]]:
    axes = tuple(range(rank))
    last_first = (0, *axes[2:], 1)
    found = {last_first, (0, rank - 1, *axes[1:-1]), axes[::-1], (1, 0, *axes[2:]), axes}
    return sorted(found, reverse=True)


def reshape(d: Draft, x: Value) -> Value:
    """Merges, splits or moves a border between axes; the target is a constant, or computed from shapes."""
    require(x.rank >= 1)
    shape = d.choose(*_reshapes(x.shape))
    target = list(shape)
    for axis, size in enumerate(shape):
        if axis < x.rank and size == x.shape[axis] and d.chance(3):
            target[axis] = 0
    if d.chance(3):
        target[d.integer(0, len(target) - 1)] = -1
    if d.chance(6) and x.shape[0] == shape[0]:
        return d.emit("Reshape", [x, _computed(d, x, shape)], shape)
    allowzero = 0 if d.opset >= 14 and d.chance(6) else None
    return d.emit("Reshape", [x, d.integers(*target)], shape, allowzero=allowzero)


def _reshapes(shape: Shape) -> list[Shape]:
    found: list[Shape] = []
    for axis in range(len(shape) - 1):
        merged = shape[axis] * shape[axis + 1]
        found.append((*shape[:axis], merged, *shape[axis + 2 :]))
        for part in (2, 3):
            if shape[axis] % part == 0 and shape[axis] > part:
                moved = (shape[axis] // part, part * shape[axis + 1])
                found.append((*shape[:axis], *moved, *shape[axis + 2 :]))
    for axis, size in enumerate(shape):
        if size % 2 == 0 and len(shape) < 5:
            found.append((*shape[:axis], 2, size // 2, *shape[axis + 1 :]))
            found.append((*shape[:axis], size // 2, 2, *shape[axis + 1 :]))
    found.append((math.prod(shape),))
    if len(shape) > 2:
        found.append((shape[0], math.prod(shape[1:])))
        found.append((shape[0], shape[1], math.prod(shape[2:])))
        found.append((math.prod(shape[:-1]), shape[-1]))
    return found


def _computed(d: Draft, x: Value, shape: Shape) -> Value:
    """The target as exporters compute it: ``Concat(Gather(Shape(x), 0), …)``."""
    whole = d.emit("Shape", [x], (x.rank,), dtype=TensorProto.INT64)
    first = d.emit("Gather", [whole, d.integers(0)], (1,), axis=0)
    return d.emit("Concat", [first, d.integers(*shape[1:])], (len(shape),), axis=0) if shape[1:] else first


def flatten(d: Draft, x: Value) -> Value:
    axis = d.choose(*range(1 - x.rank if d.opset >= 11 else 0, x.rank + 1), 1)
    require(axis <= x.rank)
    place = axis + x.rank if axis < 0 else axis
    return d.emit("Flatten", [x], (math.prod(x.shape[:place]), math.prod(x.shape[place:])), axis=axis)


def squeeze(d: Draft, x: Value) -> Value:
    ones = [axis for axis, size in enumerate(x.shape) if size == 1]
    require(bool(ones))
    axes = d.choose(ones, ones[:1])
    shape = tuple(size for axis, size in enumerate(x.shape) if axis not in axes)
    shown = [axis - x.rank if d.opset >= 11 and d.chance(3) else axis for axis in axes]
    if d.opset < 13:
        return d.emit("Squeeze", [x], shape, axes=shown)
    operands = [x] if axes == ones and d.chance(4) else [x, d.integers(*shown)]
    return d.emit("Squeeze", operands, shape)


def unsqueeze(d: Draft, x: Value) -> Value:
    require(x.rank < 5)
    axis = d.integer(0, x.rank)
    shape = (*x.shape[:axis], 1, *x.shape[axis:])
    shown = axis - len(shape) if d.opset >= 11 and d.chance(3) else axis
    if d.opset < 13:
        return d.emit("Unsqueeze", [x], shape, axes=[shown])
    return d.emit("Unsqueeze", [x, d.integers(shown)], shape)


def concat(d: Draft, x: Value) -> Value:
    require(x.rank >= 1)
    axis = d.choose(1 if x.rank > 1 else 0, *range(x.rank))
    others = [
        v
        for v in d.values
        if v.rank == x.rank
        and v.dtype == x.dtype
        and all(a == b for i, (a, b) in enumerate(zip(v.shape, x.shape, strict=True)) if i != axis)
    ]
    parts = [x, d.choose(*others)]
    if d.chance(4):
        parts.append(d.floats((*x.shape[:axis], d.choose(1, 2), *x.shape[axis + 1 :])))
    if d.chance(2):
        parts.reverse()
    size = sum(part.shape[axis] for part in parts)
    shown = axis - x.rank if d.opset >= 11 and d.chance(3) else axis
    return d.emit("Concat", parts, _with(x.shape, axis, size), axis=shown)


def split(d: Draft, x: Value) -> Value:
    require(x.rank >= 1)
    axis = d.choose(*(a for a in (1, *range(x.rank)) if a < x.rank and x.shape[a] > 1))
    size = x.shape[axis]
    first = d.integer(1, size - 1)
    parts = [first, size - first]
    shapes = [_with(x.shape, axis, part) for part in parts]
    operands: list[Value | str] = [x]
    attributes: dict[str, object] = {"axis": axis}
    if d.opset < 13:
        attributes["split"] = parts
    elif d.opset >= 18 and d.chance(2):
        attributes["num_outputs"] = 2
        half = -(-size // 2)
        shapes = [_with(x.shape, axis, part) for part in (half, size - half)]
    else:
        operands.append(d.integers(*parts))
    made = d.emit_all("Split", operands, shapes, **attributes)
    return d.choose(*made)


def slice_(d: Draft, x: Value) -> Value:
    require(x.rank >= 1)
    axis = d.choose(*range(x.rank))
    size = x.shape[axis]
    start, step = d.integer(0, size - 1), d.choose(1, 1, 2, -1) if d.opset >= 10 else 1
    end = d.integer(start + 1, size) if step > 0 else None
    length = len(range(size)[start:end:step]) if step > 0 else start + 1
    shown_end = d.choose(end, 2**31 - 1 if end == size else end) if end is not None else -(2**31)
    bounds = [d.choose(start, start - size), shown_end]
    shape = _with(x.shape, axis, length)
    if d.opset < 10:
        return d.emit("Slice", [x], shape, starts=[bounds[0]], ends=[bounds[1]], axes=[axis])
    operands = [x, *(d.integers(bound) for bound in bounds), d.integers(axis)]
    if step != 1 or d.chance(3):
        operands.append(d.integers(step))
    return d.emit("Slice", operands, shape)


def gather(d: Draft, x: Value) -> Value:
    require(x.rank >= 1)
    axis = d.choose(*range(x.rank))
    size = x.shape[axis]
    low = -size if d.opset >= 11 else 0
    indices = [d.integer(low, size - 1) for _ in range(d.integer(1, 3))]
    if d.chance(5):
        scalar = d.constant(np.array(indices[0], np.int64), TensorProto.INT64)
        return d.emit("Gather", [x, scalar], (*x.shape[:axis], *x.shape[axis + 1 :]), axis=axis)
    return d.emit("Gather", [x, d.integers(*indices)], _with(x.shape, axis, len(indices)), axis=axis)


def tile(d: Draft, x: Value) -> Value:
    require(x.rank >= 1)
    repeats = [d.choose(1, 1, 2) for _ in x.shape]
    shape = tuple(n * r for n, r in zip(x.shape, repeats, strict=True))
    return d.emit("Tile", [x, d.integers(*repeats)], shape)


def expand(d: Draft, x: Value) -> Value:
    require(d.opset >= 8)
    shape = tuple(d.choose(2, 3, 1) if size == 1 else size for size in x.shape)
    if x.rank < 4 and d.chance(3):
        shape = (d.choose(1, 2), *shape)
    require(bool(shape))
    lead = len(shape) - x.rank
    # A 1 in the target leaves the axis as it is.
    shown = [
        d.choose(size, size, 1) if axis >= lead and x.shape[axis - lead] == size else size
        for axis, size in enumerate(shape)
    ]
    return d.emit("Expand", [x, d.integers(*shown)], shape)


def pad(d: Draft, x: Value) -> Value:
    require(x.rank >= 1)
    mode = d.choose("constant", "constant", "edge", "reflect", *(["wrap"] if d.opset >= 19 else []))
    axis = d.integer(0, x.rank - 1)
    before, after = d.choose((1, 1), (0, 1), (2, 0), (1, 0), *([(-1, 1)] if mode == "constant" else []))
    size = x.shape[axis]
    require(size > max(before, after, 1) + 1)
    shape = _with(x.shape, axis, size + before + after)
    if d.opset < 11:
        pads = [0] * 2 * x.rank
        pads[axis], pads[axis + x.rank] = before, after
        value = d.choose(0.0, 0.0, 1.5) if mode == "constant" else None
        return d.emit("Pad", [x], shape, mode=mode, pads=pads, value=value)
    pads = [0] * 2 * x.rank
    pads[axis], pads[axis + x.rank] = before, after
    operands: list[Value | str] = [x]
    listed = d.opset >= 18 and d.chance(3)
    operands.append(d.integers(before, after) if listed else d.integers(*pads))
    if mode == "constant" and (d.chance(2) or listed):
        operands.append(d.constant(np.array(d.choose(0.0, 1.5, -1.0)), x.dtype))
    if listed:
        operands += [""] * (3 - len(operands)) + [d.integers(d.choose(axis, axis - x.rank))]
    return d.emit("Pad", operands, shape, mode=mode)


def depth_to_space(d: Draft, x: Value) -> Value:
    require(x.rank == 4 and x.shape[1] % 4 == 0)
    n, c, h, w = x.shape
    mode = d.choose("DCR", "CRD") if d.opset >= 11 else None
    return d.emit("DepthToSpace", [x], (n, c // 4, 2 * h, 2 * w), blocksize=2, mode=mode)


def space_to_depth(d: Draft, x: Value) -> Value:
    require(x.rank == 4 and x.shape[2] % 2 == 0 and x.shape[3] % 2 == 0)
    n, c, h, w = x.shape
    return d.emit("SpaceToDepth", [x], (n, 4 * c, h // 2, w // 2), blocksize=2)


def resize(d: Draft, x: Value) -> Value:
    require(x.rank == 4 and d.opset >= 7)
    n, c, h, w = x.shape
    factors = d.choose((2, 2), (1, 2), (2, 1))
    shape = (n, c, h * factors[0], w * factors[1])
    scales = [1.0, 1.0, float(factors[0]), float(factors[1])]
    mode = d.choose("nearest", "linear")
    if d.opset < 9:
        return d.emit("Upsample", [x], shape, mode=mode, scales=scales)
    stored = d.constant(np.array(scales, np.float32), TensorProto.FLOAT)
    if d.opset < 11:
        return d.emit("Upsample" if d.opset == 9 else "Resize", [x, stored], shape, mode=mode)
    if d.chance(3):
        return d.emit("Resize", [x, "", "", d.integers(*shape)], shape, mode=mode)
    rule = d.choose("half_pixel", "asymmetric", "align_corners" if mode == "linear" else "asymmetric")
    return d.emit("Resize", [x, "", stored], shape, mode=mode, coordinate_transformation_mode=rule)


def identity(d: Draft, x: Value) -> Value:
    return d.emit("Identity", [x], x.shape)


def dropout(d: Draft, x: Value) -> Value:
    if d.opset < 12:
        return d.emit("Dropout", [x], x.shape, ratio=0.3)
    operands: list[Value | str] = [x]
    if d.chance(2):
        operands.append(d.constant(np.array(0.3, np.float32), TensorProto.FLOAT))
        if d.chance(2):
            operands.append(d.constant(np.array(False), TensorProto.BOOL))
    return d.emit("Dropout", operands, x.shape)


def cast(d: Draft, x: Value) -> Value:
    """To another floating type and back, with or without something between."""
    require(x.dtype != TensorProto.BFLOAT16)
    other = d.choose(TensorProto.DOUBLE, TensorProto.FLOAT)
    require(other != x.dtype)
    there = d.emit("Cast", [x], x.shape, dtype=other, to=other)
    if d.chance(2):
        there = d.emit("Relu", [there], x.shape)
    if d.opset >= 15 and d.chance(3):
        return d.emit("CastLike", [there, x], x.shape, dtype=x.dtype)
    return d.emit("Cast", [there], x.shape, dtype=x.dtype, to=x.dtype)


def _with(shape: Shape, axis: int, size: int) -> Shape:
    return (*shape[:axis], size, *shape[axis + 1 :])


STEPS = (
    transpose,
    reshape,
    flatten,
    squeeze,
    unsqueeze,
    concat,
    split,
    slice_,
    gather,
    tile,
    expand,
    pad,
    depth_to_space,
    space_to_depth,
    resize,
    identity,
    dropout,
    cast,
    reshape,
    transpose,
)
