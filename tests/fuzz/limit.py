"""A fold that is held to its time: two random models once had one without an end."""

from __future__ import annotations

import signal
from types import FrameType

import onnx_ir as ir

from normfold.folding import Folded, fold_model
from normfold.options import FoldOptions
from tests.fuzz.judge import Fold, Wrong

SECONDS = 10.0
"""Of processor time; a fold of these models takes some hundredths."""


class _TooLong(BaseException):
    """Not an Exception: nothing that a fold does may catch it."""


def ending(fold: Fold = fold_model) -> Fold:
    """A fold that raises ``Wrong`` where it does not end within ``SECONDS``."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise _TooLong

    def limited(model: ir.Model, options: FoldOptions) -> Folded:
        before = signal.signal(signal.SIGPROF, stop)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            return fold(model, options)
        except _TooLong:
            raise Wrong(f"the fold did not end within {SECONDS:g} seconds of processor time") from None
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.signal(signal.SIGPROF, before)

    return limited
