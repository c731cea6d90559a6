"""A form that loses accuracy at large means gives way to the next."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx.helper as oh
import onnx_ir as ir
import pytest

from models.single_norms import groupnorm
from normfold import fold
from normfold.commands.form_timing import Timed, ranked
from normfold.commands.form_trials import FormTrials
from normfold.errors import InputError, VerificationFailed
from normfold.planning.norm_forms import Form
from normfold.preparation.workspace import Workspace
from normfold.recognition.groupnorm import Norm, find_norms
from normfold.reporting.report import Report

SHAPE = (2, 12, 16, 16)
SHIFTED = {"x": (np.random.default_rng(0).standard_normal(SHAPE) + 300).astype(np.float32)}


def model_of(kind: str) -> onnx.ModelProto:
    return groupnorm(kind, SHAPE, 3)


def sites(report: Report) -> list[tuple[str, str | None, str | None]]:
    return [(site.action, site.rule, site.code) for site in report.sites if site.kind == "groupnorm"]


def verdict(kind: str, form: Form) -> str | None:
    workspace = Workspace(ir.from_proto(model_of(kind)))
    norm = next(found for found in find_norms(workspace) if isinstance(found, Norm))
    with FormTrials("ort-cpu", 0, None) as trials:
        return trials(norm, form, workspace)


@pytest.mark.parametrize("form", ["instancenorm", "instancenorm-bn", "layernorm", "primitive"])
@pytest.mark.parametrize("kind", ["exported", "handwritten", "native"])
def test_two_passes_are_stable(kind: str, form: Form) -> None:
    assert verdict(kind, form) is None


@pytest.mark.parametrize("form", ["native", "ms-groupnorm"])
def test_one_pass_is_not(form: Form) -> None:
    """The squares of 100 deviations leave three of seven digits for the variance."""
    reason = verdict("handwritten", form)
    assert reason is not None
    assert "mean of 100 deviations" in reason


def test_what_was_unstable_already_is_no_measure() -> None:
    assert verdict("native", "native") is None


def test_the_next_form_is_taken() -> None:
    report = fold(model_of("handwritten"), target="tensorrt").report
    assert sites(report) == [("substituted", "instancenorm", "NF404")]
    assert report.verification.verdict == "pass"


def test_one_site_is_judged_by_itself() -> None:
    """Behind one native operator stands a hand-written one: only that would get worse."""
    first, second = model_of("native"), model_of("handwritten")
    renamed = onnx.compose.add_prefix(second, "second.")
    joined = onnx.compose.merge_models(first, renamed, io_map=[("y", "second.x")])
    report = fold(joined, target="tensorrt").report
    found = {s.site: (s.action, s.rule, s.code) for s in report.sites if s.kind == "groupnorm"}
    assert found == {"y": ("kept", None, "NF121"), "second.y": ("substituted", "instancenorm", "NF404")}


def test_an_unstable_form_can_be_allowed() -> None:
    report = fold(model_of("handwritten"), target="tensorrt", allow_unstable=True).report
    assert sites(report) == [("substituted", "native", None)]
    assert report.verification.verdict == "pass"
    families = [name for run in report.verification.inputs["runs"] for name in run["families"]]
    assert "large-mean" not in families


def test_allowing_it_does_not_excuse_real_data() -> None:
    with pytest.raises(VerificationFailed):
        fold(model_of("handwritten"), target="tensorrt", allow_unstable=True, data=SHIFTED)


def test_a_form_asked_for_by_name_is_taken_with_a_warning() -> None:
    report = fold(model_of("handwritten"), groupnorm="layernorm").report
    assert [f.code for f in report.findings] == []
    rng = np.random.default_rng(0)
    data = {"x": rng.standard_normal(SHAPE).astype(np.float32)}
    report = fold(model_of("handwritten"), groupnorm="native", data=data).report
    assert sites(report) == [("substituted", "native", None)]
    assert [(f.code, f.severity, f.site) for f in report.findings] == [("NF404", "warn", "y")]


def test_without_a_proof_nothing_is_tried() -> None:
    report = fold(model_of("handwritten"), target="tensorrt", verify=False).report
    assert sites(report) == [("substituted", "native", None)]


def test_a_fold_that_fails_on_data_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FormTrials, "_tried", lambda *_arguments: None)
    path = tmp_path / "out.onnx"
    result = fold(model_of("handwritten"), path, target="tensorrt", data=SHIFTED)
    assert sites(result.report) == [("substituted", "instancenorm", "NF404")]
    assert [f.code for f in result.report.findings] == ["NF404"]
    assert result.report.verification.verdict == "pass"
    assert path.exists()
    with pytest.raises(VerificationFailed):
        fold(model_of("handwritten"), groupnorm="native", data=SHIFTED)


def test_tuning_takes_the_fastest() -> None:
    result = fold(model_of("native"), tune=True)
    (finding,) = (f for f in result.report.findings if f.code == "NF405")
    entries = result.report.summary["tuning"]
    assert {entry["form"] for entry in entries} >= {"instancenorm-bn", "layernorm", "primitive", "keep"}
    assert "native" not in {entry["form"] for entry in entries}
    assert all(entry["seconds"] > 0 and entry["form"] in finding.message for entry in entries)
    best = entries[0]
    taken = [rule for action, rule, _ in sites(result.report) if action == "substituted"]
    assert taken == ([] if best["form"] == "keep" else [best["form"]])
    assert result.report.verification.verdict == "pass"


NOISY = {"primitive": (1.5, 1.6), "layernorm": (1.01, 1.1), "instancenorm-bn": (1.2, 1.7), "keep": (1.0, 1.0)}


@pytest.mark.parametrize(
    ("preferred", "faster", "order"),
    [
        # Timed in a quiet moment, primitive only looks faster.
        ("instancenorm-bn", [], ["instancenorm-bn", "primitive", "layernorm", "keep"]),
        ("instancenorm-bn", ["primitive"], ["primitive", "instancenorm-bn", "layernorm", "keep"]),
        # What cannot be faster is not timed again.
        ("instancenorm-bn", ["layernorm"], ["instancenorm-bn", "primitive", "layernorm", "keep"]),
        ("keep", [], ["keep", "primitive", "instancenorm-bn", "layernorm"]),
        ("keep", ["instancenorm-bn", "layernorm"], ["instancenorm-bn", "primitive", "layernorm", "keep"]),
    ],
)
def test_forms_that_may_be_faster_are_timed_against_the_preferred(
    preferred: str, faster: list[str], order: list[str]
) -> None:
    timed = [Timed(form, 1.0, sum(interval) / 2, interval) for form, interval in NOISY.items()]
    assert [entry.form for entry in ranked(timed, preferred, lambda form, _than: form in faster)] == order


def test_nothing_was_timed() -> None:
    assert ranked([], "keep", lambda _form, _than: True) == []


def test_tuning_passes_over_what_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    from normfold.commands import form_timing

    order = [
        form_timing.Timed(form, 1.0, speed, (speed, speed))
        for form, speed in (("native", 9.0), ("keep", 1.0))
    ]
    monkeypatch.setattr(form_timing, "forms_by_speed", lambda *_arguments: order)
    monkeypatch.setattr(FormTrials, "_tried", lambda *_arguments: None)
    result = fold(model_of("handwritten"), tune=True, data=SHIFTED)
    assert "substituted" not in {site.action for site in result.report.sites}
    assert [f.code for f in result.report.findings] == ["NF405", "NF404"]


def test_a_model_without_norms_has_nothing_to_tune() -> None:
    value = [oh.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [4]) for name in "xy"]
    graph = oh.make_graph([oh.make_node("Relu", ["x"], ["y"])], "g", value[:1], value[1:])
    model = oh.make_model(graph, opset_imports=[oh.make_opsetid("", 21)], ir_version=10)
    result = fold(model, tune=True)
    assert not result.changed
    assert "tuning" not in result.report.summary


def test_tuning_and_a_form_exclude_each_other() -> None:
    with pytest.raises(InputError) as caught:
        fold(model_of("native"), tune=True, groupnorm="native")
    assert caught.value.code == "NF900"
