"""What is asked of a provider on a device, on a stand-in: the CPU provider under the name of CUDA."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from normfold.reporting.report import Verification
from normfold.runtime.client import Runtime, Session
from normfold.runtime.execution_providers import CPU, CUDA
from normfold.verification import VerifyOptions, verify_models
from tests.verification.conftest import ConvBatchNorm

pytest.importorskip("onnxruntime")


class StandIn:
    """Runs on the CPU what is meant for CUDA, with the assignment and the variation that a test wants.

    Attributes:
        assigned: nodes by provider that each session reports.
        providers: what each session says it runs on.
        logged: what onnxruntime says when a session is opened.
        variation: a run's first output element is off by this, differently in every run of the original.
        opened: provider options of each session, in order.
        runs: number of runs of each session.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.assigned: Mapping[str, Sequence[str]] = {CUDA: ["Conv:c"], CPU: ["Shape:s", "Gather:g"]}
        self.providers: tuple[str, ...] = (CUDA, CPU)
        self.logged = ""
        self.variation = 0.0
        self.opened: list[tuple[str, dict[str, str], bool]] = []
        self.runs: dict[int, int] = {}
        self._real_ask, self._real_run = Runtime._ask, Runtime.run
        monkeypatch.setattr(Runtime, "_ask", lambda runtime, *args: self.ask(runtime, *args))
        monkeypatch.setattr(Runtime, "run", lambda runtime, *args: self.run(runtime, *args))

    def ask(
        self, runtime: Runtime, request: Mapping[str, Any], seconds: float | None = None
    ) -> dict[str, Any]:
        if request.get("provider") != CUDA:
            return self._real_ask(runtime, request, seconds)
        self.opened.append((Path(request["model"]).stem, request["options"], request["optimize"]))
        self.runs[request["session"]] = 0
        with (runtime.folder / "stderr.txt").open("a", encoding="utf-8") as log:
            log.write(self.logged)
        answer = self._real_ask(runtime, {**request, "provider": CPU, "options": {}}, seconds)
        return answer | {"providers": self.providers, "assigned": self.assigned}

    def run(self, runtime: Runtime, session: Session, *args: Any) -> dict[str, np.ndarray]:
        results = self._real_run(runtime, session, *args)
        if session.number in self.runs:
            self.runs[session.number] += 1
            for array in results.values():
                array.flat[0] += np.float32(self.variation * self.runs[session.number])
        return results


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    """The stand-in."""
    return StandIn(monkeypatch)


def verify(error: float = 0.0, **options: Any) -> Verification:
    """Compares an honest fold, or one with a bias that is off by ``error``, on CUDA."""
    case = ConvBatchNorm()
    weight, bias = case.folded_constants()
    return verify_models(
        case.original(), case.folded(weight, bias + error), VerifyOptions(providers=("cuda",), **options)
    )


def test_strict_runs_decide_and_tf32_stands_beside(cuda: StandIn) -> None:
    found = verify()
    assert found.verdict == "pass" and found.messages == []
    assert {row["provider"] for row in found.rounding} == {"cuda"}
    strict, relaxed = {"use_tf32": "0"}, {"use_tf32": "1"}
    assert [options for _, options, _ in cuda.opened] == [strict] * 4 + [relaxed] * 2
    assert [optimize for *_, optimize in cuda.opened] == [False, False, True, True, True, True]
    beside = [row for row in found.providers if "tf32" in row]
    assert [row["model"] for row in beside] == ["original", "folded"]


def test_options_of_a_provider_reach_every_session_and_the_report(cuda: StandIn) -> None:
    found = verify(provider_options={"cuda": {"prefer_nhwc": "1"}})
    expected = [{"prefer_nhwc": "1", "use_tf32": "0"}] * 4 + [{"prefer_nhwc": "1", "use_tf32": "1"}] * 2
    assert [options for _, options, _ in cuda.opened] == expected
    assert sorted(row["options"]["use_tf32"] for row in found.providers) == ["0"] * 4 + ["1"] * 2
    assert {row["options"]["prefer_nhwc"] for row in found.providers} == {"1"}


def test_nodes_that_fell_back_are_listed(cuda: StandIn) -> None:
    for row in verify().providers:
        assert row["assigned"] == {CUDA: 1, CPU: 2}
        assert row["fallbacks"] == ["Shape:s", "Gather:g"]


@pytest.mark.parametrize(
    ("assigned", "reason"),
    [
        ({CPU: ["Conv:c"]}, "it was given no node of the graph"),
        ({}, "cannot say which nodes it was given"),
    ],
)
def test_without_a_node_for_certain_it_is_inconclusive(
    cuda: StandIn, assigned: dict[str, list[str]], reason: str
) -> None:
    cuda.assigned = assigned
    found = verify()
    assert found.verdict == "inconclusive"
    assert found.messages[0].startswith("NF204: cuda was not exercised: ") and reason in found.messages[0]


def test_silent_fall_back_of_a_session_is_inconclusive(cuda: StandIn) -> None:
    cuda.providers = (CPU,)
    found = verify()
    assert found.verdict == "inconclusive"
    assert found.messages[0] == f"NF204: cuda was not exercised: onnxruntime fell back to {CPU}"


@pytest.mark.parametrize(
    ("logged", "reason"),
    [
        (
            "2026-01-01 [E:onnxruntime:Default, bridge.cc:1 Get()] bridge.cc [ONNXRuntimeError] : 1 : FAIL : "
            "Failed to load library: libcublasLt.so.13\n[m\n2026-01-01 [W:onnxruntime:Default] Require cuDNN",
            "Failed to load library: libcublasLt.so.13",
        ),
        (
            "*** EP Error ***\nEP Error /src/cuda_call.cc:154 Status CudaCall(T, int) [with T = cudaError] "
            "CUDA failure 100: no CUDA-capable device is detected ; GPU=-1 ; line=355 ;\n\nFalling back to",
            "CUDA failure 100: no CUDA-capable device is detected",
        ),
        ("EP Error Unknown provider option: x\n when using\n", "Unknown provider option: x"),
    ],
)
def test_reason_of_a_fall_back_is_what_onnxruntime_said(cuda: StandIn, logged: str, reason: str) -> None:
    cuda.providers, cuda.logged = (CPU,), logged
    (message, *_) = verify().messages
    assert message.endswith(f"fell back to {CPU}: {reason}")


def test_original_runs_three_times_and_its_variation_widens_the_bound(cuda: StandIn) -> None:
    assert verify(error=1e-4).verdict == "fail"
    cuda.variation = 5e-6
    found = verify(error=1e-4)
    # What is left to show the error is float64.
    assert [message.split(" error")[0] for message in found.messages if "NF203" in message] == [
        "NF203: output 'y' in float64:"
    ]
    # Run by run the original is off by one step more; the last is the second repetition of the first.
    inputs = len(found.inputs["runs"])
    assert max(cuda.runs.values()) == inputs + 2
    (row, *_) = found.rounding
    assert row["bound_from"] == "float64" and row["e0"] == pytest.approx(inputs * 5e-6, rel=0.1)
    assert row["bound"] == pytest.approx(4 * (row["e0"] + (inputs + 1) * 5e-6), rel=0.05)


def test_variation_does_not_hide_a_larger_error(cuda: StandIn) -> None:
    cuda.variation = 5e-6
    assert verify(error=1e-3).verdict == "fail"
