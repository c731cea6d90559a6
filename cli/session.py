"""What every command does around its work: errors, reports, exit codes."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .interrupts import exit_code_of
from .progress import Display, progress

if TYPE_CHECKING:
    from normfold.reporting.report import Report

_SAID_IN_ONE_LINE = (2, 4)
_DEBUG_VARIABLE = "NORMFOLD_DEBUG"
_JOB_SUMMARY_VARIABLE = "GITHUB_STEP_SUMMARY"

Work = Callable[[Display], "Report"]
"""Makes a report; is given what shows its progress."""


@dataclass(frozen=True)
class Presentation:
    """How a report is to be shown.

    Attributes:
        output_format: ``text``, ``json``, or ``github``: text followed by workflow annotations.
        report_files: files to write it to.
        quiet: print errors only.
        verbose: how often ``-v`` was given.
        to_stderr: standard output carries a model, so the report goes to standard error.
    """

    output_format: str = "text"
    report_files: tuple[Path, ...] = ()
    quiet: bool = False
    verbose: int = 0
    to_stderr: bool = False

    @property
    def as_text(self) -> bool:
        """Whether standard output is for people."""
        return not (self.quiet or self.to_stderr or self.output_format == "json")

    def show(self, report: Report) -> None:
        """Writes the report files, then prints.

        Raises:
            OutputError: a file cannot be written.
        """
        from normfold.reporting.files import write_report

        for path in self.report_files:
            write_report(report, path)
        self._summarise(report)
        stream = sys.stderr if self.to_stderr else sys.stdout
        # Nobody is obliged to read the report to its end.
        with contextlib.suppress(BrokenPipeError):
            if self.output_format == "json":
                from normfold.reporting.json import render_json

                stream.write(render_json(report))
            elif not self.quiet:
                from normfold.reporting.console import print_report, print_total

                for run in report.runs or [report]:
                    # Of a batch every model had its line; what could not be shown is worth more.
                    worth = not report.runs or run.exit != 0 or self.verbose
                    if worth and run.exit not in _SAID_IN_ONE_LINE:
                        print_report(run, stream, verbose=self.verbose)
                if report.runs:
                    print_total(report, stream)
            if self.output_format == "github":
                from normfold.reporting.github import render_annotations

                stream.write(render_annotations(report))
            stream.flush()

    @staticmethod
    def _summarise(report: Report) -> None:
        """Appends to the job summary of a GitHub workflow. Nobody asked for it, so it fails nothing."""
        from normfold.errors import OutputError
        from normfold.reporting.files import append_job_summary

        path = os.environ.get(_JOB_SUMMARY_VARIABLE)
        if path:
            try:
                append_job_summary(report, Path(path))
            except OutputError as error:
                complain(f"job summary: {error}", None)


def attempt(command: str, work: Work, *, quiet: bool = False) -> Report:
    """Runs ``work``, and turns every error into one line on standard error and a report with its exit code.

    Args:
        command: name for the report of an error that brings none.
        work: what to do.
        quiet: show no progress.
    """
    from normfold.outcome import settle
    from normfold.reporting.report import Report

    from .startup import import_onnx_ir

    try:
        import_onnx_ir()
        with progress(quiet) as display:
            outcome = settle(command, lambda: work(display))
    except KeyboardInterrupt as interrupt:
        return Report(command, exit=exit_code_of(interrupt))
    if outcome.complaint is not None:
        complain(outcome.complaint, outcome.trace)
    return outcome.report


def run(command: str, work: Work, presentation: Presentation) -> int:
    """Runs ``work``, shows its report, and returns the exit code."""
    return conclude(command, attempt(command, work, quiet=presentation.quiet), presentation)


def conclude(command: str, report: Report, presentation: Presentation) -> int:
    """Shows a report, and returns the exit code: its own, or that of showing it."""
    from normfold.outcome import worst

    if report.interrupted:
        return report.exit

    def show(_: Display) -> Report:
        presentation.show(report)
        return report

    return worst([report.exit, attempt(command, show, quiet=True).exit])


def complain(text: str, trace: str | None) -> None:
    """Prints one line, and the traceback where it was asked for."""
    hint = ""
    if _debugging():
        click.echo(trace, err=True, nl=False)
    elif "NF999" in text:
        hint = f" (set {_DEBUG_VARIABLE}=1 for the traceback)"
    click.echo(f"normfold: {' '.join(text.split())}{hint}", err=True)


def _debugging() -> bool:
    return os.environ.get(_DEBUG_VARIABLE, "") not in ("", "0")
