"""A harness for the operator table: one node asked directly, and whole models folded, against a reference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser
import onnx_ir as ir
import pytest
from onnx.reference import ReferenceEvaluator

from normfold.affine import Affine
from normfold.evaluation import Evaluator
from normfold.folding import Folded, fold_model
from normfold.planning.crossing import Crossing
from normfold.planning.operators import TABLE
from normfold.preparation.node_view import NodeView
from normfold.preparation.workspace import Workspace
from normfold.recognition.elementwise import operand_slot
from normfold.refusal import Refused
from normfold.reporting.report import Site

Arrays = Mapping[str, np.ndarray]

# Rounding only: a double carries 1e-16, and the reference evaluates models in their own types.
_EXACT = 1e-11
_TOLERANCE = {onnx.TensorProto.FLOAT: 1e-4, onnx.TensorProto.FLOAT16: 1e-2, onnx.TensorProto.BFLOAT16: 1e-1}


@dataclass(frozen=True)
class Outcome:
    """A folded model whose results have been compared with the original's."""

    result: Folded
    operators: list[str]
    affines: list[str]

    @property
    def sites(self) -> list[Site]:
        return [site for site in self.result.sites if site.kind != "constant"]

    def gone(self, *, biases: int = 0) -> None:
        """No affine is left but ``biases`` Adds of a constant."""
        assert [(s.site, s.code, s.reason) for s in self.sites if s.action not in ("folded", "merged")] == []
        assert self.affines == ["Add"] * biases

    def kept(self, code: str, *, sites: int = 1) -> None:
        """``sites`` sites stayed, each for the reason ``code``."""
        assert [(s.action, s.code) for s in self.sites if s.action == "kept"] == [("kept", code)] * sites

    def moved(self, *affines: str) -> None:
        """The affine stands elsewhere now, spelled with these operators."""
        assert [s.action for s in self.sites] == ["moved"] * len(self.sites)
        assert self.affines == list(affines)


class OneNode:
    """A model of one node, the middle of an affine's way. Its constants are the model's initializers.

    ``like`` is a model of the same meaning that is run in its place: the reference lacks old versions.
    """

    def __init__(self, model: onnx.ModelProto, harness: Harness, like: onnx.ModelProto | None = None) -> None:
        assert len(model.graph.node) == 1
        self.model = model
        self._model = like or model
        self._harness = harness
        working = ir.from_proto(model)
        self.view = NodeView(next(iter(working.graph)), Workspace(working))
        self._operator = TABLE[self.view.op_type]

    def backward(self, wanted: Mapping[int, Affine] | Affine, inputs: Arrays | None = None) -> Crossing:
        """Ask the node to produce ``wanted``; check ``f'(A_in(x))`` against ``A_out(f(x))`` on random x.

        Raises:
            Refused: what the table entry raised.
        """
        wanted = {0: wanted} if isinstance(wanted, Affine) else wanted
        crossing = self._operator.backward(self.view, wanted)
        for fed in self._harness.inputs_of(self._model, inputs):
            expected = _apply(wanted, self._run(self._model, fed), self._outputs())
            asked = _apply(crossing.affines, fed, self._inputs())
            actual = _apply(crossing.leaves, self._run(self._changed(crossing), asked), self._outputs())
            _assert_close(actual, expected, _EXACT)
        return crossing

    def forward(self, given: Mapping[int, Affine] | Affine, inputs: Arrays | None = None) -> Crossing:
        """Take ``given`` from the node's inputs; check ``A_out(f'(x))`` against ``f(A_in(x))`` on random x.

        Raises:
            Refused: what the table entry raised.
        """
        given = {0: given} if isinstance(given, Affine) else given
        crossing = self._operator.forward(self.view, given)
        for fed in self._harness.inputs_of(self._model, inputs):
            expected = self._run(self._model, _apply(given, fed, self._inputs()))
            actual = _apply(crossing.affines, self._run(self._changed(crossing), fed), self._outputs())
            _assert_close(actual, expected, _EXACT)
        return crossing

    def _inputs(self) -> list[str]:
        return list(self._model.graph.node[0].input)

    def _outputs(self) -> list[str]:
        return list(self._model.graph.node[0].output)

    def _run(self, model: onnx.ModelProto, inputs: Arrays) -> Arrays:
        names = [value.name for value in model.graph.output]
        feeds = {value.name: inputs[value.name] for value in model.graph.input}
        return dict(zip(names, ReferenceEvaluator(model).run(names, feeds), strict=True))

    def _changed(self, crossing: Crossing) -> onnx.ModelProto:
        """The model with the node edited; a constant asked to carry an affine carries it."""
        model = onnx.ModelProto()
        model.CopyFrom(self._model)
        node = model.graph.node[0]
        edits = {slot: constant.rounded() for slot, constant in crossing.constants.items()}
        for slot, affine in crossing.affines.items():
            constant = self.view.constant(slot)
            if constant is not None:
                edits[slot] = affine.apply(constant.compute())
        for slot, array in edits.items():
            while len(node.input) <= slot:
                node.input.append("")
            node.input[slot] = f"edited_{slot}"
            model.graph.initializer.append(onnx.numpy_helper.from_array(array, f"edited_{slot}"))
        for name, value in crossing.attributes.items():
            kept = [a for a in node.attribute if a.name != name]
            del node.attribute[:]
            new = [] if value is None else [onnx.helper.make_attribute(name, value)]
            node.attribute.extend([*kept, *new])
        if crossing.op_type is not None:
            node.op_type = crossing.op_type
        return model


class Harness:
    """Builds models from ONNX text, folds them, and compares."""

    def model(self, text: str, constants: Arrays | None = None, *, opset: int = 20) -> onnx.ModelProto:
        """``text`` is a graph such as ``g (double[N, 4] x) => (double[N, 4] y) { y = Relu (x) }``."""
        model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]> {text}')
        model.graph.initializer.extend(
            onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()
        )
        return model

    def one(
        self,
        text: str,
        constants: Arrays | None = None,
        *,
        opset: int = 20,
        like: onnx.ModelProto | None = None,
    ) -> OneNode:
        """One node between graph inputs and outputs, to be asked directly."""
        return OneNode(self.model(text, constants, opset=opset), self, like)

    def fold(
        self,
        text: str | onnx.ModelProto,
        constants: Arrays | None = None,
        *,
        opset: int = 20,
        inputs: Arrays | None = None,
        sizes: Mapping[str, int] | None = None,
    ) -> Outcome:
        """Fold, then compare with the original at two sizes of every symbolic dimension.

        In float64 with our evaluator and the exact constants; in the model's own types with onnx's reference.
        ``inputs`` fixes some of the inputs, ``sizes`` some of the symbolic dimensions.
        """
        proto = self.model(text, constants, opset=opset) if isinstance(text, str) else text
        onnx.checker.check_model(proto)
        result = fold_model(ir.from_proto(proto))
        folded = ir.to_proto(result.model)
        onnx.checker.check_model(folded)
        tolerance = max(_TOLERANCE.get(i.type.tensor_type.elem_type, _EXACT) for i in proto.graph.input)
        for fed in self.inputs_of(proto, inputs, sizes):
            ours = Evaluator(result.original).run(fed)
            _assert_close(Evaluator(result.model, constants=result.exact).run(fed), ours, _EXACT)
            reference = _reference(proto, fed)
            _assert_close(ours, reference, tolerance)
            _assert_close(_reference(folded, fed), reference, tolerance)
        workspace = Workspace(result.model.clone())
        nodes = list(workspace.model.graph)
        affines = [
            n.op_type
            for n in nodes
            if n.op_type == "BatchNormalization"
            or (operand_slot(n, workspace) is not None and not workspace.constants.is_constant(n.outputs[0]))
        ]
        return Outcome(result, [n.op_type for n in nodes], affines)

    def affine(
        self,
        seed: int,
        dims: tuple[int, ...],
        axes: tuple[int, ...],
        *,
        scale: bool = True,
        shift: bool = True,
        positive: bool = False,
    ) -> Affine:
        """A random affine on a value of sizes ``dims`` that varies on ``axes``, of both signs by default."""
        rng = np.random.default_rng(seed)
        shape = [size if axis in axes else 1 for axis, size in enumerate(dims)]
        sign = 1.0 if positive else rng.choice([-1.0, 1.0], shape)
        return Affine.of(
            rng.uniform(0.5, 2.0, shape) * sign if scale else 1.0,
            rng.standard_normal(shape) if shift else 0.0,
            rank=len(dims),
        )

    def batchnorm(self, seed: int, channels: int, prefix: str = "", *, dtype: type = np.float64) -> Arrays:
        """Parameters named scale, bias, mean, var (behind ``prefix``), with some negative scales."""
        rng = np.random.default_rng(seed)
        sign = np.where(np.arange(channels) % 3 == 1, -1.0, 1.0)
        values = {
            "scale": rng.uniform(0.5, 2.0, channels) * sign,
            "bias": rng.standard_normal(channels),
            "mean": rng.standard_normal(channels),
            "var": rng.uniform(0.1, 2.0, channels),
        }
        return {f"{prefix}{name}": array.astype(dtype) for name, array in values.items()}

    def weights(self, seed: int, *, dtype: type = np.float64, **shapes: tuple[int, ...]) -> Arrays:
        """Random tensors by name."""
        rng = np.random.default_rng(seed)
        return {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}

    @contextmanager
    def refused(self, code: str) -> Iterator[None]:
        """The block raises ``Refused`` with this code."""
        with pytest.raises(Refused) as caught:
            yield
        assert caught.value.code == code, str(caught.value)

    def inputs_of(
        self, model: onnx.ModelProto, fixed: Arrays | None = None, sizes: Mapping[str, int] | None = None
    ) -> Iterator[Arrays]:
        """Random inputs, twice, with different sizes for symbolic dimensions."""
        for draw in range(2):
            rng = np.random.default_rng(draw)
            known = dict(sizes or {})
            arrays = {}
            for value in model.graph.input:
                tensor = value.type.tensor_type
                dims = [_size(d, known, draw) for d in tensor.shape.dim]
                array = rng.standard_normal(dims).astype(
                    onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
                )
                arrays[value.name] = (fixed or {}).get(value.name, array)
            yield arrays


def _size(dim: onnx.TensorShapeProto.Dimension, known: dict[str, int], draw: int) -> int:
    if dim.HasField("dim_value"):
        return dim.dim_value
    return known.setdefault(dim.dim_param, 2 + draw + len(known))


def _reference(model: onnx.ModelProto, inputs: Arrays) -> Arrays:
    names = [value.name for value in model.graph.output]
    return dict(zip(names, ReferenceEvaluator(model).run(names, dict(inputs)), strict=True))


def _apply(affines: Mapping[int, Affine], arrays: Arrays, names: list[str]) -> Arrays:
    """The arrays with each affine applied to the one that its slot names."""
    changed = dict(arrays)
    for slot, affine in affines.items():
        if names[slot] in arrays:
            changed[names[slot]] = affine.apply(arrays[names[slot]])
    return changed


def _assert_close(actual: Arrays, expected: Arrays, tolerance: float) -> None:
    assert actual.keys() == expected.keys()
    for name, wanted in expected.items():
        got = np.asarray(actual[name], dtype=np.float64)
        wanted = np.asarray(wanted, dtype=np.float64)
        assert got.shape == wanted.shape
        limit = tolerance * max(float(np.abs(wanted).max(initial=0.0)), 1e-3)
        np.testing.assert_allclose(got, wanted, rtol=0, atol=limit, err_msg=name)


@pytest.fixture(scope="session")
def harness() -> Harness:
    return Harness()
