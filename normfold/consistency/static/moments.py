"""Mean and variance of each channel in training, as far as weights and normalisations determine them.

Behind a BatchNorm in training every channel has mean β and variance γ², whatever its running statistics.
From there the mean goes exactly through linear operators (but for zero padding), and through activations
under the assumption of a normal distribution; the variance goes on as if channels and positions were
independent. Measured on four trained networks, in 68 of 69 layers the running means are 0.7 to 1.03 times
what this predicts, and the running variances 0.07 to 5 times.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from normfold.affine import Array64
from normfold.consistency.static.linear import linear_before
from normfold.consistency.static.subject import Subject, is_op, maker
from normfold.evaluation import NotCovered, evaluate_node

# Output channels whose weights are looked at together.
_ROWS = 64
_DEEPEST = 64
# Gauss–Hermite nodes for a normal distribution of mean 0 and variance 1; weights sum to 1.
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(33)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()

_ACTIVATIONS = frozenset(
    {
        "Relu",
        "LeakyRelu",
        "Sigmoid",
        "Tanh",
        "HardSigmoid",
        "HardSwish",
        "Elu",
        "Selu",
        "Softplus",
        "Mish",
        "Gelu",
        "Clip",
        "Celu",
    }
)
_SAME = frozenset({"Identity", "Dropout", "AveragePool", "GlobalAveragePool", "Cast", "Squeeze", "Unsqueeze"})


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and variance over the training data of each channel of a value, both ``[C]``."""

    mean: Array64
    var: Array64


def moments_of(
    value: ir.Value | None, subject: Subject, cache: dict[str, Moments | None], depth: int = 0
) -> Moments | None:
    """Moments of a value, ``None`` where they are not determined.

    Args:
        value: channels on axis 1.
        subject: the model.
        cache: moments by value name, filled on the way.
        depth: of the recursion.
    """
    node = maker(value)
    if value is None or node is None or value.name is None or depth > _DEEPEST:
        return None
    if value.name not in cache:
        cache[value.name] = None
        cache[value.name] = _through(node, value, subject, lambda v: moments_of(v, subject, cache, depth + 1))
    return cache[value.name]


_Ask = Callable[[ir.Value | None], Moments | None]


def _through(node: ir.Node, value: ir.Value, subject: Subject, ask: _Ask) -> Moments | None:
    if is_op(node, "BatchNormalization"):
        return _behind_batchnorm(node, subject)
    if is_op(node, *_SAME):
        return ask(node.inputs[0])
    if is_op(node, *_ACTIVATIONS):
        found = ask(node.inputs[0])
        return None if found is None else _activation(node, found, subject)
    if is_op(node, "Conv", "Gemm", "MatMul"):
        return _linear(value, subject, ask)
    if is_op(node, "Flatten", "Reshape"):
        return _flatten(node, value, subject, ask)
    if is_op(node, "Mul", "Add", "Sub", "Div") and len(node.inputs) == 2:
        return _arithmetic(node, value, subject, ask)
    if is_op(node, "Concat") and node.attributes.get_int("axis", 1) == 1:
        parts = [ask(v) for v in node.inputs]
        known = [part for part in parts if part is not None]
        if len(known) == len(parts):
            return Moments(np.concatenate([p.mean for p in known]), np.concatenate([p.var for p in known]))
    return None


def _behind_batchnorm(node: ir.Node, subject: Subject) -> Moments | None:
    layer = subject.by_node.get(node)
    if layer is None or not (np.isfinite(layer.gamma).all() and np.isfinite(layer.beta).all()):
        return None
    return Moments(layer.beta, layer.gamma**2)


def _activation(node: ir.Node, x: Moments, subject: Subject) -> Moments | None:
    points = x.mean[:, None] + np.sqrt(x.var)[:, None] * _NODES
    rest = [subject.array(v) for v in node.inputs[1:]]
    try:
        y = np.asarray(evaluate_node(node, [points, *rest], subject.workspace.opsets)[0], dtype=np.float64)
    except NotCovered:
        return None
    mean = y @ _WEIGHTS
    return Moments(mean, np.maximum((y * y) @ _WEIGHTS - mean**2, 0.0))


def _linear(value: ir.Value, subject: Subject, ask: _Ask) -> Moments | None:
    linear = linear_before(value, subject, shared=True)
    x = None if linear is None else ask(linear.x)
    if linear is None or x is None:
        return None
    outputs, inputs, taps = linear.weight.shape
    if x.mean.size != inputs * linear.groups or outputs % linear.groups:
        return None
    # [G, O/G, Cin/G · taps] times [G, Cin/G · taps, 1]
    weight = linear.weight.reshape(linear.groups, outputs // linear.groups, inputs * taps)
    means = np.repeat(x.mean, taps).reshape(linear.groups, -1, 1)
    variances = np.repeat(x.var, taps).reshape(linear.groups, -1, 1)
    mean, var = np.empty((*weight.shape[:2], 1)), np.empty((*weight.shape[:2], 1))
    step = max(1, _ROWS // weight.shape[1])
    for group in range(0, linear.groups, step):
        for row in range(0, weight.shape[1], _ROWS):
            part = slice(group, group + step), slice(row, row + _ROWS)
            block = weight[part].astype(np.float64)
            mean[part] = block @ means[part[0]]
            var[part] = (block * block) @ variances[part[0]]
    return Moments(mean.reshape(-1) + linear.bias, var.reshape(-1))


def _flatten(node: ir.Node, value: ir.Value, subject: Subject, ask: _Ask) -> Moments | None:
    """Positions of a channel become channels of their own, side by side."""
    x = ask(node.inputs[0])
    before, after = subject.dims(node.inputs[0]), subject.dims(value)
    if x is None or before is None or after is None or len(after) != 2 or before[0] != after[0]:
        return None
    size = after[1]
    if not isinstance(size, int) or size % x.mean.size:
        return None
    return Moments(np.repeat(x.mean, size // x.mean.size), np.repeat(x.var, size // x.mean.size))


def _arithmetic(node: ir.Node, value: ir.Value, subject: Subject, ask: _Ask) -> Moments | None:
    constants = [subject.array(v) for v in node.inputs]
    if all(c is None for c in constants):
        if node.op_type not in ("Add", "Sub"):
            return None
        first, second = (ask(v) for v in node.inputs)
        if first is None or second is None or first.mean.size != second.mean.size:
            return None
        sign = 1.0 if node.op_type == "Add" else -1.0
        return Moments(first.mean + sign * second.mean, first.var + second.var)
    slot = 0 if constants[0] is None else 1
    given, x = constants[1 - slot], ask(node.inputs[slot])
    dims = subject.dims(value)
    if given is None or x is None or dims is None or (node.op_type == "Div" and slot == 1):
        return None
    if is_op(maker(node.inputs[slot]), "MatMul", "Gemm") and node.op_type == "Add":
        return _linear(value, subject, ask)
    constant = _per_channel(given, len(dims), x.mean.size)
    if constant is None:
        return None
    if node.op_type in ("Mul", "Div"):
        with np.errstate(all="ignore"):
            factor = constant if node.op_type == "Mul" else 1.0 / constant
        return Moments(x.mean * factor, x.var * factor**2) if np.isfinite(factor).all() else None
    if node.op_type == "Add":
        return Moments(x.mean + constant, x.var)
    return Moments(x.mean - constant, x.var) if slot == 0 else Moments(constant - x.mean, x.var)


def _per_channel(array: Array64, rank: int, channels: int) -> Array64 | None:
    """A constant that varies along axis 1 only, as ``[C]``."""
    if array.size == 1:
        return np.full(channels, float(array.reshape(-1)[0]))
    aligned = (1,) * (rank - array.ndim) + array.shape
    if array.ndim > rank or array.size != channels or aligned[1] != channels:
        return None
    return array.reshape(-1)
