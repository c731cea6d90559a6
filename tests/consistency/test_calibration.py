"""Statistics estimated again: the right ones, where they belong, and an honest word on what they repair."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from normfold import loading
from normfold.consistency.calibration import calibrate, independent_groups
from normfold.consistency.layers import batchnorm_layers
from normfold.consistency.training import running_layers
from normfold.errors import InputError
from normfold.evaluation import Evaluator
from normfold.folding import fold_model

FOLDER = Path(__file__).parents[2] / "models" / "trained"
with np.load(FOLDER / "digits_heldout.npz") as stored:
    IMAGES, LABELS = stored["images"], stored["labels"]
# Statistics from one half, accuracy on the other.
DATA = [{"images": IMAGES[start : start + 25]} for start in range(0, 225, 25)]


def lenet(variance: float = 1.0, epsilon: float | None = None) -> ir.Model:
    model = loading.load(FOLDER / "lenet_digits_bn.onnx").model
    for layer in batchnorm_layers(model):
        value = layer.node.inputs[4]
        value.const_value = ir.tensor((layer.var * variance).astype(np.float32), name=value.name)
        if epsilon is not None:
            layer.node.attributes["epsilon"] = ir.AttrFloat32("epsilon", epsilon)
    return model


def accuracy(model: ir.Model) -> float:
    logits = Evaluator(model).run({"images": IMAGES[225:]})["logits"]
    return float((logits.argmax(1) == LABELS[225:]).mean())


def test_accuracy_comes_back_where_statistics_were_the_cause() -> None:
    damaged = lenet(variance=1000)
    before = ir.to_proto(damaged).SerializeToString()
    assert accuracy(damaged) < 0.2
    done = calibrate(damaged, DATA)
    assert accuracy(done.model) > 0.97
    assert ir.to_proto(damaged).SerializeToString() == before
    assert done.gap_after < 0.2 < done.gap_before
    assert "NF352" not in {f.code for f in done.findings}
    assert done.outputs[0].flips is not None and done.outputs[0].flips > 0.5


def test_says_that_it_does_not_help_where_they_were_not() -> None:
    done = calibrate(lenet(epsilon=0.8), DATA)
    assert accuracy(done.model) < 0.5
    assert "NF352" in {f.code for f in done.findings if f.severity == "warn"}


def test_says_so_where_the_inputs_are_the_cause() -> None:
    done = calibrate(lenet(), [{"images": batch["images"] * 255} for batch in DATA])
    assert any(f.code == "NF352" and "255" in f.message for f in done.findings)


def test_statistics_are_those_of_the_data_behind_corrected_layers() -> None:
    """Against numpy: every layer's input in the calibrated model has the statistics that the layer holds."""
    done = calibrate(lenet(variance=50), DATA, diagnosis=False)
    everything = {"images": np.concatenate([batch["images"] for batch in DATA])}
    for layer in batchnorm_layers(done.model):
        x = Evaluator(done.model).run(everything, [layer.x])[layer.x]
        axes = (0, *range(2, x.ndim))
        np.testing.assert_allclose(layer.mean, x.mean(axes), rtol=0, atol=1e-5 * float(np.abs(x).max()))
        np.testing.assert_allclose(layer.var, x.var(axes), rtol=2e-5)
    assert done.passes == 4


def test_result_is_stable_and_folds() -> None:
    once = calibrate(lenet(), DATA, diagnosis=False)
    twice = calibrate(once.model, DATA, diagnosis=False)
    assert max(max(c.z, c.log_variance_ratio) for c in twice.layers) < 1e-5
    assert fold_model(once.model).changed
    assert len(once.model.graph.initializers) == len(lenet().graph.initializers)


def branched() -> ir.Model:
    """Two layers side by side share statistics, a third reads both; a Reshape carries the batch."""
    model = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["": 17]> g (float[1,2,3] x) => (float[1,6] y) '
        "{ p = BatchNormalization(x, g, b, m, v) n = Neg(x) q = BatchNormalization(n, g, b, m, v) "
        "r = Relu(q) s = Add(p, r) t = BatchNormalization(s, g, b, m, v) y = Reshape(t, k) }"
    )
    constants = {
        "g": np.ones(2, np.float32),
        "b": np.zeros(2, np.float32),
        "m": np.zeros(2, np.float32),
        "v": np.ones(2, np.float32),
        "k": np.array([1, 6]),
    }
    made = {}
    for name, content in constants.items():
        made[name] = ir.Value(
            name=name, const_value=ir.tensor(content, name=name), shape=ir.Shape(content.shape)
        )
        made[name].dtype = ir.DataType.INT64 if name == "k" else ir.DataType.FLOAT
        model.graph.register_initializer(made[name])
    for node in model.graph:
        for slot, value in enumerate(node.inputs):
            if value is not None and value.name in made:
                node.replace_input_with(slot, made[value.name])
    return model


def test_shared_statistics_part_and_independent_layers_share_a_pass() -> None:
    x = np.random.default_rng(0).normal(3, 2, (80, 2, 3)).astype(np.float32)
    model = branched()
    groups = independent_groups(model, running_layers(model))
    assert [[layer.site for layer in group] for group in groups] == [["p", "q"], ["t"]]
    done = calibrate(model, [{"x": x[i : i + 1]} for i in range(80)], diagnosis=False)
    by_site = {c.site: c for c in done.layers}
    np.testing.assert_allclose(by_site["p"].mean, x.mean((0, 2)), rtol=1e-6)
    np.testing.assert_allclose(by_site["q"].mean, -x.mean((0, 2)), rtol=1e-6)
    assert done.passes == 2 and done.images == 80
    # The result has the input that it had, Reshape included.
    assert Evaluator(done.model).run({"x": x[:1]})["y"].shape == (1, 6)


def test_data_as_an_iterator() -> None:
    done = calibrate(lenet(variance=1000), iter(DATA), diagnosis=False)
    assert accuracy(done.model) > 0.97


def test_models_and_data_that_cannot_be_calibrated() -> None:
    with pytest.raises(InputError, match="no BatchNormalization"):
        calibrate(loading.load(FOLDER / "lenet_digits.onnx").model, DATA)
    with pytest.raises(InputError, match="no sample"):
        calibrate(lenet(), [])
    with pytest.raises(InputError, match="not finite"):
        calibrate(lenet(), [{"images": np.full((64, 1, 8, 8), np.nan, np.float32)}])


def test_few_images_are_named() -> None:
    done = calibrate(lenet(), DATA[:1])
    assert "NF341" in {f.code for f in done.findings}


def single_layer(epsilon: float, mean: str = "0.5, 0.5", var: str = "1, 1") -> ir.Model:
    return ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["": 17]> main (float[N,2] x) => (float[N,2] y) '
        f"<float[2] g = {{1, 1}}, float[2] b = {{0, 0}}, float[2] m = {{{mean}}}, float[2] v = {{{var}}}> "
        f"{{ y = BatchNormalization<epsilon = {epsilon}>(x, g, b, m, v) }}"
    )


def test_constant_channel_without_epsilon_keeps_its_variance() -> None:
    """Divided by a deviation of zero it would be no number."""
    x = np.random.default_rng(0).normal(3, 2, (64, 2)).astype(np.float32)
    x[:, 0] = 7
    done = calibrate(single_layer(0.0), [{"x": x}], diagnosis=False)
    (layer,) = batchnorm_layers(done.model)
    assert layer.var[0] == 1 and layer.var[1] == pytest.approx(x[:, 1].var(), rel=1e-6)
    assert np.isfinite(Evaluator(done.model).run({"x": x})["y"]).all()
    (usual,) = batchnorm_layers(calibrate(single_layer(1e-5), [{"x": x}], diagnosis=False).model)
    assert usual.var[0] == 0


def test_affine_that_normfold_wrote_is_left_alone() -> None:
    """With mean 0 and variance 1 − epsilon it has no statistics: new ones would change the function."""
    epsilon = np.float32(1e-5)
    model = single_layer(1e-5, "0, 0", ", ".join([repr(float(np.float32(1 - epsilon)))] * 2))
    with pytest.raises(InputError, match="no BatchNormalization with running statistics"):
        calibrate(model, [{"x": np.ones((4, 2), np.float32)}])
