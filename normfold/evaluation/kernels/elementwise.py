"""Elementwise arithmetic and comparison, including the explicit broadcasting of opsets before 7."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from normfold.evaluation.call import Kernel, NodeCall
from normfold.evaluation.dtypes import Array, is_floating, working
from normfold.evaluation.kernels.activation import pointwise

_BROADCAST_SINCE = 7


def _operands(call: NodeCall) -> tuple[Array, Array]:
    """Both operands, the second shaped to broadcast.

    Before opset 7 ``broadcast = 1`` aligns B with the axes of A from ``axis`` on, or with the last ones.
    """
    a, b = call.tensor(0), call.tensor(1)
    if call.version < _BROADCAST_SINCE:
        if not call.integer("broadcast", 0):
            if a.shape != b.shape:
                raise call.misfit(f"shapes {a.shape} and {b.shape} without broadcast")
        elif call.has("axis"):
            axis = call.integer("axis") % a.ndim
            b = b.reshape(*b.shape, *[1] * (a.ndim - axis - b.ndim))
    return a, b


def _binary(function: Callable[[Any, Any], Any]) -> Kernel:
    def kernel(call: NodeCall) -> Sequence[Array]:
        a, b = _operands(call)
        return (np.asarray(function(working(a), working(b))).astype(a.dtype, copy=False),)

    return kernel


def _comparison(function: Callable[[Any, Any], Any]) -> Kernel:
    def kernel(call: NodeCall) -> Sequence[Array]:
        a, b = _operands(call)
        return (np.asarray(function(a, b)).astype(bool, copy=False),)

    return kernel


def _divide(a: Array, b: Array) -> Array:
    """Division; of integers towards zero, as in C."""
    if is_floating(a.dtype):
        return np.asarray(a / b)
    quotient = np.floor_divide(a, b)
    inexact = np.remainder(a, b) != 0
    return np.asarray(quotient + (inexact & ((a < 0) ^ (b < 0))).astype(quotient.dtype))


def _mod(call: NodeCall) -> Sequence[Array]:
    """Mod: the sign of the divisor, with fmod = 1 that of the dividend."""
    a, b = call.tensor(0), call.tensor(1)
    function = np.fmod if call.integer("fmod", 0) else np.mod
    return (np.asarray(function(working(a), working(b))).astype(a.dtype, copy=False),)


def _variadic(function: Callable[[Any, Any], Any], *, mean: bool = False) -> Kernel:
    def kernel(call: NodeCall) -> Sequence[Array]:
        operands = [call.tensor(index) for index in range(len(call.inputs))]
        if call.version < 8 and len({o.shape for o in operands}) > 1:
            raise call.misfit("operands of different shapes before opset 8")
        total = functools.reduce(function, (working(o) for o in operands))
        if mean:
            total = total / len(operands)
        return (np.asarray(total).astype(operands[0].dtype, copy=False),)

    return kernel


def _clip(call: NodeCall) -> Sequence[Array]:
    """Clip: bounds are attributes before opset 11 and scalar operands from then on; a maximum below wins."""
    x = call.tensor(0)
    low: Any
    high: Any
    if call.version < 11:
        low = call.number("min") if call.has("min") else None
        high = call.number("max") if call.has("max") else None
    else:
        low, high = call.optional(1), call.optional(2)
    y = x
    if low is not None:
        y = np.maximum(y, np.asarray(low, dtype=x.dtype).reshape(()))
    if high is not None:
        y = np.minimum(y, np.asarray(high, dtype=x.dtype).reshape(()))
    return (np.asarray(y),)


def _prelu(call: NodeCall) -> Sequence[Array]:
    """PRelu: x where x ≥ 0, slope · x elsewhere.

    Before opset 7 a slope of C elements belongs to axis 1; later it broadcasts from the right.
    """
    x, slope = call.tensor(0), call.tensor(1)
    if call.version < 7 and slope.size > 1 and slope.ndim == 1 and x.ndim > 1:
        slope = slope.reshape(-1, *[1] * (x.ndim - 2))
    wide, factor = working(x), working(slope)
    return (np.where(wide >= 0, wide, factor * wide).astype(x.dtype, copy=False),)


def _where(call: NodeCall) -> Sequence[Array]:
    """Where: X where the condition holds, Y elsewhere, all three broadcast."""
    return (np.where(call.tensor(0).astype(bool), call.tensor(1), call.tensor(2)),)


_POINTWISE: dict[str, Callable[[Any], Any]] = {
    "Abs": np.abs,
    "Acos": np.arccos,
    "Acosh": np.arccosh,
    "Asin": np.arcsin,
    "Asinh": np.arcsinh,
    "Atan": np.arctan,
    "Atanh": np.arctanh,
    "Ceil": np.ceil,
    "Cos": np.cos,
    "Cosh": np.cosh,
    "Exp": np.exp,
    "Floor": np.floor,
    "Log": np.log,
    "Neg": np.negative,
    "Reciprocal": np.reciprocal,
    "Round": np.rint,
    "Sign": np.sign,
    "Sin": np.sin,
    "Sinh": np.sinh,
    "Sqrt": np.sqrt,
    "Tan": np.tan,
    "Tanh": np.tanh,
}

_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "Add": np.add,
    "Div": _divide,
    "Mul": np.multiply,
    "Pow": np.power,
    "Sub": np.subtract,
}

_COMPARISON: dict[str, Callable[[Any, Any], Any]] = {
    "And": np.logical_and,
    "Equal": np.equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Or": np.logical_or,
    "Xor": np.logical_xor,
}

KERNELS: dict[tuple[str, str], Kernel] = {
    **{("", name): pointwise(function) for name, function in _POINTWISE.items()},
    **{("", name): _binary(function) for name, function in _BINARY.items()},
    **{("", name): _comparison(function) for name, function in _COMPARISON.items()},
    ("", "Clip"): _clip,
    ("", "Max"): _variadic(np.maximum),
    ("", "Mean"): _variadic(np.add, mean=True),
    ("", "Min"): _variadic(np.minimum),
    ("", "Mod"): _mod,
    ("", "PRelu"): _prelu,
    ("", "Sum"): _variadic(np.add),
    ("", "Where"): _where,
}
