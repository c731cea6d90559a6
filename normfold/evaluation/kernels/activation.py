"""Activation functions, each written so that it neither overflows nor cancels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from normfold.evaluation.call import Kernel, NodeCall
from normfold.evaluation.dtypes import Array, working


def sigmoid(x: Array) -> Array:
    decay = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1, decay) / (1 + decay))


def softplus(x: Array) -> Array:
    return np.logaddexp(x, np.zeros((), x.dtype))


def erf(x: Array) -> Array:
    """The error function, by the C library's double routine; numpy has none."""
    return np.fromiter(map(math.erf, x.reshape(-1).tolist()), x.dtype, count=x.size).reshape(x.shape)


def gelu(x: Array) -> Array:
    return np.asarray(0.5 * x * (1 + erf(x * math.sqrt(0.5))))


def gelu_tanh(x: Array) -> Array:
    return np.asarray(0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))


def relu(x: Array) -> Array:
    return np.maximum(x, 0)


def leaky_relu(x: Array, alpha: float) -> Array:
    return np.where(x >= 0, x, alpha * x)


def elu(x: Array, alpha: float) -> Array:
    return np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0)))


def hard_sigmoid(x: Array, alpha: float, beta: float) -> Array:
    return np.clip(alpha * x + beta, 0, 1)


def hard_swish(x: Array) -> Array:
    return x * np.clip(x / 6 + 0.5, 0, 1)


def thresholded_relu(x: Array, alpha: float) -> Array:
    return np.where(x > alpha, x, 0)


def softsign(x: Array) -> Array:
    return np.asarray(x / (1 + np.abs(x)))


def pointwise(function: Callable[[Array], Array]) -> Kernel:
    """A kernel that applies a function to the one operand; half precision goes through float32."""

    def kernel(call: NodeCall) -> Sequence[Array]:
        x = call.tensor(0)
        return (np.asarray(function(working(x))).astype(x.dtype, copy=False),)

    return kernel


def _with_attributes(function: Callable[[NodeCall, Array], Array]) -> Kernel:
    def kernel(call: NodeCall) -> Sequence[Array]:
        x = call.tensor(0)
        return (np.asarray(function(call, working(x))).astype(x.dtype, copy=False),)

    return kernel


def _selu(call: NodeCall, x: Array) -> Array:
    early = call.version < 6
    alpha = call.number("alpha", 1.6732 if early else 1.67326319217681884765625)
    return call.number("gamma", 1.0507 if early else 1.05070102214813232421875) * elu(x, alpha)


def _celu(call: NodeCall, x: Array) -> Array:
    alpha = call.number("alpha", 1.0)
    return np.maximum(x, 0) + np.minimum(0, alpha * np.expm1(x / alpha))


def _gelu(call: NodeCall, x: Array) -> Array:
    approximate = call.text("approximate", "none")
    if approximate not in ("none", "tanh"):
        raise call.refuse(f"approximate = {approximate!r}")
    return gelu(x) if approximate == "none" else gelu_tanh(x)


def _shrink(call: NodeCall, x: Array) -> Array:
    bias, threshold = call.number("bias", 0.0), call.number("lambd", 0.5)
    return np.where(x < -threshold, x + bias, np.where(x > threshold, x - bias, 0))


def _lines(call: NodeCall, x: Array) -> tuple[Array, int]:
    """x in the shape that the operator normalises, and the axis it does so along.

    Before opset 13 Softmax and its like flatten x to [∏ axes before, ∏ axes from ``axis`` on].
    """
    if call.version >= 13:
        return x, call.integer("axis", -1)
    axis = call.integer("axis", 1)
    return x.reshape(math.prod(x.shape[: axis + x.ndim if axis < 0 else axis]), -1), -1


def _along_lines(function: Callable[[Array, int], Array]) -> Callable[[NodeCall, Array], Array]:
    def apply(call: NodeCall, x: Array) -> Array:
        return function(*_lines(call, x)).reshape(x.shape) if x.size else x

    return apply


def _softmax(lines: Array, axis: int) -> Array:
    exponents = np.exp(lines - lines.max(axis=axis, keepdims=True))
    return np.asarray(exponents / exponents.sum(axis=axis, keepdims=True))


def _log_softmax(lines: Array, axis: int) -> Array:
    shifted = lines - lines.max(axis=axis, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True)))


def _hardmax(lines: Array, axis: int) -> Array:
    result = np.zeros_like(lines)
    np.put_along_axis(result, np.expand_dims(lines.argmax(axis=axis), axis), 1, axis=axis)
    return result


KERNELS: dict[tuple[str, str], Kernel] = {
    ("", "Relu"): pointwise(relu),
    ("", "Sigmoid"): pointwise(sigmoid),
    ("", "Softplus"): pointwise(softplus),
    ("", "Softsign"): pointwise(softsign),
    ("", "Erf"): pointwise(erf),
    ("", "HardSwish"): pointwise(hard_swish),
    ("", "Mish"): pointwise(lambda x: x * np.tanh(softplus(x))),
    ("", "Swish"): _with_attributes(lambda call, x: x * sigmoid(call.number("alpha", 1.0) * x)),
    ("", "LeakyRelu"): _with_attributes(lambda call, x: leaky_relu(x, call.number("alpha", 0.01))),
    ("", "Elu"): _with_attributes(lambda call, x: elu(x, call.number("alpha", 1.0))),
    ("", "ThresholdedRelu"): _with_attributes(lambda call, x: thresholded_relu(x, call.number("alpha", 1.0))),
    ("", "HardSigmoid"): _with_attributes(
        lambda call, x: hard_sigmoid(x, call.number("alpha", 0.2), call.number("beta", 0.5))
    ),
    ("", "Selu"): _with_attributes(_selu),
    ("", "Celu"): _with_attributes(_celu),
    ("", "Gelu"): _with_attributes(_gelu),
    ("", "Shrink"): _with_attributes(_shrink),
    ("", "Softmax"): _with_attributes(_along_lines(_softmax)),
    ("", "LogSoftmax"): _with_attributes(_along_lines(_log_softmax)),
    ("", "Hardmax"): _with_attributes(_along_lines(_hardmax)),
}
