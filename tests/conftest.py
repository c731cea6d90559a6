"""An interpreter of ONNX in float64 that shares no code with normfold, and a check that holds folds to it.

Operators that folds touch are written here in plain numpy; the others are asked of ``onnx.reference``, node
by node, in double.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx.inliner
import onnx.numpy_helper
import onnx.parser
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from normfold.folding import Folded, fold_model
from normfold.options import FoldOptions
from normfold.reporting.report import Site

Arrays = Mapping[str, np.ndarray]

# A double carries 1e-16; an epsilon of 1e-3 for 1e-5 moves a normalisation by 1e-4 and more.
TOLERANCE = 1e-12


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


def nearest(exact: np.ndarray, dtype: Any) -> np.ndarray:
    """The numbers of ``dtype`` nearest to ``exact``, ties to even: a guess and its neighbours are tried."""
    dtype = np.dtype(dtype)
    if dtype == np.float64:
        return exact
    guess = exact.astype(dtype)
    bits = guess.view(f"u{dtype.itemsize}")
    best, error = guess, np.abs(guess.astype(np.float64) - exact)
    for step in (-1, 1):
        other = (bits.astype(np.int64) + step).astype(bits.dtype).view(dtype)
        with np.errstate(invalid="ignore"):
            distance = np.abs(other.astype(np.float64) - exact)
        even = other.view(bits.dtype) % 2 == 0
        better = (distance < error) | ((distance == error) & even)
        best, error = np.where(better, other, best), np.where(better, distance, error)
    return best


@dataclass(frozen=True)
class Outcome:
    """A fold that has passed every check that holds for all folds."""

    folded: Folded
    proto: onnx.ModelProto

    @property
    def sites(self) -> dict[str, Site]:
        return {site.site: site for site in self.folded.sites}

    @property
    def ops(self) -> list[str]:
        """Operator types, bodies of control flow included."""
        return [node.op_type for node in nodes_of(self.proto.graph)]

    @property
    def counts(self) -> Counter[str]:
        return Counter(self.ops)

    def tensor(self, name: str) -> np.ndarray:
        """An initializer of the folded model, as stored."""
        return next(
            onnx.numpy_helper.to_array(t)
            for graph in graphs_of(self.proto.graph)
            for t in graph.initializer
            if t.name == name
        )

    def gone(self, *ops: str) -> Outcome:
        """Every site is folded or merged, and exactly ``ops`` are left."""
        assert [(s.site, s.code, s.reason) for s in self.folded.sites if s.action not in _GONE] == []
        assert sorted(self.ops) == sorted(ops)
        return self

    def kept(self, code: str, site: str | None = None) -> Site:
        """One site stays, for this reason, and the model is unchanged there."""
        kept = [s for s in self.folded.sites if s.action == "kept" and site in (None, s.site)]
        assert [(s.code) for s in kept] == [code], [
            (s.site, s.action, s.code, s.reason) for s in self.folded.sites
        ]
        assert kept[0].reason
        return kept[0]


_GONE = ("folded", "merged")


def graphs_of(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from graphs_of(inner) if inner.node else ()


def nodes_of(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for inner in graphs_of(graph):
        yield from inner.node


class Checker:
    """Builds models from ONNX text, folds them, and holds the fold to what is true of every fold."""

    def model(
        self,
        text: str,
        constants: Arrays | None = None,
        *,
        opset: int = 20,
        ir_version: int = 8,
        also: str = "",
    ) -> onnx.ModelProto:
        """``text`` is a graph such as ``g (float[N, 4] x) => (float[N, 4] y) { y = Relu (x) }``."""
        header = f'<ir_version: {ir_version}, opset_import: ["" : {opset}{also}]>'
        model = onnx.parser.parse_model(f"{header} {text}")
        model.graph.initializer.extend(
            onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()
        )
        return model

    def __call__(
        self,
        model: onnx.ModelProto,
        options: FoldOptions | None = None,
        *,
        feeds: Arrays | None = None,
        tolerance: float = TOLERANCE,
        settled: bool = True,
    ) -> Outcome:
        """Fold, and check: argument untouched, result valid, same signature, equal in float64 wherever names
        are shared, constants rounded once, a second fold finds nothing (``settled``)."""
        onnx.checker.check_model(model)
        argument = ir.from_proto(model)
        before = ir.to_proto(argument).SerializeToString(deterministic=True)
        folded = fold_model(argument, options)
        assert ir.to_proto(argument).SerializeToString(deterministic=True) == before
        proto = ir.to_proto(folded.model)
        onnx.checker.check_model(proto)
        self._same_signature(model, proto, frozen=bool(options and options.freeze_initializers))
        self._rounded_once(folded, proto)
        self._names_are_unique(proto)
        self._equal(model, proto, folded, feeds or {}, tolerance)
        if settled:
            again = fold_model(ir.from_proto(proto), options)
            assert not again.changed, [(s.site, s.action) for s in again.sites]
        return Outcome(folded, proto)

    def batchnorm(
        self, channels: int | tuple[int, ...], seed: int = 0, *, prefix: str = "", dtype: Any = np.float32
    ) -> dict[str, np.ndarray]:
        """Parameters named s, b, m, v (behind ``prefix``), with scales of both signs and small variances."""
        rng = np.random.default_rng(seed)
        sign = rng.choice([-1.0, 1.0], channels)
        values = {
            "s": rng.uniform(0.5, 2.0, channels) * sign,
            "b": rng.standard_normal(channels),
            "m": rng.standard_normal(channels),
            "v": rng.uniform(0.01, 1.0, channels),
        }
        return {f"{prefix}{name}": array.astype(dtype) for name, array in values.items()}

    def weights(self, seed: int = 0, *, dtype: Any = np.float32, **shapes: Any) -> dict[str, np.ndarray]:
        """Random tensors by name."""
        rng = np.random.default_rng(seed)
        return {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}

    def fold_only(self, model: onnx.ModelProto, options: FoldOptions | None = None) -> Folded:
        """The fold alone, for models that cannot be run."""
        return fold_model(ir.from_proto(model), options)

    def inputs(self, model: onnx.ModelProto, draw: int, fixed: Arrays) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(draw)
        sizes: dict[str, int] = {}
        defaults = {t.name for t in model.graph.initializer}
        arrays = {}
        for value in model.graph.input:
            if value.name in defaults:
                continue
            tensor = value.type.tensor_type
            dims = [
                d.dim_value
                if d.HasField("dim_value")
                else sizes.setdefault(d.dim_param, 3 + 2 * draw + len(sizes))
                for d in tensor.shape.dim
            ]
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
            arrays[value.name] = fixed.get(value.name, (2 * rng.standard_normal(dims) + 0.5).astype(dtype))
        return arrays

    def _equal(
        self, model: onnx.ModelProto, proto: onnx.ModelProto, folded: Folded, fixed: Arrays, tolerance: float
    ) -> None:
        weights = {t.name for m in (model, proto) for t in m.graph.initializer}
        for draw in range(2):
            feeds = self.inputs(model, draw, fixed)
            with np.errstate(all="ignore"):
                ours = Interpreter(model).run(feeds)
                theirs = Interpreter(proto, folded.exact).run(feeds)
            for output in model.graph.output:
                assert output.name in theirs
            for name in sorted((ours.keys() & theirs.keys()) - weights):
                expected, actual = np.asarray(ours[name]), np.asarray(theirs[name])
                assert actual.shape == expected.shape, name
                finite = np.abs(expected[np.isfinite(expected)]) if expected.dtype.kind == "f" else expected
                limit = tolerance * float(np.max(finite, initial=0.0))
                np.testing.assert_allclose(actual, expected, rtol=0, atol=limit, err_msg=name)

    def _same_signature(self, model: onnx.ModelProto, proto: onnx.ModelProto, *, frozen: bool) -> None:
        assert list(proto.graph.output) == list(model.graph.output)
        defaults = {t.name for m in (model, proto) for t in m.graph.initializer}
        listed = frozen or model.ir_version < 4
        kept = [[i for i in m.graph.input if not (listed and i.name in defaults)] for m in (model, proto)]
        assert kept[0] == kept[1]
        assert proto.opset_import == model.opset_import
        assert proto.ir_version == model.ir_version

    def _rounded_once(self, folded: Folded, proto: onnx.ModelProto) -> None:
        stored = {t.name: t for graph in graphs_of(proto.graph) for t in graph.initializer}
        for name, compute in folded.exact.items():
            array, exact = onnx.numpy_helper.to_array(stored[name]), compute()
            assert exact.dtype == np.float64 and array.shape == exact.shape
            np.testing.assert_array_equal(array, nearest(exact, array.dtype), err_msg=name)

    def _names_are_unique(self, proto: onnx.ModelProto) -> None:
        names = [t.name for t in proto.graph.initializer]
        names += [name for node in proto.graph.node for name in node.output if name]
        inputs = [i.name for i in proto.graph.input if i.name not in set(names)]
        assert len(set(names + inputs)) == len(names + inputs)


@pytest.fixture(scope="session")
def check() -> Checker:
    return Checker()


@pytest.fixture(scope="session")
def interpreter() -> type[Interpreter]:
    return Interpreter
