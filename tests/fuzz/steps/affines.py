"""Constant affines in every spelling."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from onnx import TensorProto, helper

from tests.fuzz.draft import Draft, Shape, Value, require


def batchnorm(d: Draft, x: Value) -> Value:
    """In the form of the opset: ``spatial`` before 9, ``training_mode`` from 14 on, mean and variance of a
    type of their own from 14 and 15 on."""
    require(x.rank >= 2)
    channels: Shape = (x.shape[1],)
    attributes: dict[str, object] = {"epsilon": d.choose(1e-5, 1e-3, 0.1)}
    if d.opset < 9 and d.chance(4):
        attributes["spatial"] = d.choose(1, 0)
        if attributes["spatial"] == 0:
            # onnxruntime has no kernel for it; onnx's shape inference does not mind.
            channels = x.shape[1:]
    other = TensorProto.FLOAT if d.opset >= 15 and x.dtype == TensorProto.FLOAT16 and d.chance(2) else None
    scale, bias = d.floats(channels), d.floats(channels)
    mean = d.floats(channels, dtype=other)
    variance = d.floats(channels, dtype=other, content=d.choose("positive", "positive", "ones"))
    if d.opset >= 14 and d.chance(20):
        attributes["training_mode"] = 0
    return d.emit("BatchNormalization", [x, scale, bias, mean, variance], x.shape, **attributes)


def arithmetic(d: Draft, x: Value) -> Value:
    """One Mul, Add, Sub or Div with a constant on either side, per channel or otherwise."""
    op_type = d.choose("Mul", "Add", "Sub", "Div", "Sum")
    require(op_type != "Sum" or d.opset >= 8)
    content = d.choose("mixed", "positive") if op_type == "Div" else None
    pair = [x, d.floats(_constant_shape(d, x.shape), content=content)]
    if op_type != "Div" and d.chance(3):
        pair.reverse()
    return d.emit(op_type, pair, x.shape, dtype=x.dtype)


def _constant_shape(d: Draft, shape: Shape) -> Shape:
    """A shape that broadcasts to ``shape``: mostly that of something per channel."""
    rank = len(shape)
    options: list[Shape] = [()]
    if rank >= 2:
        channel = (shape[1], *(1 for _ in shape[2:]))
        options = [channel, (1, *channel), channel, *options]
    if rank >= 1:
        options += [(1,), (shape[-1],), tuple(shape), (1,) * rank]
    if rank >= 3:
        options += [(shape[-2], 1), shape[1:], shape[2:]]
    return d.choose(*options)


def negation(d: Draft, x: Value) -> Value:
    return d.emit("Neg", [x], x.shape)


def _per_channel(d: Draft, x: Value, content: str | None = None) -> Value:
    require(x.rank >= 2)
    shape = (x.shape[1], *(1 for _ in x.shape[2:]))
    return d.floats(d.choose(shape, (1, *shape)), content=content)


def spelled_batchnorm(d: Draft, x: Value) -> Value:
    """Written by hand, as exporters that decompose leave it."""
    spelling = d.choose("dynamo", "sqrt", "tensorflow", "reciprocal")
    if spelling == "dynamo":
        centred = d.emit("Sub", [x, _per_channel(d, x)], x.shape)
        scaled = d.emit("Div", [centred, _per_channel(d, x, "positive")], x.shape)
        product = d.emit("Mul", [scaled, _per_channel(d, x)], x.shape)
        return d.emit("Add", [product, _per_channel(d, x)], x.shape)
    if spelling == "tensorflow":
        product = d.emit("Mul", [x, _per_channel(d, x)], x.shape)
        return d.emit("Add", [product, _per_channel(d, x)], x.shape)
    require(x.rank >= 2)
    shape = (x.shape[1], *(1 for _ in x.shape[2:]))
    epsilon = d.constant(np.array(1e-3), d.dtype)
    moved = d.emit("Add", [d.floats(shape, content="positive"), epsilon], shape)
    deviation = d.emit("Sqrt", [moved], shape)
    centred = d.emit("Sub", [x, d.floats(shape)], x.shape)
    if spelling == "sqrt":
        scaled = d.emit("Div", [centred, deviation], x.shape)
    else:
        scaled = d.emit("Mul", [centred, d.emit("Reciprocal", [deviation], shape)], x.shape)
    return d.emit("Add", [d.emit("Mul", [scaled, d.floats(shape)], x.shape), d.floats(shape)], x.shape)


def layer_scale(d: Draft, x: Value) -> Value:
    """A residual whose branch is scaled per channel."""
    return d.emit("Add", [x, d.emit("Mul", [x, _per_channel(d, x)], x.shape)], x.shape)


def shared_affine(d: Draft, x: Value) -> Value:
    """The same constants at two places."""
    constant = _per_channel(d, x)
    first = d.emit(d.choose("Mul", "Add"), [x, constant], x.shape)
    middle = d.emit("Relu", [first], x.shape)
    return d.emit(d.choose("Mul", "Sub"), [middle, constant], x.shape)


def function_affine(d: Draft, x: Value) -> Value:
    """A local function that normalises with constants of its own."""
    require(d.parent is None and not d.initializers_are_inputs and x.dtype != TensorProto.BFLOAT16)
    require(d.opset >= 10)
    name = f"Normalise{len(d.functions)}"
    dtype = helper.tensor_dtype_to_np_dtype(x.dtype)
    nodes = [
        helper.make_node(
            "Constant", [], [constant], value=onnx_tensor(d.rng.uniform(0.5, 1.5, ()).astype(dtype), constant)
        )
        for constant in ("factor", "offset")
    ]
    nodes.append(helper.make_node("Mul", ["X", "factor"], ["scaled"]))
    nodes.append(helper.make_node("Add", ["scaled", "offset"], ["Y"]))
    opsets = [helper.make_opsetid("", d.opset)]
    d.functions.append(helper.make_function("local", name, ["X"], ["Y"], nodes, opsets))
    return d.emit(name, [x], x.shape, domain="local")


def onnx_tensor(array: np.ndarray, name: str) -> object:
    return helper.make_tensor(
        name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape, array.tobytes(), raw=True
    )


def groupnorm(d: Draft, x: Value) -> Value:
    """A GroupNorm as Reshape, InstanceNormalization, Reshape, Mul, Add, or spelled in ReduceMeans."""
    require(x.rank in (3, 4) and x.dtype != TensorProto.BFLOAT16 and x.shape[0] > 0)
    n, channels, *sizes = x.shape
    groups = d.choose(*(g for g in (1, 2, channels) if channels % g == 0))
    rest = channels // groups * math.prod(sizes)
    require(rest > 1)
    inner = d.emit("Reshape", [x, d.integers(0, groups, -1)], (n, groups, rest))
    if d.chance(2):
        one = d.constant(np.ones(groups), d.dtype)
        zero = d.constant(np.zeros(groups), d.dtype)
        normal = d.emit("InstanceNormalization", [inner, one, zero], inner.shape, epsilon=1e-5)
    else:
        normal = _standardised(d, inner, (-1,))
    outer = d.emit("Reshape", [normal, d.integers(n, channels, *sizes)], x.shape)
    product = d.emit("Mul", [outer, _per_channel(d, x)], x.shape)
    return d.emit("Add", [product, _per_channel(d, x)], x.shape)


def _standardised(d: Draft, x: Value, axes: Sequence[int]) -> Value:
    shape = tuple(1 if i - x.rank in axes or i in axes else n for i, n in enumerate(x.shape))
    mean = reduce(d, "ReduceMean", x, axes, shape)
    centred = d.emit("Sub", [x, mean], x.shape)
    squared = d.emit("Mul", [centred, centred], x.shape)
    variance = reduce(d, "ReduceMean", squared, axes, shape)
    moved = d.emit("Add", [variance, d.constant(np.array(1e-3), d.dtype)], shape)
    return d.emit("Div", [centred, d.emit("Sqrt", [moved], shape)], x.shape)


def reduce(
    d: Draft, op_type: str, x: Value, axes: Sequence[int], shape: Shape, keepdims: int | None = 1
) -> Value:
    """A reduction, with its axes where the opset has them."""
    since = 13 if op_type == "ReduceSum" else 18
    if d.opset < since:
        return d.emit(op_type, [x], shape, axes=list(axes), keepdims=keepdims)
    return d.emit(op_type, [x, d.integers(*axes)], shape, keepdims=keepdims)


STEPS = (
    batchnorm,
    arithmetic,
    batchnorm,
    arithmetic,
    spelled_batchnorm,
    negation,
    layer_scale,
    shared_affine,
    function_affine,
    groupnorm,
)
