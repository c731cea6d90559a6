"""A trained LeNet, damaged one way at a time: each is named, and a healthy one is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from normfold import loading
from normfold.consistency.drift import DataReport, data_findings
from normfold.consistency.layers import batchnorm_layers
from normfold.folding import fold_model
from normfold.reporting.provenance import KEY, provenance_entry

FOLDER = Path(__file__).parents[2] / "models" / "trained"
with np.load(FOLDER / "digits_heldout.npz") as stored:
    IMAGES = stored["images"]


def lenet() -> ir.Model:
    return loading.load(FOLDER / "lenet_digits_bn.onnx").model


def batches(images: np.ndarray, size: int = 8) -> Iterator[dict[str, np.ndarray]]:
    for start in range(0, len(images), size):
        yield {"images": images[start : start + size].astype(np.float32)}


def set_statistics(
    model: ir.Model, change: Callable[[int, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
) -> None:
    for index, layer in enumerate(batchnorm_layers(model)):
        for slot, values in zip((3, 4), change(index, layer.mean, layer.var), strict=True):
            value = layer.node.inputs[slot]
            value.const_value = ir.tensor(values.astype(np.float32), name=value.name)


def judge(model: ir.Model, images: np.ndarray = IMAGES) -> DataReport:
    return data_findings(model, batches(images), oracle=False)


def running(model: ir.Model, images: np.ndarray, size: int, momentum: float, steps: int) -> None:
    """Statistics as torch keeps them, all layers above using the batch, by torch's formula in numpy."""
    from normfold.consistency.oracle import train_mode

    rng = np.random.default_rng(0)
    layers = batchnorm_layers(model)
    state = [(layer.mean, layer.var) for layer in layers]
    for _ in range(steps):
        batch = images[rng.integers(0, len(images), size)].astype(np.float32)
        inputs = train_mode(model, {"images": batch}, outputs=[layer.x for layer in layers])
        for index, layer in enumerate(layers):
            x = inputs[layer.x]
            axes = (0, *range(2, x.ndim))
            mean, var = state[index]
            state[index] = (
                mean + momentum * (x.mean(axes) - mean),
                var + momentum * (x.var(axes, ddof=1) - var),
            )
    set_statistics(model, lambda index, mean, var: state[index])


def codes(report: DataReport) -> set[str]:
    return {cause.code for cause in report.causes}


def test_healthy_model_has_no_finding() -> None:
    report = data_findings(lenet(), batches(IMAGES))
    assert [f for f in report.findings if f.severity != "info"] == []
    assert report.first is None and report.conclusive and report.images == 450
    assert len(report.layers) == 4


def test_wrong_momentum() -> None:
    model = lenet()
    running(model, IMAGES[:225], 32, 0.9, 20)
    report = judge(model, IMAGES[225:])
    assert codes(report) == {"NF343"}
    assert report.causes[0].repairable


def test_tiny_batches() -> None:
    model = lenet()
    running(model, IMAGES[:225], 2, 0.1, 100)
    report = judge(model, IMAGES[225:])
    assert codes(report) == {"NF344"}
    assert report.causes[0].evidence["batch_size"] == 2


def test_honest_training_with_small_batches() -> None:
    model = lenet()
    running(model, IMAGES[:225], 8, 0.1, 80)
    report = judge(model, IMAGES[225:])
    assert report.causes == []
    assert [f for f in report.findings if f.severity != "info"] == []


def test_momentum_that_the_file_states() -> None:
    """Statistics of 78 images are too good to be told from honest training, unless the file says how."""
    model = lenet()
    running(model, IMAGES[:225], 64, 0.9, 5)
    for layer in batchnorm_layers(model):
        layer.node.attributes["momentum"] = ir.AttrFloat32("momentum", 0.1)
    (cause,) = judge(model, IMAGES[225:]).causes
    assert cause.code == "NF343" and cause.evidence["momentum"] == pytest.approx(0.9)


def test_stated_momentum_where_tiny_batches_scatter_alike() -> None:
    """65 images: those of batches of four as well."""
    model = lenet()
    running(model, IMAGES[:225], 64, 0.99, 3)
    for layer in batchnorm_layers(model):
        layer.node.attributes["momentum"] = ir.AttrFloat32("momentum", 0.01)
    assert codes(judge(model, IMAGES[225:])) == {"NF343"}


def test_stated_momentum_alone_is_no_finding() -> None:
    """Converters copy the number from frameworks where it means the opposite."""
    model = lenet()
    for layer in batchnorm_layers(model):
        layer.node.attributes["momentum"] = ir.AttrFloat32("momentum", 0.1)
    assert judge(model).findings == []


def test_inputs_scaled_by_255() -> None:
    report = judge(lenet(), IMAGES * 255)
    (cause,) = report.causes
    assert cause.code == "NF346" and "dividing by 255" in cause.message and not cause.repairable
    assert report.first == batchnorm_layers(lenet())[0].site


def test_inputs_standardised_where_training_did_not() -> None:
    report = judge(lenet(), IMAGES * 2 - 1)
    assert codes(report) == {"NF346"} and "−1…1 to 0…1" in report.causes[0].message


def test_statistics_of_another_domain() -> None:
    model = lenet()
    noise = np.random.default_rng(0).random((300, 1, 8, 8))
    running(model, noise, 32, 0.1, 60)
    assert codes(judge(model)) == {"NF345"}


@pytest.mark.parametrize("quarters", [1, 3])
def test_turned_images_are_another_domain(quarters: int) -> None:
    """No brightness or contrast explains them, but the layers behind bear witness to the weights."""
    model = lenet()
    turned = np.roll(np.rot90(IMAGES, quarters, (2, 3)), 2, 2)
    running(model, turned, 32, 0.1, 60)
    assert codes(judge(model)) == {"NF345"}


@pytest.mark.parametrize("seed", range(2))
def test_statistics_of_earlier_weights(seed: int) -> None:
    """Honest statistics, and then the weights move on."""
    model, rng = lenet(), np.random.default_rng(seed)
    earlier = lenet()
    for value in earlier.graph.initializers.values():
        if value.name is not None and value.name.endswith("weight") and value.const_value.shape.rank() > 1:
            content = value.const_value.numpy()
            moved = content + 0.5 * content.std() * rng.normal(size=content.shape)
            value.const_value = ir.tensor(moved.astype(np.float32), name=value.name)
    running(earlier, IMAGES[:225], 32, 0.1, 60)
    state = [(layer.mean, layer.var) for layer in batchnorm_layers(earlier)]
    set_statistics(model, lambda index, mean, var: state[index])
    assert codes(judge(model, IMAGES[225:])) == {"NF342"}


def test_variance_times_1000() -> None:
    model = lenet()
    set_statistics(model, lambda index, mean, var: (mean, var * 1000))
    (cause,) = judge(model).causes
    assert cause.code == "NF354" and cause.evidence["factor"] == pytest.approx(1000, rel=0.05)


def test_caffe_sums() -> None:
    model = lenet()
    set_statistics(model, lambda index, mean, var: (mean * 999.98, var * 999.98))
    assert codes(judge(model)) == {"NF315"}


def test_statistics_that_never_warmed_up() -> None:
    model = lenet()
    set_statistics(model, lambda index, mean, var: (0.3 * mean, 0.3 * var + 0.7))
    (cause,) = judge(model).causes
    assert cause.code == "NF343" and cause.evidence["share"] == pytest.approx(0.3, abs=0.03)


def test_statistics_of_other_weights() -> None:
    model = lenet()
    rng = np.random.default_rng(3)
    set_statistics(
        model,
        lambda index, mean, var: (
            rng.permutation(mean) + rng.normal(0, 1, mean.size) * np.sqrt(var),
            var * 2.5,
        ),
    )
    assert codes(judge(model)) == {"NF342"}


def test_bessel() -> None:
    model = lenet()
    spatial = (64, 16, 1, 1)
    set_statistics(
        model, lambda index, mean, var: (mean, var * (2 * spatial[index]) / (2 * spatial[index] - 1))
    )
    (cause,) = judge(model).causes
    assert cause.code == "NF349" and cause.evidence["batch_size"] == 2


def test_epsilon_of_0_8() -> None:
    model = lenet()
    for layer in batchnorm_layers(model):
        layer.node.attributes["epsilon"] = ir.AttrFloat32("epsilon", 0.8)
    (cause,) = judge(model).causes
    assert cause.code == "NF307" and not cause.repairable


def test_only_the_damaged_layer_departs_in_training_conditions() -> None:
    model = lenet()
    set_statistics(model, lambda index, mean, var: (mean, var * 1000 if index == 1 else var))
    report = judge(model)
    layers = sorted(report.layers, key=lambda layer: layer.index)
    assert [layer.training.beyond_noise for layer in layers] == [False, True, False, False]
    assert [layer.departs for layer in layers] == [False, True, True, True]
    assert report.first == layers[1].site


def test_too_few_images() -> None:
    report = data_findings(lenet(), batches(IMAGES[:63] * 255))
    assert not report.conclusive and [f.code for f in report.findings] == ["NF341"]
    assert data_findings(lenet(), batches(IMAGES[:64]), oracle=False).conclusive


def folded(model: ir.Model) -> ir.Model:
    result = fold_model(model)
    result.model.metadata_props[KEY] = provenance_entry("0", None, "0", result.provenance, None)
    return result.model


def test_folded_model_is_judged_by_its_provenance() -> None:
    model = lenet()
    set_statistics(model, lambda index, mean, var: (mean, var * 1000 if index == 1 else var))
    report = judge(folded(model))
    assert not any(node.op_type == "BatchNormalization" for node in folded(model).graph)
    assert len(report.recovered) == 4
    assert codes(report) == {"NF354"}
    assert report.first == batchnorm_layers(model)[1].site


def test_folded_healthy_model() -> None:
    report = judge(folded(lenet()))
    assert report.first is None and len(report.layers) == 4


def test_provenance_that_is_no_provenance() -> None:
    model = folded(lenet())
    model.metadata_props[KEY] = '{"sites":[{"site":"getitem","scale":"!!"},7],"previous":3}'
    assert judge(model).layers == []


def test_channel_order() -> None:
    """A colour model whose first layer sees BGR."""
    rng = np.random.default_rng(0)
    images = rng.normal(0, 1, (128, 3, 6, 6)) * [[[[1.0]], [[2.0]], [[4.0]]]] + [[[[0.0]], [[1.0]], [[3.0]]]]
    w = rng.normal(size=(5, 3, 3, 3))
    graph = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["": 17]> g (float[N,3,6,6] images) => (float[N,5,4,4] y) '
        "{ c = Conv(images, w) y = BatchNormalization(c, g, b, m, v) }"
    )
    windows = np.lib.stride_tricks.sliding_window_view(images, (3, 3), axis=(2, 3))
    c = np.einsum("nchwij,ocij->nohw", windows, w)
    values = {"w": w, "g": np.ones(5), "b": np.zeros(5), "m": c.mean((0, 2, 3)), "v": c.var((0, 2, 3))}
    attach(graph, values)
    assert judge(graph, images).first is None
    assert codes(judge(graph, images[:, ::-1])) == {"NF348"}


def attach(model: ir.Model, values: dict[str, np.ndarray]) -> None:
    for node in model.graph:
        for slot, value in enumerate(node.inputs):
            if value is not None and value.name in values:
                if value.name not in model.graph.initializers:
                    tensor = ir.tensor(values[value.name].astype(np.float32), name=value.name)
                    new = ir.Value(name=value.name, const_value=tensor, shape=ir.Shape(tensor.shape))
                    new.dtype = tensor.dtype
                    model.graph.register_initializer(new)
                node.replace_input_with(slot, model.graph.initializers[value.name])


def test_normalisation_by_the_training_set_left_out() -> None:
    """A colour model that was trained on ImageNet-normalised pixels sees plain ones, and the other way
    round."""
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    rng = np.random.default_rng(0)
    pixels = np.clip(rng.normal(0.45, 0.25, (128, 3, 6, 6)), 0, 1)
    normalised = (pixels - mean.reshape(3, 1, 1)) / std.reshape(3, 1, 1)
    graph = colour_model(normalised)
    assert judge(graph, normalised).first is None
    report = judge(graph, pixels)
    assert codes(report) == {"NF347"}
    assert "ImageNet" in report.causes[0].message


def colour_model(images: np.ndarray) -> ir.Model:
    """Conv, BN over 3 × 6 × 6 images, with the population statistics of ``images`` by numpy."""
    graph = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["": 17]> g (float[N,3,6,6] images) => (float[N,5,4,4] y) '
        "{ c = Conv(images, w) y = BatchNormalization(c, g, b, m, v) }"
    )
    w = np.random.default_rng(1).normal(size=(5, 3, 3, 3))
    windows = np.lib.stride_tricks.sliding_window_view(images, (3, 3), axis=(2, 3))
    c = np.einsum("nchwij,ocij->nohw", windows, w)
    statistics = {"m": c.mean((0, 2, 3)), "v": c.var((0, 2, 3))}
    attach(graph, {"w": w, "g": np.ones(5), "b": np.zeros(5), **statistics})
    return graph


def found(report: DataReport) -> dict[str, str]:
    return {finding.code: finding.severity for finding in report.findings}


def test_gap_between_training_and_evaluation() -> None:
    """One layer's variance is off: the outputs move by what that layer contributes."""
    assert "NF350" not in found(data_findings(lenet(), batches(IMAGES)))
    model = lenet()
    set_statistics(model, lambda index, mean, var: (mean, var * (100 if index == 1 else 1)))
    assert found(data_findings(model, batches(IMAGES)))["NF350"] == "warn"


def test_output_that_depends_on_the_batch() -> None:
    text = (
        '<ir_version: 8, opset_import: ["": 17]> g (float[N,3,6,6] images) => (float[N,5,4,4] y) '
        "{{ c = Conv(images, w) n = BatchNormalization(c, g, b, m, v) {} }}"
    )
    rng = np.random.default_rng(0)
    images = rng.normal(size=(128, 3, 6, 6))
    plain = colour_model(images)
    values = {v.name: v.const_value.numpy() for v in plain.graph.initializers.values()}
    for end, depends in (("y = Relu(n)", False), ("a = ReduceMean<axes = [0]>(n) y = Sub(n, a)", True)):
        graph = ir.from_onnx_text(text.format(end))
        attach(graph, values)
        assert ("NF351" in found(data_findings(graph, batches(images)))) == depends


def test_layer_off_the_way_to_an_output() -> None:
    graph = colour_model(np.random.default_rng(0).normal(size=(128, 3, 6, 6)))
    values = {v.name: v.const_value.numpy() for v in graph.graph.initializers.values()}
    aside = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["": 17]> g (float[N,3,6,6] images) => (float[N,5,4,4] y) '
        "{ c = Conv(images, w) y = BatchNormalization(c, g, b, m, v) "
        "d = Sigmoid(c) z = BatchNormalization(d, g, b, m, v) }"
    )
    attach(aside, values)
    report = judge(aside, np.random.default_rng(0).normal(size=(128, 3, 6, 6)))
    assert [(f.code, f.site) for f in report.findings if f.code == "NF353"] == [("NF353", "z")]


def test_data_that_are_no_numbers_have_no_cause() -> None:
    images = IMAGES.astype(np.float64).copy()
    images[3, 0, 2, 2] = np.nan
    report = data_findings(lenet(), batches(images))
    assert report.causes == []
    assert {f.code for f in report.findings if f.severity != "info"} == {"NF340"}


def test_large_data_do_not_look_like_too_few_updates() -> None:
    """On the scale of data nine times as large the statistics seem to be near 0 and 1; on their own not."""
    model = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["": 17]> main (float[N,3] x) => (float[N,3] y) '
        "<float[3] g = {1, 1, 1}, float[3] b = {0, 0, 0}, float[3] m = {-1, 0, 1}, float[3] v = {4, 4, 4}> "
        "{ y = BatchNormalization(x, g, b, m, v) }"
    )
    x = np.random.default_rng(0).normal(size=(128, 3)) * 2 + np.array([-1, 0, 1])

    def causes(images: np.ndarray) -> set[str]:
        return codes(data_findings(model, [{"x": images.astype(np.float32)}], oracle=False))

    assert "NF343" not in causes(9 * x)
    set_statistics(model, lambda index, mean, var: (0.1 * mean, 1 + 0.1 * (81 * 4 - 1) * np.ones(3)))
    assert causes(9 * x) == {"NF343"}


def one_layer(mean: np.ndarray, var: np.ndarray, channels: int = 24) -> ir.Model:
    """Four inputs, mixed into many channels of small variance by ``MIXED``, and these statistics."""
    parts = {"w": MIXED, "g": np.ones(channels), "b": np.zeros(channels), "m": mean, "v": var}
    model = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["": 17]> main (float[N,4] images) => (float[N,24] y) '
        "{ z = MatMul(images, w) y = BatchNormalization(z, g, b, m, v) }"
    )
    attach(model, parts)
    return model


MIXED = np.random.default_rng(2).normal(0, 0.07, (4, 24))
ROWS = np.random.default_rng(1).normal(1, 1, (256, 4))
OTHERS = np.random.default_rng(5).normal(1, 1, (4096, 4)) @ MIXED


def test_a_few_percent_of_the_initial_values_are_too_few_updates() -> None:
    """After 40 updates with momentum 0.1 they weigh 1.5 %, which is much where variances are small."""
    left = 0.9**40
    mean, var = (1 - left) * OTHERS.mean(0), (1 - left) * OTHERS.var(0) + left
    (cause,) = judge(one_layer(mean, var), ROWS).causes
    assert cause.code == "NF343" and cause.evidence["share"] == pytest.approx(1 - left, abs=0.005)


def test_bessel_leaves_the_means_where_they_are() -> None:
    """The same factor on the variances, and means that no images give: other weights, not a correction."""
    deviation = OTHERS.std(0)
    aside = np.linalg.svd(MIXED / deviation)[2][4:].sum(0)
    off = 0.1 * aside / np.sqrt(np.square(aside).mean()) * deviation
    var = 1.5 * OTHERS.var(0)
    assert codes(judge(one_layer(OTHERS.mean(0), var), ROWS)) == {"NF349"}
    assert "NF349" not in codes(judge(one_layer(OTHERS.mean(0) + off, var), ROWS))
