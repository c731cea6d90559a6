"""Layers that are no BatchNormalization any more, or never were, judged all the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from normfold import loading
from normfold.consistency.calibration import calibrate
from normfold.consistency.drift import data_findings
from normfold.consistency.oracle import train_mode
from normfold.consistency.training import running_layers
from normfold.consistency.unfolding import unfold
from normfold.consistency.written import spelled_as_layers
from normfold.evaluation import Evaluator
from normfold.folding import fold_model
from normfold.reporting.provenance import KEY, provenance_entry

FOLDER = Path(__file__).parents[2] / "models" / "trained"
with np.load(FOLDER / "digits_heldout.npz") as stored:
    IMAGES, LABELS = stored["images"], stored["labels"]
DATA = [{"images": IMAGES[start : start + 25]} for start in range(0, 225, 25)]
HEADER = '<ir_version: 8, opset_import: ["": 17]> g (float[N,3,6,6] x) => '


def built(text: str, **constants: np.ndarray) -> ir.Model:
    model = ir.from_onnx_text(HEADER + text)
    for name, content in constants.items():
        tensor = ir.tensor(np.asarray(content, np.float32), name=name)
        value = ir.Value(name=name, const_value=tensor, shape=ir.Shape(tensor.shape))
        value.dtype = ir.DataType.FLOAT
        model.graph.register_initializer(value)
        for node in model.graph:
            for slot, read in enumerate(node.inputs):
                if read is not None and read.name == name:
                    node.replace_input_with(slot, value)
    return model


def folded(model: ir.Model) -> ir.Model:
    result = fold_model(model)
    result.model.metadata_props[KEY] = provenance_entry("0", None, "0", result.provenance, None)
    return result.model


class TestHandWritten:
    def handwritten(self, variance: float = 1.0) -> ir.Model:
        model = loading.load(FOLDER / "lenet_digits_handwritten.onnx").model
        for name, value in model.graph.initializers.items():
            if name.startswith("sqrt"):
                deviation = value.const_value.numpy() * np.sqrt(np.float32(variance))
                value.const_value = ir.tensor(deviation, name=name)
        return model

    def test_same_function_with_four_layers(self) -> None:
        model = self.handwritten()
        layered, sites = spelled_as_layers(model)
        assert sites == ("div", "div_1", "div_2", "div_3")
        inputs = {"images": IMAGES[:16]}
        expected, actual = (Evaluator(m).run(inputs)["logits"] for m in (model, layered))
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6 * np.abs(expected).max())

    def test_healthy(self) -> None:
        report = data_findings(self.handwritten(), DATA)
        assert report.findings == [] and len(report.layers) == 4

    def test_variance_times_1000_is_named_and_repaired(self) -> None:
        damaged = self.handwritten(1000)
        assert {cause.code for cause in data_findings(damaged, DATA, oracle=False).causes} == {"NF354"}
        repaired = calibrate(damaged, DATA, diagnosis=False).model
        logits = Evaluator(repaired).run({"images": IMAGES[225:]})["logits"]
        assert float((logits.argmax(1) == LABELS[225:]).mean()) > 0.97
        assert not {"Sub", "Div"} & {node.op_type for node in repaired.graph}

    @pytest.mark.parametrize("visible", [True, False])
    def test_keeps_an_epsilon(self, visible: bool) -> None:
        """The one that it is seen to have; else one that a channel without variance can be divided by."""
        deviation = "e = Add(v, h) d = Sqrt(e)" if visible else "d = Mul(v, one)"
        model = built(
            f"(float[N,3,6,6] y) {{ f = Relu(x) s = Sub(f, m) {deviation} q = Div(s, d) y = Mul(q, g) }}",
            m=np.array([0.1, 0.2, 0.3]).reshape(3, 1, 1),
            v=np.array([0.5, 2.0, 1.0]).reshape(3, 1, 1),
            h=np.array(1e-3),
            one=np.array(1.0),
            g=np.array([1.0, -2.0, 0.5]).reshape(3, 1, 1),
        )
        layered, sites = spelled_as_layers(model)
        (layer,) = running_layers(layered)
        assert sites == ("q",)
        assert layer.epsilon == np.float32(1e-3 if visible else 1e-5)
        x = images()
        expected, actual = (Evaluator(m).run({"x": x})["y"] for m in (model, layered))
        np.testing.assert_allclose(actual, expected, rtol=1e-6)
        dead = -np.abs(images())
        repaired = calibrate(model, [{"x": dead}], diagnosis=False).model
        assert np.isfinite(Evaluator(repaired).run({"x": x})["y"]).all()

    @pytest.mark.parametrize(
        ("middle", "layers"),
        [
            ("c = Conv(x, w) s = Sub(c, m) y = Div(s, d)", 1),
            ("c = Conv(x, w) s = Sub(c, m) t = Mul(s, g) y = Div(t, d)", 1),
            ("c = Conv(x, w) s = Sub(c, m) y = Mul(s, d)", 0),
            ("s = Sub(x, m) y = Div(s, d)", 0),
            ("c = Mul(x, h) s = Sub(c, m) y = Div(s, d)", 0),
            ("c = Conv(x, w) s = Sub(c, m) y = Div(s, n)", 0),
            ("c = Conv(x, w) s = Sub(c, h) y = Div(s, d)", 0),
        ],
        ids=["plain", "scaled", "product", "pixels", "scaled pixels", "negative", "one mean"],
    )
    def test_what_is_a_layer(self, middle: str, layers: int) -> None:
        rng = np.random.default_rng(0)
        column = (3, 1, 1)
        model = built(
            f"(float[N,3,6,6] y) {{ {middle} }}",
            w=rng.normal(size=(3, 3, 1, 1)),
            m=rng.normal(size=column),
            d=rng.uniform(1, 2, column),
            g=rng.normal(size=column),
            n=-rng.uniform(1, 2, column),
            h=np.array(0.5),
        )
        assert len(spelled_as_layers(model)[1]) == layers


def pre_normed(variance: float = 1.0, end: str = "a = Sigmoid(d) y = Add(r, a)") -> ir.Model:
    """BN between a sum that is read twice and the Conv that absorbs it; true statistics, but for a factor."""
    rng = np.random.default_rng(0)
    stem, scale, shift = rng.normal(size=(4, 3)), rng.uniform(0.5, 1, 4), rng.normal(size=4)
    r = np.maximum(np.einsum("oc,nchw->nohw", stem, images()), 0)
    return built(
        "(float[N,4,6,6] y) { c = Conv(x, w) r = Relu(c) n = BatchNormalization(r, g, b, m, v) "
        f"d = Conv(n, k) {end} }}",
        w=stem[:, :, None, None],
        g=scale,
        b=shift,
        m=r.mean((0, 2, 3)),
        v=r.var((0, 2, 3)) * variance,
        k=rng.normal(size=(4, 4, 1, 1)),
    )


def images() -> np.ndarray:
    return np.random.default_rng(1).normal(0.3, 1, (128, 3, 6, 6)).astype(np.float32)


class TestAbsorbedByAReader:
    def test_training_mode_is_that_of_the_original(self) -> None:
        model = pre_normed(variance=3.0)
        absorbed = folded(model)
        assert "BatchNormalization" not in {node.op_type for node in absorbed.graph}
        restored = unfold(absorbed)
        assert restored.sites == ("n",) and restored.lost == ()
        expected, actual = (train_mode(m, {"x": images()})["y"] for m in (model, restored.model))
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-6 * np.abs(expected).max())

    def test_judged_like_the_original(self) -> None:
        batches = [{"x": images()[start : start + 16]} for start in range(0, 128, 16)]
        for variance, expected in ((1.0, set()), (50.0, {"NF354"})):
            report = data_findings(folded(pre_normed(variance)), batches, oracle=False)
            assert report.recovered == ("n",)
            assert {cause.code for cause in report.causes} == expected


def without_its_input() -> ir.Model:
    model = folded(pre_normed())
    model.metadata_props[KEY] = model.metadata_props[KEY].replace('"x":"r"', '"x":"gone"')
    return model


@pytest.mark.parametrize(
    "model",
    [without_its_input, lambda: folded(pre_normed(end="y = Add(r, d)"))],
    ids=["value gone", "merged with the identity beside it"],
)
def test_what_cannot_be_put_back_is_named(model: Callable[[], ir.Model]) -> None:
    batches = [{"x": images()[start : start + 16]} for start in range(0, 128, 16)]
    (finding,) = data_findings(model(), batches).findings
    assert (finding.code, finding.severity, finding.site) == ("NF353", "info", "n")
    assert "cannot be put back" in finding.message


def with_a_dead_channel() -> ir.Model:
    model = pre_normed()
    scale = model.graph.initializers["g"]
    assert scale.const_value is not None
    scale.const_value = ir.tensor(scale.const_value.numpy() * np.float32([1, 0, 1, 1]), name="g")
    return folded(model)


def of_another_value() -> ir.Model:
    model = folded(pre_normed())
    model.metadata_props[KEY] = model.metadata_props[KEY].replace('"x":"r"', '"x":"x"')
    return model


def scaled_again() -> ir.Model:
    return folded(
        built(
            "(float[N,4,6,6] y) { c = Conv(x, w) n = BatchNormalization(c, g, b, m, v) y = Mul(n, q) }",
            **{name: np.linspace(0.5, 2, 4) for name in "gbmv"},
            w=np.ones((4, 3, 1, 1)),
            q=np.linspace(1, 4, 4).reshape(4, 1, 1),
        )
    )


@pytest.mark.parametrize(
    ("model", "site", "reason"),
    [
        (with_a_dead_channel, "n", "γ is zero in some channels"),
        (of_another_value, "n", "its output has 3 channels, the record 4"),
        (scaled_again, "y", "neither its input nor its output"),
    ],
)
def test_why_a_layer_is_not_put_back(model: Callable[[], ir.Model], site: str, reason: str) -> None:
    restored = unfold(model())
    assert restored.sites == ()
    assert [name for name, _ in restored.lost] == [site]
    assert reason in restored.lost[0][1]


def test_nothing_to_hold_against_the_data_is_said() -> None:
    model = loading.load(FOLDER / "lenet_digits.onnx").model
    (finding,) = data_findings(model, DATA).findings
    assert finding.code == "NF353" and "nothing to hold" in finding.message
