"""Report files: the format follows the suffix."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from normfold.errors import InputError, OutputError
from normfold.reporting.report import Report

RENDERERS: dict[str, str] = {
    ".html": "html",
    ".json": "json",
    ".junit.xml": "junit",
    ".md": "markdown",
    ".sarif": "sarif",
}
"""Module of each suffix, which has a ``render_…`` of its name. Imported when it is asked for."""

_JOB_SUMMARY_BYTES = 1_000_000
"""GitHub drops a job summary above 1 MiB altogether."""


def check_suffix(path: Path) -> None:
    """Raises before any work is done if no renderer has the suffix.

    Raises:
        InputError: NF900.
    """
    _renderer(path)


def write_report(report: Report, path: Path) -> None:
    """Writes ``report`` in the format of the suffix, whole or not at all.

    Raises:
        InputError: NF900 for a suffix without a format.
        OutputError: NF920 if it cannot be written.
    """
    render = _renderer(path)
    try:
        _write_whole(path, render(report).encode("utf-8", errors="replace"))
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}", code="NF920") from error


def _write_whole(path: Path, content: bytes) -> None:
    """By way of a file beside it, unless ``path`` is a device or a pipe."""
    if path.exists() and not path.is_file():
        path.write_bytes(content)
        return
    path = path.resolve()
    temporary = path.with_name(f".normfold-report-{os.getpid()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def append_job_summary(report: Report, path: Path) -> None:
    """Appends ``report`` as Markdown to the file of a job summary, cut where the whole would be dropped.

    Raises:
        OutputError: NF920 if it cannot be written.
    """
    from normfold.reporting.markdown import render_markdown

    try:
        room = _JOB_SUMMARY_BYTES - (path.stat().st_size if path.exists() else 0)
        text = render_markdown(report).encode("utf-8", errors="replace")
        if len(text) > room:
            text = text[: max(room, 0)].rpartition(b"\n")[0] + b"\n\nCut: the report is too long.\n"
        with path.open("ab") as file:
            file.write(text)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}", code="NF920") from error


def _renderer(path: Path) -> Callable[[Report], str]:
    for suffix, name in RENDERERS.items():
        if path.name.endswith(suffix):
            module = import_module(f"normfold.reporting.{name}")
            render: Callable[[Report], str] = getattr(module, f"render_{name}")
            return render
    raise InputError(
        f"report {str(path)!r}: the suffix says the format, one of {', '.join(RENDERERS)}", code="NF900"
    )
