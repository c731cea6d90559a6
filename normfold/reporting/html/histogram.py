"""How the errors of an output's elements are distributed, relative to the bound, on a logarithmic scale."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from normfold.reporting.html.text import printed

_WIDTH, _HEIGHT, _LABELS = 320, 34, 14
_GAP = 2


def histogram(found: Mapping[str, Any], names: tuple[str, str]) -> str:
    """Two rows of columns, one per model, and a line where the bound is.

    Args:
        found: ``histogram`` of a row of ``verification.rounding``: edges and counts.
        names: what the two models are called.

    Returns:
        One ``svg`` element. Heights are logarithms of counts, so that a single element still shows.
    """
    edges, counts = found["edges"], (found["original"], found["folded"])
    columns = len(edges) + 1
    step = _WIDTH / columns
    top = math.log1p(max(max(row) for row in counts) or 1)
    parts = []
    for row, (style, values) in enumerate(zip(("original", "folded"), counts, strict=True)):
        base = (row + 1) * _HEIGHT
        for column, count in enumerate(values):
            height = (_HEIGHT - 4) * math.log1p(count) / top
            if count:
                parts.append(
                    f"<g><title>{printed(names[row])}: {count} {_between(edges, column)}</title>"
                    f'<rect class="{style}" x="{column * step + _GAP / 2:.1f}" y="{base - height:.1f}" '
                    f'width="{step - _GAP:.1f}" height="{height:.1f}"/></g>'
                )
        parts.append(f'<path d="M0 {base}H{_WIDTH}"/>')
    limit = step * (_place_of_bound(edges) + 1)
    parts.append(f'<path class="bound" d="M{limit:.1f} 0V{2 * _HEIGHT}"/>')
    marks = [(column, edge) for column, edge in enumerate(edges) if math.log10(edge).is_integer()]
    parts += [
        f'<text x="{(column + 1) * step:.1f}" y="{2 * _HEIGHT + _LABELS}" text-anchor="middle">'
        f"{'bound' if edge == 1 else f'{edge:.0e}'.replace('e-0', 'e-').replace('e+0', 'e')}</text>"
        for column, edge in marks
    ]
    height = 2 * _HEIGHT + _LABELS + 4
    return (
        f'<svg class="histogram" viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'aria-label="{printed(_spoken(found, names))}">{"".join(parts)}</svg>'
    )


def _place_of_bound(edges: Sequence[float]) -> int:
    return min(range(len(edges)), key=lambda column: abs(edges[column] - 1.0))


def _between(edges: Sequence[float], column: int) -> str:
    if column == 0:
        return f"below {edges[0]:.2g} of the bound"
    if column == len(edges):
        return f"from {edges[-1]:.2g} times the bound on"
    return f"from {edges[column - 1]:.2g} to {edges[column]:.2g} of the bound"


def _spoken(found: Mapping[str, Any], names: tuple[str, str]) -> str:
    first = _place_of_bound(found["edges"]) + 1
    said = []
    for name, counts in zip(names, (found["original"], found["folded"]), strict=True):
        said.append(f"{name}: {sum(counts[first:])} of {sum(counts)} elements beyond the bound")
    return "; ".join(said)
