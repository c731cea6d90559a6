"""The results as a table for the documentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: one table for each module."""
    lines: list[str] = []
    for path, members in groupby(results, key=lambda result: str(result["path"])):
        lines += [f"### `{path}`", "", "| broken | proof | tests |", "|---|---|---|"]
        for result in members:
            tests = (
                f"equivalent: {result['equivalent']}" if result.get("equivalent") else _test(result["tests"])
            )
            lines.append(f"| {_cell(result['what'])} | {_cell(result['says'])} | {_cell(tests)} |")
        lines.append("")
    return "\n".join(lines)


def _test(said: str) -> str:
    if "::" not in said:
        return said
    file, _, test = said.partition("::")
    return f"`{Path(file).name}::{test}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
