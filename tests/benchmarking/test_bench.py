"""``normfold bench``: what is measured, what is said where nothing can be."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import parser

from normfold.benchmarking import BenchOptions, timing
from normfold.benchmarking.timing import time_pair
from normfold.commands.bench import bench
from normfold.errors import Inconclusive, InputError
from normfold.runtime.client import RuntimeCrashed, RuntimeRefused
from normfold.runtime.execution_providers import CPU

HEAD = '<ir_version: 8, opset_import: ["" : 17]>'
QUICK = BenchOptions(threads=1, rounds=5)


def chain(length: int, *, batch: str = "N", name: str = "x") -> onnx.ModelProto:
    """``length`` multiplications of a square matrix: time grows with length."""
    steps = " ".join(f"v{i + 1} = MatMul(v{i}, w)" for i in range(length))
    return parser.parse_model(
        f"{HEAD} net (float[{batch}, 64] {name}) => (float[{batch}, 64] y) {{ "
        "s = Constant <value = int64[2] {64, 64}> () w = ConstantOfShape <value = float[1] {0.01}> (s) "
        f"v0 = Identity({name}) {steps} y = Identity(v{length}) }}"
    )


def test_a_slower_model_is_seen() -> None:
    report = bench(chain(60), chain(4), BenchOptions(threads=1, rounds=9, batches=(64,)))
    (row,) = report.measurements
    assert report.exit == 0
    assert row.speedup > 1.5
    assert row.interval[0] > 1
    assert row.interval[0] <= row.speedup <= row.interval[1]
    assert row.a > row.b
    assert (row.provider, row.batch, row.shapes, row.threads) == ("cpu", 64, {"x": [64, 64]}, 1)
    assert not row.io_binding


def test_each_batch_size() -> None:
    report = bench(chain(3), chain(3), BenchOptions(threads=1, rounds=5, batches=(1, 8)))
    assert [(row.batch, row.shapes["x"]) for row in report.measurements] == [(1, [1, 64]), (8, [8, 64])]


def test_open_batch_is_one_by_default() -> None:
    (row,) = bench(chain(3), chain(3), QUICK).measurements
    assert row.batch == 1


def test_providers_in_the_report() -> None:
    report = bench(chain(3), chain(3), QUICK)
    assert [(row["model"], row["status"]) for row in report.verification.providers] == [
        ("A", "ok"),
        ("B", "ok"),
    ]
    assert report.verification.verdict is None


def test_fixed_batch() -> None:
    with pytest.raises(InputError, match="--batch 4: the model has a batch of 2"):
        bench(chain(3, batch="2"), chain(3, batch="2"), BenchOptions(batches=(4,)))
    assert bench(chain(3, batch="2"), chain(3, batch="2"), BenchOptions(rounds=5, batches=(2,))).exit == 0


def test_other_inputs() -> None:
    with pytest.raises(InputError, match="input 'x' is not the same in both models") as caught:
        bench(chain(3), chain(3, name="z"))
    assert caught.value.code == "NF207"
    assert caught.value.report is not None
    assert caught.value.report.exit == 2


def test_provider_that_is_not_there() -> None:
    report = bench(chain(3), chain(3), BenchOptions(rounds=5, providers=("cpu", "NoSuchExecutionProvider")))
    assert report.exit == 3
    assert [row.provider for row in report.measurements] == ["cpu"]
    (finding,) = report.findings
    assert finding.code == "NF204"
    assert "NoSuchExecutionProvider is not registered" in finding.message


def test_name_that_no_provider_has() -> None:
    with pytest.raises(InputError, match="no execution provider is named 'nonsense'") as caught:
        bench(chain(3), chain(3), BenchOptions(rounds=5, providers=("nonsense",)))
    assert caught.value.exit_code == 2


def test_no_input_runs() -> None:
    body = "s = Constant <value = int64[2] {7, 13}> () y = Reshape(x, s)"
    model = parser.parse_model(f"{HEAD} net (float[N, M] x) => (float[N, 64] y) {{ {body} }}")
    with pytest.raises(Inconclusive) as caught:
        bench(model, model, QUICK)
    assert caught.value.code == "NF208"


def test_second_model_does_not_run() -> None:
    broken = chain(3)
    for node in broken.graph.node:
        if node.op_type == "Constant":
            node.attribute[0].t.CopyFrom(onnx.numpy_helper.from_array(np.array([32, 64])))
    report = bench(chain(3), broken, QUICK)
    assert report.exit == 3
    assert [finding.code for finding in report.findings] == ["NF212"]
    assert "model B" in report.findings[0].message


class TestTimingProcess:
    @pytest.fixture
    def models(self, tmp_path: Path) -> tuple[Path, Path]:
        paths = tmp_path / "a.onnx", tmp_path / "b.onnx"
        for path in paths:
            onnx.save(chain(3), path)
        return paths

    def test_times(self, models: tuple[Path, Path], tmp_path: Path) -> None:
        x = np.ones((1, 64), np.float32)
        times = time_pair(models, CPU, {"x": x}, threads=1, rounds=7, timeout_seconds=60, folder=tmp_path)
        assert times.a.shape == times.b.shape == (7,)
        assert min(times.a.min(), times.b.min()) > 0
        assert times.runs_per_round > 1

    def test_too_slow(self, models: tuple[Path, Path], tmp_path: Path) -> None:
        x = np.ones((1, 64), np.float32)
        with pytest.raises(RuntimeCrashed, match=r"not done within 0\.01 s"):
            time_pair(models, CPU, {"x": x}, threads=1, rounds=7, timeout_seconds=0.01, folder=tmp_path)

    def test_refused(self, models: tuple[Path, Path], tmp_path: Path) -> None:
        x = np.ones((1, 63), np.float32)
        with pytest.raises(RuntimeRefused, match="63"):
            time_pair(models, CPU, {"x": x}, threads=1, rounds=7, timeout_seconds=60, folder=tmp_path)

    def test_died(self, models: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def died(*_: Any, **__: Any) -> subprocess.CompletedProcess[str]:
            return subprocess.CompletedProcess([], -11, "", "")

        monkeypatch.setattr(subprocess, "run", died)
        with pytest.raises(RuntimeCrashed, match="signal 11"):
            time_pair(models, CPU, {}, threads=1, rounds=7, timeout_seconds=60, folder=tmp_path)


class TestCommandLine:
    @pytest.fixture
    def run(self, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
        main = import_module("normfold.cli").main

        def call(*arguments: str | Path) -> tuple[int, str, str]:
            with pytest.raises(SystemExit) as caught:
                main([str(argument) for argument in arguments])
            return int(caught.value.code or 0), *capsys.readouterr()

        return call

    @pytest.fixture
    def pair(self, tmp_path: Path) -> tuple[Path, Path]:
        onnx.save(chain(8), tmp_path / "a.onnx")
        onnx.save(chain(2), tmp_path / "b.onnx")
        return tmp_path / "a.onnx", tmp_path / "b.onnx"

    def test_json(self, run: Any, pair: tuple[Path, Path]) -> None:
        code, out, _ = run(
            "bench", *pair, "--batch", "2,4", "--rounds", "5", "--threads", "1", "--format", "json"
        )
        report = json.loads(out)
        assert code == report["exit"] == 0
        assert [row["batch"] for row in report["measurements"]] == [2, 4]
        assert all(row["rounds"] == 5 for row in report["measurements"])

    def test_text(self, run: Any, pair: tuple[Path, Path]) -> None:
        code, out, err = run("bench", *pair, "--rounds", "5", "--threads", "1", "--shape", "x=3,64")
        assert (code, err) == (0, "")
        assert "cpu, batch 3: A " in out

    def test_missing_provider(self, run: Any, pair: tuple[Path, Path]) -> None:
        code, out, _ = run("bench", *pair, "--rounds", "5", "--ep", "NoSuchExecutionProvider")
        assert code == 3
        assert "NF204" in out

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (("--batch", "0"), "0"),
            (("--batch", "1,x"), "1,x"),
            (("--rounds", "1"), "--rounds"),
            (("--shape", "x=3,63"), "63"),
            (("--data", "nowhere.npz"), "nowhere.npz"),
        ],
    )
    def test_bad_options(
        self, run: Any, pair: tuple[Path, Path], arguments: tuple[str, ...], words: str
    ) -> None:
        code, _, err = run("bench", *pair, *arguments)
        assert code == 2
        assert len(err.splitlines()) == 1
        assert words in err

    def test_two_streams(self, run: Any) -> None:
        assert run("bench", "-", "-")[0] == 2


def test_inputs_and_outputs_stay_on_the_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The way that is taken on CUDA, on the device that is always there."""
    monkeypatch.setitem(timing.DEVICES, CPU, "cpu")
    (row,) = bench(chain(60), chain(4), BenchOptions(threads=1, rounds=9, batches=(64,))).measurements
    assert row.io_binding and row.speedup > 1.5


def test_cuda_binds_its_inputs_and_outputs() -> None:
    assert timing.DEVICES == {"CUDAExecutionProvider": "cuda"}
