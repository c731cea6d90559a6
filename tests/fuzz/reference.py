"""The float64 interpreter of ``tests/interpreter.py``, with what random models need besides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

from tests.interpreter import Interpreter


class Reference(Interpreter):
    """Operators that ``onnx.reference`` lacks, or gets wrong in some opset, in plain numpy."""

    def _node(
        self, node: onnx.NodeProto, inputs: list[Any], attributes: dict[str, Any], scope: dict[str, Any]
    ) -> Sequence[Any]:
        if node.op_type == "Scan":
            return self._scan(inputs, attributes["body"], scope)
        if (node.domain, node.op_type) == ("com.microsoft", "GroupNorm"):
            return [self._channels_last_groupnorm(inputs, attributes)]
        if node.op_type == "Dropout":
            # Nothing is dropped: in evaluation, or by a ratio of 0.
            return [inputs[0], np.ones(inputs[0].shape, bool)]
        if node.op_type == "Split":
            _check_split(inputs, attributes)
        if node.op_type in ("Conv", "ConvTranspose"):
            _check_channels(node.op_type, inputs, attributes)
        return super()._node(node, inputs, attributes, scope)

    def _scan(self, inputs: list[Any], body: onnx.GraphProto, scope: dict[str, Any]) -> list[Any]:
        """One scanned input along axis 0, and no state."""
        rows = [self._run(body, {**scope, body.input[0].name: row}) for row in inputs[0]]
        return [np.stack([row[output.name] for row in rows]) for output in body.output]

    def _convtranspose(self, inputs: list[Any], attributes: dict[str, Any]) -> np.ndarray:
        mode, shape = attributes.pop("auto_pad", b"NOTSET"), attributes.pop("output_shape", None)
        if shape is None and mode in (b"NOTSET", b"VALID"):
            return super()._convtranspose(inputs, attributes)
        x, w = inputs[:2]
        spatial = w.ndim - 2
        strides = attributes.get("strides", [1] * spatial)
        dilations = attributes.get("dilations", [1] * spatial)
        extra = attributes.get("output_padding", [0] * spatial)
        shape = [n * s for n, s in zip(x.shape[2:], strides, strict=True)] if shape is None else shape
        totals = [
            max((n - 1) * s + e + (k - 1) * d + 1 - size, 0)
            for n, s, e, k, d, size in zip(
                x.shape[2:], strides, extra, w.shape[2:], dilations, shape[-spatial:], strict=True
            )
        ]
        small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
        pads = [*small, *large] if mode == b"SAME_UPPER" else [*large, *small]
        return super()._convtranspose(inputs, {**attributes, "pads": pads})

    def _dequantizelinear(self, inputs: list[Any], attributes: dict[str, Any]) -> np.ndarray:
        """Scale and zero point for all, for each index of ``axis``, or for each block along it."""
        codes, scale, zero = (*inputs, None)[:3]
        axis = attributes.get("axis", 1)

        def spread(array: np.ndarray) -> np.ndarray:
            if array.ndim == codes.ndim and array.ndim and attributes.get("block_size", 0):
                return np.repeat(array, attributes["block_size"], axis=axis)
            return array.reshape([-1 if i == axis % codes.ndim else 1 for i in range(codes.ndim)])

        moved = codes.astype(np.float64)
        if zero is not None:
            moved = moved - spread(zero.astype(np.float64))
        return moved * spread(np.asarray(scale))

    def _clip(self, inputs: list[Any], attributes: dict[str, Any]) -> np.ndarray:
        x, low, high = (*inputs, None, None)[:3]
        low, high = attributes.get("min", low), attributes.get("max", high)
        x = x if low is None else np.maximum(x, low)
        return x if high is None else np.minimum(x, high)

    def _squeeze(self, inputs: list[Any], attributes: dict[str, Any]) -> np.ndarray:
        axes = attributes.get("axes", inputs[1] if len(inputs) > 1 else None)
        return np.squeeze(inputs[0], None if axes is None else tuple(int(axis) for axis in axes))

    def _unsqueeze(self, inputs: list[Any], attributes: dict[str, Any]) -> np.ndarray:
        return np.expand_dims(inputs[0], tuple(int(a) for a in attributes.get("axes", inputs[-1])))

    def _reduced(self, inputs: list[Any], attributes: dict[str, Any], function: Any) -> np.ndarray:
        axes = attributes.get("axes", inputs[1] if len(inputs) > 1 else None)
        own = None if axes is None else tuple(int(axis) for axis in axes)
        return np.asarray(function(inputs[0], axis=own, keepdims=bool(attributes.get("keepdims", 1))))

    def _reducemean(self, inputs: list[Any], attributes: dict[str, Any]) -> np.ndarray:
        return self._reduced(inputs, attributes, np.mean)

    def _reducesum(self, inputs: list[Any], attributes: dict[str, Any]) -> np.ndarray:
        return self._reduced(inputs, attributes, np.sum)

    def _reducemax(self, inputs: list[Any], attributes: dict[str, Any]) -> np.ndarray:
        return self._reduced(inputs, attributes, np.max)

    def _reducemin(self, inputs: list[Any], attributes: dict[str, Any]) -> np.ndarray:
        return self._reduced(inputs, attributes, np.min)

    def _reshape(self, inputs: list[Any], attributes: dict[str, Any]) -> np.ndarray:
        """A −1 is what it is for every other batch where there is none: numpy and onnxruntime do not say."""
        x, target = inputs
        dims = [int(size) for size in target]
        if not attributes.get("allowzero", 0):
            dims = [x.shape[axis] if size == 0 else size for axis, size in enumerate(dims)]
        if x.size == 0 and -1 in dims:
            rest = math.prod(size for size in x.shape if size) // math.prod(size for size in dims if size > 0)
            dims[dims.index(-1)] = rest if 0 in dims else 0
        return np.asarray(x.reshape(dims))

    def _erf(self, inputs: list[Any], attributes: dict[str, Any]) -> np.ndarray:
        """That of ``onnx.reference`` computes in float32."""
        return np.vectorize(math.erf, otypes=[float])(inputs[0]).astype(inputs[0].dtype)

    def _slice(self, inputs: list[Any], attributes: dict[str, Any]) -> np.ndarray:
        x = inputs[0]
        names = ("starts", "ends", "axes", "steps")
        given = [attributes.get(name) for name in names] if self.opset < 10 else [*inputs[1:], None, None]
        starts, ends, axes, steps = given[:4]
        cut = [slice(None)] * x.ndim
        for place, (start, end) in enumerate(zip(starts, ends, strict=True)):
            axis = place if axes is None else int(axes[place])
            step = 1 if steps is None else int(steps[place])
            # Clamped, an end in front of the first element is no index from the end.
            stop = None if step < 0 and end < -x.shape[axis] else int(end)
            cut[axis] = slice(int(start), stop, step)
        return x[tuple(cut)]

    def _pad(self, inputs: list[Any], attributes: dict[str, Any]) -> np.ndarray:
        x, pads, value, axes = (*inputs, None, None, None)[:4]
        pads = [int(p) for p in attributes.get("pads", pads)]
        axes = range(x.ndim) if axes is None else [int(axis) % x.ndim for axis in axes]
        widths = [(0, 0)] * x.ndim
        for place, axis in enumerate(axes):
            widths[axis] = (pads[place], pads[place + len(pads) // 2])
        crop = tuple(slice(max(-b, 0), n - max(-e, 0)) for n, (b, e) in zip(x.shape, widths, strict=True))
        widths = [(max(b, 0), max(e, 0)) for b, e in widths]
        mode = attributes.get("mode", b"constant").decode()
        if mode == "constant":
            fill = attributes.get("value", 0.0) if value is None else value
            return np.pad(x[crop], widths, constant_values=float(fill))
        return np.pad(x[crop], widths, mode=mode)

    def _softmax(self, inputs: list[Any], attributes: dict[str, Any]) -> np.ndarray:
        x = inputs[0]
        if self.opset >= 13:
            axes: tuple[int, ...] = (attributes.get("axis", -1),)
        else:
            axes = tuple(range(attributes.get("axis", 1) % x.ndim, x.ndim))
        raised = np.exp(x - x.max(axis=axes, keepdims=True))
        return raised / raised.sum(axis=axes, keepdims=True)

    def _logsoftmax(self, inputs: list[Any], attributes: dict[str, Any]) -> np.ndarray:
        return np.log(self._softmax(inputs, attributes))

    def _upsample(self, inputs: list[Any], attributes: dict[str, Any]) -> np.ndarray:
        scales = attributes.get("scales") or inputs[1]
        return _resized(inputs[0], [int(scale) for scale in scales], attributes["mode"], _asymmetric)

    def _resize(self, inputs: list[Any], attributes: dict[str, Any]) -> np.ndarray:
        x, sizes = inputs[0], inputs[3] if len(inputs) > 3 else None
        scales = inputs[1] if self.opset < 11 else inputs[2]
        if sizes is not None:
            scales = [n // m for n, m in zip(sizes, x.shape, strict=True)]
        factors = [int(scale) for scale in scales]
        rule = attributes.get("coordinate_transformation_mode", b"half_pixel")
        place = _asymmetric if self.opset < 11 else _PLACES[rule]
        mode = attributes.get("mode", b"nearest")
        prefers_floor = self.opset >= 11
        return _resized(x, factors, mode, place, prefers_floor=prefers_floor)

    def _instancenormalization(self, inputs: list[Any], attributes: dict[str, Any]) -> np.ndarray:
        x, scale, bias = inputs
        normal = _standardised(x, tuple(range(2, x.ndim)), attributes.get("epsilon", np.float32(1e-5)))
        shape = (-1, *(1 for _ in x.shape[2:]))
        return normal * scale.reshape(shape) + bias.reshape(shape)

    def _groupnormalization(self, inputs: list[Any], attributes: dict[str, Any]) -> np.ndarray:
        x, scale, bias = inputs
        groups = attributes["num_groups"]
        rows = x.reshape(x.shape[0], groups, math.prod(x.shape[1:]) // groups)
        normal = _standardised(rows, (2,), attributes.get("epsilon", np.float32(1e-5))).reshape(x.shape)
        shape = (-1, *(1 for _ in x.shape[2:]))
        return normal * scale.reshape(shape) + bias.reshape(shape)

    def _channels_last_groupnorm(self, inputs: list[Any], attributes: dict[str, Any]) -> np.ndarray:
        """com.microsoft.GroupNorm of x [N, H, W, C], with the SiLU that may follow it."""
        x, scale, bias = inputs
        settings = {"num_groups": attributes["groups"], "epsilon": attributes["epsilon"]}
        y = np.moveaxis(self._groupnormalization([np.moveaxis(x, -1, 1), scale, bias], settings), 1, -1)
        return y / (1.0 + np.exp(-y)) if attributes.get("activation", 0) else y

    def _layernormalization(self, inputs: list[Any], attributes: dict[str, Any]) -> np.ndarray:
        x, scale, bias = (*inputs, None)[:3]
        axes = tuple(range(attributes.get("axis", -1) % x.ndim, x.ndim))
        y = _standardised(x, axes, attributes.get("epsilon", np.float32(1e-5))) * scale
        return y if bias is None else y + bias

    def _rmsnormalization(self, inputs: list[Any], attributes: dict[str, Any]) -> np.ndarray:
        x, scale = inputs
        axes = tuple(range(attributes.get("axis", -1) % x.ndim, x.ndim))
        mean = (x * x).mean(axis=axes, keepdims=True)
        return x / np.sqrt(mean + attributes.get("epsilon", np.float32(1e-5))) * scale

    def _meanvariancenormalization(self, inputs: list[Any], attributes: dict[str, Any]) -> np.ndarray:
        x, axes = inputs[0], tuple(attributes.get("axes", (0, 2, 3)))
        mean = x.mean(axis=axes, keepdims=True)
        deviation = np.sqrt((x * x).mean(axis=axes, keepdims=True) - mean**2)
        return (x - mean) / (deviation + 1e-9)

    def _globalaveragepool(self, inputs: list[Any], attributes: dict[str, Any]) -> np.ndarray:
        return np.asarray(inputs[0].mean(axis=tuple(range(2, inputs[0].ndim)), keepdims=True))

    def _globalmaxpool(self, inputs: list[Any], attributes: dict[str, Any]) -> np.ndarray:
        return np.asarray(inputs[0].max(axis=tuple(range(2, inputs[0].ndim)), keepdims=True))

    def _averagepool(self, inputs: list[Any], attributes: dict[str, Any]) -> np.ndarray:
        return _pooled(inputs[0], attributes, np.sum, 0.0)

    def _maxpool(self, inputs: list[Any], attributes: dict[str, Any]) -> np.ndarray:
        return _pooled(inputs[0], attributes, np.max, -np.inf)


def _check_split(inputs: list[Any], attributes: dict[str, Any]) -> None:
    """``onnx.reference`` takes sizes that do not add up."""
    sizes = attributes.get("split", inputs[1] if len(inputs) > 1 else None)
    size = inputs[0].shape[attributes.get("axis", 0)]
    if sizes is not None and sum(sizes) != size:
        raise ValueError(f"{list(sizes)} do not add up to {size}")


def _check_channels(op_type: str, inputs: list[Any], attributes: dict[str, Any]) -> None:
    """An axis of channels that has the size of an empty batch is no input of a layer."""
    x, weight = inputs[:2]
    channels = weight.shape[0] if op_type == "ConvTranspose" else weight.shape[1] * attributes.get("group", 1)
    if x.shape[1] != channels:
        raise ValueError(f"{x.shape[1]} channels where the weight has {channels}")


def _standardised(x: np.ndarray, axes: tuple[int, ...], epsilon: float) -> np.ndarray:
    return (x - x.mean(axis=axes, keepdims=True)) / np.sqrt(x.var(axis=axes, keepdims=True) + epsilon)


def _pooled(x: np.ndarray, attributes: dict[str, Any], reduce: Any, fill: float) -> np.ndarray:
    """Windows one by one; an average divides by what the window has inside, or inside the padding."""
    kernel = attributes["kernel_shape"]
    spatial = len(kernel)
    strides, sizes = attributes["strides"], x.shape[2:]
    pads = _pool_pads(sizes, kernel, strides, attributes)
    shape = []
    for axis, size in enumerate(sizes):
        span = size + pads[axis] + pads[axis + spatial] - kernel[axis]
        steps = span // strides[axis]
        if attributes.get("ceil_mode", 0):
            steps = math.ceil(span / strides[axis])
            if steps * strides[axis] >= size + pads[axis]:
                steps -= 1
        shape.append(steps + 1)
    result = np.empty((*x.shape[:2], *shape))
    for place in np.ndindex(*shape):
        inside, counted = [], 1
        for axis, index in enumerate(place):
            start = index * strides[axis] - pads[axis]
            end = start + kernel[axis]
            inside.append(slice(max(start, 0), min(end, sizes[axis])))
            counted *= min(end, sizes[axis] + pads[axis + spatial]) - start
        window = x[(slice(None), slice(None), *inside)]
        value = reduce(window, axis=tuple(range(2, x.ndim)))
        if reduce is np.sum:
            own = math.prod(window.shape[2:])
            value = value / (counted if attributes.get("count_include_pad", 0) else own)
        result[(slice(None), slice(None), *place)] = value
    return result


def _pool_pads(
    sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int], attributes: dict[str, Any]
) -> list[int]:
    mode = attributes.get("auto_pad", b"NOTSET")
    if mode in (b"NOTSET", b"VALID"):
        return list(attributes.get("pads", [0] * 2 * len(kernel)))
    totals = [
        max((math.ceil(n / s) - 1) * s + k - n, 0) for n, s, k in zip(sizes, strides, kernel, strict=True)
    ]
    small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
    return [*small, *large] if mode == b"SAME_UPPER" else [*large, *small]


def _asymmetric(index: np.ndarray, factor: int, size: int) -> np.ndarray:
    return index / factor


def _half_pixel(index: np.ndarray, factor: int, size: int) -> np.ndarray:
    return (index + 0.5) / factor - 0.5


def _align_corners(index: np.ndarray, factor: int, size: int) -> np.ndarray:
    return index * (size - 1) / (size * factor - 1) if size * factor > 1 else index * 0.0


_PLACES = {b"half_pixel": _half_pixel, b"asymmetric": _asymmetric, b"align_corners": _align_corners}


def _resized(
    x: np.ndarray, factors: Sequence[int], mode: bytes, place: Any, *, prefers_floor: bool = False
) -> np.ndarray:
    for axis, factor in enumerate(factors):
        if factor == 1:
            continue
        size = x.shape[axis]
        where = place(np.arange(size * factor, dtype=np.float64), factor, size)
        if mode == b"nearest":
            chosen = np.ceil(where - 0.5) if prefers_floor else np.floor(where)
            x = x.take(np.clip(chosen, 0, size - 1).astype(int), axis=axis)
            continue
        where = np.clip(where, 0, size - 1)
        low = np.floor(where).astype(int)
        high = np.minimum(low + 1, size - 1)
        shape = [-1 if i == axis else 1 for i in range(x.ndim)]
        weight = (where - low).reshape(shape)
        x = x.take(low, axis=axis) * (1 - weight) + x.take(high, axis=axis) * weight
    return x
