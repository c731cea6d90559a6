"""A check that holds a fold to what is true of every fold, by an interpreter that shares no code with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser
import onnx_ir as ir
import pytest

from normfold.folding import Folded, fold_model
from normfold.options import FoldOptions
from normfold.reporting.report import Site
from tests.interpreter import Arrays, Interpreter

# A double carries 1e-16; an epsilon of 1e-3 for 1e-5 moves a normalisation by 1e-4 and more.
TOLERANCE = 1e-12


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
