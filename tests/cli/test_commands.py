"""The other commands, and what only a process of its own can show."""

from __future__ import annotations

import json
import os
import resource
import signal
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import normfold
from normfold.codes import CODES

Run = Callable[..., Any]
PYTHON = sys.executable


def process(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[bytes]:
    command = [PYTHON, "-m", "normfold", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, check=False, timeout=120, **options)


class TestInspect:
    def test_lists_sites_and_writes_nothing(self, run: Run, model: Path) -> None:
        outcome = run("inspect", model)
        assert outcome.code == 0
        assert "n (batchnorm, BatchNormalization): folded into" in outcome.out
        assert [path.name for path in model.parent.iterdir()] == ["in.onnx"]

    def test_json(self, run: Run, model: Path) -> None:
        report = run("inspect", model, "--format", "json").report
        assert report["command"] == "inspect"
        assert report["verification"]["verdict"] is None
        assert [site["site"] for site in report["sites"]] == ["n"]

    def test_unusable(self, run: Run, broken: Path) -> None:
        outcome = run("inspect", broken, "--format", "json")
        assert outcome.code == 2
        assert "NF902" in outcome.error
        assert outcome.report["findings"][0]["severity"] == "error"


class TestVerify:
    def test_a_fold(self, run: Run, model: Path, tmp_path: Path) -> None:
        run("fold", model, "-o", tmp_path / "out.onnx")
        outcome = run("verify", model, tmp_path / "out.onnx", "--format", "json")
        assert outcome.code == 0
        assert outcome.report["verification"]["verdict"] == "pass"
        assert [entry["path"] for entry in outcome.report["inputs"]] == [
            str(model),
            str(tmp_path / "out.onnx"),
        ]

    def test_another_epsilon(self, run: Run, model: Path, tmp_path: Path) -> None:
        other = onnx.load(model)
        (epsilon,) = other.graph.node[1].attribute or [
            other.graph.node[1].attribute.add(name="epsilon", type=1)
        ]
        epsilon.f = 1e-3
        onnx.save(other, tmp_path / "other.onnx")
        outcome = run("verify", model, tmp_path / "other.onnx", "--format", "json")
        assert outcome.code == 1
        assert outcome.report["verification"]["verdict"] == "fail"

    def test_prints_the_reason(self, run: Run, model: Path, tmp_path: Path) -> None:
        other = onnx.load(model)
        scale = next(tensor for tensor in other.graph.initializer if tensor.name == "g")
        scale.CopyFrom(numpy_helper.from_array(np.array([1.5, 0.5], np.float32), "g"))
        onnx.save(other, tmp_path / "other.onnx")
        outcome = run("verify", model, tmp_path / "other.onnx")
        assert outcome.code == 1
        assert "VERIFICATION FAILED" in outcome.out.splitlines()[0]

    def test_two_streams(self, run: Run) -> None:
        assert run("verify", "-", "-").code == 2

    @pytest.mark.parametrize("broken_first", [True, False])
    def test_unusable(self, run: Run, model: Path, broken: Path, broken_first: bool) -> None:
        pair = (broken, model) if broken_first else (model, broken)
        outcome = run("verify", *pair)
        assert outcome.code == 2
        assert str(broken) in outcome.error


class TestExplain:
    @pytest.mark.parametrize("code", CODES)
    def test_every_code(self, run: Run, code: str) -> None:
        outcome = run("explain", code.lower())
        assert outcome.code == 0
        text = " ".join(outcome.out.split())
        for part in (code, CODES[code].what, CODES[code].why, CODES[code].unblock):
            assert part in text

    def test_lists_all(self, run: Run) -> None:
        outcome = run("explain")
        assert [line.split()[0] for line in outcome.out.splitlines()] == list(CODES)

    def test_json(self, run: Run) -> None:
        (code,) = run("explain", "NF907", "--format", "json").report["summary"]["codes"]
        assert code["title"] == CODES["NF907"].title

    def test_unknown(self, run: Run) -> None:
        outcome = run("explain", "NF000")
        assert outcome.code == 2
        assert "NF000" in outcome.error


class TestGroup:
    def test_help(self, run: Run) -> None:
        outcome = run("--help")
        assert outcome.code == 0
        for command in ("fold", "inspect", "verify", "explain"):
            assert command in outcome.out

    def test_no_command(self, run: Run) -> None:
        outcome = run()
        assert outcome.code == 2
        assert "Usage" in outcome.err

    def test_unknown_command(self, run: Run) -> None:
        outcome = run("flod")
        assert outcome.code == 2
        assert "flod" in outcome.error

    def test_version(self, run: Run) -> None:
        outcome = run("--version")
        assert outcome.code == 0
        assert outcome.out.startswith(f"normfold {normfold.__version__}\n")
        assert f"onnx {version('onnx')}\n" in outcome.out
        assert "CPUExecutionProvider" in outcome.out or "not installed" in outcome.out

    def test_version_is_that_of_the_distribution(self) -> None:
        assert version("normfold") == normfold.__version__


def _processor_seconds_of_children() -> float:
    """Of those that have ended: a busy machine does not count."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class TestProcess:
    def test_help_answers_at_once(self) -> None:
        seconds = []
        for _ in range(5):
            began = _processor_seconds_of_children()
            assert process("--help").returncode == 0
            seconds.append(_processor_seconds_of_children() - began)
        assert statistics.median(seconds) < 0.3

    def test_import_is_cheap(self) -> None:
        heavy = {"numpy", "onnx", "onnx_ir", "click", "rich"}
        code = f"import sys, normfold; print(sorted({heavy} & set(sys.modules)))"
        assert subprocess.check_output([PYTHON, "-c", code], text=True).strip() == "[]"

    def test_torch_is_never_imported(self, model: Path, tmp_path: Path) -> None:
        arguments = ["fold", str(model), "-o", str(tmp_path / "o.onnx")]
        code = (
            "import sys\nsys.modules['torch'] = None\nfrom importlib import import_module\n"
            f"import_module('normfold.cli').main({arguments})"
        )
        assert subprocess.run([PYTHON, "-c", code], check=False).returncode == 0

    def test_streams(self, model: Path) -> None:
        done = process("fold", "-", "-o", "-", input=model.read_bytes())
        assert done.returncode == 0, done.stderr
        folded = onnx.ModelProto.FromString(done.stdout)
        assert [node.op_type for node in folded.graph.node] == ["Conv", "Relu"]
        assert done.stderr.decode().startswith("-: 1 folded") or b"1 folded" in done.stderr

    def test_unchanged_stream_is_copied(self, model: Path) -> None:
        once = process("fold", "-", "-o", "-", "-q", input=model.read_bytes()).stdout
        assert process("fold", "-", "-o", "-", "-q", input=once).stdout == once

    def test_json_of_a_stream_goes_to_standard_error(self, model: Path) -> None:
        done = process("fold", model, "-o", "-", "--format", "json")
        jsonschema.validate(
            json.loads(done.stderr),
            json.loads((Path(__file__).parents[2] / "docs" / "report.schema.json").read_text()),
        )
        onnx.checker.check_model(onnx.ModelProto.FromString(done.stdout))

    @pytest.mark.parametrize("closed", ["stdout", "stderr"])
    def test_closed_stream(self, model: Path, closed: str) -> None:
        redirect = {"stdout": ">&-", "stderr": "2>&-"}[closed]
        command = f'"{PYTHON}" -m normfold inspect "{model}" {redirect}'
        assert subprocess.run(["sh", "-c", command], check=False, capture_output=True).returncode == 0

    def test_reader_that_leaves(self, model: Path) -> None:
        command = f'("{PYTHON}" -m normfold explain; echo "code $?" >&2) | head -1'
        done = subprocess.run(["sh", "-c", command], check=False, capture_output=True, text=True)
        assert done.stderr == "code 0\n"

    @pytest.mark.parametrize("arguments", [("-v",), ("--format", "json"), ("--format", "github")])
    def test_reader_of_the_report_that_has_left(self, model: Path, arguments: Sequence[str]) -> None:
        read, write = os.pipe()
        os.close(read)
        try:
            command = [PYTHON, "-m", "normfold", "inspect", str(model), *arguments]
            done = subprocess.run(command, check=False, stdout=write, stderr=subprocess.PIPE, text=True)
        finally:
            os.close(write)
        assert (done.returncode, done.stderr) == (0, "")

    def test_reader_of_the_model_that_leaves(self, model: Path) -> None:
        read, write = os.pipe()
        os.close(read)
        try:
            command = [PYTHON, "-m", "normfold", "fold", str(model), "-o", "-", "--no-verify"]
            done = subprocess.run(command, check=False, stdout=write, stderr=subprocess.PIPE, text=True)
        finally:
            os.close(write)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
        assert "Broken pipe" in done.stderr

    def test_interrupt(self, model: Path, tmp_path: Path) -> None:
        arguments = ["fold", str(model), "-o", str(tmp_path / "o.onnx")]
        code = (
            "import time, normfold.verification as v\n"
            "def wait(*_):\n    print('ready', flush=True)\n    time.sleep(60)\n"
            "v.verify_fold = wait\nfrom importlib import import_module\n"
            f"import_module('normfold.cli').main({arguments})"
        )
        child = subprocess.Popen(
            [PYTHON, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGINT)
        _, error = child.communicate(timeout=30)
        assert child.returncode == 130
        assert "Traceback" not in error
        assert [path.name for path in tmp_path.iterdir()] == ["in.onnx"]

    def test_shell_completion(self) -> None:
        done = process(env={**os.environ, "_NORMFOLD_COMPLETE": "bash_source"})
        assert b"_NORMFOLD_COMPLETE" in done.stdout
