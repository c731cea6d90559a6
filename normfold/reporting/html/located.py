"""Where two models part, as a card: the value, what agrees in front of it, and both neighbourhoods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from normfold.reporting import phrases
from normfold.reporting.html.diagram import draw
from normfold.reporting.html.text import printed
from normfold.reporting.report import GraphNode

_FROM = {"float64": "the float64 proof of a region", "run": "a run of both models"}


def located_card(found: Mapping[str, Any], names: tuple[str, str], prefix: str) -> str:
    """The card.

    Args:
        found: ``verification.located`` of a report.
        names: what the two models are called.
        prefix: distinguishes ids of these drawings from those of others on the page.
    """
    facts = {
        "Value": found["value"],
        f"In {names[1]}": found["counterpart"],
        "Apart": phrases.number(found["error"]),
        "Allowed": phrases.number(found["bound"]),
        "Agreeing": ", ".join(found["agreeing"]) or "nothing in front of it",
        "Seen in": _FROM[found["from"]],
    }
    if found["saved"]:
        facts["Saved to"] = found["saved"]
    rows = "".join(f"<dt>{printed(name)}</dt><dd>{printed(str(text))}</dd>" for name, text in facts.items())
    pictures = "".join(
        f'<figure class="graph"><figcaption>{printed(name)}</figcaption>'
        f"{draw(_nodes(found[side]), f'{prefix}l{number}')}</figure>"
        for number, (name, side) in enumerate(zip(names, ("original", "folded"), strict=True))
        if found[side]
    )
    return f'<div class="card"><dl>{rows}</dl><div class="pair">{pictures}</div></div>'


def _nodes(entries: Sequence[Mapping[str, Any]]) -> list[GraphNode]:
    known = {entry["outputs"][0] for entry in entries if entry["outputs"]}
    return [
        GraphNode(
            value=entry["outputs"][0],
            operator=entry["operator"],
            inputs=tuple(name for name in entry["inputs"] if name in known),
            role="site" if entry["place"] == "here" else "context",
        )
        for entry in entries
        if entry["outputs"]
    ]
