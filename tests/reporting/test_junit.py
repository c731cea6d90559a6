"""JUnit XML: well-formed whatever the names are, and red exactly where the exit code is."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from normfold.reporting.junit import render_junit
from normfold.reporting.report import Report


def rendered(report: Report) -> ET.Element:
    root = ET.fromstring(render_junit(report))
    assert root.tag == "testsuites"
    for element in (root, *root):
        cases = list(element.iter("testcase"))
        assert element.get("tests") == str(len(cases))
        for count, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert element.get(count) == str(sum(case.find(tag) is not None for case in cases))
    return root


def red(root: ET.Element) -> list[tuple[str, str]]:
    """Group and outcome of each case that is not green."""
    return [
        (case.get("classname", "").rpartition(".")[2], detail.tag)
        for case in root.iter("testcase")
        for detail in case
        if detail.tag in ("failure", "error")
    ]


def test_a_pass_is_green(report: Report) -> None:
    root = rendered(report)
    assert red(root) == []
    groups = [case.get("classname", "").rpartition(".")[2] for case in root.iter("testcase")]
    assert groups == ["result", "sites", "sites", "rounding", "rounding", "providers", "providers"]


def test_kept_site_is_skipped_with_its_reason(report: Report) -> None:
    (skipped,) = rendered(report).iter("skipped")
    assert (skipped.get("message") or "").startswith("NF105: ")


def test_characters_that_xml_lacks(report: Report) -> None:
    name = next(
        case.get("name", "") for case in rendered(report).iter("testcase") if "script" in case.get("name", "")
    )
    assert name == "a|b[0]*_<script>alert(1)</script>�[31m\"'&`$(x)`�%,:"


def test_a_failure(failed: Report) -> None:
    root = rendered(failed)
    assert red(root) == [("result", "failure"), ("sites", "error"), ("rounding", "failure")]
    (text,) = [d.text or "" for d in root.iter("failure") if "\n" in (d.text or "")]
    assert "NF203" in text and "NF202" in text


@pytest.mark.parametrize("code", [2, 3, 4])
def test_other_exit_codes_are_errors(unusable: Report, code: int) -> None:
    unusable.exit = code
    assert red(rendered(unusable)) == [("result", "error")]


def test_a_warning_of_a_provider_is_no_error(report: Report) -> None:
    report.verification.providers[0]["status"] = "refused"
    assert red(rendered(report)) == []


def test_batch_has_one_suite_per_model(report: Report, unusable: Report) -> None:
    root = rendered(Report("fold", tool=report.tool, exit=2, runs=[report, unusable]))
    assert [suite.get("errors") for suite in root] == ["0", "1"]
    assert root.get("errors") == "1"


def test_time(report: Report) -> None:
    assert rendered(report).get("time") == "1.250"


def test_place_where_the_models_part(parted: Report) -> None:
    (case,) = [c for c in rendered(parted).iter("testcase") if c.get("classname", "").endswith("located")]
    (failure,) = case
    assert case.get("name") == "bn1" and failure.tag == "failure" and failure.get("type") == "NF217"
    lines = (failure.text or "").splitlines()
    assert lines[0].startswith("NF217: bn1: 0.5 apart where 1e-06 is allowed; in front of it agree a|b[0]")
    assert "> bn1 = BatchNormalization(c, s)" in lines and "  sum = Add(bn1)" in lines
