"""Runs the command line in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.small_models import foldable

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "report.schema.json").read_text())


@dataclass
class Outcome:
    """What a run left behind."""

    code: int
    out: str
    err: str

    @property
    def report(self) -> dict[str, Any]:
        """Standard output as a report that fits the schema."""
        document: dict[str, Any] = json.loads(self.out)
        jsonschema.validate(document, SCHEMA)
        assert document["exit"] == self.code
        return document

    @property
    def error(self) -> str:
        """Standard error, which must be one line."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("normfold: ")
        return lines[0]


Run = Callable[..., Outcome]


@pytest.fixture
def schema() -> Any:
    """The report's JSON Schema."""
    return SCHEMA


@pytest.fixture(autouse=True)
def no_job_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests may run in a workflow, whose summary is not theirs."""
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Calls the command line with the given arguments."""
    main = import_module("normfold.cli").main

    def call(*arguments: str | Path) -> Outcome:
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Outcome(int(caught.value.code or 0), captured.out, captured.err)

    return call


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Conv → BatchNormalization → Relu."""
    path = tmp_path / "in.onnx"
    path.write_bytes(foldable().SerializeToString())
    return path


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A file that is not a model."""
    path = tmp_path / "broken.onnx"
    path.write_bytes(b"no model")
    return path
