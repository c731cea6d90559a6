"""A quick run of the generator of random models. ``python -m tests.fuzz --minutes 30`` looks further."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf import text_format
from onnx import TensorProto, helper, numpy_helper

from normfold.folding import Folded, fold_model
from tests.fuzz import CASES, limit, runtime
from tests.fuzz import judge as judging
from tests.fuzz.census import Census
from tests.fuzz.generate import Case
from tests.fuzz.jobs import Job, Share
from tests.fuzz.judge import Unusable, Wrong, judge
from tests.fuzz.runtime import InRuntime, RuntimeCrashed
from tests.fuzz.search import SLICE, model_of, search


@pytest.fixture(scope="module")
def census() -> Census:
    """What a run over the models of one seed found."""
    found = Census()
    failures = search([1], found)
    assert failures == []
    assert found.counts["tried"] == SLICE
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
    judge(Case.loaded(model), fold=limit.ending())


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


def test_a_fold_that_does_not_end_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(_model: object, _options: object) -> Folded:
        while True:
            pass

    monkeypatch.setattr(limit, "SECONDS", 0.1)
    with pytest.raises(Wrong, match="did not end"):
        judge(conv_and_batchnorm(), fold=limit.ending(endless))


def test_a_second_fold_that_does_not_end_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def wrong(model: object, options: object) -> Folded:
        calls.append(model)
        while len(calls) == 2:
            pass
        return fold_model(model, options)

    monkeypatch.setattr(limit, "SECONDS", 0.5)
    with pytest.raises(Wrong, match="did not end"):
        judge(conv_and_batchnorm(), fold=limit.ending(wrong))


def test_a_model_outlives_the_process_of_onnxruntime() -> None:
    case = conv_and_batchnorm()
    feeds = judging.inputs(case.model, {}, seed=0)
    with InRuntime(case.model) as model:
        (before,) = model.run(feeds)
        runtime._runtime(os.getpid())._process.kill()
        with pytest.raises(RuntimeCrashed):
            model.run(feeds)
        assert model.crashes == 1
        np.testing.assert_array_equal(model.run(feeds)[0], before)


def test_an_answer_that_nobody_waited_for_is_not_taken_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    case = conv_and_batchnorm()
    feeds = judging.inputs(case.model, {}, seed=0)
    with InRuntime(case.model) as model:
        (before,) = model.run(feeds)
        answers = runtime._runtime(os.getpid())._answers
        monkeypatch.setattr(runtime._runtime(os.getpid()), "_answers", _Interrupted())
        with pytest.raises(KeyboardInterrupt):
            model.run(feeds)
        assert runtime._runtime(os.getpid())._answers is not answers
        np.testing.assert_array_equal(model.run(feeds)[0], before)


class _Interrupted:
    def get(self, timeout: float) -> str:
        raise KeyboardInterrupt


class _Crashing(InRuntime):
    """onnxruntime crashes on models of so many nodes."""

    nodes = 0

    def run(self, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        if len(self._model.graph.node) == self.nodes:
            self.crashes += 1
            raise RuntimeCrashed("the process ended with signal 11")
        return super().run(feeds)


def test_a_crash_of_onnxruntime_on_the_original_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "InRuntime", _Crashing)
    monkeypatch.setattr(_Crashing, "nodes", 2)
    verdict = judge(conv_and_batchnorm())
    assert verdict.runtime == "crashed on the original" and verdict.crashes == 1
    assert verdict.compared == 1


def test_a_crash_of_onnxruntime_on_the_folded_model_alone_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "InRuntime", _Crashing)
    monkeypatch.setattr(_Crashing, "nodes", 1)
    with pytest.raises(Wrong, match="crashes on the folded model alone"):
        judge(conv_and_batchnorm())


_DIES_OF_THE_THIRD = """
import os, sys
from pathlib import Path
from tests.fuzz import jobs, search

path = Path(sys.argv[1])
calls = []

def judge(case, **_):
    calls.append(case)
    if len(calls) == 3 and not jobs.Share.loaded(path).dead:
        os.kill(os.getpid(), 11)
    raise search.Unusable("not looked at")

search.judge = judge
jobs.work(path)
"""


def test_a_process_that_dies_costs_one_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "share.json"
    Share(str(tmp_path / "failures"), seed=7, stride=2, end=10).write(path)
    job = Job(path, [sys.executable, "-c", _DIES_OF_THE_THIRD, str(path)])
    while job.is_at_work():
        time.sleep(0.05)
    found = job.census()
    assert found["died"] == {"7/2": 1}
    # The rest of seed 7, and seed 9.
    assert found["counts"]["tried"] == 2 * SLICE - 1
    kept = tmp_path / "failures" / "died-7-2.onnx"
    assert f"seed 7/2: the process died with -11 -> {kept}" in capsys.readouterr().out
    died = onnx.load(kept)
    died.ClearField("producer_version")
    assert died == model_of("7/2").saved()


def test_a_process_that_cannot_start_ends_the_job(tmp_path: Path) -> None:
    path = tmp_path / "share.json"
    Share(str(tmp_path), seed=1).write(path)
    job = Job(path, [sys.executable, "-c", "raise SystemExit(3)"])
    while job.is_at_work():
        time.sleep(0.05)
    assert job.census()["died"] == {"1": 1}
