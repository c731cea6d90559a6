"""Pools, reductions, and normalisations over what they see."""

from __future__ import annotations

import math

from onnx import TensorProto

from tests.fuzz.draft import Draft, Shape, Value, require
from tests.fuzz.steps.affines import reduce


def pool(d: Draft, x: Value) -> Value:
    require(x.rank in (3, 4, 5))
    sizes = x.shape[2:]
    kernel = [d.choose(2, 3, 1) for _ in sizes]
    strides = [d.choose(1, 2)] * len(kernel)
    if d.chance(6):
        return _auto_padded(d, x, kernel, strides)
    pads = [d.choose(0, 1) if k == 3 else 0 for k in kernel] * 2
    op_type = d.choose("MaxPool", "AveragePool")
    attributes: dict[str, object] = {"kernel_shape": kernel, "strides": strides, "pads": pads}
    ceil = d.opset >= 10 and d.chance(4)
    shape = []
    for axis, (size, k, stride) in enumerate(zip(sizes, kernel, strides, strict=True)):
        span = size + 2 * pads[axis] - k
        require(span >= 0)
        steps = -(-span // stride) if ceil else span // stride
        # A window that starts in the padding behind is left out.
        if ceil and steps * stride >= size + pads[axis]:
            steps -= 1
        shape.append(steps + 1)
    if ceil:
        attributes["ceil_mode"] = 1
    if op_type == "AveragePool":
        attributes["count_include_pad"] = d.choose(0, 1)
    return d.emit(op_type, [x], (*x.shape[:2], *shape), **attributes)


def _auto_padded(d: Draft, x: Value, kernel: list[int], strides: list[int]) -> Value:
    mode = d.choose("SAME_UPPER", "SAME_LOWER", "VALID")
    reach = [1] * len(kernel) if mode != "VALID" else kernel
    shape = [-(-(size - k + 1) // s) for size, k, s in zip(x.shape[2:], reach, strides, strict=True)]
    require(min(shape) > 0)
    op_type = d.choose("MaxPool", "AveragePool")
    counts = {"count_include_pad": d.choose(0, 1)} if op_type == "AveragePool" else {}
    attributes: dict[str, object] = {"kernel_shape": kernel, "strides": strides, "auto_pad": mode, **counts}
    return d.emit(op_type, [x], (*x.shape[:2], *shape), **attributes)


def global_pool(d: Draft, x: Value) -> Value:
    require(x.rank >= 3)
    op_type = d.choose("GlobalAveragePool", "GlobalMaxPool")
    return d.emit(op_type, [x], (*x.shape[:2], *(1 for _ in x.shape[2:])))


def reduction(d: Draft, x: Value) -> Value:
    require(x.rank >= 1)
    axes = d.choose([x.rank - 1], [0], list(range(min(2, x.rank), x.rank)) or [0], list(range(x.rank)))
    keepdims = d.choose(1, 0)
    shape = tuple(1 if axis in axes else n for axis, n in enumerate(x.shape) if keepdims or axis not in axes)
    shown = [axis - x.rank if d.opset >= 11 and d.chance(3) else axis for axis in axes]
    op_type = d.choose("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin")
    return reduce(d, op_type, x, shown, shape, keepdims)


def instance_norm(d: Draft, x: Value) -> Value:
    require(x.rank >= 3 and math.prod(x.shape[2:]) > 1)
    c: Shape = (x.shape[1],)
    return d.emit("InstanceNormalization", [x, d.floats(c), d.floats(c)], x.shape, epsilon=1e-3)


def group_norm(d: Draft, x: Value) -> Value:
    """The operator: a scale per group in opset 18, per channel from 21 on."""
    require(x.rank >= 3 and d.opset >= 21)
    channels = x.shape[1]
    groups = d.choose(*(g for g in (1, 2, channels) if channels % g == 0))
    require(channels // groups * math.prod(x.shape[2:]) > 1)
    parameters = [d.floats((channels,)), d.floats((channels,))]
    return d.emit("GroupNormalization", [x, *parameters], x.shape, num_groups=groups, epsilon=1e-3)


def layer_norm(d: Draft, x: Value) -> Value:
    require(x.rank >= 2 and x.shape[-1] > 1)
    axis = d.choose(-1, x.rank - 1, *([1] if x.rank > 2 else []))
    shape = x.shape[axis:] if axis >= 0 else x.shape[x.rank + axis :]
    op_type = d.choose("LayerNormalization", *(["RMSNormalization"] if d.opset >= 23 else []))
    parameters = [d.floats(d.choose(shape, x.shape[-1:]))]
    if op_type == "LayerNormalization" and d.chance(2):
        parameters.append(d.floats(parameters[0].shape))
    return d.emit(op_type, [x, *parameters], x.shape, axis=axis, epsilon=1e-3)


def batchnorm_of_the_batch(d: Draft, x: Value) -> Value:
    """BatchNormalization in training mode, or with statistics that the model computes."""
    require(x.rank >= 2 and math.prod(x.shape) // x.shape[1] > 2 and d.opset >= 9)
    channels: Shape = (x.shape[1],)
    scale, bias = d.floats(channels), d.floats(channels)
    if d.opset >= 14 and d.chance(2):
        running = [d.floats(channels), d.floats(channels, content="positive")]
        y, *_ = d.emit_all(
            "BatchNormalization", [x, scale, bias, *running], [x.shape, channels, channels], training_mode=1
        )
        # Nothing reads the new statistics.
        del d.values[-2:]
        return y
    axes = [axis for axis in range(x.rank) if axis != 1]
    mean = reduce(d, "ReduceMean", x, axes, channels, keepdims=0)
    kept = tuple(1 if axis in axes else n for axis, n in enumerate(x.shape))
    centred = d.emit("Sub", [x, reduce(d, "ReduceMean", x, axes, kept)], x.shape)
    variance = reduce(d, "ReduceMean", d.emit("Mul", [centred, centred], x.shape), axes, channels, keepdims=0)
    return d.emit("BatchNormalization", [x, scale, bias, mean, variance], x.shape, epsilon=1e-3)


def mean_variance_norm(d: Draft, x: Value) -> Value:
    require(x.rank == 4 and d.opset >= 9 and d.dtype == TensorProto.FLOAT)
    axes = d.choose([0, 2, 3], [2, 3])
    require(math.prod(x.shape[axis] for axis in axes) > 2)
    return d.emit("MeanVarianceNormalization", [x], x.shape, axes=axes)


def softmax(d: Draft, x: Value) -> Value:
    require(x.rank >= 2)
    axis = d.integer(0, x.rank - 1)
    return d.emit(d.choose("Softmax", "LogSoftmax"), [x], x.shape, axis=axis)


STEPS = (
    pool,
    pool,
    reduction,
    global_pool,
    instance_norm,
    layer_norm,
    group_norm,
    softmax,
    mean_variance_norm,
    batchnorm_of_the_batch,
)
