"""The report as SARIF 2.1.0, for code scanning.

Format: https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from normfold.codes import CODES
from normfold.reporting.remarks import Remark, remarks
from normfold.reporting.report import Report

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_IN_MEMORY = "model-in-memory.onnx"
_SUCCESSFUL = (0, 1)
"""Exit codes of commands that did what they were asked: finding something is a success."""


def render_sarif(report: Report) -> str:
    """Returns strict ASCII JSON. A batch is one run, since code scanning takes no more than one per tool."""
    parts = [(part, list(remarks(part))) for part in report.runs or [report]]
    used = sorted({remark.code for _, found in parts for remark in found})
    artifacts = {entry["path"]: entry for part, _ in parts for entry in part.inputs if entry.get("path")}
    places = {path: number for number, path in enumerate(artifacts)}
    run = {
        "tool": {
            "driver": {
                "name": "normfold",
                "version": report.tool.get("version", "0"),
                "rules": [_rule(code) for code in used],
            }
        },
        "invocations": [{"executionSuccessful": report.exit in _SUCCESSFUL, "exitCode": report.exit}],
        "artifacts": [_artifact(entry) for entry in artifacts.values()],
        "results": [_result(remark, part, used, places) for part, found in parts for remark in found],
    }
    return json.dumps({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2) + "\n"


def _rule(code: str) -> dict[str, Any]:
    known = CODES.get(code)
    if known is None:
        return {"id": code}
    text = f"{known.what}\n\nWhy: {known.why}\n\nWhat would unblock it: {known.unblock}"
    markdown = f"{known.what}\n\n*Why*: {known.why}\n\n*What would unblock it*: {known.unblock}"
    return {
        "id": code,
        "shortDescription": {"text": known.title},
        "fullDescription": {"text": known.what},
        "help": {"text": text, "markdown": markdown},
    }


def _artifact(entry: Mapping[str, Any]) -> dict[str, Any]:
    artifact: dict[str, Any] = {
        "location": {"uri": _uri(entry["path"])},
        "mimeType": "application/octet-stream",
    }
    if "sha256" in entry:
        artifact["hashes"] = {"sha-256": entry["sha256"]}
    return artifact


def _result(remark: Remark, report: Report, used: Sequence[str], places: Mapping[str, int]) -> dict[str, Any]:
    # What is said of a comparison is said of the model that was judged, the last one.
    path = next((entry["path"] for entry in reversed(report.inputs) if entry.get("path")), None)
    artifact: dict[str, Any] = {"uri": _uri(path or _IN_MEMORY)}
    if path is not None:
        artifact["index"] = places[path]
    # Code scanning drops results without a line; a model has none.
    location: dict[str, Any] = {
        "physicalLocation": {"artifactLocation": artifact, "region": {"startLine": 1}}
    }
    if remark.site is not None:
        location["logicalLocations"] = [{"fullyQualifiedName": remark.site, "kind": "value"}]
    identity = "\0".join((path or "", remark.code, remark.site or remark.message))
    return {
        "ruleId": remark.code,
        "ruleIndex": used.index(remark.code),
        "level": remark.level,
        "message": {"text": remark.message},
        "locations": [location],
        "partialFingerprints": {"normfold/v1": hashlib.sha256(identity.encode()).hexdigest()},
    }


def _uri(path: str) -> str:
    """A relative reference where the file is below the working folder, so that a repository finds it."""
    absolute = Path(path).absolute()
    try:
        return quote(absolute.relative_to(Path.cwd()).as_posix())
    except ValueError:
        return absolute.as_uri()
