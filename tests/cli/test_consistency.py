"""``normfold consistency``, and what ``fold`` makes of its findings."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper, parser

Run = Callable[..., Any]

TRAINED = Path(__file__).parents[2] / "models" / "trained"
MODEL = """
<ir_version: 8, opset_import: ["" : 17]>
net (float[N, 2, 4, 4] x) => (float[N, 2, 4, 4] y)
<float[2, 2, 1, 1] w = {{1, 2, 3, 4}}, float[2] g = {{1.5, -0.5}}, float[2] b = {{0.25, 1}},
 float[2] m = {{{mean}, 2}}, float[2] v = {{0.75, {var}}}>
{{
    c = Conv(x, w)
    n = BatchNormalization <epsilon: float = {epsilon}> (c, g, b, m, v)
    y = Relu(n)
}}
"""


def write(path: Path, *, epsilon: float = 1e-5, var: float = 3.0, mean: float = 0.5) -> Path:
    onnx.save(parser.parse_model(MODEL.format(epsilon=epsilon, var=var, mean=mean)), path)
    return path


@pytest.fixture
def healthy(tmp_path: Path) -> Path:
    return write(tmp_path / "healthy.onnx")


@pytest.fixture
def warned(tmp_path: Path) -> Path:
    return write(tmp_path / "warned.onnx", epsilon=0.05)


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    return write(tmp_path / "damaged.onnx", epsilon=0.8)


class TestConsistency:
    def test_healthy(self, run: Run, healthy: Path) -> None:
        outcome = run("consistency", healthy)
        assert outcome.code == 0
        assert "nothing found" in outcome.out

    def test_error(self, run: Run, damaged: Path) -> None:
        outcome = run("consistency", damaged, "--format", "json")
        assert outcome.code == 1
        report = outcome.report
        assert report["command"] == "consistency"
        assert report["summary"] == {"error": 1, "warn": 0, "info": 0, "accepted": 0}
        (finding,) = report["findings"]
        assert (finding["code"], finding["severity"], finding["site"]) == ("NF308", "error", "n")
        assert "nn.BatchNorm2d(2, 0.8)" in finding["message"]

    def test_a_warning_fails_only_if_asked(self, run: Run, warned: Path) -> None:
        assert run("consistency", warned).code == 0
        assert run("consistency", warned, "--fail-on", "warn").code == 1

    @pytest.mark.parametrize("suffix", [".json", ".md", ".html", ".sarif", ".junit.xml"])
    def test_every_format(self, run: Run, damaged: Path, tmp_path: Path, suffix: str) -> None:
        target = tmp_path / f"report{suffix}"
        assert run("consistency", damaged, "--report", target).code == 1
        text = target.read_text()
        assert "NF308" in text
        assert "0.8" in text

    def test_annotations(self, run: Run, damaged: Path) -> None:
        assert "::error" in run("consistency", damaged, "--format", "github").out

    def test_unusable_model(self, run: Run, broken: Path) -> None:
        assert "NF902" in run("consistency", broken).error


class TestBaseline:
    def test_known_findings_are_accepted(self, run: Run, damaged: Path, tmp_path: Path) -> None:
        known = tmp_path / "known.json"
        assert run("consistency", damaged, "--report", known).code == 1
        outcome = run("consistency", damaged, "--baseline", known, "--format", "json")
        assert outcome.code == 0
        assert outcome.report["findings"] == []
        assert outcome.report["summary"]["accepted"] == 1

    def test_new_findings_are_not(self, run: Run, warned: Path, tmp_path: Path) -> None:
        known = tmp_path / "known.json"
        run("consistency", warned, "--report", known)
        worse = write(tmp_path / "worse.onnx", epsilon=0.05, var=-3.0)
        outcome = run("consistency", worse, "--baseline", known, "--format", "json")
        assert outcome.code == 1
        assert [finding["code"] for finding in outcome.report["findings"]] == ["NF305"]

    def test_what_grew_worse_is_new(self, run: Run, warned: Path, tmp_path: Path) -> None:
        known = tmp_path / "known.json"
        run("consistency", warned, "--report", known)
        worse = write(tmp_path / "worse.onnx", epsilon=1.5)
        assert run("consistency", worse, "--baseline", known).code == 1

    @pytest.mark.parametrize(
        "text", ["", "[]", '{"findings": 3}', '{"findings": [{"code": "NF308"}]}', "null"]
    )
    def test_no_report(self, run: Run, healthy: Path, tmp_path: Path, text: str) -> None:
        known = tmp_path / "known.json"
        known.write_text(text)
        outcome = run("consistency", healthy, "--baseline", known)
        assert outcome.code == 2
        assert "baseline" in outcome.error

    def test_no_file(self, run: Run, healthy: Path, tmp_path: Path) -> None:
        outcome = run("consistency", healthy, "--baseline", tmp_path / "none.json")
        assert outcome.code == 2
        assert "cannot be read" in outcome.error


class TestData:
    """On the LeNet with BatchNorm that was trained on digits, and its held-out images."""

    data = TRAINED / "digits_heldout.npz"

    def test_healthy(self, run: Run) -> None:
        outcome = run(
            "consistency", TRAINED / "lenet_digits_bn.onnx", "--data", self.data, "--format", "json"
        )
        assert outcome.code == 0
        record = outcome.report["consistency"]
        assert record["images"] == 450
        assert len(record["layers"]) == 4
        assert not any(layer["departs"] for layer in record["layers"])

    def test_damaged_variance(self, run: Run, tmp_path: Path) -> None:
        model = onnx.load(TRAINED / "lenet_digits_bn.onnx")
        for tensor in model.graph.initializer:
            if tensor.name.endswith("running_var"):
                scaled = (numpy_helper.to_array(tensor) * 1000).astype(np.float32)
                tensor.CopyFrom(numpy_helper.from_array(scaled, tensor.name))
        onnx.save(model, tmp_path / "damaged.onnx")
        page = tmp_path / "report.html"
        arguments = ("--data", self.data, "--format", "json", "--report", page)
        outcome = run("consistency", tmp_path / "damaged.onnx", *arguments)
        assert outcome.code == 1
        codes = [finding["code"] for finding in outcome.report["findings"]]
        assert codes.count("NF340") == 4
        assert "NF354" in codes
        # 6 + 16 + 120 + 84 channels; above 96, two share a cell.
        map_, _, plots = page.read_text().partition("Layer by layer")
        assert map_.count("<rect") == 6 + 16 + 60 + 84
        assert plots.count("<rect") == 2 * (6 + 16 + 120 + 84)

    def test_too_few_images(self, run: Run, tmp_path: Path) -> None:
        with np.load(self.data) as stored:
            np.savez(tmp_path / "few.npz", images=stored["images"][:20])
        outcome = run(
            "consistency",
            TRAINED / "lenet_digits_bn.onnx",
            "--data",
            tmp_path / "few.npz",
            "--format",
            "json",
        )
        assert outcome.code == 3
        assert "NF341" in [finding["code"] for finding in outcome.report["findings"]]

    def test_image_options_need_data(self, run: Run, healthy: Path) -> None:
        outcome = run("consistency", healthy, "--image", "size=8")
        assert outcome.code == 2
        assert "--data" in outcome.error


class TestOverridable:
    """Initializers that are graph inputs too, as older exporters list them all."""

    @pytest.fixture
    def listed(self, tmp_path: Path) -> Path:
        model = onnx.load(write(tmp_path / "plain.onnx", epsilon=1e-5, var=4000.0))
        for tensor in model.graph.initializer:
            model.graph.input.append(
                helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            )
        onnx.save(model, tmp_path / "listed.onnx")
        return tmp_path / "listed.onnx"

    @pytest.fixture
    def data(self, tmp_path: Path, listed: Path) -> Path:
        (value, *_) = onnx.load(listed).graph.input
        shape = [dim.dim_value or 64 for dim in value.type.tensor_type.shape.dim]
        shape[0] = 64
        x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        np.savez(tmp_path / "data.npz", **{value.name: x})
        return tmp_path / "data.npz"

    def test_named_with_the_way_out(self, run: Run, listed: Path, data: Path) -> None:
        outcome = run("consistency", listed, "--data", data)
        assert "NF353" in outcome.out and "--freeze-initializers" in outcome.out

    def test_frozen_are_judged(self, run: Run, listed: Path, data: Path) -> None:
        outcome = run("consistency", listed, "--data", data, "--freeze-initializers", "--format", "json")
        assert outcome.code == 1
        assert "NF340" in {finding["code"] for finding in outcome.report["findings"]}

    def test_calibrated_when_frozen(self, run: Run, listed: Path, data: Path, tmp_path: Path) -> None:
        target = tmp_path / "calibrated.onnx"
        outcome = run("calibrate", listed, "--data", data, "-o", target)
        assert outcome.code == 2 and "--freeze-initializers" in outcome.error
        assert run("calibrate", listed, "--data", data, "-o", target, "--freeze-initializers").code == 0
        model = onnx.load(target)
        onnx.checker.check_model(model)
        before = [value.name for value in onnx.load(listed).graph.input]
        kept = [value.name for value in model.graph.input]
        assert kept == [name for name in before if name in kept] and len(before) - len(kept) == 2
        assert run("consistency", target, "--data", data, "--freeze-initializers").code == 0


class TestFold:
    def test_findings_come_first_and_change_nothing(self, run: Run, damaged: Path, tmp_path: Path) -> None:
        outcome = run("fold", damaged, "-o", tmp_path / "out.onnx")
        assert outcome.code == 0
        assert (tmp_path / "out.onnx").exists()
        lines = outcome.out.splitlines()
        assert lines[1].strip().startswith("error NF308: n: epsilon is 0.8")

    def test_fail_on(self, run: Run, damaged: Path, tmp_path: Path) -> None:
        outcome = run("fold", damaged, "-o", tmp_path / "out.onnx", "--fail-on", "error", "--format", "json")
        assert outcome.code == 1
        assert "NF308" in outcome.error
        assert not (tmp_path / "out.onnx").exists()
        assert [finding["code"] for finding in json.loads(outcome.out)["findings"]] == ["NF308"]

    def test_fail_on_what_is_not_there(self, run: Run, warned: Path, tmp_path: Path) -> None:
        assert run("fold", warned, "-o", tmp_path / "out.onnx", "--fail-on", "error").code == 0
        assert run("fold", warned, "-o", tmp_path / "other.onnx", "--fail-on", "warn").code == 1
