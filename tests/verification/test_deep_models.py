"""Deep networks, detectors, recognisers: honest folds pass by their own rounding, errors of 3e-3 do not."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from models import real
from normfold.folding import Folded, fold_model
from normfold.verification import VerifyOptions, verify_models
from tests.test_real_models import randomised

pytest.importorskip("onnxruntime")

ERROR = 3e-3


def deep(head: str, blocks: int = 50, channels: int = 16) -> ir.Model:
    """Residual blocks ``x + Conv → BN → Relu`` with random weights, behind them a head."""
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]>
        g (float[1, {channels}, 16, 16] x) => (float[N, M] y) {{ {_body(head, blocks)} }}"""
    )
    arrays: dict[str, np.ndarray] = {"hw": rng.standard_normal((12, channels, 1, 1)) / channels**0.5}
    arrays["flat"] = rng.standard_normal((channels, 40)) / channels**0.5
    for i in range(blocks):
        arrays[f"w{i}"] = rng.standard_normal((channels, channels, 3, 3)) * (2 / (9 * channels)) ** 0.5
        arrays[f"s{i}"] = rng.uniform(0.6, 1.4, channels) * 0.15
        arrays[f"b{i}"], arrays[f"m{i}"] = 0.1 * rng.standard_normal((2, channels))
        arrays[f"v{i}"] = rng.uniform(0.5, 2.0, channels)
    used = {name for node in model.graph.node for name in node.input}
    for name, array in arrays.items():
        if name in used:
            model.graph.initializer.append(onnx.numpy_helper.from_array(array.astype(np.float32), name))
    return ir.from_proto(model)


def _body(head: str, blocks: int) -> str:
    lines, last = [], "x"
    for i in range(blocks):
        lines.append(
            f"c{i} = Conv<pads = [1, 1, 1, 1]>({last}, w{i})"
            f" n{i} = BatchNormalization(c{i}, s{i}, b{i}, m{i}, v{i})"
            f" r{i} = Relu(n{i}) h{i} = Add({last}, r{i})"
        )
        last = f"h{i}"
    pooled = "p = GlobalAveragePool({0}) f = Flatten(p)"
    heads = {
        "classifier": f"{pooled} y = MatMul(f, flat)",
        "detector": "d = Conv({0}, hw) e = Flatten(d) y = Sigmoid(e)",
        "recogniser": f"{pooled} l = MatMul(f, flat) y = Softmax<axis = -1>(l)",
    }
    return " ".join([*lines, heads[head].format(last)])


@cache
def folded_of(head: str) -> tuple[ir.Model, Folded]:
    model = deep(head)
    folded = fold_model(model)
    assert sum(site.action == "folded" for site in folded.sites) == 50
    return model, folded


def with_error(model: ir.Model, layer: int, error: float) -> ir.Model:
    """A copy in which every other channel of one weight is off by a relative error."""
    copy = model.clone()
    convs = [node for node in copy.graph if node.op_type == "Conv"]
    value = convs[layer].inputs[1]
    assert value is not None and value.const_value is not None
    content = value.const_value.numpy().copy()
    content[::2] *= np.float32(1 + error)
    value.const_value = ir.tensor(content, name=value.name)
    return copy


HEADS = ["classifier", "detector", "recogniser"]


@pytest.mark.parametrize("head", HEADS)
def test_honest_fold_of_fifty_layers_passes(head: str) -> None:
    model, folded = folded_of(head)
    found = verify_models(model, folded.model)
    assert found.verdict == "pass", found.messages
    assert {row["bound_from"] for row in found.rounding} == {"float64"}


@pytest.mark.parametrize("layer", [0, 25, 49])
@pytest.mark.parametrize("head", HEADS)
def test_error_in_one_layer_fails_and_is_located(head: str, layer: int) -> None:
    model, folded = folded_of(head)
    found = verify_models(model, with_error(folded.model, layer, ERROR))
    assert found.verdict == "fail"
    assert found.located["value"] == f"n{layer}"


@pytest.mark.parametrize("name", ["paddle-det", "paddle-rec", "paddle-cls"])
@pytest.mark.real
@pytest.mark.slow
def test_models_that_others_trained(name: str, tmp_path: Path) -> None:
    """A detector ending in a sigmoid, a recogniser ending in a softmax, a classifier."""
    file = real.path_or_skip(name)
    model = ir.load(file)
    folded = fold_model(model)
    options = VerifyOptions(shapes={"x": (1, 3, 48, 96) if name != "paddle-det" else (1, 3, 96, 96)})
    found = verify_models(model, folded.model, options)
    assert found.verdict == "pass", found.messages
    wrong = verify_models(model, with_error(folded.model, 0, ERROR), options)
    assert wrong.verdict != "pass"


@pytest.mark.slow
def test_resnet50_with_random_weights() -> None:
    """Random weights saturate its softmax: every output is zero or one, the error shows in front of it."""
    model = ir.from_proto(randomised(real.light()["resnet50"]))
    folded = fold_model(model)
    assert verify_models(model, folded.model).verdict == "pass"
    assert verify_models(model, with_error(folded.model, 20, ERROR)).verdict == "fail"
