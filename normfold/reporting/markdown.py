"""The report as Markdown, for pull requests and job summaries."""

from __future__ import annotations

from normfold.reporting import phrases
from normfold.reporting.report import Report


def render_markdown(report: Report) -> str:
    """Returns GitHub-flavoured Markdown; a batch gets one section per model."""
    return "\n".join(line for run in report.runs or [report] for line in _section(run)) + "\n"


def _section(report: Report) -> list[str]:
    lines = [
        f"## normfold {report.command}: {_escape(phrases.title(report))}",
        "",
        _escape(phrases.summary(report)),
    ]
    lines += [""] if report.findings else []
    lines += [f"- **{item.severity}** {item.code}: {_escape(item.message)}" for item in report.findings]
    lines += _measurements(report)
    lines += _verification(report)
    lines += _kept(report)
    lines += _changed(report)
    return [*lines, ""]


def _verification(report: Report) -> list[str]:
    verification = report.verification
    remarks = [phrases.algebra(report), *phrases.providers(report), *verification.messages]
    lines = [f"- {_escape(remark)}" for remark in remarks if remark]
    if verification.rounding:
        lines += ["", "| output | provider | optimizations | e0 | e1 | bound |", "|---|---|---|---|---|---|"]
        for row in verification.rounding:
            where = [str(row[key]) for key in ("output", "provider", "optimizations")]
            lines.append(_row([*where, *(phrases.number(row[key]) for key in ("e0", "e1", "bound"))]))
    return ["", "### Verification", "", *lines] if lines else []


def _measurements(report: Report) -> list[str]:
    if not report.measurements:
        return []
    lines = ["", "| provider | batch | A, ms | B, ms | A/B | 95 % interval |", "|---|---|---|---|---|---|"]
    for row in report.measurements:
        times = (f"{1000 * row.a:.3g}", f"{1000 * row.b:.3g}", f"{row.speedup:.3f}")
        interval = f"{row.interval[0]:.3f} to {row.interval[1]:.3f}"
        lines.append(_row([row.provider, "" if row.batch is None else str(row.batch), *times, interval]))
    return lines


def _kept(report: Report) -> list[str]:
    groups = phrases.kept_by_code(report.sites)
    if not groups:
        return []
    lines = ["", "### Kept", "", "| code | why | values | what would unblock it |", "|---|---|---|---|"]
    for code, title, unblock, members in groups:
        lines.append(_row([code, title, ", ".join(site.site for site in members), unblock]))
    return lines


def _changed(report: Report) -> list[str]:
    changed = [site for site in report.sites if site.action != "kept"]
    if not changed:
        return []
    lines = ["", "### Changed", "", "| value | kind | action | rule | into |", "|---|---|---|---|---|"]
    for site in changed:
        lines.append(_row([site.site, site.kind, site.action, site.rule or "", ", ".join(site.into)]))
    return lines


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(map(_escape, cells)) + " |"


def _escape(text: str) -> str:
    """Keeps names from the model from being read as markup or as HTML."""
    for char in "\\`*_[]|#~":
        text = text.replace(char, f"\\{char}")
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
