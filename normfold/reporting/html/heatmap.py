"""Layers against data: a heat map of layers × channels, and one plot per layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from normfold.reporting.html.text import printed

_MOST_CELLS = 96
"""Columns of the map; more channels share a column, which shows the worst of them."""
_MOST_LAYERS = 200
_MOST_PLOTS = 12
_NATS_FULL = 3.0
"""Divergence at which a cell has its full colour."""
_CELL, _PLOT_HEIGHT, _PLOT_WIDTH = 8, 90, 720
_LARGEST = 1e6


def heat_map(layers: Sequence[Mapping[str, Any]]) -> str:
    """One row per layer in graph order, one column per channel; the colour is the divergence in deployment.

    Args:
        layers: ``consistency.layers`` of a report.

    Returns:
        HTML; empty where no layer was compared.
    """
    rows = sorted((layer for layer in layers if "deployment" in layer), key=lambda layer: layer["index"])
    if not rows:
        return ""
    body = "".join(_row(layer) for layer in rows[:_MOST_LAYERS])
    rest = len(rows) - _MOST_LAYERS
    if rest > 0:
        body += f'<p class="muted small">… and {rest} more in the JSON report</p>'
    note = (
        '<p class="muted small">From the input down; one cell per channel, the worst of several if '
        f"there are many. Full colour: {_NATS_FULL:g} nats or more from the running statistics.</p>"
    )
    return f'<div class="card">{note}{body}</div>'


def layer_plots(layers: Sequence[Mapping[str, Any]]) -> str:
    """For each of the worst layers, mean shift and variance ratio by channel."""
    rows = [layer for layer in layers if "deployment" in layer][:_MOST_PLOTS]
    return "".join(
        f'<details class="card"{" open" if number == 0 and layer["departs"] else ""}>'
        f"<summary>{printed(layer['site'])}: {'departs' if layer['departs'] else 'agrees'}, "
        f"{_finite(layer['score']):.3g} nats</summary>"
        + _plot("mean of the data, in running standard deviations", layer["deployment"]["z"])
        + _plot("logarithm of the variance ratio", layer["deployment"]["log_variance_ratio"])
        + "</details>"
        for number, layer in enumerate(rows)
    )


def _row(layer: Mapping[str, Any]) -> str:
    cells = _pooled([_finite(value) for value in layer["deployment"]["kl"]])
    width = _CELL * len(cells)
    boxes = "".join(
        f'<rect x="{_CELL * column}" y="0" width="{_CELL}" height="{_CELL + 4}" style="fill:var(--fail);'
        f'stroke:none;fill-opacity:{min(math.sqrt(max(value, 0.0) / _NATS_FULL), 1.0):.3f}"/>'
        for column, value in enumerate(cells)
    )
    mark, count = "●" if layer["departs"] else "○", len(layer["deployment"]["kl"])
    return (
        f'<p class="small">{mark} {printed(layer["site"])} <span class="muted">{count} '
        f"channels, {_finite(layer['score']):.3g} nats</span></p>"
        f'<svg role="img" aria-label="divergence of {printed(layer["site"])} by channel" width="{width}" '
        f'height="{_CELL + 4}" viewBox="0 0 {width} {_CELL + 4}" style="margin:0">{boxes}</svg>'
    )


def _pooled(values: list[float]) -> list[float]:
    """At most ``_MOST_CELLS`` values, each the largest of its neighbours."""
    per = math.ceil(len(values) / _MOST_CELLS) or 1
    return [max(values[start : start + per]) for start in range(0, len(values), per)]


def _plot(title: str, given: Sequence[Any]) -> str:
    """Bars around zero, one per channel, on a scale of their own."""
    values = [_finite(value) for value in given]
    if not values:
        return ""
    top = max(max(map(abs, values)), 1e-12)
    step, middle = _PLOT_WIDTH / len(values), _PLOT_HEIGHT / 2
    bars = "".join(
        f'<rect x="{index * step:.2f}" y="{middle - max(value, 0.0) / top * middle:.2f}" '
        f'width="{max(step * 0.8, 0.5):.2f}" height="{abs(value) / top * middle:.2f}" '
        'style="fill:var(--accent);stroke:none"/>'
        for index, value in enumerate(values)
    )
    box = f"0 0 {_PLOT_WIDTH} {_PLOT_HEIGHT}"
    axis = f'<path d="M0 {middle}H{_PLOT_WIDTH}"/>'
    return (
        f'<p class="small">{printed(title)} <span class="muted">± {top:.3g}</span></p>'
        f'<svg role="img" aria-label="{printed(title)} by channel" viewBox="{box}">'
        f"{axis}{bars}</svg>"
    )


def _finite(value: Any) -> float:
    """A number that can be drawn: NaN and infinities are as large as anything is shown."""
    number = float(value) if isinstance(value, (int, float)) else math.nan
    return max(min(number, _LARGEST), -_LARGEST) if not math.isnan(number) else _LARGEST
