"""The results as a table for the documentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
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
            lines.append(f"| {_cell(result['what'])} | {_cell(result['proof'])} | {_cell(tests)} |")
        lines.append("")
    return "\n".join(lines)


def _test(said: str) -> str:
    return said if said in ("alive", "did not end") else f"`{said}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
