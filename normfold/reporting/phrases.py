"""What the console and Markdown say alike: one place for each sentence."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from normfold.codes import CODES
from normfold.reporting.report import Finding, Measurement, Report, Site

_SITES_SHOWN = 3
_LAYERS_SHOWN = 8
_NODES_NAMED = 5
_ACTIONS = ("folded", "merged", "moved", "substituted", "kept")


def title(report: Report) -> str:
    """The models, as the user named them."""
    names = [entry.get("path") or "<memory>" for entry in report.inputs]
    if report.command in ("verify", "bench"):
        return " and ".join(names)
    outputs = [entry["path"] for entry in report.outputs]
    return ", ".join(names) + (f" → {', '.join(outputs)}" if outputs and outputs != names else "")


def summary(report: Report) -> str:
    """One line: what was done, and the verdict."""
    if report.exit in (2, 4):
        return "not done"
    if report.command == "verify":
        return _verdict(report)
    if report.command == "bench":
        return _speed(report)
    if report.command == "consistency":
        return _consistency(report)
    if report.command == "calibrate":
        return _calibration(report)
    counts = [f"{report.summary[action]} {action}" for action in _ACTIONS if report.summary.get(action)]
    parts = [", ".join(counts) or "no normalisation and no constant affine"]
    before, after = report.summary.get("nodes", (None, None))
    if before is not None:
        parts.append(f"{before} nodes" if before == after else f"{before} → {after} nodes")
    if report.summary.get("target"):
        parts.append(f"for {report.summary['target']}")
    if report.command == "fold":
        parts.append(_verdict(report))
    if report.summary.get("skipped"):
        parts.append("done before")
    return " · ".join(parts)


def total(report: Report) -> str:
    """One line on a batch."""
    count, failed, skipped, changed = (
        report.summary[name] for name in ("models", "failed", "skipped", "changed")
    )
    unchanged = count - changed - failed
    parts = [f"{changed} folded", f"{unchanged} unchanged", f"{failed} failed"]
    line = f"{count} model{'s' if count != 1 else ''}: {' · '.join(parts)}"
    return f"{line} ({skipped} done before)" if skipped else line


def _consistency(report: Report) -> str:
    names = {"error": "errors", "warn": "warnings", "info": "remarks"}
    counts = [(report.summary.get(level, 0), name) for level, name in names.items()]
    parts = [f"{count} {name if count != 1 else name[:-1]}" for count, name in counts if count]
    accepted = report.summary.get("accepted", 0)
    found = ", ".join(parts) or "nothing found"
    return f"{found} · {accepted} accepted before" if accepted else found


def _calibration(report: Report) -> str:
    record = report.consistency
    if not record:
        return "not calibrated"
    moved = sum(1 for layer in record["layers"] if layer["images"])
    parts = [f"{moved} of {len(record['layers'])} layers estimated from {record['images']} samples"]
    parts += [
        f"{output['output']} moved by {number(output['relative'])} of its deviation"
        for output in record["outputs"]
    ]
    before, after = number(record["gap_before"]), number(record["gap_after"])
    parts.append(f"training against evaluation: {before} before, {after} after")
    return " · ".join(parts)


def consistency_lines(report: Report, *, all_of_them: bool) -> list[str]:
    """One line for each layer that was compared with data, or that calibration changed; the worst first."""
    layers = report.consistency.get("layers", [])
    if not all_of_them:
        layers = [layer for layer in layers if layer.get("departs")][:_LAYERS_SHOWN]
    lines = []
    for layer in layers:
        if "score" in layer:
            state = "departs" if layer["departs"] else "agrees"
            lines.append(f"{layer['site']}: {state}, {number(layer['score'])} nats from the data")
        else:
            factor = math.exp(min(layer["log_variance_ratio"], 700.0))
            lines.append(
                f"{layer['site']}: mean moved by {number(layer['z'])} deviations, variance by a factor of "
                f"{number(factor)}"
            )
    return lines


def finding_lines(report: Report, *, all_of_them: bool) -> list[str]:
    """One line for each finding; remarks of one code share a line unless all are asked for."""
    remarks: dict[str, list[Finding]] = defaultdict(list)
    lines = []
    for item in report.findings:
        if item.severity != "info" or all_of_them:
            lines.append(f"{item.severity} {item.code}: {item.message}")
        else:
            remarks[item.code].append(item)
    for code, items in remarks.items():
        if len(items) == 1 or code not in CODES:
            lines += [f"info {code}: {item.message}" for item in items]
        else:
            sites = [item.site for item in items if item.site is not None]
            shown = ", ".join(sites[:_SITES_SHOWN]) + (", …" if len(sites) > _SITES_SHOWN else "")
            lines.append(f"info {code}: {CODES[code].title}, {len(items)} times ({shown})")
    return lines


def _verdict(report: Report) -> str:
    if report.command == "fold" and report.summary.get("changed") is False:
        return "unchanged"
    verification = report.verification
    if verification.verdict is None:
        return "not verified"
    return {"pass": "verified", "fail": "VERIFICATION FAILED", "inconclusive": "verification inconclusive"}[
        verification.verdict
    ]


def algebra(report: Report) -> str | None:
    """One line on the float64 proof; ``None`` where there was none."""
    proof = report.verification.algebra
    if not proof:
        return None
    line = f"algebra: {proof.get('proven', 0)} of {proof.get('sites', 0)} sites proven in float64"
    ratio = proof.get("max_ratio_to_bound")
    if ratio is not None and proof.get("proven"):
        line += f", largest error {number(proof.get('max_error'))} ({number(ratio)} of its bound)"
    return line


def model_names(report: Report) -> tuple[str, str]:
    """What the two models of a comparison are called."""
    return ("original", "folded") if report.command == "fold" else ("A", "B")


def measurements(report: Report) -> list[str]:
    """One line for each provider and batch size."""
    return [
        f"{row.provider}{'' if row.batch is None else f', batch {row.batch}'}: "
        f"A {_milliseconds(row.a, row.spread_a)}, B {_milliseconds(row.b, row.spread_b)}, "
        f"A/B {_ratio(row)}, {row.rounds} rounds of {row.runs_per_round}"
        f"{', IO binding' if row.io_binding else ''}"
        for row in report.measurements
    ]


def _milliseconds(seconds: float, spread: float) -> str:
    return f"{1000 * seconds:.3g} ms (spread {100 * spread:.0f} %)"


def _ratio(row: Measurement) -> str:
    low, high = row.interval
    return f"{row.speedup:.3f} (95 % of {low:.3f} to {high:.3f})"


def _speed(report: Report) -> str:
    if not report.measurements:
        return "not measured"
    parts = []
    for row in report.measurements:
        where = row.provider if row.batch is None else f"{row.provider}, batch {row.batch}"
        low, high = row.interval
        if low <= 1 <= high:
            parts.append(f"{where}: no difference seen")
        elif row.speedup > 1:
            parts.append(f"{where}: B is {row.speedup:.2f} times as fast as A")
        else:
            parts.append(f"{where}: A is {1 / row.speedup:.2f} times as fast as B")
    return " · ".join(parts)


def rounding(report: Report) -> list[str]:
    """One line for each output, provider and optimisation level."""
    first, second = model_names(report)
    lines = []
    for row in report.verification.rounding:
        line = f"rounding of {row['output']} on {row['provider']}, optimizations {row['optimizations']}: "
        line += f"{first} {number(row['e0'])}, {second} {number(row['e1'])}, bound {number(row['bound'])}"
        line += f" from {row['bound_from']}" if row.get("bound_from") else ""
        lines.append(line if row["status"] == "pass" else f"{line}: {row['status']}")
    return lines


def providers(report: Report) -> list[str]:
    """One line for each provider that ran everything, and one for each run with something to say."""
    lines = []
    levels: dict[str, list[str]] = defaultdict(list)
    for row in report.verification.providers:
        if row["status"] == "ok" and not row.get("detail"):
            options = ", ".join(f"{name}={value}" for name, value in row.get("options", {}).items())
            levels[row["provider"] + (f" ({options})" if options else "")].append(row["optimizations"])
        else:
            where = f"{row['model']} on {row['provider']}, optimizations {row['optimizations']}"
            lines.append(f"{where}: {row['status']}" + (f" ({row['detail']})" if row.get("detail") else ""))
    for name, ran in levels.items():
        lines.append(f"onnxruntime ran on {name}, optimizations {' and '.join(dict.fromkeys(ran))}")
    return lines + _fallbacks(report)


def _fallbacks(report: Report) -> list[str]:
    """One line for each run in which nodes went to other providers than the one asked for."""
    lines = []
    for row in report.verification.providers:
        nodes = row.get("fallbacks") or []
        if nodes:
            where = f"{row['model']} on {row['provider']}, optimizations {row['optimizations']}"
            total = sum(row["assigned"].values())
            lines.append(f"{where}: {len(nodes)} of {total} nodes elsewhere: {operators(nodes)}")
    return lines


def operators(nodes: Sequence[str]) -> str:
    """Nodes, each ``operator:name`` or ``operator``: a few as they are, many counted by operator."""
    if len(nodes) <= _NODES_NAMED:
        return ", ".join(nodes)
    counts = Counter(node.partition(":")[0] for node in nodes)
    return ", ".join(f"{count} {operator}" for operator, count in counts.most_common())


def kept_by_code(sites: list[Site]) -> list[tuple[str, str, str, list[Site]]]:
    """Groups what was kept: code, title, what would unblock it, sites. Most frequent first."""
    groups: dict[str, list[Site]] = defaultdict(list)
    for site in sites:
        if site.action == "kept":
            groups[site.code or "NF1??"].append(site)
    ordered = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))
    return [
        (code, CODES[code].title, CODES[code].unblock, members) if code in CODES else (code, "", "", members)
        for code, members in ordered
    ]


def site_line(site: Site) -> str:
    """One line on what became of a site that was not kept."""
    line = f"{site.site} ({site.kind}"
    line += f", {'+'.join(site.nodes)})" if site.nodes and site.nodes != (site.kind,) else ")"
    line += f": {site.action}"
    if site.into:
        line += f" into {', '.join(site.into)}"
    if site.rule:
        line += f" by {site.rule}"
    if site.elements:
        line += f", {site.elements[0]} → {site.elements[1]} elements"
    return line


def number(value: Any) -> str:
    """A measured number: three significant digits."""
    if value is None:
        return "–"
    if isinstance(value, (int, float)) and math.isfinite(value):
        return f"{value:.3g}"
    return str(value)
