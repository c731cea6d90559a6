"""What CI calls: annotations, job summaries, the pre-commit hook and the GitHub action."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnx
import pytest
import yaml

Run = Callable[..., Any]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def folded(run: Run, model: Path, tmp_path: Path) -> Path:
    """The model in its folded form."""
    path = tmp_path / "folded.onnx"
    assert run("fold", model, "-o", path).code == 0
    return path


class TestCheck:
    def test_says_what_would_change(self, run: Run, model: Path) -> None:
        outcome = run("fold", "--check", model, "--format", "json")
        assert outcome.code == 1
        (finding,) = outcome.report["findings"]
        assert (finding["code"], finding["severity"], finding["site"]) == ("NF100", "error", "n")
        assert "would change: n (batchnorm, BatchNormalization): folded into" in finding["message"]

    def test_several_files(self, run: Run, model: Path, folded: Path) -> None:
        outcome = run("fold", "--check", folded, model)
        assert outcome.code == 1
        assert outcome.out.count("NF100") == 1
        assert run("fold", "--check", folded, folded).code == 0

    def test_unreadable_file_beside_others(self, run: Run, folded: Path, broken: Path) -> None:
        outcome = run("fold", "--check", folded, broken)
        assert outcome.code == 2
        assert str(broken) in outcome.error


class TestAnnotations:
    def test_follow_the_text(self, run: Run, model: Path) -> None:
        outcome = run("fold", "--check", model, "--format", "github")
        lines = outcome.out.splitlines()
        assert lines[0].startswith(str(model))
        assert lines[-1].startswith(
            f"::error file={model},title=normfold NF100%3A would be folded::would change: n "
        )

    def test_of_what_cannot_be_read(self, run: Run, broken: Path) -> None:
        outcome = run("inspect", broken, "--format", "github")
        assert outcome.code == 2
        assert outcome.out.startswith(f"::error file={broken},title=normfold NF902")

    def test_none_where_all_is_well(self, run: Run, folded: Path) -> None:
        assert "::" not in run("fold", "--check", folded, "--format", "github").out


class TestJobSummary:
    def test_is_appended(
        self, run: Run, model: Path, folded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        summary = tmp_path / "summary.md"
        monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
        run("verify", model, folded)
        run("fold", "--check", model, "-q")
        text = summary.read_text()
        assert [line.split(":")[0] for line in text.splitlines() if line.startswith("## ")] == [
            "## normfold verify",
            "## normfold fold",
        ]

    def test_that_cannot_be_written_fails_nothing(
        self, run: Run, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "none" / "summary.md"))
        outcome = run("fold", model, "-o", tmp_path / "out.onnx")
        assert outcome.code == 0
        assert "job summary" in outcome.error


class TestReports:
    def test_every_format_at_once(self, run: Run, model: Path, tmp_path: Path) -> None:
        suffixes = (".html", ".json", ".junit.xml", ".md", ".sarif")
        arguments = [part for suffix in suffixes for part in ("--report", tmp_path / f"r{suffix}")]
        assert run("fold", model, "-o", tmp_path / "out.onnx", *arguments).code == 0
        assert "<svg" in (tmp_path / "r.html").read_text()
        assert ET.parse(tmp_path / "r.junit.xml").getroot().get("failures") == "0"
        assert json.loads((tmp_path / "r.sarif").read_text())["runs"][0]["invocations"][0]["exitCode"] == 0
        (graph,) = json.loads((tmp_path / "r.json").read_text())["graphs"]
        assert [node["operator"] for node in graph["before"]] == [
            "input",
            "Conv",
            "BatchNormalization",
            "Relu",
        ]
        assert [node["operator"] for node in graph["after"]] == ["input", "Conv", "Relu"]

    def test_unreadable_model(self, run: Run, broken: Path, tmp_path: Path) -> None:
        names = ("r.html", "r.junit.xml", "r.sarif")
        arguments = [part for name in names for part in ("--report", tmp_path / name)]
        assert run("fold", "--check", broken, *arguments).code == 2
        assert "NF902" in (tmp_path / "r.html").read_text()
        assert ET.parse(tmp_path / "r.junit.xml").getroot().get("errors") == "1"
        (result,) = json.loads((tmp_path / "r.sarif").read_text())["runs"][0]["results"]
        assert result["ruleId"] == "NF902"


class TestPreCommitHook:
    HOOK = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())[0]

    def test_command_line(self, run: Run, model: Path, folded: Path) -> None:
        program, *arguments = shlex.split(self.HOOK["entry"])
        assert program == "normfold"
        assert run(*arguments, model, folded).code == 1
        assert run(*arguments, folded, folded).code == 0

    def test_brings_onnxruntime(self) -> None:
        assert any(name.startswith("onnxruntime") for name in self.HOOK["additional_dependencies"])

    def test_takes_models_only(self) -> None:
        assert self.HOOK["files"] == r"\.onnx$"
        assert self.HOOK["require_serial"] is True


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
class TestAction:
    ACTION = yaml.safe_load((ROOT / "action.yml").read_text())

    @pytest.fixture
    def act(self, tmp_path: Path, model: Path) -> Callable[..., tuple[int, str, dict[str, str]]]:
        """Runs the action's script in a folder with one model, as a runner would."""
        command = tmp_path / "normfold"
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m normfold "$@"\n')
        command.chmod(0o755)
        work = tmp_path / "work"
        (work / "some models").mkdir(parents=True)
        shutil.copy(model, work / "some models" / "a b.onnx")

        def call(**inputs: str) -> tuple[int, str, dict[str, str]]:
            defaults = {
                key.upper(): str(entry.get("default", "")) for key, entry in self.ACTION["inputs"].items()
            }
            environment: Mapping[str, str] = {
                **os.environ,
                **defaults,
                **inputs,
                "NORMFOLD": str(command),
                "GITHUB_OUTPUT": str(tmp_path / "outputs"),
            }
            script = ROOT / ".ci" / "action"
            done = subprocess.run(
                ["bash", script],
                cwd=work,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=120,
            )
            written = tmp_path / "outputs"
            lines = written.read_text().splitlines() if written.exists() else []
            return done.returncode, done.stdout, dict(line.split("=", 1) for line in lines)

        return call

    def test_check(self, act: Any, tmp_path: Path) -> None:
        code, out, outputs = act(MODELS="**/*.onnx\n")
        assert code == 1
        assert "::error file=some models/a b.onnx,title=normfold NF100" in out
        assert outputs == {"reports": "normfold-reports", "exit-code": "1"}
        reports = sorted(path.name for path in (tmp_path / "work" / "normfold-reports").iterdir())
        assert reports == ["normfold.html", "normfold.json", "normfold.junit.xml", "normfold.sarif"]

    def test_fold(self, act: Any, tmp_path: Path) -> None:
        code, _, outputs = act(MODELS="some models/a b.onnx", MODE="fold", ARGS="--seed\n7\n")
        assert code == 0
        assert outputs["exit-code"] == "0"
        written = onnx.load(tmp_path / "work" / "folded" / "a b.onnx")
        assert [node.op_type for node in written.graph.node] == ["Conv", "Relu"]

    @pytest.mark.parametrize("inputs", [{"MODELS": "none/*.onnx"}, {"MODELS": "**/*.onnx", "MODE": "melt"}])
    def test_usage_errors(self, act: Any, inputs: dict[str, str]) -> None:
        code, out, _ = act(**inputs)
        assert code == 2
        assert out.startswith("::error title=normfold::")

    def test_pattern_is_no_command(self, act: Any, tmp_path: Path) -> None:
        act(MODELS="$(touch pwned)\n`touch pwned`\n; touch pwned")
        assert not list(tmp_path.rglob("pwned"))

    def test_every_variable_of_the_script_is_set(self) -> None:
        (step,) = [step for step in self.ACTION["runs"]["steps"] if step.get("id") == "run"]
        assert {"NORMFOLD", "MODELS", "MODE", "OUTPUT", "ARGS", "REPORTS"} == set(step["env"])

    def test_inputs_reach_no_shell_as_text(self) -> None:
        for step in self.ACTION["runs"]["steps"]:
            assert "${{" not in step.get("run", "")
