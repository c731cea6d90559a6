"""Draws the surroundings of a site as inline SVG: one box per node, data flowing downwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from normfold.reporting.html.text import printed
from normfold.reporting.report import GraphNode

_WIDTH, _HEIGHT = 172, 58
_GAP_X, _GAP_Y = 22, 26
_MARGIN = 6
_CHARACTERS = 23
"""Characters of the small monospaced type that fit into a box."""


def draw(nodes: Sequence[GraphNode], identity: str) -> str:
    """Returns one ``svg`` element.

    Args:
        nodes: in graph order, so that every node stands behind those that it reads.
        identity: distinguishes the ids of this drawing from those of others on the page.
    """
    nodes = list({node.value: node for node in nodes}.values())
    depths = _depths(nodes)
    layers: dict[int, list[GraphNode]] = {}
    for node in nodes:
        layers.setdefault(depths[node.value], []).append(node)
    columns = max((len(layer) for layer in layers.values()), default=1)
    edges = [(source, node.value) for node in nodes for source in node.inputs if source in depths]
    jumps = any(depths[target] - depths[source] > 1 for source, target in edges)
    width = columns * _WIDTH + (columns - 1) * _GAP_X + 2 * _MARGIN + (2 * _GAP_X if jumps else 0)
    height = len(layers) * (_HEIGHT + _GAP_Y) - _GAP_Y + 2 * _MARGIN
    places = _places(layers, width)
    parts = [
        f'<svg viewBox="0 0 {width} {height}" width="{width}" style="min-width:{min(width, 300)}px" '
        f'role="img" aria-label="{printed("; ".join(_spoken(node) for node in nodes))}">'
        f'<defs><marker id="{identity}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0 0 8 4 0 8z"/></marker></defs>'
    ]
    for source, target in edges:
        path = _edge(places[source], places[target], depths[target] - depths[source])
        parts.append(f'<path d="{path}" marker-end="url(#{identity})"/>')
    parts += [_box(node, *places[node.value]) for node in nodes]
    return "".join([*parts, "</svg>"])


def _depths(nodes: Sequence[GraphNode]) -> dict[str, int]:
    """Row of each node: behind everything that it reads, and no further from its reader than it must be."""
    depths: dict[str, int] = {}
    for node in nodes:
        depths[node.value] = 1 + max((depths.get(source, -1) for source in node.inputs), default=-1)
    for node in reversed(nodes):
        below = [depths[reader.value] for reader in nodes if node.value in reader.inputs]
        if below and not node.inputs:
            depths[node.value] = min(below) - 1
    return depths


def _places(layers: Mapping[int, Sequence[GraphNode]], width: int) -> dict[str, tuple[float, float]]:
    """Top left corner of each box, rows centred."""
    places: dict[str, tuple[float, float]] = {}
    for row, depth in enumerate(sorted(layers)):
        layer = layers[depth]
        left = (width - len(layer) * _WIDTH - (len(layer) - 1) * _GAP_X) / 2
        for column, node in enumerate(layer):
            places[node.value] = (left + column * (_WIDTH + _GAP_X), _MARGIN + row * (_HEIGHT + _GAP_Y))
    return places


def _edge(source: tuple[float, float], target: tuple[float, float], rows: int) -> str:
    x1, y1 = source[0] + _WIDTH / 2, source[1] + _HEIGHT
    x2, y2 = target[0] + _WIDTH / 2, target[1] - 1
    if rows == 1:
        middle = (y1 + y2) / 2
        return f"M{x1:g} {y1:g}C{x1:g} {middle:g} {x2:g} {middle:g} {x2:g} {y2:g}"
    # Around the boxes in between, on their right.
    x1, y1 = source[0] + _WIDTH, source[1] + _HEIGHT / 2
    x2, y2 = target[0] + _WIDTH, target[1] + _HEIGHT / 2
    side = max(x1, x2) + _GAP_X
    return f"M{x1:g} {y1:g}C{side:g} {y1:g} {side:g} {y1:g} {side:g} {y1 + 16:g}" + (
        f"L{side:g} {y2 - 16:g}C{side:g} {y2:g} {side:g} {y2:g} {x2:g} {y2:g}"
    )


def _box(node: GraphNode, x: float, y: float) -> str:
    middle = x + _WIDTH / 2
    lines = [("op", node.operator), ("", node.value)]
    if node.constants:
        lines.append(("faint", ", ".join(shape or "scalar" for shape in node.constants)))
    top = y + (_HEIGHT - 15 * len(lines)) / 2 + 11
    texts = "".join(
        f'<text class="{style}" x="{middle:g}" y="{top + 15 * number:g}" text-anchor="middle">'
        f"{printed(_shortened(text))}</text>"
        for number, (style, text) in enumerate(lines)
    )
    rect = f'<rect x="{x:g}" y="{y:g}" width="{_WIDTH}" height="{_HEIGHT}" rx="6"/>'
    return f'<g class="{node.role}"><title>{printed(_spoken(node))}</title>{rect}{texts}</g>'


def _shortened(text: str) -> str:
    """The ends of a name tell it from its neighbours, so the middle goes."""
    if len(text) <= _CHARACTERS:
        return text
    head = (_CHARACTERS - 1) // 2
    return f"{text[:head]}…{text[-(_CHARACTERS - 1 - head) :]}"


def _spoken(node: GraphNode) -> str:
    if node.role == "input":
        return f"graph input {node.value}"
    return f"{node.operator} gives {node.value}" + (f" from {', '.join(node.inputs)}" if node.inputs else "")
