"""Layers with weights, which absorb an affine on either side."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from onnx import TensorProto

from tests.fuzz.draft import Draft, Shape, Value, require

_AUTO_PADS = ("SAME_UPPER", "SAME_LOWER", "VALID")


def _weight(d: Draft, shape: Shape, axis: int) -> Value:
    """A weight as it is, or dequantised: with one scale, one per index of ``axis``, or one per block."""
    if d.opset < 10 or d.dtype != TensorProto.FLOAT or not d.chance(8):
        return d.floats(shape, content=d.choose("mixed", "mixed", "positive"))
    stored, low, high = d.choose((TensorProto.INT8, -127, 127), (TensorProto.UINT8, 0, 255))
    codes = d.constant(d.rng.integers(low, high + 1, shape), stored)
    steps: Shape = d.choose((), (shape[axis],)) if d.opset >= 13 else ()
    other = 1 - axis
    blocked = d.opset >= 21 and len(shape) == 2 and shape[other] % 2 == 0 and d.chance(2)
    if blocked:
        steps = tuple(n // 2 if i == other else n for i, n in enumerate(shape))
    scale = d.constant(d.rng.uniform(0.005, 0.02, steps), TensorProto.FLOAT)
    operands: list[Value | str] = [codes, scale]
    if d.chance(2) or stored == TensorProto.UINT8:
        zero = np.full(steps, 128 if stored == TensorProto.UINT8 else 0)
        operands.append(d.constant(zero, stored))
    attributes = {"axis": d.choose(axis, axis - len(shape))} if steps else {}
    if blocked:
        attributes = {"axis": other, "block_size": 2}
    return d.emit("DequantizeLinear", operands, shape, dtype=TensorProto.FLOAT, **attributes)


def _bias(d: Draft, size: int) -> list[Value]:
    return [d.floats((size,))] if d.chance(2) else []


def conv(d: Draft, x: Value) -> Value:
    require(x.rank in (3, 4, 5))
    n, channels, *sizes = x.shape
    spatial = len(sizes)
    kernel = [d.choose(1, 1, 2, 3) for _ in sizes]
    dilations = [d.choose(1, 1, 2) if k > 1 else 1 for k in kernel]
    strides = [d.choose(1, 1, 2)] * spatial
    outputs = d.choose(2, 3, 4, 6)
    groups = d.choose(*(g for g in (1, 1, 2, channels) if channels % g == 0 and outputs % g == 0))
    reach = [(k - 1) * e + 1 for k, e in zip(kernel, dilations, strict=True)]
    attributes: dict[str, object] = {"group": groups, "strides": strides, "dilations": dilations}
    mode = d.choose("pads", "pads", "pads", *_AUTO_PADS)
    if mode == "pads":
        pads = [d.choose(0, 0, 1) if r > 1 else d.choose(0, 0, 0, 0, 1) for r in (*reach, *reach)]
        attributes["pads"] = pads
        shape = _window(sizes, reach, strides, pads)
    else:
        attributes["auto_pad"] = mode
        shape = _auto(sizes, reach, strides, mode)
        # onnxruntime: "Dilation not supported for AutoPadType::SAME_UPPER or AutoPadType::SAME_LOWER".
        require(mode == "VALID" or dilations == [1] * spatial)
    weight = _weight(d, (outputs, channels // groups, *kernel), 0)
    if d.chance(2):
        attributes["kernel_shape"] = kernel
    return d.emit("Conv", [x, weight, *_bias(d, outputs)], (n, outputs, *shape), **attributes)


def _window(
    sizes: Sequence[int], reach: Sequence[int], strides: Sequence[int], pads: Sequence[int]
) -> list[int]:
    spatial = len(sizes)
    shape = [
        (size + pads[i] + pads[i + spatial] - reach[i]) // strides[i] + 1 for i, size in enumerate(sizes)
    ]
    require(min(shape) > 0)
    return shape


def _auto(sizes: Sequence[int], reach: Sequence[int], strides: Sequence[int], mode: str) -> list[int]:
    if mode == "VALID":
        return _window(sizes, reach, strides, [0] * 2 * len(sizes))
    return [math.ceil(size / stride) for size, stride in zip(sizes, strides, strict=True)]


def conv_transpose(d: Draft, x: Value) -> Value:
    require(x.rank in (3, 4, 5))
    n, channels, *sizes = x.shape
    kernel = [d.choose(1, 1, 2, 3) for _ in sizes]
    strides = [d.choose(1, 1, 2) for _ in sizes]
    extra = [d.choose(0, 0, s - 1) for s in strides]
    groups = d.choose(*(g for g in (1, 2, channels) if channels % g == 0))
    outputs = groups * d.choose(1, 2)
    pads = [d.choose(0, 0, 1) if k > 2 else 0 for k in kernel] * 2
    shape = [
        (size - 1) * s + k + e - 2 * p
        for size, s, k, e, p in zip(sizes, strides, kernel, extra, pads, strict=False)
    ]
    require(min(shape) > 0)
    placed: dict[str, object] = {"pads": pads}
    way = d.choose("pads", "pads", "pads", "output_shape", "SAME_UPPER", "SAME_LOWER", "VALID")
    if way == "output_shape":
        placed = {"output_shape": shape}
    elif way != "pads":
        # onnxruntime pads for SAME as if nothing were added behind.
        extra = [0] * len(kernel)
        placed = {"auto_pad": way}
        shape = [
            size * s if way != "VALID" else (size - 1) * s + k
            for size, s, k in zip(sizes, strides, kernel, strict=True)
        ]
        require(way == "VALID" or all(k >= s for k, s in zip(kernel, strides, strict=True)))
    weight = _weight(d, (channels, outputs // groups, *kernel), 1) if groups == 1 else None
    if weight is None:
        weight = d.floats((channels, outputs // groups, *kernel))
    return d.emit(
        "ConvTranspose",
        [x, weight, *_bias(d, outputs)],
        (n, outputs, *shape),
        group=groups,
        strides=strides,
        output_padding=extra if any(extra) else None,
        **placed,
    )


def gemm(d: Draft, x: Value) -> Value:
    require(x.rank == 2)
    left = d.chance(4)
    transposed = [d.integer(0, 1), d.integer(0, 1)]
    own, size = transposed[1 if left else 0], d.choose(2, 3, 5)
    free, contracted = (x.shape[1], x.shape[0]) if own else x.shape
    if left:
        # The value is B, [K, N] as the product sees it.
        free, contracted = contracted, free
    stored = (size, contracted) if left else (contracted, size)
    flip = transposed[0 if left else 1]
    weight = _weight(d, stored[::-1] if flip else stored, 0 if flip else 1)
    shape = (size, free) if left else (free, size)
    operands = [weight, x] if left else [x, weight]
    attributes: dict[str, object] = {"transA": transposed[0], "transB": transposed[1]}
    if d.chance(2) or d.opset < 11:
        rows, columns = shape
        operands.append(d.floats(d.choose((columns,), (1, columns), (rows, columns), (rows, 1), (1,), ())))
        attributes["beta"] = d.choose(1.0, 1.0, 0.5, 0.0, -2.0)
    attributes["alpha"] = d.choose(1.0, 1.0, 0.5, -2.0)
    return d.emit("Gemm", operands, shape, **attributes)


def matmul(d: Draft, x: Value) -> Value:
    require(x.rank >= 1)
    size, length = d.choose(2, 3, 4), x.shape[-1]
    shapes: list[Shape] = [(length, size)]
    if x.rank > 2:
        shapes += [(*x.shape[:-2], length, size), (*(1 for _ in x.shape[:-2]), length, size)]
    if x.rank > 1:
        shapes.append((length,))
    shape = d.choose(*shapes)
    result = x.shape[:-1] if len(shape) == 1 else (*x.shape[:-1], size)
    weight = _weight(d, shape, len(shape) - 1) if len(shape) == 2 else d.floats(shape)
    return d.emit("MatMul", [x, weight], result)


def matmul_left(d: Draft, x: Value) -> Value:
    require(x.rank >= 2)
    size, length = d.choose(2, 3, 4), x.shape[-2]
    shape = d.choose((size, length), (length,))
    result = (*x.shape[:-2], size, x.shape[-1]) if len(shape) == 2 else (*x.shape[:-2], x.shape[-1])
    return d.emit("MatMul", [d.floats(shape), x], result)


def recurrent(d: Draft, x: Value) -> Value:
    require(x.rank == 3 and d.dtype != TensorProto.BFLOAT16)
    op_type = d.choose("LSTM", "GRU", "RNN")
    gates, hidden = {"LSTM": 4, "GRU": 3, "RNN": 1}[op_type], d.choose(2, 3)
    direction = d.choose("forward", "bidirectional", "reverse")
    directions = 2 if direction == "bidirectional" else 1
    batch_first = d.opset >= 14 and d.chance(4)
    steps, batch, inputs = (x.shape[1], x.shape[0], x.shape[2]) if batch_first else x.shape
    operands: list[Value | str] = [
        x,
        d.floats((directions, gates * hidden, inputs)),
        d.floats((directions, gates * hidden, hidden)),
    ]
    if d.chance(2):
        operands.append(d.floats((directions, 2 * gates * hidden)))
    shape = (batch, steps, directions, hidden) if batch_first else (steps, directions, batch, hidden)
    attributes: dict[str, object] = {"hidden_size": hidden, "direction": direction}
    if batch_first:
        attributes["layout"] = 1
    if op_type == "GRU":
        attributes["linear_before_reset"] = d.integer(0, 1)
    return d.emit(op_type, operands, shape, **attributes)


def embedding(d: Draft, x: Value) -> Value:
    """A table looked up with indices that are fed: it absorbs on its own axes."""
    require(d.parent is None)
    rows, width, length = d.choose(4, 6), d.choose(2, 3, 4), d.choose(3, 5)
    table = d.floats((rows, width))
    indices = d.input((length,), [None], TensorProto.INT64)
    return d.emit("Gather", [table, indices], (length, width), dtype=table.dtype, axis=0)


STEPS = (conv, conv, gemm, matmul, conv_transpose, matmul_left, recurrent, embedding)
