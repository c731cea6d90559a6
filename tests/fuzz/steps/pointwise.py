"""Elementwise operators: activations, bounds, and combinations of values."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from tests.fuzz.draft import Draft, Shape, Value, require


def activation(d: Draft, x: Value) -> Value:
    op_type = d.choose("Relu", "LeakyRelu", "Abs", "HardSigmoid", "Sigmoid", "Tanh", "HardSwish", "Elu")
    attributes: dict[str, object] = {}
    if op_type == "LeakyRelu":
        attributes["alpha"] = d.choose(0.01, 0.5, -0.3, 0.0)
    if op_type == "HardSigmoid":
        attributes["alpha"], attributes["beta"] = d.choose((0.2, 0.5), (1 / 6, 0.5))
    return d.emit(op_type, [x], x.shape, **attributes)


def relu(d: Draft, x: Value) -> Value:
    return d.emit("Relu", [x], x.shape)


def prelu(d: Draft, x: Value) -> Value:
    require(x.rank >= 2)
    slope: Shape = d.choose((x.shape[1], *(1 for _ in x.shape[2:])), (1,))
    return d.emit("PRelu", [x, d.floats(slope)], x.shape)


def clip(d: Draft, x: Value) -> Value:
    low, high = d.choose((-1.0, 2.0), (0.0, 6.0), (None, 1.0), (0.5, None), (None, None))
    if d.opset < 11:
        return d.emit("Clip", [x], x.shape, min=low, max=high)
    bounds: list[Value | str] = [
        "" if bound is None else d.constant(np.array(bound), x.dtype) for bound in (low, high)
    ]
    while bounds and bounds[-1] == "":
        bounds.pop()
    return d.emit("Clip", [x, *bounds], x.shape)


def bound(d: Draft, x: Value) -> Value:
    require(d.opset >= 8)
    shapes: list[Shape] = [(), (1,)]
    if x.rank >= 2:
        shapes.append((x.shape[1], *(1 for _ in x.shape[2:])))
    operands = [x, d.floats(d.choose(*shapes))]
    if d.chance(3):
        operands.reverse()
    return d.emit(d.choose("Max", "Min"), operands, x.shape, dtype=x.dtype)


def combination(d: Draft, x: Value) -> Value:
    """With another value of the same shape, or one that is broadcast to it."""
    others = [v for v in d.values if v.dtype == x.dtype and _broadcasts(v.shape, x.shape)]
    pair = [x, d.choose(*others[-6:])]
    if d.chance(2):
        pair.reverse()
    op_type = d.choose("Add", "Mul", "Sub", "Max", "Sum", "Min")
    require(d.opset >= 8 or pair[0].shape == pair[1].shape or op_type in ("Add", "Mul", "Sub"))
    if op_type in ("Sum", "Max", "Min") and d.chance(3):
        pair.append(x)
    return d.emit(op_type, pair, x.shape, dtype=x.dtype)


def _broadcasts(shape: Shape, target: Shape) -> bool:
    return len(shape) <= len(target) and all(
        size in (1, other) for size, other in zip(shape[::-1], target[::-1], strict=False)
    )


def gate(d: Draft, x: Value) -> Value:
    """``x · σ(x)``, with Sigmoid or HardSigmoid."""
    gated = d.emit(d.choose("Sigmoid", "HardSigmoid"), [x], x.shape)
    return d.emit("Mul", d.choose([x, gated], [gated, x]), x.shape)


def quotient(d: Draft, x: Value) -> Value:
    """Divided by something that is far from zero."""
    positive = d.emit("Sigmoid", [x], x.shape)
    moved = d.emit("Add", [positive, d.constant(np.array(1.0), x.dtype)], x.shape)
    return d.emit("Div", [x, moved], x.shape)


def where(d: Draft, x: Value) -> Value:
    require(d.opset >= 9 and x.rank >= 1)
    condition = d.constant(d.rng.choice([True, False], x.shape[-2:]), TensorProto.BOOL)
    others = [v for v in d.values if v.dtype == x.dtype and v.shape == x.shape]
    other = d.choose(*others[-4:]) if d.chance(2) else d.floats(d.choose((), x.shape, (1,)), dtype=x.dtype)
    branches = [x, other]
    if d.chance(2):
        branches.reverse()
    return d.emit("Where", [condition, *branches], x.shape, dtype=x.dtype)


STEPS = (relu, activation, clip, bound, combination, prelu, where, gate, quotient, combination)
