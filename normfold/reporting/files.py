"""Report files: the format follows the suffix."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from normfold.errors import InputError, OutputError
from normfold.reporting.html import render_html
from normfold.reporting.json import render_json
from normfold.reporting.junit import render_junit
from normfold.reporting.markdown import render_markdown
from normfold.reporting.report import Report
from normfold.reporting.sarif import render_sarif

RENDERERS: dict[str, Callable[[Report], str]] = {
    ".html": render_html,
    ".json": render_json,
    ".junit.xml": render_junit,
    ".md": render_markdown,
    ".sarif": render_sarif,
}
_JOB_SUMMARY_BYTES = 1_000_000
"""GitHub drops a job summary above 1 MiB altogether."""


def check_suffix(path: Path) -> None:
    """Raises before any work is done if no renderer has the suffix.

    Raises:
        InputError: NF900.
    """
    _renderer(path)


def write_report(report: Report, path: Path) -> None:
    """Writes ``report`` in the format of the suffix.

    Raises:
        InputError: NF900 for a suffix without a format.
        OutputError: NF920 if it cannot be written.
    """
    render = _renderer(path)
    try:
        path.write_text(render(report), encoding="utf-8", errors="replace")
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}", code="NF920") from error


def append_job_summary(report: Report, path: Path) -> None:
    """Appends ``report`` as Markdown to the file of a job summary, cut where the whole would be dropped.

    Raises:
        OutputError: NF920 if it cannot be written.
    """
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
    for suffix, render in RENDERERS.items():
        if path.name.endswith(suffix):
            return render
    raise InputError(
        f"report {str(path)!r}: the suffix says the format, one of {', '.join(RENDERERS)}", code="NF900"
    )
