"""A search: cases one after the other, what fails shrunk by hypothesis and saved."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

import onnx
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.census import Census
from tests.fuzz.generate import Case, cases
from tests.fuzz.judge import Unusable, judge
from tests.fuzz.limit import ending

SLICE = 100
"""Models for each seed of hypothesis: within one it varies what it has drawn before."""


def search(
    seeds: Iterable[int],
    census: Census,
    *,
    save: Path | None = None,
    current: Path | None = None,
    dead: frozenset[str] = frozenset(),
    tell: Callable[[str], None] = print,
) -> list[str]:
    """Judges the models of some seeds, ``SLICE`` each, up to the first of a seed that fails.

    Args:
        seeds: of hypothesis.
        census: is filled.
        save: the folder that takes a model for each failure.
        current: the file that holds the model that is being judged, should the process die of it. Its
            ``producer_version`` is ``SEED/NUMBER``.
        dead: such names of models that are not to be judged.
        tell: is told of each failure.

    Returns:
        One line for each failure.
    """
    failures: list[str] = []
    for number in seeds:
        failure = _Slice(number, census, current, dead).run()
        if failure is None:
            continue
        name, error, case = failure
        line = f"seed {name}: {type(error).__name__}: {' '.join(str(error).split())[:400]}"
        failures.append(line)
        if save is not None:
            line += f" -> {saved(case, save)}"
        tell(line)
    return failures


def model_of(name: str) -> Case:
    """The model of a seed and number, ``SEED/NUMBER``, as ``search`` comes upon it."""
    first, _, number = name.partition("/")
    found: list[Case] = []
    _generate(int(first), found.append)
    return found[int(number)]


class _Slice:
    """The models of one seed."""

    def __init__(self, number: int, census: Census, current: Path | None, dead: frozenset[str]) -> None:
        self._seed, self._census, self._current, self._dead = number, census, current, dead
        self._models = 0
        self._failed: str | None = None
        self._smallest: tuple[Exception, Case] | None = None

    def run(self) -> tuple[str, Exception, Case] | None:
        """The name of the first that failed, and how and what it shrank to."""
        with self._census.watching():
            try:
                _generate(self._seed, self._one)
            except Exception:
                if self._failed is None or self._smallest is None:
                    raise
        if self._failed is None or self._smallest is None:
            return None
        self._census.counts["failures"] += 1
        return self._failed, *self._smallest

    def _one(self, case: Case) -> None:
        name = f"{self._seed}/{self._models}"
        self._models += 1
        if name in self._dead:
            self._census.died[name] += 1
            return
        if self._current is not None:
            model = case.saved()
            model.producer_version = name
            onnx.save(model, self._current)
        # What comes behind a failure are attempts to shrink it.
        census = self._census if self._failed is None else Census()
        try:
            _judged(case, name, census)
        except Exception as error:
            self._failed = self._failed or name
            # The last that fails is the smallest.
            self._smallest = error, case
            raise


def _generate(number: int, body: Callable[[Case], None]) -> None:
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
    def generated(case: Case) -> None:
        body(case)

    generated()


def _judged(case: Case, name: str, census: Census) -> None:
    census.model(case)
    try:
        # normfold's proof takes as long as all the rest, and is not the judge: every second model has it.
        verdict = judge(case, fold=ending(), prove=case.model.ByteSize() % 2 == 0)
    except Unusable as error:
        census.counts["unusable"] += 1
        census.unusable[str(error).partition(":")[0]] += 1
    else:
        census.verdict(verdict)
        if verdict.crashes:
            census.crashed[name] += verdict.crashes


def saved(case: Case, folder: Path) -> Path:
    """Writes a case as text, under a name that follows from it."""
    text = str(case.saved())
    path = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:10]}.textproto"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path
