"""Report files: the format follows the suffix."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from normfold.errors import InputError, OutputError
from normfold.reporting.json import render_json
from normfold.reporting.markdown import render_markdown
from normfold.reporting.report import Report

RENDERERS: dict[str, Callable[[Report], str]] = {".json": render_json, ".md": render_markdown}


def check_suffix(path: Path) -> None:
    """Raises before any work is done if no renderer has the suffix.

    Raises:
        InputError: NF900.
    """
    if path.suffix not in RENDERERS:
        raise InputError(
            f"report {str(path)!r}: the suffix says the format, one of {', '.join(sorted(RENDERERS))}",
            code="NF900",
        )


def write_report(report: Report, path: Path) -> None:
    """Writes ``report`` in the format of the suffix.

    Raises:
        InputError: NF900 for a suffix without a format.
        OutputError: NF920 if it cannot be written.
    """
    check_suffix(path)
    try:
        path.write_text(RENDERERS[path.suffix](report), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}", code="NF920") from error
