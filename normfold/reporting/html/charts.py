"""Charts made of plain boxes: errors per output on a logarithmic scale, seconds per phase."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from normfold.reporting import phrases
from normfold.reporting.html.histogram import histogram
from normfold.reporting.html.text import printed

_MOST_ROWS = 60
_MOST_TICKS = 6


def errors_chart(rows: Sequence[Mapping[str, Any]], names: tuple[str, str]) -> str:
    """One scale per output, provider and optimisation level: each model from its RMS to its largest error.

    Args:
        rows: ``verification.rounding`` of a report.
        names: what the two models are called.

    Returns:
        HTML; empty where no row has a number to draw.
    """
    drawn = [row for row in rows if any(_positive(row.get(key)) for key in ("e0", "e1"))]
    if not drawn:
        return ""
    keys = ("e0", "e1", "rms0", "rms1", "bound")
    found = [value for row in drawn for key in keys if (value := _positive(row.get(key))) is not None]
    low, high = math.floor(math.log10(min(found))), math.ceil(math.log10(max(found)))
    scale = _Scale(low, max(high, low + 1))
    legend = (
        f'<p class="legend small"><span><i class="original"></i>{printed(names[0])}</span>'
        f'<span><i class="folded"></i>{printed(names[1])}</span>'
        '<span><i class="bound"></i>bound</span>'
        '<span class="muted">each bar reaches from the root mean square to the largest error; below it, '
        "elements by their error relative to the bound</span></p>"
    )
    body = "".join(_scale_row(row, scale, names) for row in drawn[:_MOST_ROWS])
    if len(drawn) > _MOST_ROWS:
        body += f'<p class="muted small">… and {len(drawn) - _MOST_ROWS} more in the JSON report</p>'
    return f'<div class="card">{legend}{body}{scale.ticks()}</div>'


def timing_chart(timing: Mapping[str, float]) -> str:
    """One bar per phase, relative to the whole."""
    whole = max(timing.values(), default=0.0)
    rows = [
        f'<p class="row small"><span>{printed(name)}</span><span>{seconds:.2f} s</span></p>'
        f'<div><span style="width:{100 * seconds / whole if whole else 0:.1f}%"></span></div>'
        for name, seconds in timing.items()
    ]
    return f'<div class="card bars">{"".join(rows)}</div>' if rows else ""


class _Scale:
    """Powers of ten from left to right, in per cent of the width."""

    def __init__(self, low: int, high: int) -> None:
        self._low, self._high = low, high

    def place(self, value: float) -> float:
        return 100 * (math.log10(value) - self._low) / (self._high - self._low)

    def ticks(self) -> str:
        step = max(1, math.ceil((self._high - self._low) / _MOST_TICKS))
        marks = "".join(
            # The outermost labels must not leave the card.
            f'<span style="left:{min(max(self.place(10.0**power), 4), 96):.1f}%">1e{power}</span>'
            for power in range(self._low, self._high + 1, step)
        )
        return f'<div class="ticks" aria-hidden="true">{marks}</div>'


def _scale_row(row: Mapping[str, Any], scale: _Scale, names: tuple[str, str]) -> str:
    where = f"{row['output']} on {row['provider']}, optimizations {row['optimizations']}"
    bars = _bar(row, "rms0", "e0", "original", scale) + _bar(row, "rms1", "e1", "folded", scale)
    bound = _positive(row.get("bound"))
    if bound is not None:
        bars += f'<span class="bound" style="left:min({scale.place(bound):.2f}%, 100% - 3px)"></span>'
    numbers = (
        f"{names[0]} {phrases.number(row['e0'])}, {names[1]} {phrases.number(row['e1'])}, "
        f"bound {phrases.number(row['bound'])}"
    )
    style = {"pass": "pass", "settled": "pass", "uncertain": "unsure"}.get(row["status"], "fail")
    return (
        f'<p class="row"><code>{printed(where)}</code>'
        f'<span class="pill {style}">{printed(row["status"])}</span></p>'
        f'<div class="scale" role="img" aria-label="{printed(numbers)}">{bars}</div>'
        f'<p class="muted small">{printed(numbers)}</p>'
        + (histogram(row["histogram"], names) if row.get("histogram") else "")
    )


def _bar(row: Mapping[str, Any], low: str, high: str, style: str, scale: _Scale) -> str:
    largest = _positive(row.get(high))
    if largest is None:
        return ""
    end = scale.place(largest)
    start = min(scale.place(_positive(row.get(low)) or largest), end)
    return (
        f'<span class="{style}" style="left:min({start:.2f}%, 100% - .5rem);width:{end - start:.2f}%"></span>'
    )


def _positive(value: Any) -> float | None:
    """The value if a logarithm can show it."""
    if isinstance(value, (int, float)) and math.isfinite(value) and value > 0:
        return float(value)
    return None
