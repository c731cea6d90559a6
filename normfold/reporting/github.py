"""The report as GitHub workflow commands: one annotation per line.

Format: https://docs.github.com/actions/reference/workflow-commands-for-github-actions
"""

from __future__ import annotations

from typing import Literal

from normfold.codes import CODES
from normfold.reporting.remarks import Level, remarks
from normfold.reporting.report import Report

_COMMANDS: dict[Level, Literal["error", "warning", "notice"]] = {
    "error": "error",
    "warning": "warning",
    "note": "notice",
}


def render_annotations(report: Report) -> str:
    """Returns one workflow command per finding and per verification message; kept sites are not annotated."""
    lines = []
    for run in report.runs or [report]:
        path = next((entry["path"] for entry in run.inputs if entry.get("path") not in (None, "-")), None)
        for remark in remarks(run, kept=False):
            title = CODES[remark.code].title if remark.code in CODES else ""
            properties = {"file": path, "title": f"normfold {remark.code}: {title}"}
            given = ",".join(f"{key}={_property(value)}" for key, value in properties.items() if value)
            lines.append(f"::{_COMMANDS[remark.level]} {given}::{_data(remark.message)}\n")
    return "".join(lines)


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
