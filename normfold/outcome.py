"""What a command ended with: a report in any case, and one line where something went wrong."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from normfold.errors import NormfoldError
from normfold.reporting.environment import tool_versions
from normfold.reporting.report import Finding, Report

_UNUSABLE = 2
_INTERNAL_ERROR = 4
_WORST_FIRST = (143, 130, _INTERNAL_ERROR, 1, _UNUSABLE, 3)


@dataclass(frozen=True)
class Outcome:
    """The end of one command, fit to travel between processes.

    Attributes:
        report: whatever is known, with the exit code.
        complaint: one line for standard error, ``None`` where all went well.
        trace: the traceback behind it.
    """

    report: Report
    complaint: str | None = None
    trace: str | None = None


def settle(command: str, work: Callable[[], Report]) -> Outcome:
    """Runs ``work``, and turns every error into a report with its exit code and one line.

    Args:
        command: name for the report of an error that brings none.
        work: what to do.
    """
    # What a library remarks on is no line of ours.
    logging.getLogger("onnx_ir").setLevel(logging.ERROR)
    try:
        return Outcome(work())
    except Exception as error:
        report, complaint = _explain(command, error)
        trace = "".join(traceback.format_exception(error))
        return Outcome(report, " ".join(complaint.split()), trace)


def _explain(command: str, error: Exception) -> tuple[Report, str]:
    if isinstance(error, NormfoldError):
        report = error.report or Report(command, tool=tool_versions(), exit=error.exit_code)
        return report, f"error{f' {error.code}' if error.code else ''}: {error}"
    if isinstance(error, MemoryError):
        text = f"out of memory, smaller sizes can be given with --shape or --dim: {error}"
        return failed(command, "NF900", text, _UNUSABLE), f"error NF900: {text}"
    text = f"{type(error).__name__}: {error}"
    return failed(command, "NF999", text, _INTERNAL_ERROR), f"internal error NF999: {text}"


def failed(command: str, code: str, text: str, exit_code: int) -> Report:
    """A report that knows nothing but why there is no other."""
    report = Report(command, tool=tool_versions(), exit=exit_code)
    report.findings.append(Finding(code, "error", " ".join(text.split())))
    return report


def worst(codes: list[int]) -> int:
    """The exit code of several commands: that of an interrupt, then 4, 1, 2, 3, and 0 only if all are 0."""
    return next((code for code in _WORST_FIRST if code in codes), 0)
