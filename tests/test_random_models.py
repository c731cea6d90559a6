"""Random graphs of all kinds of operators: whatever is folded in them, every shared name keeps its meaning.

The seeds are fixed. ``NORMFOLD_RANDOM_MODELS=5000 pytest tests/test_random_models.py`` looks further.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

SEEDS = range(int(os.environ.get("NORMFOLD_RANDOM_MODELS", "60")))
START = (4, 6, 6)
LARGEST = 40
OPSET = 18

Shape = tuple[int, int, int]


class Impossible(Exception):
    """The operator does not fit the value that was drawn for it."""


class Net:
    """A graph under construction; every value has the shape [N, C, H, W]."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self._numpy = np.random.default_rng(seed)
        self.constants: dict[str, np.ndarray] = {}
        self.values: dict[str, Shape] = {"x": START}
        self.body: list[str] = []

    def grow(self) -> None:
        value = self.random.choice(list(self.values)[-4:])
        try:
            text, *shapes = self.random.choice(OPERATORS)(self, value, *self.values[value])
        except Impossible:
            return
        names = [f"v{len(self.values) + i}" for i in range(len(shapes))]
        self.body.append(f"{', '.join(names)} = {text}")
        self.values.update(zip(names, shapes, strict=True))

    def text(self) -> str | None:
        """The model; the last value is an output, and perhaps some others."""
        made = list(self.values)[1:]
        if not made:
            return None
        outputs = {made[-1], *self.random.choices(made, k=self.random.choice([0, 0, 1, 2]))}
        shapes = ((name, *self.values[name]) for name in sorted(outputs))
        signature = ", ".join(f"float[N, {c}, {h}, {w}] {name}" for name, c, h, w in shapes)
        c, h, w = START
        return f"g (float[N, {c}, {h}, {w}] x) => ({signature}) {{ {' '.join(self.body)} }}"

    def constant(self, array: Any) -> str:
        name = f"k{len(self.constants)}"
        self.constants[name] = np.asarray(array)
        return name

    def integers(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def floats(self, *shape: int) -> str:
        array = self._numpy.uniform(0.5, 1.5, shape)
        if self.random.random() < 0.6:
            array = array * self._numpy.choice([-1, 1], shape)
        return self.constant(array.astype(np.float32))

    def booleans(self, *shape: int) -> str:
        return self.constant(self._numpy.choice([True, False], shape))

    def like(self, shape: Shape) -> str:
        return self.random.choice([name for name, other in self.values.items() if other == shape])

    def pick(self, *choices: Any) -> Any:
        if not choices:
            raise Impossible
        return self.random.choice(choices)


Made = tuple[str, *tuple[Shape, ...]]


def require(condition: bool) -> None:
    if not condition:
        raise Impossible


def conv(net: Net, v: str, c: int, h: int, w: int) -> Made:
    kernel, stride, outputs = net.pick(1, 2, 3), net.pick(1, 1, 2), net.pick(2, 4, 6)
    groups = net.pick(*(g for g in (1, 2, c) if c % g == 0 and outputs % g == 0))
    pads = [net.pick(0, 0, 1) if kernel > 1 else 0 for _ in range(4)]
    height, width = ((n + pads[i] + pads[i + 2] - kernel) // stride + 1 for i, n in enumerate((h, w)))
    require(height > 0 and width > 0)
    bias = net.pick("", f", {net.floats(outputs)}")
    weight = net.floats(outputs, c // groups, kernel, kernel)
    attributes = f"group = {groups}, pads = {pads}, strides = {[stride] * 2}"
    return f"Conv <{attributes}> ({v}, {weight}{bias})", (outputs, height, width)


def conv_transpose(net: Net, v: str, c: int, h: int, w: int) -> Made:
    require(h <= 8 and w <= 8)
    kernel, stride, outputs = net.pick(1, 2, 3), net.pick(1, 2), net.pick(2, 4)
    groups = net.pick(*(g for g in (1, 2) if c % g == 0))
    weight = net.floats(c, outputs // groups, kernel, kernel)
    size = [(n - 1) * stride + kernel for n in (h, w)]
    text = f"ConvTranspose <group = {groups}, strides = {[stride] * 2}> ({v}, {weight})"
    return text, (outputs, size[0], size[1])


def batchnorm(net: Net, v: str, c: int, h: int, w: int) -> Made:
    scale, bias, mean, variance = (net.floats(c) for _ in range(4))
    net.constants[variance] = np.abs(net.constants[variance])
    return f"BatchNormalization ({v}, {scale}, {bias}, {mean}, {variance})", (c, h, w)


def affine(net: Net, v: str, c: int, h: int, w: int) -> Made:
    shape = net.pick((c, 1, 1), (1, c, 1, 1), (), (1,), (w,), (c, 1, w), (h, 1), (1, h, w))
    op_type, pair = net.pick("Mul", "Add", "Sub", "Div"), [v, net.floats(*shape)]
    if op_type != "Div":
        net.random.shuffle(pair)
    return f"{op_type} ({', '.join(pair)})", (c, h, w)


def combination(net: Net, v: str, c: int, h: int, w: int) -> Made:
    pair = [v, net.like((c, h, w))]
    net.random.shuffle(pair)
    return f"{net.pick('Add', 'Sub', 'Mul', 'Sum', 'Max', 'Min')} ({', '.join(pair)})", (c, h, w)


def where(net: Net, v: str, c: int, h: int, w: int) -> Made:
    return f"Where ({net.booleans(h, w)}, {v}, {net.like((c, h, w))})", (c, h, w)


def concat(net: Net, v: str, c: int, h: int, w: int) -> Made:
    other = net.pick(*(name for name, shape in net.values.items() if shape[1:] == (h, w)))
    total = c + net.values[other][0]
    require(total <= 12)
    return f"Concat <axis = 1> ({v}, {other})", (total, h, w)


def split(net: Net, v: str, c: int, h: int, w: int) -> Made:
    require(c % 2 == 0)
    return f"Split <axis = 1, num_outputs = 2> ({v})", (c // 2, h, w), (c // 2, h, w)


def resized(shape: Shape, axis: int, size: int) -> Shape:
    sizes = list(shape)
    sizes[axis - 1] = size
    return sizes[0], sizes[1], sizes[2]


def slicing(net: Net, v: str, *shape: int) -> Made:
    axis, step = net.pick(1, 2, 3), net.pick(1, 1, 2)
    size = shape[axis - 1]
    start = net.random.randint(0, size - 1)
    end = net.random.randint(start + 1, size)
    bounds = [net.integers(net.pick(start, start - size)), net.integers(end)]
    text = f"Slice ({v}, {', '.join(bounds)}, {net.integers(axis)}, {net.integers(step)})"
    return text, resized(shape, axis, (end - start + step - 1) // step)


def gather(net: Net, v: str, *shape: int) -> Made:
    axis = net.pick(1, 2, 3)
    size = shape[axis - 1]
    chosen = [net.random.randint(-size, size - 1) for _ in range(net.random.randint(1, size))]
    return f"Gather <axis = {axis}> ({v}, {net.integers(*chosen)})", resized(shape, axis, len(chosen))


def tile(net: Net, v: str, *shape: int) -> Made:
    axis = net.pick(1, 2, 3)
    require(shape[axis - 1] <= 8)
    repeats = [2 if i == axis else 1 for i in range(4)]
    return f"Tile ({v}, {net.integers(*repeats)})", resized(shape, axis, 2 * shape[axis - 1])


def pad(net: Net, v: str, *shape: int) -> Made:
    axis, after = net.pick(1, 2, 3), net.pick(0, 1)
    require(shape[axis - 1] > 1)
    pads = [0] * 8
    pads[axis], pads[4 + axis] = 1, after
    mode = net.pick("constant", "constant", "edge", "reflect")
    value = f", {net.constant(np.float32(net.pick(0.0, 1.5)))}" if mode == "constant" else ""
    text = f'Pad <mode = "{mode}"> ({v}, {net.integers(*pads)}{value})'
    return text, resized(shape, axis, shape[axis - 1] + 1 + after)


def transpose(net: Net, v: str, *shape: int) -> Made:
    order = net.random.sample([1, 2, 3], 3)
    return f"Transpose <perm = {[0, *order]}> ({v})", tuple(shape[i - 1] for i in order)


def reshape(net: Net, v: str, c: int, h: int, w: int) -> Made:
    halves = [(c // 2, 2 * h, w), (2, c // 2, h * w)] if c % 2 == 0 else []
    shape = net.pick((c, h * w, 1), (c * h, w, 1), (c, 1, h * w), (h, c, w), (w, h, c), *halves)
    require(max(shape) <= LARGEST)
    target = [0, *shape]
    if net.random.random() < 0.3:
        target[net.pick(1, 2, 3)] = -1
    return f"Reshape ({v}, {net.integers(*target)})", shape


def blocks(net: Net, v: str, c: int, h: int, w: int) -> Made:
    if c % 4 == 0 and h < 8 and w < 8:
        mode = net.pick("DCR", "CRD")
        return f'DepthToSpace <blocksize = 2, mode = "{mode}"> ({v})', (c // 4, 2 * h, 2 * w)
    require(h % 2 == 0 and w % 2 == 0 and c <= 4)
    return f"SpaceToDepth <blocksize = 2> ({v})", (4 * c, h // 2, w // 2)


def pool(net: Net, v: str, c: int, h: int, w: int) -> Made:
    kernel, stride = net.pick(2, 3), net.pick(1, 2)
    padding = net.pick(0, 1) if kernel == 3 else 0
    height, width = ((n + 2 * padding - kernel) // stride + 1 for n in (h, w))
    require(height > 0 and width > 0)
    attributes = f"kernel_shape = {[kernel] * 2}, strides = {[stride] * 2}, pads = {[padding] * 4}"
    op_type = net.pick("MaxPool", "AveragePool")
    if op_type == "AveragePool":
        attributes += f", count_include_pad = {net.pick(0, 1)}"
    return f"{op_type} <{attributes}> ({v})", (c, height, width)


def global_pool(net: Net, v: str, c: int, h: int, w: int) -> Made:
    return f"{net.pick('GlobalAveragePool', 'GlobalMaxPool')} ({v})", (c, 1, 1)


def reduction(net: Net, v: str, *shape: int) -> Made:
    axis = net.pick(1, 2, 3)
    op_type = net.pick("ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum")
    return f"{op_type} <keepdims = 1> ({v}, {net.integers(axis)})", resized(shape, axis, 1)


def activation(net: Net, v: str, *shape: int) -> Made:
    op_type = net.pick("Relu", "Relu", "LeakyRelu", "Sigmoid", "Tanh", "Abs", "Neg", "Identity")
    return f"{op_type} ({v})", shape


def bounded(net: Net, v: str, c: int, h: int, w: int) -> Made:
    low, high = (net.constant(np.float32(bound)) for bound in (-1, 2))
    per_channel = net.floats(*net.pick((), (c, 1, 1)))
    text = net.pick(f"Clip ({v}, {low}, {high})", f"Max ({v}, {per_channel})", f"Min ({per_channel}, {v})")
    return text, (c, h, w)


def parametric_relu(net: Net, v: str, c: int, h: int, w: int) -> Made:
    return f"PRelu ({v}, {net.floats(c, 1, 1)})", (c, h, w)


def normalisation(net: Net, v: str, c: int, h: int, w: int) -> Made:
    require(h * w > 2 and w > 2)
    text = net.pick(
        f"InstanceNormalization ({v}, {net.floats(c)}, {net.floats(c)})",
        f"LayerNormalization <axis = -1> ({v}, {net.floats(w)}, {net.floats(w)})",
        f"Softmax <axis = {net.pick(1, 2, 3)}> ({v})",
    )
    return text, (c, h, w)


def matmul(net: Net, v: str, c: int, h: int, w: int) -> Made:
    size = net.pick(2, 4, 6)
    if net.random.random() < 0.7:
        return f"MatMul ({v}, {net.floats(*net.pick((w, size), (c, w, size)))})", (c, h, size)
    return f"MatMul ({net.floats(size, h)}, {v})", (c, size, w)


def upsample(net: Net, v: str, c: int, h: int, w: int) -> Made:
    require(h <= 8 and w <= 8)
    scales = net.constant(np.array([1, 1, 2, 2], np.float32))
    return f'Resize <mode = "{net.pick("nearest", "linear")}"> ({v}, , {scales})', (c, 2 * h, 2 * w)


OPERATORS: tuple[Callable[..., Any], ...] = (
    *[conv, affine, batchnorm] * 3,
    *[combination, activation] * 2,
    *[conv_transpose, where, concat, split, slicing, gather, tile, pad, transpose, reshape, blocks, pool],
    *[global_pool, reduction, bounded, parametric_relu, normalisation, matmul, upsample],
)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_shared_name_keeps_its_meaning(check: Any, seed: int) -> None:
    net = Net(seed)
    for _ in range(net.random.randint(4, 14)):
        net.grow()
    text = net.text()
    if text is None:
        pytest.skip("nothing was drawn")
    model = check.model(text, net.constants, opset=OPSET)
    onnx.checker.check_model(model)
    # Products of products amplify rounding; a mistake is many orders of magnitude larger.
    check(model, tolerance=1e-9)
