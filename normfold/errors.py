"""The exception family. Every error that normfold raises on purpose carries the exit code it means."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from normfold.reporting.report import Report


class NormfoldError(Exception):
    """Base of all errors raised on purpose.

    Attributes:
        exit_code: what the command line returns for it.
        code: reason code (``NF…``) where one applies.
        report: what was known when it was raised, where a report had been begun.
    """

    exit_code: ClassVar[int] = 4

    def __init__(self, message: str, *, code: str | None = None, report: Report | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.report = report


class VerificationFailed(NormfoldError):
    """The two models differ by more than rounding (exit code 1)."""

    exit_code = 1


class ConsistencyFailed(NormfoldError):
    """The model has findings of the severity that was asked to fail on (exit code 1)."""

    exit_code = 1


class InputError(NormfoldError):
    """The model, the data or an option cannot be used (exit code 2)."""

    exit_code = 2


class OutputError(NormfoldError):
    """The result cannot be written (exit code 2)."""

    exit_code = 2


class MissingDependency(NormfoldError):
    """An optional package is needed and not installed; the message says what to install (exit code 2)."""

    exit_code = 2


class Inconclusive(NormfoldError):
    """Neither equality nor a difference could be shown (exit code 3)."""

    exit_code = 3
