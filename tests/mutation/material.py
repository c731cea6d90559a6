"""What mutants are tried on. Other processes make it: this one must never have imported normfold."""

from __future__ import annotations

import functools
import operator
import pickle
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from tests.mutation.survey import ROOT, TESTS, Survey


def prepare(path: Path, folder: Path, jobs: int) -> None:
    """Surveys the tests, ``jobs`` processes at a time."""
    files = [folder / f"survey_{number}" for number in range(jobs)]
    shares = [TESTS[first::jobs] for first in range(jobs)]
    _together(
        ["-m", "tests.mutation.survey", str(file), *share] for file, share in zip(files, shares, strict=True)
    )
    path.write_bytes(pickle.dumps(functools.reduce(operator.add, map(loaded, files))))


def loaded(path: Path) -> Survey:
    found = pickle.loads(path.read_bytes())
    assert isinstance(found, Survey)
    return found


def unbroken(path: Path, models: Iterable[int], folder: Path) -> dict[int, str | None]:
    """What the judge says of the unbroken code on some of the models of a survey, by their numbers."""
    numbers, out = folder / "numbers", folder / "unbroken"
    numbers.write_bytes(pickle.dumps(sorted(set(models))))
    _together([["-m", "tests.mutation.cases", str(path), str(numbers), str(out)]])
    found: dict[int, str | None] = pickle.loads(out.read_bytes())
    return found


def _together(commands: Iterable[list[str]]) -> None:
    started = [(command, subprocess.Popen([sys.executable, *command], cwd=ROOT)) for command in commands]
    for command, process in started:
        if process.wait():
            raise subprocess.CalledProcessError(process.returncode, command)
