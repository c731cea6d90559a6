"""Everything a report says under a reason code, in one list: what SARIF and annotations are made of."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from normfold.reporting.report import Report

Level = Literal["error", "warning", "note"]

_LEVELS: dict[str, Level] = {"error": "error", "warn": "warning", "info": "note"}
_LOCATED = "NF217"
_CODED = re.compile(r"(NF\d{3}): (.*)", re.DOTALL)


@dataclass(frozen=True)
class Remark:
    """One sentence under a reason code.

    Attributes:
        code: reason code.
        level: how bad it is.
        message: the sentence.
        site: name of the value that it is about.
    """

    code: str
    level: Level
    message: str
    site: str | None = None


def remarks(report: Report, *, kept: bool = True) -> Iterator[Remark]:
    """Yields the findings, the messages of the verification and, as notes, what was kept.

    Args:
        report: of one model or pair; not a batch.
        kept: include what was kept.
    """
    for finding in report.findings:
        yield Remark(finding.code, _LEVELS[finding.severity], finding.message, finding.site)
    for message in report.verification.messages:
        coded = _CODED.fullmatch(message)
        if coded is not None:
            level: Level = "warning" if report.verification.verdict == "pass" else "error"
            site = report.verification.located.get("value") if coded[1] == _LOCATED else None
            yield Remark(coded[1], level, coded[2], site)
    for site in report.sites if kept else ():
        if site.action == "kept" and site.code is not None:
            yield Remark(site.code, "note", f"{site.site} ({site.kind}) stays: {site.reason}", site.site)
