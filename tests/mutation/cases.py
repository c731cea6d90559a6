"""The models of the survey, as cases that the judge of ``tests/fuzz`` takes."""

from __future__ import annotations

import contextlib
import itertools
import pickle
import signal
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import onnx
import onnx_ir as ir

from normfold.options import FoldOptions
from tests.fuzz import judge
from tests.fuzz.generate import Case
from tests.mutation.survey import Folded

_SECONDS = 30
"""That judging a model may take; it is a tenth of one as a rule."""
_SIZES = ((4, 6, 8), (2, 3, 5), (1, 1, 1), (8, 8, 8), (6, 6, 6))
"""For the symbols of a model, tried until it runs."""


class TooLong(Exception):
    """It did not end in time."""


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Raises ``TooLong`` in the block."""

    def end(number: int, frame: FrameType | None) -> None:
        raise TooLong

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def verdict(folded: Folded) -> str | None:
    """What the judge says of the fold, its proof asked first; ``None`` where the model says nothing.

    ``right``, ``caught``, ``caught behind the algebra``, ``withheld``, ``missed``, ``unsettled`` or
    ``crash``: see ``trial``.
    """
    for case in _cases(folded):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                with within(_SECONDS):
                    judge.judge(case, prove_first=True)
            except judge.Unusable:
                continue
            except judge.Rejected:
                return "caught"
            except judge.Wrong as error:
                return _kind(error, case)
            except TooLong:
                return None
            except Exception as error:  # whatever the broken code raises
                return f"crash: {type(error).__name__}"
        return "right"
    return None


def _kind(error: judge.Wrong, case: Case) -> str:
    if "second fold" in str(error):
        return "unsettled"
    if error.proof.get("unproven"):
        return "withheld"
    return "caught behind the algebra" if _is_refused(case) else "missed"


def _is_refused(case: Case) -> bool:
    """Whether the whole of what ``fold`` does keeps the wrong model from being written: it may refuse it, or
    give it up for one with other forms of norms."""
    import normfold
    from normfold.folding import fold_model

    said = {name: value for name, value in vars(case.options).items() if name != "provenance"}
    if case.options.target is None and case.options.groupnorm is None:
        said["groupnorm"] = "keep"
    wrong = fold_model(ir.from_proto(case.model), case.options)
    with tempfile.TemporaryDirectory() as folder:
        try:
            written = normfold.fold(case.model, Path(folder) / "folded.onnx", **said)
        except (normfold.NormfoldError, RuntimeError):
            # The latter where its own model is not valid.
            return True
    return bool(written.proto().graph != ir.to_proto(wrong.model).graph)


def _cases(folded: Folded) -> Iterator[Case]:
    """The model with one size after the other for its symbols."""
    model = onnx.ModelProto.FromString(folded.model)
    symbols: dict[str, None] = {}
    for value in model.graph.input:
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if not dim.HasField("dim_value"):
                dim.dim_param = dim.dim_param or f"{value.name}_{axis}"
                symbols[dim.dim_param] = None
    options = FoldOptions(**folded.options)
    for sizes in _SIZES if symbols else _SIZES[:1]:
        yield Case(model, options, dict(zip(symbols, itertools.cycle(sizes), strict=False)))


def main(survey: str, numbers: str, out: str) -> None:
    """Writes what the judge says of the unbroken code on some of the models."""
    models = pickle.loads(Path(survey).read_bytes()).models
    found: dict[int, Any] = {
        number: verdict(models[number]) for number in pickle.loads(Path(numbers).read_bytes())
    }
    Path(out).write_bytes(pickle.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
