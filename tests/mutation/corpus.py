"""Models on which mutants are tried, and which functions of normfold each of them makes work."""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import onnx
import onnx_ir as ir
from hypothesis import HealthCheck, Phase, given, seed, settings

import normfold
from normfold.folding import fold_model
from tests.fuzz.generate import Case, cases

ROOT = Path(normfold.__file__).parent
MODELS_OF_A_SEED = 100


@dataclass(frozen=True)
class Entry:
    """A saved case, and the first lines of the functions that its fold calls, by file."""

    case: bytes
    touched: dict[str, frozenset[int]]

    def loaded(self) -> Case:
        return Case.loaded(onnx.ModelProto.FromString(self.case))


def make(models: int) -> list[Entry]:
    """Valid models that a fold changes or tries to change."""
    entries: list[Entry] = []
    number = 0
    while len(entries) < models:
        number += 1
        _fill(entries, number)
    return entries


def _fill(entries: list[Entry], number: int) -> None:
    @seed(number)
    @settings(
        max_examples=MODELS_OF_A_SEED,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(cases())
    def body(case: Case) -> None:
        touched: dict[str, set[int]] = {}

        def note(frame: FrameType, event: str, _: Any) -> None:
            name = frame.f_code.co_filename
            if event == "call" and name.startswith(str(ROOT)):
                path = str(Path(name).relative_to(ROOT))
                touched.setdefault(path, set()).add(frame.f_code.co_firstlineno)

        sys.setprofile(note)
        try:
            fold_model(ir.from_proto(case.model), case.options)
        finally:
            sys.setprofile(None)
        lines = {path: frozenset(found) for path, found in touched.items()}
        entries.append(Entry(case.saved().SerializeToString(), lines))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        body()
