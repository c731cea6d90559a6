"""One mutant on trial: what the proof says of its folds, and what the tests say."""

from __future__ import annotations

import importlib
import json
import pickle
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings

from tests.mutation.mutant import Mutant, Substitute
from tests.mutation.tests_of import tests_of

ROOT = Path(__file__).parents[2]
MODELS = 20
"""Models that call the changed function, at most."""


class _First:
    """Remembers the first test that fails."""

    def __init__(self) -> None:
        self.name = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.name:
            self.name = report.nodeid.rpartition("/")[2]

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and not self.name:
            self.name = f"{report.nodeid} cannot be imported"


def trial(mutant: Mutant, corpus: Path, report: Path) -> None:
    """Writes ``proof`` and ``tests`` to ``report``.

    ``proof``: ``caught``; ``withheld`` where it could not prove the wrong fold, which is not written then;
    ``missed``; ``unsettled`` where the answer is right and a second fold changes it; ``caught by a crash``;
    ``nothing wrong on N models``; or ``no model``.
    ``tests``: the first test that fails, or ``alive``.
    """
    assert not any(name.partition(".")[0] == "normfold" for name in sys.modules)
    package = ROOT / "normfold"
    Substitute(mutant.module, mutant.source(package)).install()
    # Nobody reads the failure, so it need not be small.
    found: dict[str, Any] = {}
    phases = [Phase.explicit, Phase.generate]
    settings.register_profile(
        "trial", phases=phases, deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    settings.load_profile("trial")
    try:
        found["proof"] = _proof(mutant, corpus, package)
    except Exception as error:
        found["proof"] = f"caught by a crash: {type(error).__name__}"
    report.write_text(json.dumps(found | {"tests": "did not end"}))
    found["tests"] = _tests(mutant)
    report.write_text(json.dumps(found))


def _proof(mutant: Mutant, corpus: Path, package: Path) -> str:
    importlib.import_module("normfold.folding")
    judge = importlib.import_module("tests.fuzz.judge")
    looked = 0
    crash, wrong = "", Counter[str]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for entry in _models(mutant, corpus, package):
            looked += 1
            try:
                judge.judge(entry.loaded(), prove_first=True)
            except judge.Rejected:
                return f"caught, model {looked}"
            except judge.Wrong as error:
                wrong[_kind(error)] += 1
            except judge.Unusable:
                continue
            except Exception as error:
                crash = crash or type(error).__name__
    for kind in ("missed", "withheld", "unsettled"):
        if wrong[kind]:
            return f"{kind} on {wrong[kind]} of {looked}"
    if crash:
        return f"caught by a crash: {crash}"
    return f"nothing wrong on {looked} models" if looked else "no model"


def _kind(error: Any) -> str:
    if "second fold" in str(error):
        return "unsettled"
    return "withheld" if error.proof.get("unproven") else "missed"


def _models(mutant: Mutant, corpus: Path, package: Path) -> Iterator[Any]:
    """Models whose fold calls the changed function, or the module where it is not in one."""
    with corpus.open("rb") as file:
        entries = pickle.load(file)
    line = mutant.line(package)
    calling = []
    for entry in entries:
        before = [first for first in entry.touched.get(mutant.path, ()) if first <= line]
        if before:
            calling.append((line - max(before), len(entry.case), entry))
    nearest = min((distance for distance, _, _ in calling), default=0)
    chosen = sorted((c for c in calling if c[0] == nearest), key=lambda c: c[1])
    step = max(len(chosen) // MODELS, 1)
    yield from (entry for _, _, entry in chosen[::step][:MODELS])


def _tests(mutant: Mutant) -> str:
    for files in tests_of(mutant.path, ROOT):
        first = _First()
        arguments = ["-x", "-q", "--tb=no", "--no-header", "-p", "no:cacheprovider", "-p", "no:xdist"]
        arguments.append(f"--rootdir={ROOT}")
        code = pytest.main([*arguments, *files], plugins=[first])
        if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            return first.name or f"exit {int(code)}"
    return "alive"
