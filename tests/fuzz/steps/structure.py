"""What is larger than one operator: parallel branches, diamonds, control flow, side paths of integers."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

from tests.fuzz.draft import Draft, Value, require, value_info
from tests.fuzz.steps import affines, linear, pointwise


def branches(d: Draft, x: Value) -> Value:
    """A sum of Conv, BatchNormalization, identity and average pooling over one value."""
    require(x.rank in (3, 4) and min(x.shape[2:]) >= 2)
    channels = x.shape[1]
    outputs = d.choose(channels, channels, 4)
    stride = d.choose(1, 1, 2)
    sizes = [(n - 1) // stride + 1 for n in x.shape[2:]]
    made = [_branch(d, x, outputs, stride, sizes) for _ in range(d.integer(2, 3))]
    total = made[0]
    if d.opset >= 8 and d.chance(4):
        return d.emit("Sum", made, total.shape)
    for other in made[1:]:
        pair = [total, other]
        if d.chance(3):
            pair.reverse()
        total = d.emit(d.choose("Add", "Add", "Sub"), pair, total.shape)
    return total


def _branch(d: Draft, x: Value, outputs: int, stride: int, sizes: list[int]) -> Value:
    channels, spatial = x.shape[1], x.rank - 2
    kind = d.choose("conv", "identity", "pool")
    shape = (x.shape[0], outputs, *sizes)
    if kind == "conv" or outputs != channels or (kind == "identity" and stride != 1):
        kernel = d.choose(1, 3, 5)
        groups = d.choose(*(g for g in (1, 2, channels) if channels % g == 0 and outputs % g == 0))
        dilation = d.choose(1, 1, 2) if kernel == 3 else 1
        operands = [x, d.floats((outputs, channels // groups, *[kernel] * spatial))]
        if d.chance(2):
            operands.append(d.floats((outputs,)))
        pads = [dilation * (kernel // 2)] * 2 * spatial
        strides, dilations = [stride] * spatial, [dilation] * spatial
        made = d.emit("Conv", operands, shape, pads=pads, strides=strides, group=groups, dilations=dilations)
    elif kind == "pool":
        attributes = {"kernel_shape": [3] * spatial, "pads": [1] * 2 * spatial, "strides": [stride] * spatial}
        included = d.choose(1, 1, 0)
        made = d.emit("AveragePool", [x], shape, count_include_pad=included, **attributes)
    else:
        made = x
    if d.chance(2) or made is x:
        made = d.choose(affines.batchnorm, affines.layer_scale, affines.arithmetic)(d, made)
    return made


def diamond(d: Draft, x: Value) -> Value:
    """Both readers of one value, and a sum or product of what they make of it."""
    first = d.choose(pointwise.relu, affines.arithmetic, pointwise.clip)(d, x)
    second = d.choose(affines.batchnorm, affines.arithmetic, pointwise.relu)(d, x)
    if d.chance(3):
        second = x
    return d.emit(d.choose("Add", "Mul", "Sub"), d.choose([first, second], [second, first]), x.shape)


def two_readers(d: Draft, x: Value) -> Value:
    """An affine on a value that a second layer reads as it is."""
    d.choose(linear.conv, linear.matmul, linear.gemm, pointwise.relu)(d, x)
    return d.choose(affines.batchnorm, affines.arithmetic)(d, x)


_IN_BODIES = (
    affines.arithmetic,
    pointwise.relu,
    affines.batchnorm,
    affines.spelled_batchnorm,
    pointwise.clip,
)


def _grown(body: Draft, x: Value, *, layers: bool = True) -> Value:
    """A few nodes on ``x`` that keep its shape."""
    for _ in range(body.integer(1, 3)):
        if layers and x.rank == 4 and body.chance(3):
            weight = body.floats((x.shape[1], x.shape[1], 1, 1))
            x = body.emit("Conv", [x, weight], x.shape)
        else:
            x = body.choose(*_IN_BODIES)(body, x)
    return x


def if_(d: Draft, x: Value) -> Value:
    """Both branches read ``x`` from outside."""
    require(d.opset >= 11 and d.parent is None and not d.functions)
    graphs = []
    takes = d.choose("else", "then")
    for name in ("then", "else"):
        body = d.body()
        result = _grown(body, x)
        if name != takes and d.chance(4):
            result = _spoiled(body, result)
        graphs.append(body.graph(name, [value_info(result)]))
    flag = d.constant(np.array(takes == "then"), TensorProto.BOOL)
    return d.emit("If", [flag], x.shape, dtype=x.dtype, then_branch=graphs[0], else_branch=graphs[1])


def _spoiled(body: Draft, x: Value) -> Value:
    """What is never computed may be anything: here an affine that is not finite."""
    op_type, number = body.choose(("Div", 0.0), ("Mul", np.nan), ("Add", np.inf))
    return body.emit(op_type, [x, body.constant(np.array(number), x.dtype)], x.shape)


def loop(d: Draft, x: Value) -> Value:
    """Carries a value, and reads ``x`` from outside too."""
    require(d.opset >= 11 and d.parent is None and not d.functions)
    body = d.body()
    step = Value(d.names.new("step"), (), TensorProto.INT64)
    going = Value(d.names.new("going"), (), TensorProto.BOOL)
    carried = Value(d.names.new("carried"), x.shape, x.dtype)
    sizes = [None] * x.rank if d.chance(3) else list(x.shape)
    body.inputs = [
        helper.make_tensor_value_info(step.name, TensorProto.INT64, []),
        helper.make_tensor_value_info(going.name, TensorProto.BOOL, []),
        helper.make_tensor_value_info(carried.name, carried.dtype, sizes),
    ]
    still = body.emit("Identity", [going], (), dtype=TensorProto.BOOL)
    inner = _grown(body, carried)
    if d.chance(2):
        inner = body.emit("Add", [inner, x], x.shape)
    graph = body.graph("loop", [value_info(still), value_info(inner)])
    trips = d.constant(np.array(d.choose(1, 2), np.int64), TensorProto.INT64)
    condition = d.constant(np.array(True), TensorProto.BOOL)
    return d.emit("Loop", [trips, condition, x], x.shape, dtype=x.dtype, body=graph)


def scan(d: Draft, x: Value) -> Value:
    """Along axis 0, with a body that may read the whole of ``x``."""
    require(d.opset >= 11 and d.parent is None and not d.functions and x.rank >= 3)
    body = d.body()
    row = Value(d.names.new("row"), x.shape[1:], x.dtype)
    body.inputs = [helper.make_tensor_value_info(row.name, row.dtype, row.shape)]
    inner = _grown(body, row, layers=False)
    if d.chance(2):
        head = body.emit("Gather", [x, body.constant(np.array(0), TensorProto.INT64)], row.shape, axis=0)
        inner = body.emit("Add", [inner, head], row.shape)
    graph = body.graph("scan", [value_info(inner)])
    return d.emit("Scan", [x], x.shape, dtype=x.dtype, body=graph, num_scan_inputs=1)


def side_path(d: Draft, x: Value) -> Value:
    """Integers made of a value's shape, or of a graph input; ``x`` goes on."""
    size = d.emit("Shape", [x], (x.rank,), dtype=TensorProto.INT64)
    if d.chance(2):
        d.emit("Cast", [size], size.shape, dtype=x.dtype, to=x.dtype)
    return x


STEPS = (branches, diamond, two_readers, branches, if_, loop, scan, side_path)
