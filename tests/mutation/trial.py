"""One mutant on trial: what the tests say, and what the proof says of its folds."""

from __future__ import annotations

import importlib
import itertools
import json
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings

from tests.mutation.mutant import Mutant, Substitute
from tests.mutation.survey import PACKAGE, ROOT, Asked, Folded, Lines, Survey, numbered

OF_THE_TEST, OF_OTHERS = 12, 8
"""Models on which the proof is tried: of the test that fails, and of other tests."""
_BATCH = 2.0
"""Seconds of tests that are collected together, the first time; each time twice as many."""
_SLOW = 1.0
_PATIENCE = 60.0
"""Seconds that a test may take beyond ten times its own."""
_IDLE_PLUGINS = ("cacheprovider", "xdist", "unraisableexception")
"""Those of pytest that cost time and say nothing here."""


class _First:
    """Runs each test within its time, and remembers the first that fails."""

    def __init__(self, seconds: dict[str, float], within: Callable[[float], Any]) -> None:
        self.name = ""
        self._seconds = seconds
        self._within = within

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        with self._within(_PATIENCE + 10 * self._seconds.get(item.nodeid, 0.0)):
            yield

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.name:
            self.name = report.nodeid

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and not self.name:
            self.name = report.nodeid


def trial(mutant: Mutant, survey: Survey, report: Path) -> None:
    """Writes ``tests`` and ``proof`` to ``report``.

    ``tests``: the first test that fails of those that run the changed lines, ``alive``, or ``no test``.
    ``proof``: by the number of a model ``right``; ``caught`` in float64; ``caught behind the algebra`` by the
    rest of what ``fold`` verifies; ``withheld`` where it could not be proven, so that it is not written;
    ``missed``; ``unsettled`` where the answer is right and a second fold changes it; or ``crash``.
    """
    assert not any(name.partition(".")[0] == "normfold" for name in sys.modules)
    Substitute(mutant.module, mutant.source(PACKAGE)).install()
    # Nobody reads the failure, so it need not be small.
    settings.register_profile(
        "trial",
        phases=[Phase.explicit, Phase.generate],
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    settings.load_profile("trial")
    lines = numbered(mutant.path, mutant.lines(PACKAGE))
    tests = _in_order(survey.tests, lines)
    found: dict[str, Any] = {"tests": "did not end", "asked": len(tests), "proof": {}}
    report.write_text(json.dumps(found))
    try:
        first = _first_to_fail(tests)
        found["tests"] = first or ("alive" if tests else "no test")
    except Exception as error:  # the mutant cannot even be imported
        first = ""
        found["tests"] = f"import: {type(error).__name__}"
    report.write_text(json.dumps(found))
    found["proof"] = _proof(survey.models, _chosen(survey.models, lines, first))
    report.write_text(json.dumps(found))


def _in_order(tests: Sequence[Asked], lines: Lines) -> list[Asked]:
    """The tests that run the lines: slow ones last, the others first of the files that do little else."""
    files: dict[str, list[Asked]] = {}
    every = Counter(_file(test) for test in tests)
    for test in tests:
        if test.lines & lines:
            files.setdefault(_file(test), []).append(test)

    def rank(file: str) -> tuple[float, float]:
        return -round(len(files[file]) / every[file], 1), sum(test.seconds for test in files[file])

    ordered = [test for file in sorted(files, key=rank) for test in files[file]]
    return sorted(ordered, key=lambda test: test.seconds > _SLOW)


def _file(test: Asked) -> str:
    return test.name.partition("::")[0]


def _first_to_fail(tests: Sequence[Asked]) -> str:
    within = importlib.import_module("tests.mutation.cases").within
    seconds = {test.name: test.seconds for test in tests}
    waiting, size = list(tests), _BATCH
    while waiting:
        taken, spent = 0, 0.0
        while taken < len(waiting) and (spent < size or taken == 0):
            spent += waiting[taken].seconds + 0.02
            taken += 1
        batch, waiting, size = waiting[:taken], waiting[taken:], 2 * size
        first = _First(seconds, within)
        arguments = ["-x", "-q", "--tb=no", "--no-header"]
        arguments += itertools.chain.from_iterable(("-p", f"no:{name}") for name in _IDLE_PLUGINS)
        arguments.append(f"--rootdir={ROOT}")
        code = pytest.main([*arguments, *(test.name for test in batch)], plugins=[first])
        if code == pytest.ExitCode.USAGE_ERROR:
            # It was to be asked of a test that there is not: nobody has caught it.
            return "survey out of date"
        if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            return first.name or f"exit {int(code)}"
    return ""


def _chosen(models: Sequence[Folded], lines: Lines, first: str) -> list[int]:
    """Numbers of models: of the test that fails first, then one after the other of other tests."""
    drawn = [number for number, folded in enumerate(models) if folded.lines & lines]
    random.Random(0).shuffle(drawn)
    own = [number for number in drawn if models[number].test == first][:OF_THE_TEST]
    others: dict[str, list[int]] = {}
    for number in drawn:
        if models[number].test != first:
            others.setdefault(models[number].test, []).append(number)
    rows = itertools.zip_longest(*others.values())
    return [*own, *itertools.islice((n for row in rows for n in row if n is not None), OF_OTHERS)]


def _proof(models: Sequence[Folded], chosen: Sequence[int]) -> dict[int, str]:
    """What the judge says of models, by their numbers, until the proof rejects one."""
    verdict = importlib.import_module("tests.mutation.cases").verdict
    said: dict[int, str] = {}
    for number in chosen:
        what = verdict(models[number])
        if what is not None:
            said[number] = what
        if what == "caught":
            break
    return said
