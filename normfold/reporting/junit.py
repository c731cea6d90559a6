"""The report as JUnit XML, for test summaries: one suite per model, one case per site, output and provider.

JUnit has no standard; this is the subset that Jenkins, GitLab and GitHub actions read.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from normfold.reporting import phrases
from normfold.reporting.report import Report, Site

Outcome = Literal["passed", "failure", "error", "skipped"]

_FAILED = 1
_OF_STATUS: dict[str, Outcome] = {"fail": "failure", "nonfinite": "failure", "uncertain": "error"}


@dataclass(frozen=True)
class _Case:
    group: str
    name: str
    outcome: Outcome = "passed"
    kind: str = ""
    text: str = ""


def render_junit(report: Report) -> str:
    """Returns XML in which a case fails or errs exactly where the exit code is not 0."""
    root = ET.Element("testsuites", name="normfold")
    suites = [_suite(run) for run in report.runs or [report]]
    for count in ("tests", "failures", "errors", "skipped"):
        root.set(count, str(sum(int(suite.get(count, "0")) for suite in suites)))
    root.set("time", f"{sum(float(suite.get('time', '0')) for suite in suites):.3f}")
    root.extend(suites)
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def _suite(report: Report) -> ET.Element:
    cases = list(_cases(report))
    seconds = f"{report.timing.get('total', 0.0):.3f}"
    suite = ET.Element("testsuite", name=_clean(f"normfold {report.command}: {phrases.title(report)}"))
    suite.set("tests", str(len(cases)))
    for attribute, outcome in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(attribute, str(sum(case.outcome == outcome for case in cases)))
    suite.set("time", seconds)
    properties = ET.SubElement(suite, "properties")
    for name, value in report.tool.items():
        ET.SubElement(properties, "property", name=_clean(name), value=_clean(value))
    for case in cases:
        element = ET.SubElement(
            suite, "testcase", classname=f"normfold.{report.command}.{case.group}", name=_clean(case.name)
        )
        element.set("time", seconds if case.group == "result" else "0")
        if case.outcome == "skipped":
            ET.SubElement(element, "skipped", message=_clean(case.text))
        elif case.outcome != "passed":
            detail = ET.SubElement(element, case.outcome, message=_clean(case.text.partition("\n")[0]))
            detail.set("type", case.kind)
            detail.text = _clean(case.text)
    return suite


def _cases(report: Report) -> Iterator[_Case]:
    yield _result(report)
    # With exit code 0 nothing may look like a failure, whatever a single row says.
    strict = report.exit != 0
    for site in report.sites:
        yield _site(site, report.verification.algebra, strict)
    for row in report.verification.rounding:
        outcome = _OF_STATUS.get(row["status"], "passed") if strict else "passed"
        name = f"{row['output']} on {row['provider']}, optimizations {row['optimizations']}"
        numbers = f"e0 {phrases.number(row['e0'])}, e1 {phrases.number(row['e1'])}"
        numbers += f", bound {phrases.number(row['bound'])}"
        yield _Case("rounding", name, outcome, row["status"], f"{row['status']}: {numbers}")
    if report.verification.located:
        outcome = "failure" if report.exit == _FAILED else "error" if strict else "skipped"
        found = report.verification.located
        yield _Case("located", found["value"], outcome, "NF217", _neighbourhoods(found))
    for row in report.verification.providers:
        name = f"{row['model']} on {row['provider']}, optimizations {row['optimizations']}"
        ran = row["status"] == "ok"
        outcome = "passed" if ran else "error" if strict else "skipped"
        yield _Case("providers", name, outcome, row["status"], f"{row['status']}: {row.get('detail', '')}")


def _result(report: Report) -> _Case:
    if report.exit == 0:
        return _Case("result", "result")
    told = [f"{finding.code}: {finding.message}" for finding in report.findings]
    text = "\n".join([*told, *report.verification.messages]) or phrases.summary(report)
    return _Case(
        "result", "result", "failure" if report.exit == _FAILED else "error", f"exit{report.exit}", text
    )


def _site(site: Site, algebra: dict[str, Any], strict: bool) -> _Case:
    if site.action == "kept":
        return _Case("sites", site.site, "skipped", text=f"{site.code}: {site.reason}")
    failed = next((row for row in algebra.get("failed", ()) if row.get("region") == site.site), None)
    if strict and failed is not None:
        return _Case("sites", site.site, "failure", "NF201", f"NF201: {failed.get('detail', '')}")
    reason = algebra.get("reasons", {}).get(site.site)
    if strict and reason is not None:
        return _Case("sites", site.site, "error", "NF202", f"NF202: not proven: {reason}")
    return _Case("sites", site.site)


def _neighbourhoods(found: dict[str, Any]) -> str:
    """The first value where the models part, with the nodes around it in both."""
    lines = [
        f"NF217: {found['value']}: {phrases.number(found['error'])} apart where "
        f"{phrases.number(found['bound'])} is allowed; in front of it agree "
        f"{', '.join(found['agreeing']) or 'no values'}"
    ]
    for side in ("original", "folded"):
        lines += [f"{side}:", *(_node_line(node) for node in found[side])]
    return "\n".join(lines)


def _node_line(node: dict[str, Any]) -> str:
    mark = "> " if node["place"] == "here" else "  "
    return f"{mark}{', '.join(node['outputs'])} = {node['operator']}({', '.join(node['inputs'])})"


def _clean(text: str) -> str:
    """Without characters that XML 1.0 cannot hold: names come from the model."""
    return "".join(char if _is_xml(ord(char)) else "\N{REPLACEMENT CHARACTER}" for char in text)


def _is_xml(point: int) -> bool:
    return (
        point in (0x9, 0xA, 0xD) or 0x20 <= point <= 0xD7FF or 0xE000 <= point <= 0xFFFD or point >= 0x10000
    )
