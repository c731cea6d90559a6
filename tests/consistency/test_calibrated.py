"""Statistics that were calibrated on a known number of images: judged by the noise of that many."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from normfold import loading
from normfold.consistency.calibration import calibrate
from normfold.consistency.counted import KEY, record_images, recorded_images
from normfold.consistency.departure import HONEST_IMAGES, LEAST_IMAGES, departure
from normfold.consistency.drift import DataReport, data_findings
from normfold.consistency.layers import batchnorm_layers
from normfold.consistency.statistics import ChannelMoments
from normfold.folding import fold_model
from normfold.reporting.provenance import KEY as PROVENANCE
from normfold.reporting.provenance import provenance_entry

FOLDER = Path(__file__).parents[2] / "models" / "trained"
with np.load(FOLDER / "digits_heldout.npz") as stored:
    IMAGES = stored["images"]


def lenet() -> ir.Model:
    return loading.load(FOLDER / "lenet_digits_bn.onnx").model


def batches(images: np.ndarray, size: int = 8) -> list[dict[str, np.ndarray]]:
    return [{"images": images[start : start + size]} for start in range(0, len(images), size)]


def table_model(width: int = 24, layers: int = 4, seed: int = 0) -> ir.Model:
    """Linear layers on table rows: every image is a single element, and noise grows from layer to layer."""
    rng = np.random.default_rng(seed)
    parts, weights = [], []
    value = "x"
    for index in range(layers):
        weights.append((f"w{index}", rng.normal(0, width**-0.5, (width, width))))
        for name in "gbmv":
            content = {"g": np.ones, "b": np.zeros, "m": np.zeros, "v": np.ones}[name](width)
            weights.append((f"{name}{index}", content + rng.normal(0, 0.1, width) * (name in "gb")))
        parts.append(
            f"z{index} = MatMul({value}, w{index}) "
            f"n{index} = BatchNormalization(z{index}, g{index}, b{index}, m{index}, v{index}) "
            f"r{index} = Relu(n{index})"
        )
        value = f"r{index}"
    listed = ", ".join(
        f"float{list(a.shape)} {name} = {{{', '.join(repr(float(v)) for v in a.ravel())}}}"
        for name, a in weights
    )
    last = f"float[N,{width}] {value}"
    return ir.from_onnx_text(
        f'<ir_version: 8, opset_import: ["": 17]> main (float[N,{width}] x) => ({last}) '
        f"<{listed}> {{ {' '.join(parts)} }}"
    )


def rows(count: int, seed: int, width: int = 24) -> np.ndarray:
    """Skewed, as table columns are."""
    return np.exp(np.random.default_rng(seed).normal(size=(count, width))).astype(np.float32)


def judged_on_others(calibrated_on: int, judged_on: int, seed: int, damage: float = 1.0) -> DataReport:
    data = [{"x": rows(calibrated_on, seed)}]
    model = calibrate(table_model(seed=seed), data, diagnosis=False).model
    value = batchnorm_layers(model)[1].node.inputs[4]
    value.const_value = ir.tensor((value.const_value.numpy() * np.float32(damage)), name=value.name)
    return data_findings(model, [{"x": rows(judged_on, 1000 + seed)}], oracle=False)


def worse_than_info(report: DataReport) -> list[str]:
    return [f"{f.code} {f.message}" for f in report.findings if f.severity != "info"]


@pytest.mark.parametrize("images", [64, 128, 256])
@pytest.mark.parametrize("seed", range(5))
def test_no_finding_on_a_freshly_calibrated_net(images: int, seed: int) -> None:
    assert worse_than_info(judged_on_others(images, 64, seed)) == []


@pytest.mark.parametrize("seed", range(3))
def test_damage_after_calibration_is_found(seed: int) -> None:
    assert any(line.startswith("NF340") for line in worse_than_info(judged_on_others(64, 64, seed, 30.0)))


def test_without_the_record_noise_of_so_few_images_would_be_an_error() -> None:
    """Or the tests above could not fail."""
    found = []
    for seed in range(5):
        model = calibrate(table_model(seed=seed), [{"x": rows(64, seed)}], diagnosis=False).model
        del model.metadata_props[KEY]
        found += worse_than_info(data_findings(model, [{"x": rows(64, 1000 + seed)}], oracle=False))
    assert found


def test_record_names_layers_that_differ() -> None:
    model = lenet()
    record_images(model, 225, {"a": 225, "b": 100, "c": None})
    assert json.loads(model.metadata_props[KEY]) == {"images": 225, "layers": {"b": 100, "c": None}}
    images = recorded_images(model)
    assert [images(site) for site in ("a", "b", "c", "other")] == [225, 100, None, 225]


def test_calibration_writes_it_and_layers_read_it() -> None:
    done = calibrate(lenet(), batches(IMAGES[:100]), diagnosis=False)
    assert [layer.images for layer in batchnorm_layers(done.model)] == [100] * 4
    assert [layer.images for layer in batchnorm_layers(lenet())] == [None] * 4


def test_a_fold_keeps_it() -> None:
    done = calibrate(lenet(), batches(IMAGES[:100]), diagnosis=False)
    result = fold_model(done.model)
    result.model.metadata_props[PROVENANCE] = provenance_entry("0", None, "0", result.provenance, None)
    report = data_findings(result.model, batches(IMAGES[100:]), oracle=False)
    assert len(report.recovered) == 4 and worse_than_info(report) == []
    assert recorded_images(result.model)("getitem") == 100


@pytest.mark.parametrize(
    "entry", ["", "{", "[]", "3", '{"images": -1}', '{"images": true}', '{"images": "9"}', "[" * 100_000]
)
def test_a_record_that_cannot_be_read_says_nothing(entry: str) -> None:
    model = lenet()
    model.metadata_props[KEY] = entry
    assert recorded_images(model)("getitem") is None


@pytest.mark.parametrize(("recorded", "counted"), [(None, HONEST_IMAGES), (8, LEAST_IMAGES), (100, 100)])
def test_noise_is_of_the_recorded_images(recorded: int | None, counted: int) -> None:
    model = lenet()
    if recorded is not None:
        record_images(model, recorded, {})
    layer = batchnorm_layers(model)[0]
    moments = ChannelMoments()
    moments.add(np.random.default_rng(0).normal(size=(50, layer.channels, 4)), 50)
    expected = np.sqrt(moments.between * (1 / 50 + 1 / counted) / (layer.var + layer.epsilon))
    np.testing.assert_allclose(departure(moments, layer).z_noise, expected)


def test_gap_that_noise_explains_is_a_remark() -> None:
    """Training mode differs much on few images; that warns only where a departure is an error."""
    found = []
    for seed in range(5):
        model = calibrate(table_model(seed=seed), [{"x": rows(64, seed)}], diagnosis=False).model
        report = data_findings(model, [{"x": rows(64, 1000 + seed)}])
        found += [(f.code, f.severity) for f in report.findings if f.code == "NF350"]
        assert worse_than_info(report) == []
    assert found
