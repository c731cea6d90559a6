"""What a worker does with one model of a batch."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from normfold.batch.job import Job
from normfold.batch.record import done_before, remember
from normfold.outcome import Outcome, settle
from normfold.urls import is_url, plain_path

if TYPE_CHECKING:
    from normfold.reporting.report import Report

_TURN = threading.Lock()
"""A Dask worker may have several threads; a fold is written for a process of its own."""


def fold_job(job: Job) -> Outcome:
    """Folds one model, unless that was done before. Raises nothing but an interrupt."""
    with _TURN:
        return settle("fold", lambda: _fold(job))


def _fold(job: Job) -> Report:
    from normfold.commands.fold import fold
    from normfold.reporting.check import pending_folds

    known = done_before(job)
    if known is not None:
        return known
    if job.output is not None and not is_url(job.output):
        # What is wrong with the folder is said where the result is written.
        with contextlib.suppress(OSError):
            Path(plain_path(job.output)).parent.mkdir(parents=True, exist_ok=True)
    result = fold(job.source, job.output, **job.settings.options)
    report = result.report
    if job.settings.check and result.changed:
        report.exit = 1
        report.findings += pending_folds(report)
    remember(job, report)
    return report
