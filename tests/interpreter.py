"""An interpreter of ONNX in float64 that shares no code with normfold.

Operators that folds touch are written here in plain numpy; the others are asked of ``onnx.reference``, node
by node, in double.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx.inliner
import onnx.numpy_helper
import pytest
from onnx.reference import ReferenceEvaluator

Arrays = Mapping[str, np.ndarray]


class Interpreter:
    """Runs a model in float64. ``exact`` replaces initializers, by name, by their values before rounding."""

    def __init__(
        self, model: onnx.ModelProto, exact: Mapping[str, Callable[[], np.ndarray]] | None = None
    ) -> None:
        self.model = onnx.inliner.inline_local_functions(model) if model.functions else model
        self.opset = next(o.version for o in self.model.opset_import if o.domain in ("", "ai.onnx"))
        self._opsets = {o.domain: o.version for o in self.model.opset_import}
        self._exact = dict(exact or {})

    def run(self, feeds: Arrays) -> dict[str, np.ndarray]:
        """Every value of the main graph, by name."""
        return self._run(self.model.graph, {name: double(array) for name, array in feeds.items()})

    def _run(self, graph: onnx.GraphProto, known: Mapping[str, Any]) -> dict[str, Any]:
        values = dict(known)
        for tensor in graph.initializer:
            if tensor.name not in known or tensor.name not in {i.name for i in graph.input}:
                exact = self._exact.get(tensor.name)
                values[tensor.name] = double(onnx.numpy_helper.to_array(tensor)) if exact is None else exact()
        for node in graph.node:
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            inputs = [values[name] if name else None for name in node.input]
            outputs = self._node(node, inputs, attributes, values)
            values.update({name: out for name, out in zip(node.output, outputs, strict=False) if name})
        return values

    def _node(
        self, node: onnx.NodeProto, inputs: list[Any], attributes: dict[str, Any], scope: dict[str, Any]
    ) -> Sequence[Any]:
        if node.op_type == "If":
            body = attributes["then_branch" if bool(inputs[0]) else "else_branch"]
            inner = self._run(body, scope)
            return [inner[o.name] for o in body.output]
        if node.op_type == "Loop":
            return self._loop(inputs, attributes["body"], scope)
        if node.op_type == "Cast" and attributes["to"] in _FLOATING:
            return [np.asarray(inputs[0], dtype=np.float64)]
        by_hand = getattr(self, f"_{node.op_type.lower()}", None)
        if by_hand is not None:
            return [by_hand(inputs, attributes)]
        evaluator = ReferenceEvaluator(node, opsets=self._opsets)
        feeds = {name: np.asarray(v) for name, v in zip(node.input, inputs, strict=True) if name}
        return [double(np.asarray(out)) for out in evaluator.run(None, feeds)]

    def _splittosequence(self, inputs: list[Any], attributes: dict[str, Any]) -> list[np.ndarray]:
        x, axis = inputs[0], attributes.get("axis", 0)
        if len(inputs) < 2:
            parts = np.split(x, x.shape[axis], axis)
            return parts if attributes.get("keepdims", 1) else [np.squeeze(part, axis) for part in parts]
        sizes = np.asarray(inputs[1])
        cuts = np.cumsum(sizes)[:-1] if sizes.ndim else np.arange(sizes, x.shape[axis], sizes)
        return np.split(x, cuts, axis)

    def _sequenceat(self, inputs: list[Any], attributes: dict[str, Any]) -> np.ndarray:
        return np.asarray(inputs[0][int(inputs[1])])

    def _loop(self, inputs: list[Any], body: onnx.GraphProto, scope: dict[str, Any]) -> list[Any]:
        trips, condition, *carried = inputs
        names, scanned = [i.name for i in body.input], []
        for step in itertools.count():
            if (trips is not None and step >= trips) or (condition is not None and not condition):
                break
            inner = self._run(body, {**scope, **dict(zip(names, [step, condition, *carried], strict=True))})
            condition, *rest = [inner[o.name] for o in body.output]
            carried, row = rest[: len(carried)], rest[len(carried) :]
            scanned.append(row)
        return [*carried, *(np.stack(column) for column in zip(*scanned, strict=True))]

    def _conv(self, inputs: list[Any], attributes: dict[str, Any]) -> np.ndarray:
        x, w, bias = (*inputs, None)[:3]
        spatial = w.ndim - 2
        strides = attributes.get("strides", [1] * spatial)
        dilations = attributes.get("dilations", [1] * spatial)
        groups = attributes.get("group", 1)
        reach = [(k - 1) * d + 1 for k, d in zip(w.shape[2:], dilations, strict=True)]
        pads = self._conv_pads(x.shape[2:], reach, strides, attributes)
        x = np.pad(x, [(0, 0), (0, 0), *zip(pads[:spatial], pads[spatial:], strict=True)])
        size = [(n - r) // s + 1 for n, r, s in zip(x.shape[2:], reach, strides, strict=True)]
        out = np.zeros((x.shape[0], groups, w.shape[0] // groups, *size))
        for tap in np.ndindex(*w.shape[2:]):
            window = tuple(
                slice(t * d, t * d + (n - 1) * s + 1, s)
                for t, d, n, s in zip(tap, dilations, size, strides, strict=True)
            )
            seen = x[(slice(None), slice(None), *window)]
            seen = seen.reshape(x.shape[0], groups, -1, *size)
            taps = w[(slice(None), slice(None), *tap)].reshape(groups, w.shape[0] // groups, -1)
            out += np.einsum("ngc...,goc->ngo...", seen, taps)
        out = out.reshape(x.shape[0], w.shape[0], *size)
        return out if bias is None else out + bias.reshape(-1, *[1] * spatial)

    def _conv_pads(
        self, sizes: Sequence[int], reach: list[int], strides: list[int], attributes: dict[str, Any]
    ) -> list[int]:
        mode = attributes.get("auto_pad", b"NOTSET").decode()
        if mode == "NOTSET":
            return list(attributes.get("pads", [0] * 2 * len(sizes)))
        if mode == "VALID":
            return [0] * 2 * len(sizes)
        totals = [
            max((math.ceil(n / s) - 1) * s + r - n, 0) for n, r, s in zip(sizes, reach, strides, strict=True)
        ]
        small, large = [t // 2 for t in totals], [t - t // 2 for t in totals]
        return [*small, *large] if mode == "SAME_UPPER" else [*large, *small]

    def _convtranspose(self, inputs: list[Any], attributes: dict[str, Any]) -> np.ndarray:
        x, w, bias = (*inputs, None)[:3]
        spatial = w.ndim - 2
        strides = attributes.get("strides", [1] * spatial)
        dilations = attributes.get("dilations", [1] * spatial)
        groups = attributes.get("group", 1)
        extra = attributes.get("output_padding", [0] * spatial)
        pads = attributes.get("pads", [0] * 2 * spatial)
        assert "auto_pad" not in attributes and "output_shape" not in attributes
        size = [
            (n - 1) * s + (k - 1) * d + 1 + e
            for n, s, k, d, e in zip(x.shape[2:], strides, w.shape[2:], dilations, extra, strict=True)
        ]
        outputs = w.shape[1] * groups
        out = np.zeros((x.shape[0], outputs, *size))
        grouped = x.reshape(x.shape[0], groups, -1, *x.shape[2:])
        for tap in np.ndindex(*w.shape[2:]):
            taps = w[(slice(None), slice(None), *tap)].reshape(groups, -1, w.shape[1])
            part = np.einsum("ngc...,gco->ngo...", grouped, taps).reshape(x.shape[0], outputs, *x.shape[2:])
            window = tuple(
                slice(t * d, t * d + (n - 1) * s + 1, s)
                for t, d, n, s in zip(tap, dilations, x.shape[2:], strides, strict=True)
            )
            out[(slice(None), slice(None), *window)] += part
        crop = tuple(slice(b, n - e) for b, e, n in zip(pads[:spatial], pads[spatial:], size, strict=True))
        out = out[(slice(None), slice(None), *crop)]
        return out if bias is None else out + bias.reshape(-1, *[1] * spatial)

    def _gemm(self, inputs: list[Any], attributes: dict[str, Any]) -> np.ndarray:
        a, b, c = (*inputs, None)[:3]
        a = a.T if attributes.get("transA", 0) else a
        b = b.T if attributes.get("transB", 0) else b
        y = attributes.get("alpha", 1.0) * (a @ b)
        beta = attributes.get("beta", 1.0)
        return y if c is None or beta == 0.0 else y + beta * c

    def _matmul(self, inputs: list[Any], attributes: dict[str, Any]) -> np.ndarray:
        return np.matmul(*inputs)

    def _batchnormalization(self, inputs: list[Any], attributes: dict[str, Any]) -> np.ndarray:
        x, scale, bias, mean, var = inputs
        if self.opset >= 14 and attributes.get("training_mode", 0):
            axes = tuple(i for i in range(x.ndim) if i != 1)
            mean, var = x.mean(axis=axes), x.var(axis=axes)
        shape = [-1 if axis == 1 else 1 for axis in range(x.ndim)] if x.ndim > 1 else [-1]
        if self.opset < 9 and not attributes.get("spatial", 1):
            shape = [1, *x.shape[1:]]
        scale, bias, mean, var = (p.reshape(shape) for p in (scale, bias, mean, var))
        return (x - mean) / np.sqrt(var + attributes.get("epsilon", np.float32(1e-5))) * scale + bias

    def _binary(
        self, inputs: list[Any], attributes: dict[str, Any], function: Callable[..., np.ndarray]
    ) -> np.ndarray:
        a, b = (np.asarray(v) for v in inputs)
        if self.opset < 7 and "axis" in attributes:
            axis = attributes["axis"] % a.ndim
            b = b.reshape(b.shape + (1,) * (a.ndim - axis - b.ndim))
        return function(a, b)

    def _mul(self, inputs: list[Any], attributes: dict[str, Any]) -> np.ndarray:
        return self._binary(inputs, attributes, np.multiply)

    def _add(self, inputs: list[Any], attributes: dict[str, Any]) -> np.ndarray:
        return self._binary(inputs, attributes, np.add)

    def _sub(self, inputs: list[Any], attributes: dict[str, Any]) -> np.ndarray:
        return self._binary(inputs, attributes, np.subtract)

    def _div(self, inputs: list[Any], attributes: dict[str, Any]) -> np.ndarray:
        if not np.issubdtype(np.asarray(inputs[0]).dtype, np.floating):
            return self._binary(inputs, attributes, np.floor_divide)
        return self._binary(inputs, attributes, np.divide)

    def _sum(self, inputs: list[Any], attributes: dict[str, Any]) -> np.ndarray:
        return np.asarray(sum(inputs))

    def _identity(self, inputs: list[Any], attributes: dict[str, Any]) -> np.ndarray:
        return inputs[0]

    def _dropout(self, inputs: list[Any], attributes: dict[str, Any]) -> np.ndarray:
        return inputs[0]

    def _sigmoid(self, inputs: list[Any], attributes: dict[str, Any]) -> np.ndarray:
        return 1.0 / (1.0 + np.exp(-inputs[0]))

    def _relu(self, inputs: list[Any], attributes: dict[str, Any]) -> np.ndarray:
        return np.maximum(inputs[0], 0.0)


_FLOATING = frozenset(
    {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE}
)


def double(array: np.ndarray) -> np.ndarray:
    """Floating arrays as float64, others as they are."""
    floating = array.dtype.kind == "f" or array.dtype == ml_dtypes.bfloat16
    return array.astype(np.float64) if floating else array


@pytest.fixture(scope="session")
def interpreter() -> type[Interpreter]:
    return Interpreter
