"""What is done with findings: their order, what was accepted before, and when they fail a run."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from normfold.errors import InputError
from normfold.reporting.report import Finding

FailOn = Literal["error", "warn"]
Severity = Literal["error", "warn", "info"]
Key = tuple[str, str, str | None]
"""Code, severity and site: what makes two findings the same one. A finding that grows worse is a new one."""

_RANK: dict[str, int] = {"error": 0, "warn": 1, "info": 2}


def ordered(findings: Iterable[Finding]) -> list[Finding]:
    """The worst first; in the order given within one severity."""
    return sorted(findings, key=lambda finding: _RANK[finding.severity])


def at_least(findings: Iterable[Finding], severity: Severity) -> list[Finding]:
    """Those of this severity or worse."""
    return [finding for finding in findings if _RANK[finding.severity] <= _RANK[severity]]


def key_of(finding: Finding) -> Key:
    return finding.code, finding.severity, finding.site


def without(findings: Sequence[Finding], accepted: frozenset[Key]) -> list[Finding]:
    """Those that have not been accepted."""
    return [finding for finding in findings if key_of(finding) not in accepted]


def read_baseline(path: str | os.PathLike[str]) -> frozenset[Key]:
    """The findings that a JSON report of an earlier run holds, those of a batch's models included.

    Raises:
        InputError: NF900, the file cannot be read or is no report.
    """
    path = Path(path)
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"baseline {path}: cannot be read: {error.strerror or error}", code="NF900"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"baseline {path}: not JSON: {error}", code="NF900") from error
    try:
        return frozenset(_keys(report))
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"baseline {path}: not a JSON report of normfold (write one with --report known.json)",
            code="NF900",
        ) from error


def _keys(report: dict[str, Any]) -> Iterable[Key]:
    entries = report["findings"]
    for run in report.get("runs", ()):
        entries = [*entries, *run["findings"]]
    for entry in entries:
        code, severity, site = entry["code"], entry["severity"], entry["site"]
        if not isinstance(code, str) or severity not in get_args(Severity):
            raise TypeError(f"no finding: {entry!r}")
        yield code, severity, site
