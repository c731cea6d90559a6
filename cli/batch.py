"""``normfold fold`` of many models: one line for each as it ends."""

from __future__ import annotations

import sys
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from .session import Presentation, attempt, complain, conclude

if TYPE_CHECKING:
    from normfold.outcome import Outcome
    from normfold.reporting.report import Report

    from .progress import Display


def fold_batch(
    models: tuple[str, ...], output: str | None, presentation: Presentation, **options: Any
) -> int:
    """Folds every model, shows what became of each, and returns the exit code of the worst."""
    work = _Batch(presentation)
    report = attempt("fold", partial(work.run, models, output, options), quiet=presentation.quiet)
    if report.interrupted and work.total:
        again = "; the same command goes on from there" if output is not None else ""
        click.echo(f"normfold: interrupted: {work.done} of {work.total} models done{again}", err=True)
    return conclude("fold", report, presentation)


class _Batch:
    """Follows a batch."""

    def __init__(self, presentation: Presentation) -> None:
        self._presentation = presentation
        self.done = 0
        self.total = 0

    def run(
        self, models: tuple[str, ...], output: str | None, options: dict[str, Any], display: Display
    ) -> Report:
        from normfold.batch.many import fold_many

        def plan(total: int) -> None:
            self.total = total
            display("fold")
            display.models(0, total)

        def end(_: int, outcome: Outcome) -> None:
            self.done += 1
            self._tell(outcome)
            display.models(self.done, self.total)

        return fold_many(models, output, on_plan=plan, on_done=end, **options)

    def _tell(self, outcome: Outcome) -> None:
        from normfold.reporting.console import print_headline

        if outcome.complaint is not None:
            complain(outcome.complaint, outcome.trace)
        elif self._presentation.as_text:
            # Nobody is obliged to read to the end.
            with suppress(BrokenPipeError):
                print_headline(outcome.report, sys.stdout)
                sys.stdout.flush()
