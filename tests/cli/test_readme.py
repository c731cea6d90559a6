"""What the README prints is what the program prints; measured numbers may differ between machines."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
LENET = Path("models/trained/lenet_digits_bn.onnx")
_MEASURED = re.compile(r"\d[\d.]*e[+-]\d+|\b0\.\d+")


def printed(after: str) -> str:
    """The block of output behind a line of the README."""
    text = (ROOT / "README.md").read_text()
    return text[text.index(after) + len(after) :].partition("\n```")[0].strip("\n")


def masked(text: str) -> str:
    """The text with its measurements replaced; counts stay."""
    return _MEASURED.sub("#", text.strip("\n"))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that holds the model under the README's names."""
    (tmp_path / LENET.parent).mkdir(parents=True)
    shutil.copy(ROOT / LENET, tmp_path / LENET)
    shutil.copy(ROOT / LENET, tmp_path / LENET.name)
    monkeypatch.chdir(tmp_path)


def test_the_main_job(run: Any) -> None:
    (command,) = re.findall(r"(?m)^normfold (fold models/trained.*)$", (ROOT / "README.md").read_text())
    outcome = run(*command.split())
    assert outcome.code == 0
    assert masked(outcome.out) == masked(printed("The first command prints\n\n```\n"))


def test_the_check(run: Any) -> None:
    outcome = run("fold", "--check", LENET.name)
    assert outcome.code == 1
    assert masked(outcome.out) == masked(printed(f"$ normfold fold --check {LENET.name}\n"))
