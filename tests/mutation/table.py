"""The results as a page of the documentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

_HEAD = """# Mutants, one by one

Written by `python -m tests.mutation --table docs/mutants.md`. [random-models.md](random-models.md#mutants)
says what was done, at which commit, and what the words mean. *Tests* has the first test that failed.
"""


def page(results: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: one table for each module."""
    lines = [_HEAD]
    for path, members in groupby(results, key=lambda result: str(result["path"])):
        lines += [f"## `{path}`", "", "| broken | proof | tests |", "|---|---|---|"]
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
