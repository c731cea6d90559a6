"""What every command does around its work: progress, errors, reports, exit codes."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from normfold.reporting.report import Report

INTERRUPTED = 130
_UNUSABLE = 2
_INTERNAL_ERROR = 4
_SAID_IN_ONE_LINE = (_UNUSABLE, _INTERNAL_ERROR)
_WORST_FIRST = (INTERRUPTED, _INTERNAL_ERROR, 1, 2, 3)
_DEBUG_VARIABLE = "NORMFOLD_DEBUG"
_JOB_SUMMARY_VARIABLE = "GITHUB_STEP_SUMMARY"
_SHOW_PROGRESS_AFTER_SECONDS = 1.0

Announce = Callable[[str], None]
Work = Callable[[Announce], "Report"]
"""Makes a report; is given a function to announce its phases with."""


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
                from normfold.reporting.console import print_report

                for run in report.runs or [report]:
                    if run.exit not in _SAID_IN_ONE_LINE:
                        print_report(run, stream, verbose=self.verbose)
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
                _complain(f"job summary: {error}")


def attempt(command: str, work: Work, *, quiet: bool = False) -> Report:
    """Runs ``work``, and turns every error into one line on standard error and a report with its exit code.

    Args:
        command: name for the report of an error that brings none.
        work: what to do.
        quiet: show no progress.
    """
    from normfold.errors import NormfoldError
    from normfold.reporting.environment import tool_versions
    from normfold.reporting.report import Finding, Report

    from .startup import import_onnx_ir

    try:
        import_onnx_ir()
        with _progress(quiet) as announce:
            return work(announce)
    except NormfoldError as error:
        report = error.report or Report(command, tool=tool_versions(), exit=error.exit_code)
        _complain(f"error{f' {error.code}' if error.code else ''}: {error}")
    except MemoryError as error:
        text = f"out of memory, smaller sizes can be given with --shape or --dim: {error}"
        report = Report(command, tool=tool_versions(), exit=_UNUSABLE)
        report.findings.append(Finding("NF900", "error", " ".join(text.split())))
        _complain(f"error NF900: {text}")
    except KeyboardInterrupt:
        return Report(command, tool=tool_versions(), exit=INTERRUPTED)
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        report = Report(command, tool=tool_versions(), exit=_INTERNAL_ERROR)
        report.findings.append(Finding("NF999", "error", " ".join(text.split())))
        hint = "" if _debugging() else f" (set {_DEBUG_VARIABLE}=1 for the traceback)"
        _complain(f"internal error NF999: {text}{hint}")
    return report


def conclude(command: str, reports: Sequence[Report], presentation: Presentation) -> int:
    """Shows the reports, several as one batch, and returns the exit code: that of the worst."""
    from normfold.reporting.environment import tool_versions
    from normfold.reporting.report import Report

    if any(report.exit == INTERRUPTED for report in reports):
        return INTERRUPTED
    whole = reports[0]
    if len(reports) > 1:
        whole = Report(command, tool=tool_versions(), exit=worst(report.exit for report in reports))
        whole.runs = list(reports)
        for report in reports:
            whole.inputs += report.inputs
            whole.outputs += report.outputs
        whole.summary = {"models": len(reports)}

    def show(_: Announce) -> Report:
        presentation.show(whole)
        return whole

    return worst((whole.exit, attempt(command, show, quiet=True).exit))


def worst(codes: Iterator[int] | Sequence[int]) -> int:
    """Returns the exit code of a batch: interrupted, then 4, then 1, 2, 3."""
    found = set(codes)
    return next((code for code in _WORST_FIRST if code in found), 0)


def _complain(text: str) -> None:
    """Prints one line, and the traceback where it was asked for."""
    if _debugging():
        traceback.print_exc()
    click.echo(f"normfold: {' '.join(text.split())}", err=True)


def _debugging() -> bool:
    return os.environ.get(_DEBUG_VARIABLE, "") not in ("", "0")


@contextlib.contextmanager
def _progress(quiet: bool) -> Iterator[Announce]:
    """Shows the current phase on standard error once the work takes over a second; nothing off a terminal."""
    if quiet or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console

    status = Console(stderr=True).status("starting …")
    timer = threading.Timer(_SHOW_PROGRESS_AFTER_SECONDS, status.start)
    timer.daemon = True
    timer.start()
    try:
        yield lambda phase: status.update(f"{phase} …")
    finally:
        timer.cancel()
        timer.join()
        status.stop()
