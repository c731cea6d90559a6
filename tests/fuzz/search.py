"""A search: cases one after the other, what fails shrunk by hypothesis and saved."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import onnx
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.census import Census
from tests.fuzz.generate import Case, cases
from tests.fuzz.judge import Unusable, Wrong, judge

SLICE = 100
"""Models for each seed of hypothesis: within one it varies what it has drawn before."""


def search(
    first_seed: int,
    census: Census,
    *,
    until: Callable[[int], bool],
    save: Path | None = None,
    current: Path | None = None,
    tell: Callable[[str], None] = print,
) -> list[str]:
    """Judges cases until ``until`` (which is told how many there were) says so.

    Args:
        first_seed: each slice of models has a seed of its own, counted from here.
        census: is filled.
        until: asked before each slice.
        save: the folder that takes a model for each failure.
        current: the file that holds the model that is being judged, should the process die of it.
        tell: is told of each failure.

    Returns:
        One line for each failure.
    """
    failures: list[str] = []
    number = first_seed
    while not until(census.counts["tried"]):
        found = _slice(number, census, current)
        if found is not None:
            error, case = found
            line = f"seed {number}: {type(error).__name__}: {' '.join(str(error).split())[:400]}"
            failures.append(line)
            if save is not None:
                line += f" -> {saved(case, save)}"
            tell(line)
        number += 1
    return failures


def _slice(number: int, census: Census, current: Path | None) -> tuple[BaseException, Case] | None:
    last: list[tuple[BaseException, Case]] = []

    @seed(number)
    @settings(
        max_examples=SLICE,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
        print_blob=False,
        report_multiple_bugs=False,
    )
    @given(cases())
    def body(case: Case) -> None:
        if current is not None:
            onnx.save(case.saved(), current)
        try:
            _judged(case, census)
        except Exception as error:
            last[:] = [(error, case)]
            raise

    with census.watching():
        try:
            body()
        except Exception as error:
            if not last:
                raise
            # The last that failed is the smallest.
            census.counts["failures"] += 1
            return error, last[0][1]
    return None


def _judged(case: Case, census: Census) -> None:
    census.model(case)
    try:
        # normfold's proof takes as long as all the rest, and is not the judge: every second model has it.
        census.verdict(judge(case, prove=case.model.ByteSize() % 2 == 0))
    except Unusable as error:
        census.counts["unusable"] += 1
        census.unusable[str(error).partition(":")[0]] += 1
    except Wrong:
        census.counts["wrong, while shrinking too"] += 1
        raise


def saved(case: Case, folder: Path) -> Path:
    """Writes a case as text, under a name that follows from it."""
    text = str(case.saved())
    path = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:10]}.textproto"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def clock(minutes: float) -> Callable[[int], bool]:
    """Says when the time is over."""
    end = time.monotonic() + 60 * minutes
    return lambda _tried: time.monotonic() >= end
