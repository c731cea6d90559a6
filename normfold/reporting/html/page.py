"""Puts the page together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from normfold.codes import CODES
from normfold.reporting import phrases
from normfold.reporting.html.charts import errors_chart, timing_chart
from normfold.reporting.html.diagram import draw
from normfold.reporting.html.heatmap import heat_map, layer_plots
from normfold.reporting.html.located import located_card
from normfold.reporting.html.style import STYLE
from normfold.reporting.html.text import printed
from normfold.reporting.report import Report, Site, SiteGraph

_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""Nothing may be loaded and no script may run, whatever a model's names try."""

_VERDICTS = {
    "pass": ("pass", "verified"),
    "fail": ("fail", "failed"),
    "inconclusive": ("unsure", "inconclusive"),
}
_MOST_LISTED = 400
"""Sites that are listed one by one; the JSON report has them all."""


def render_html(report: Report) -> str:
    """Returns the page; a batch gets one part per model."""
    runs = report.runs or [report]
    body = "".join(
        f"<article>{''.join(_Part(run, number).render())}</article>" for number, run in enumerate(runs)
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{printed(f'normfold {report.command}: {phrases.title(report)}')}</title>"
        f"<style>{STYLE}</style></head><body><main>{body}{_tool(report)}</main></body></html>\n"
    )


class _Part:
    """One model's part of the page."""

    def __init__(self, report: Report, number: int) -> None:
        self._report = report
        self._graphs = {graph.site: graph for graph in report.graphs}
        self._prefix = f"m{number}"
        self._drawn = 0

    def render(self) -> Iterator[str]:
        report = self._report
        yield from self._head()
        yield from self._remarks()
        yield from self._located()
        yield from self._consistency()
        yield from self._measurements()
        yield from self._rounding()
        yield from self._changed()
        yield from self._kept()
        if report.verification.providers:
            yield "<h2>Execution providers</h2>" + _providers(report)
        if report.timing:
            yield "<h2>Time</h2>" + timing_chart(report.timing)
        files = [("read", entry) for entry in report.inputs] + [
            ("written", entry) for entry in report.outputs
        ]
        if files:
            yield '<h2>Files</h2><div class="card">' + "".join(_file(*file) for file in files) + "</div>"

    def _head(self) -> Iterator[str]:
        report = self._report
        yield f"<h1>{printed(f'normfold {report.command}: {phrases.title(report)}')}</h1>"
        style, word = _VERDICTS.get(report.verification.verdict or "", ("muted", "not verified"))
        if report.command in ("fold", "verify"):
            yield f'<p><span class="pill {style}">{word}</span></p>'
        yield f"<p>{printed(phrases.summary(report))}</p>"
        tiles = _tiles(report)
        if tiles:
            cells = "".join(
                f'<div class="card"><b>{printed(value)}</b>'
                f'<span class="muted small">{printed(name)}</span></div>'
                for name, value in tiles.items()
            )
            yield f'<div class="tiles">{cells}</div>'

    def _remarks(self) -> Iterator[str]:
        report = self._report
        lines = [f"{item.severity} {item.code}: {item.message}" for item in report.findings]
        lines += report.verification.messages
        proof = phrases.algebra(report)
        if lines or proof:
            items = "".join(f"<li>{printed(line)}</li>" for line in [*([proof] if proof else []), *lines])
            yield f'<h2>What was found</h2><div class="card"><ul>{items}</ul></div>'

    def _located(self) -> Iterator[str]:
        found = self._report.verification.located
        if found:
            names = phrases.model_names(self._report)
            yield f"<h2>Where the models part</h2>{located_card(found, names, self._prefix)}"

    def _consistency(self) -> Iterator[str]:
        layers = self._report.consistency.get("layers", [])
        drawn = heat_map(layers)
        if drawn:
            yield f"<h2>Layers × channels against the data</h2>{drawn}"
            yield f"<h2>Layer by layer, the worst first</h2>{layer_plots(layers)}"
        elif layers:
            lines = phrases.consistency_lines(self._report, all_of_them=True)
            items = "".join(f"<li>{printed(line)}</li>" for line in lines)
            yield f'<h2>Layers</h2><div class="card"><ul>{items}</ul></div>'

    def _measurements(self) -> Iterator[str]:
        rows = self._report.measurements
        if rows:
            lines = "".join(f"<li>{printed(line)}</li>" for line in phrases.measurements(self._report))
            yield f'<h2>Speed</h2><div class="card"><ul>{lines}</ul></div>'

    def _rounding(self) -> Iterator[str]:
        chart = errors_chart(self._report.verification.rounding, phrases.model_names(self._report))
        if chart:
            yield '<h2>Rounding error of each output</h2><p class="muted small">Largest distance from the '
            yield f"float64 reference; the original’s own error sets the bound.</p>{chart}"

    def _changed(self) -> Iterator[str]:
        sites = [site for site in self._report.sites if site.action != "kept"]
        if not sites:
            return
        yield f"<h2>What was folded ({len(sites)})</h2>"
        yield (
            '<p class="legend small"><span><i class="site"></i>normalisation or affine</span>'
            '<span><i class="target"></i>took it</span><span><i class="changed"></i>in one model only</span>'
            '<span><i class="context"></i>stays as it is</span></p>'
        )
        for number, site in enumerate(sites[:_MOST_LISTED]):
            opened = " open" if number == 0 and site.site in self._graphs else ""
            yield (
                f'<details class="card"{opened}><summary>{printed(phrases.site_line(site))}</summary>'
                f"{self._pictures(site)}</details>"
            )
        yield _rest(len(sites))

    def _kept(self) -> Iterator[str]:
        groups = phrases.kept_by_code(self._report.sites)
        if not groups:
            return
        yield f"<h2>What stays, and why ({sum(len(members) for *_, members in groups)})</h2>"
        for code, title, _, members in groups:
            known = CODES.get(code)
            yield f'<section class="card"><h3>{printed(code)}: {printed(title)} ({len(members)})</h3>'
            if known is not None:
                yield (
                    f"<p>{printed(known.what)}</p><dl><dt>Why</dt><dd>{printed(known.why)}</dd>"
                    f"<dt>Unblock</dt><dd>{printed(known.unblock)}</dd></dl>"
                )
            for site in members[:_MOST_LISTED]:
                yield (
                    f"<details><summary><code>{printed(site.site)}</code> ({printed(site.kind)}): "
                    f"{printed(site.reason or '')}</summary>{self._pictures(site)}</details>"
                )
            yield _rest(len(members)) + "</section>"

    def _pictures(self, site: Site) -> str:
        graph = self._graphs.get(site.site)
        if graph is None:
            return '<p class="muted small">Not drawn: the report draws the first sites only.</p>'
        both = (
            [("before", graph.before), ("after", graph.after)]
            if graph.after
            else [("unchanged", graph.before)]
        )
        return f'<div class="pair">{"".join(self._picture(graph, *one) for one in both)}</div>'

    def _picture(self, graph: SiteGraph, caption: str, nodes: Any) -> str:
        self._drawn += 1
        picture = draw(nodes, f"{self._prefix}g{self._drawn}")
        return f'<figure class="graph"><figcaption>{caption}</figcaption>{picture}</figure>'


def _tiles(report: Report) -> dict[str, str]:
    tiles = {}
    before, after = report.summary.get("nodes", (None, None))
    if before is not None:
        tiles["nodes"] = str(before) if before == after else f"{before} → {after}"
    for action in ("folded", "merged", "moved", "substituted", "kept"):
        if report.summary.get(action):
            tiles[action] = str(report.summary[action])
    if "total" in report.timing:
        tiles["seconds"] = f"{report.timing['total']:.2f}"
    return tiles


def _providers(report: Report) -> str:
    rows = "".join(
        "<tr>"
        + "".join(
            f"<td>{printed(str(row[key]))}</td>" for key in ("provider", "model", "optimizations", "status")
        )
        + f"<td>{printed(_assignment(row))}</td></tr>"
        for row in report.verification.providers
    )
    head = "".join(f"<th>{name}</th>" for name in ("provider", "model", "optimizations", "status", "nodes"))
    return (
        f'<div class="card scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _assignment(row: Mapping[str, Any]) -> str:
    parts = [f"{count} on {name}" for name, count in (row.get("assigned") or {}).items()]
    if row.get("fallbacks"):
        parts.append(f"elsewhere: {phrases.operators(row['fallbacks'])}")
    if row.get("tf32"):
        worst = ", ".join(f"{name} {phrases.number(error)}" for name, error in row["tf32"].items())
        parts.append(f"with TF32, errors of {worst}")
    if row.get("detail"):
        parts.append(str(row["detail"]))
    return "; ".join(parts)


def _file(what: str, entry: Mapping[str, Any]) -> str:
    size = f", {entry['bytes']:,} bytes" if "bytes" in entry else ""
    digest = (
        f'<br><code class="muted small">sha256 {printed(entry["sha256"])}</code>' if "sha256" in entry else ""
    )
    name = entry.get("path") or "a model in memory"
    return f"<p>{what}: <code>{printed(name)}</code>{size}{digest}</p>"


def _tool(report: Report) -> str:
    versions = {name: value for name, value in report.tool.items() if name not in ("name", "version")}
    parts = [
        f"normfold {report.tool.get('version', '')}",
        *(f"{name} {value}" for name, value in versions.items()),
    ]
    return f'<p class="muted small">{printed(" · ".join(parts))}</p>'


def _rest(count: int) -> str:
    if count <= _MOST_LISTED:
        return ""
    return f'<p class="muted small">… and {count - _MOST_LISTED} more in the JSON report</p>'
