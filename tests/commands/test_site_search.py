"""Where a fold makes a model round too much, the site that does stays, and the others go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf import text_format

from normfold import VerificationFailed, fold
from normfold.commands.site_search import is_of_rounding, sites_to_spare
from normfold.reporting.report import Report, Verification
from tests.checker import Checker
from tests.fuzz import CASES

pytest.importorskip("onnxruntime")

SITES = tuple("abcdefgh")


@pytest.mark.parametrize("culprit", SITES)
def test_one_site_is_found(culprit: str) -> None:
    tried: list[frozenset[str]] = []

    def passes(spare: frozenset[str]) -> bool:
        tried.append(spare)
        return culprit in spare

    assert sites_to_spare(SITES, passes) == {culprit}
    assert len(tried) <= 5


def test_several_are_spared_with_those_before_the_last() -> None:
    assert sites_to_spare(SITES, lambda spare: {"b", "d"} <= spare) == set("abcd")
    assert sites_to_spare(SITES, lambda spare: {"a", "h"} <= spare) == set(SITES)


def test_none_where_the_folds_are_not_the_reason() -> None:
    assert sites_to_spare(SITES, lambda _: False) == set()
    assert sites_to_spare((), lambda _: True) == set()


PROVEN = {"failed": [], "sites": 1, "proven": 1}


@pytest.mark.parametrize(
    ("algebra", "statuses", "expected"),
    [
        (PROVEN, ["pass", "fail"], True),
        (PROVEN, ["nonfinite"], True),
        (PROVEN, ["pass"], False),
        (PROVEN | {"failed": [{"value": "y"}]}, ["fail"], False),
        ({}, ["fail"], False),
    ],
    ids=["fails", "not finite", "passes", "wrong in float64", "no proof"],
)
def test_what_is_a_failure_of_rounding(algebra: dict[str, Any], statuses: list[str], expected: bool) -> None:
    rounding = [{"status": status} for status in statuses]
    assert is_of_rounding(Verification("fail", algebra, rounding)) is expected


def cancelling(check: Checker) -> onnx.ModelProto:
    """``z`` is exactly 0: ``W·(Relu(0 + q) − q)``. Folded, ``W·q − W·q`` is that up to rounding."""
    constants = check.weights(u=(4, 3, 1, 1), t=(5, 16, 1, 1), q=(16, 1, 1)) | check.batchnorm(4)
    constants |= {"w": np.zeros((16, 3, 1, 1), np.float32), "q": np.abs(constants["q"])}
    return check.model(
        """g (float[2, 3, 5, 5] x) => (float[2, 4, 5, 5] y, float[2, 5, 5, 5] z) {
            c = Conv (x, u) y = BatchNormalization (c, s, b, m, v)
            d = Conv (x, w) e = Add (d, q) f = Relu (e) h = Sub (f, q) z = Conv (h, t)
        }""",
        constants,
    )


def actions(report: Report) -> dict[str, tuple[str, str | None]]:
    return {site.site: (site.action, site.code) for site in report.sites}


def test_a_fold_that_rounds_too_much_is_given_up(check: Checker, tmp_path: Path) -> None:
    path = tmp_path / "out.onnx"
    model = cancelling(check)
    report = fold(model, path).report
    assert actions(report) == {"y": ("folded", None), "e": ("folded", None), "h": ("kept", "NF129")}
    assert report.verification.verdict == "pass"
    (finding,) = (f for f in report.findings if f.code == "NF129")
    assert (finding.severity, finding.site) == ("warn", "h")
    assert "its fold rounds too much; it is given up: NF203: output 'z'" in finding.message
    assert sorted(node.op_type for node in onnx.load(path).graph.node) == ["Conv"] * 3 + ["Relu", "Sub"]


def test_nothing_is_given_up_without_a_proof(check: Checker) -> None:
    report = fold(cancelling(check), verify=False).report
    assert actions(report)["h"] == ("folded", None)


def test_a_failure_that_stays_tells_of_the_whole_fold(
    check: Checker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its folds the model fails as well: then they were not the reason."""
    monkeypatch.setattr(
        "normfold.commands.until_proven.sites_to_spare",
        lambda names, passes: sites_to_spare(names, lambda spare: passes(spare) and False),
    )
    with pytest.raises(VerificationFailed, match="NF203") as caught:
        fold(cancelling(check))
    assert caught.value.report is not None
    assert actions(caught.value.report)["h"] == ("folded", None)
    assert caught.value.report.verification.verdict == "fail"


def test_a_constant_channel_in_front_of_a_norm_without_epsilon() -> None:
    """Its variance is rounding; in onnxruntime that of the folded model may be negative, and its root NaN."""
    path = CASES / "a_constant_channel_in_front_of_a_norm_without_epsilon.textproto"
    report = fold(text_format.Parse(path.read_text(), onnx.ModelProto())).report
    assert report.verification.verdict == "pass"
    assert set(actions(report)) == {"v8", "v9"}
    # An error in what the norm takes out again cannot show, and that is said.
    assert all("is not proven in float64" in f.message for f in report.findings if f.code == "NF129")
