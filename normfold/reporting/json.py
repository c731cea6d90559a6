"""The report as JSON: the envelope of ``docs/report.schema.json``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from normfold.reporting.report import Report


def render_json(report: Report) -> str:
    """Returns strict ASCII JSON, indented. NaN and infinities, which JSON lacks, become strings."""
    return json.dumps(_plain(report.to_dict()), indent=2, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(_plain(item) for item in value)
    if hasattr(value, "item") and not isinstance(value, (str, bytes)):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)
