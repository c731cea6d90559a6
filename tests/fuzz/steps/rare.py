"""Operators that few affines get past: a layer, one of them, and an affine that does; or the reverse."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import TensorProto

from tests.fuzz.draft import Draft, Value, require
from tests.fuzz.steps import affines, layout, linear, pointwise, reducing

_Step = Callable[[Draft, Value], Value]


def positive_scale(d: Draft, x: Value) -> Value:
    shape = (x.shape[1], *(1 for _ in x.shape[2:])) if x.rank >= 2 else x.shape
    return d.emit(d.choose("Mul", "Div"), [x, d.floats(shape, content="positive")], x.shape)


def _shift(d: Draft, x: Value) -> Value:
    require(x.rank >= 2)
    return d.emit("Add", [x, d.floats((x.shape[1], *(1 for _ in x.shape[2:])))], x.shape)


def _layer(d: Draft, x: Value) -> Value:
    return d.choose(linear.conv, linear.conv_transpose)(d, x) if x.rank in (3, 4, 5) else linear.matmul(d, x)


def _abs(d: Draft, x: Value) -> Value:
    return d.emit("Abs", [x], x.shape)


def _leaky(d: Draft, x: Value) -> Value:
    return d.emit("LeakyRelu", [x], x.shape, alpha=d.choose(0.01, 0.5, None))


def _global_max(d: Draft, x: Value) -> Value:
    require(x.rank >= 3)
    return d.emit("GlobalMaxPool", [x], (*x.shape[:2], *(1 for _ in x.shape[2:])))


def _cast_like(d: Draft, x: Value) -> Value:
    """There and back, the type taken from another value or from a constant."""
    other = TensorProto.FLOAT if x.dtype == TensorProto.DOUBLE else TensorProto.DOUBLE
    require(d.opset >= 15 and x.dtype in (TensorProto.FLOAT, TensorProto.DOUBLE))
    there = d.emit("CastLike", [x, d.constant(np.array(1.0), other)], x.shape, dtype=other)
    like = (
        d.choose(*[v for v in d.values if v.dtype == x.dtype]) if d.chance(2) else d.floats((), dtype=x.dtype)
    )
    return d.emit("CastLike", [there, like], x.shape, dtype=x.dtype)


def _masked_dropout(d: Draft, x: Value) -> Value:
    """With a mask that is read, or in training mode with nothing to drop."""
    require(d.opset >= 10)
    if d.opset >= 12 and d.chance(3):
        ratio = d.constant(np.array(0.0, np.float32), TensorProto.FLOAT)
        return d.emit("Dropout", [x, ratio, d.constant(np.array(True), TensorProto.BOOL)], x.shape)
    kept, mask = d.emit_all("Dropout", [x], [x.shape, x.shape], dtypes=[x.dtype, TensorProto.BOOL])
    d.emit("Not", [mask], mask.shape)
    return kept


def _quotient(d: Draft, x: Value) -> Value:
    """Divided by one more than a sigmoid of another value."""
    others = [v for v in d.values if v.dtype == x.dtype and v.shape == x.shape and v is not x]
    positive = d.emit("Sigmoid", [d.choose(*others)], x.shape)
    return d.emit("Div", [x, d.emit("Add", [positive, d.constant(np.array(1.0), x.dtype)], x.shape)], x.shape)


def _size(d: Draft, x: Value) -> Value:
    """Read for its number of elements too."""
    d.emit("Size", [x], (), dtype=TensorProto.INT64)
    return x


_EITHER: tuple[_Step, ...] = (
    _abs,
    _leaky,
    _global_max,
    _cast_like,
    _masked_dropout,
    _quotient,
    layout.resize,
    pointwise.prelu,
    pointwise.bound,
)


def behind(d: Draft, x: Value) -> Value:
    return positive_scale(d, d.choose(*_EITHER)(d, _layer(d, x)))


def in_front(d: Draft, x: Value) -> Value:
    return _layer(d, d.choose(_size, *_EITHER)(d, positive_scale(d, x)))


def in_front_of_upsample(d: Draft, x: Value) -> Value:
    """The operator that was before Resize."""
    require(d.opset < 10)
    return _layer(d, layout.resize(d, positive_scale(d, x)))


def in_front_of_blocks(d: Draft, x: Value) -> Value:
    """One number is the same in each block of channels."""
    require(x.rank == 4 and x.shape[1] % 4 == 0)
    scale = d.floats((), content="positive")
    return _layer(d, layout.depth_to_space(d, d.emit("Mul", [x, scale], x.shape)))


def in_front_of_statistics(d: Draft, x: Value) -> Value:
    """A shift that a normalisation takes out again."""
    return reducing.mean_variance_norm(d, _shift(d, x))


def in_front_of_a_recurrence(d: Draft, x: Value) -> Value:
    require(x.rank == 3)
    content = d.choose("mixed", "positive")
    scaled = d.emit("Mul", [x, d.floats(x.shape[-1:], content=content)], x.shape)
    return linear.recurrent(d, d.emit("Add", [scaled, d.floats(x.shape[-1:])], x.shape))


def norm_behind_norm(d: Draft, x: Value) -> Value:
    """Two normalisations with parameters of their own, and a layer."""
    first = d.choose(reducing.layer_norm, reducing.instance_norm, reducing.group_norm)(d, x)
    middle = d.choose(affines.arithmetic, pointwise.relu, affines.negation)(d, first)
    second = d.choose(reducing.layer_norm, reducing.instance_norm, reducing.group_norm)(d, middle)
    return linear.matmul(d, second)


STEPS = (
    behind,
    in_front,
    behind,
    in_front,
    in_front_of_upsample,
    in_front_of_blocks,
    in_front_of_statistics,
    in_front_of_a_recurrence,
    norm_behind_norm,
)
