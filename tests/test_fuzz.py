"""A quick run of the generator of random models. ``python -m tests.fuzz --minutes 30`` looks further."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from google.protobuf import text_format
from onnx import TensorProto, helper, numpy_helper

from normfold.folding import Folded, fold_model
from tests.fuzz import CASES
from tests.fuzz.census import Census
from tests.fuzz.generate import Case
from tests.fuzz.judge import Unusable, Wrong, judge
from tests.fuzz.search import search

MODELS = 100


@pytest.fixture(scope="module")
def census() -> Census:
    """What a run over ``MODELS`` models found."""
    found = Census()
    failures = search(1, found, until=lambda tried: tried >= MODELS)
    assert failures == []
    return found


def test_most_models_are_usable_and_contain_a_fold(census: Census) -> None:
    usable = census.counts["tried"] - census.counts["unusable"]
    assert usable >= 0.9 * census.counts["tried"]
    assert census.counts["with a fold"] >= 0.5 * usable


def test_onnxruntime_and_the_proof_have_their_say(census: Census) -> None:
    assert census.runtime["compared"] >= 0.5 * census.runtime.total()
    assert census.counts["sites proven"] >= 0.9 * census.counts["sites asked of the proof"]


@pytest.mark.parametrize("path", sorted(CASES.glob("*.textproto")), ids=lambda path: path.stem)
def test_what_was_wrong_once_is_right(path: object) -> None:
    model = text_format.Parse(path.read_text(), onnx.ModelProto())
    judge(Case.loaded(model))


def conv_and_batchnorm() -> Case:
    """``Conv → BatchNormalization`` on [1, 2, 4, 4]."""
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.standard_normal((3, 2, 1, 1)),
        "scale": rng.uniform(0.5, 2, 3),
        "bias": rng.standard_normal(3),
        "mean": rng.standard_normal(3),
        "var": rng.uniform(0.5, 2, 3),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["y"]),
        helper.make_node("BatchNormalization", ["y", "scale", "bias", "mean", "var"], ["z"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 4, 4])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 3, 4, 4])],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return Case(model, options=_NO_OPTIONS, sizes={})


_NO_OPTIONS = Case.loaded(onnx.ModelProto(doc_string='{"options": {}, "sizes": {}}')).options


def test_a_right_fold_passes() -> None:
    verdict = judge(conv_and_batchnorm())
    assert verdict.folded.changed and verdict.compared == 1 and verdict.runtime == "compared"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda exact: exact * (1 + 1e-7), "differs by"),
        (lambda exact: exact[:, :1] if exact.ndim > 1 else exact, "not its float64 value rounded once"),
    ],
)
def test_a_wrong_constant_is_seen(spoil: object, said: str) -> None:
    def wrong(model: object, options: object) -> Folded:
        folded = fold_model(model, options)
        name, compute = next(iter(folded.exact.items()))
        folded.exact[name] = lambda: spoil(compute())
        tensor = folded.model.graph.initializers[name]
        if said == "differs by":
            tensor.const_value = _tensor(spoil(compute()))
        return folded

    with pytest.raises(Wrong, match=said):
        judge(conv_and_batchnorm(), fold=wrong)


def _tensor(array: np.ndarray) -> object:
    import onnx_ir as ir

    return ir.tensor(array.astype(np.float32))


def test_an_invalid_fold_is_seen() -> None:
    def wrong(model: object, options: object) -> Folded:
        folded = fold_model(model, options)
        folded.model.graph.node(0).op_type = "NoSuchOperator"
        return folded

    with pytest.raises(Wrong, match="not valid"):
        judge(conv_and_batchnorm(), fold=wrong)


def test_an_unsettled_fold_is_seen() -> None:
    calls = []

    def wrong(model: object, options: object) -> Folded:
        calls.append(model)
        return fold_model(model if len(calls) == 1 else calls[0], options)

    with pytest.raises(Wrong, match="a second fold"):
        judge(conv_and_batchnorm(), fold=wrong)


def test_an_invalid_model_says_nothing() -> None:
    case = conv_and_batchnorm()
    case.model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(Unusable, match="not valid"):
        judge(case)
