"""Workflow annotations."""

from __future__ import annotations

from normfold.reporting.check import pending_folds
from normfold.reporting.github import render_annotations
from normfold.reporting.report import Report


def test_nothing_to_say(report: Report) -> None:
    assert render_annotations(report) == ""


def test_reasons_of_a_failure(failed: Report) -> None:
    lines = render_annotations(failed).splitlines()
    head = "::error file=models/in put.onnx,title=normfold "
    assert lines[1] == f"{head}NF202%3A site is not proven::'bn1' is not proven: no luck"
    assert lines[0].startswith("::error file=")
    assert "%25,:" in lines[0]


def test_a_message_is_one_line(unusable: Report) -> None:
    unusable.verification.messages = ["NF208: a\nb\rc"]
    assert render_annotations(unusable).splitlines()[1].endswith("::a%0Ab%0Dc")


def test_pending_folds(report: Report) -> None:
    report.findings = pending_folds(report)
    (line,) = render_annotations(report).splitlines()
    assert line.startswith(
        "::error file=models/in put.onnx,title=normfold NF100%3A would be folded::would change: bn1"
    )


def test_stream_has_no_file(unusable: Report) -> None:
    unusable.inputs = [{"path": "-"}]
    assert render_annotations(unusable).startswith("::error title=normfold NF902")


def test_batch(failed: Report, unusable: Report) -> None:
    text = render_annotations(Report("fold", tool={}, runs=[failed, unusable]))
    assert "file=models/in put.onnx" in text and "file=broken.onnx" in text
