"""Budgets of time hold inside nodes and subgraphs; threads of the matrix library are kept to one."""

from __future__ import annotations

import time

import numpy as np
import onnx_ir as ir
import pytest

import normfold.verification.verify as verify_module
from normfold.evaluation import DeadlineExceeded, Evaluator, deadline
from normfold.runtime.client import Runtime, RuntimeCrashed
from normfold.verification import VerifyOptions, blas, verify_models
from tests.verification.conftest import ConvBatchNorm, model_of

HEADER = '<ir_version: 8, opset_import: ["" : 17]>'
ENDLESS = """g (float[2, 3] x) => (float[2, 3] y) {
    l = Constant<value_int = 1000000000>()
    y = Loop(l, , x) <body = b (int64 i, bool k, float[2, 3] v) => (bool o, float[2, 3] w)
        { o = Identity(k) w = Cos(v) }>
}"""
SLOW = {
    "loop": (ENDLESS, {}, (2, 3)),
    "conv": (
        "g (float[1, 64, 400, 400] x) => (float[N, C, H, W] y) { y = Conv<pads = [3, 3, 3, 3]>(x, w) }",
        {"w": np.zeros((256, 64, 7, 7), np.float32)},
        (1, 64, 400, 400),
    ),
}


@pytest.mark.parametrize("kind", SLOW)
def test_deadline_ends_a_single_node(kind: str) -> None:
    text, constants, shape = SLOW[kind]
    evaluator = Evaluator(model_of(f"{HEADER} {text}", constants))
    begun = time.monotonic()
    with pytest.raises(DeadlineExceeded), deadline(0.2):
        evaluator.run({"x": np.zeros(shape, np.float32)})
    assert time.monotonic() - begun < 4


def test_deadline_of_the_outer_context_stays_in_force() -> None:
    model = model_of(f"{HEADER} g (float[2] x) => (float[2] y) {{ y = Neg(x) }}", {})
    with deadline(-1), deadline(100), pytest.raises(DeadlineExceeded):
        Evaluator(model).run({"x": np.zeros(2, np.float32)})
    assert Evaluator(model).run({"x": np.zeros(2, np.float32)})["y"].shape == (2,)


def test_endless_model_is_inconclusive_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify_module, "onnxruntime_installed", lambda: False)
    model = model_of(f"{HEADER} {ENDLESS}", {})
    begun = time.monotonic()
    found = verify_models(model, model.clone(), VerifyOptions(budget_seconds=0.5))
    assert found.verdict == "inconclusive" and "takes more than 0.5 s" in found.messages[0]
    assert time.monotonic() - begun < 10


def test_runtime_that_does_not_optimise_in_time_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    real = Runtime.open

    def slow(self: Runtime, *args: object, optimize: bool, **others: object) -> object:
        if optimize:
            assert others["seconds"] == 20
            raise RuntimeCrashed("no answer within 20 s")
        return real(self, *args, optimize=optimize, **others)  # type: ignore[arg-type]

    monkeypatch.setattr(Runtime, "open", slow)
    case = ConvBatchNorm()
    found = verify_models(case.original(), case.folded(*case.folded_constants()))
    assert found.verdict == "pass"
    assert [message.split(":")[0] for message in found.messages] == ["NF210", "NF210"]


def test_one_thread_while_verifying_and_as_before_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in blas.CHOSEN_BY:
        monkeypatch.delenv(name, raising=False)
    libraries = blas._libraries()
    if not libraries:
        pytest.skip("numpy does not use OpenBLAS here")
    before = [get() for get, _ in libraries]
    with blas.single_threaded():
        assert [get() for get, _ in libraries] == [1] * len(libraries)
    assert [get() for get, _ in libraries] == before
    monkeypatch.setenv(blas.CHOSEN_BY[0], "2")
    with blas.single_threaded():
        assert [get() for get, _ in libraries] == before


def test_budget_of_memory_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify_module, "onnxruntime_installed", lambda: False)
    model: ir.Model = model_of(f"{HEADER} g (float[64, 64] x) => (float[64, 64] y) {{ y = Neg(x) }}", {})
    found = verify_models(model, model.clone(), VerifyOptions(budget_bytes=1000))
    assert found.verdict == "inconclusive" and "GiB" in found.messages[0]
