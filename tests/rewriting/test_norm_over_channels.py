"""A LayerNorm over channels that is spelled out becomes one operator where that is faster."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.helper as oh
import onnx_ir as ir
import pytest
import torch

from models.single_norms import EPSILON, layernorm_over_channels, rmsnorm
from normfold import fold
from normfold.evaluation import Evaluator
from normfold.folding import fold_model
from normfold.options import FoldOptions

SHAPE = (2, 12, 4, 5)
OPERATOR = ["Transpose", "LayerNormalization", "Transpose"]


def model_of(opset: int = 23) -> onnx.ModelProto:
    model = layernorm_over_channels(SHAPE)["hand-written"]
    model.opset_import[0].version = opset
    return model


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def test_it_is_one_operator_and_means_the_same() -> None:
    model = model_of()
    result = fold(model)
    assert operators(result.model) == OPERATOR
    assert result.report.verification.verdict == "pass"
    assert [(s.kind, s.action, s.rule) for s in result.report.sites] == [
        ("layernorm", "substituted", "layernorm")
    ]
    onnx.checker.check_model(result.proto(), full_check=True)
    parameters = {
        t.name: torch.tensor(onnx.numpy_helper.to_array(t)).double() for t in model.graph.initializer
    }
    x = np.random.default_rng(5).standard_normal(SHAPE)
    expected = torch.nn.functional.layer_norm(
        torch.tensor(x).permute(0, 2, 3, 1),
        SHAPE[1:2],
        parameters["g"].flatten(),
        parameters["b"].flatten(),
        float(np.float32(EPSILON)),
    ).permute(0, 3, 1, 2)
    np.testing.assert_allclose(
        Evaluator(result.model).run({"x": x})["y"], expected.numpy(), rtol=1e-9, atol=1e-12
    )
    assert not fold(result.model).changed


@pytest.mark.parametrize("options", [{"target": "portable"}, {"target": "ort-cpu", "groupnorm": "keep"}, {}])
def test_elsewhere_it_stays(options: dict[str, str]) -> None:
    folded = fold_model(ir.from_proto(model_of()), FoldOptions(**options))
    assert "LayerNormalization" not in operators(folded.model)


def test_before_opset_17_there_is_no_such_operator() -> None:
    model = model_of(opset=16)
    for node in model.graph.node:
        if node.op_type == "ReduceMean":
            del node.input[1]
            node.attribute.append(oh.make_attribute("axes", [1]))
    assert "LayerNormalization" not in operators(
        fold_model(ir.from_proto(model), FoldOptions(target="ort-cpu")).model
    )


@pytest.mark.parametrize("kind", ["hand-written", "one operator"])
def test_rmsnorm_stays(kind: str) -> None:
    """onnxruntime fuses it as it is."""
    model = rmsnorm((2, 7, 12))[kind]
    assert not fold_model(ir.from_proto(model), FoldOptions(target="ort-cpu")).changed


def test_a_layernorm_whose_scale_went_into_a_layer_is_no_instancenorm(check: Any) -> None:
    """On rank 3 both average over the last axis; a scale per channel tells them apart."""
    body = """m = ReduceMean (x, last) c = Sub (x, m) q = Mul (c, c) v = ReduceMean (q, last)
        e = Add (v, eps) d = Sqrt (e) n = Div (c, d)"""
    constants = check.weights(g=(5,), h=(4, 1), w=(5, 2)) | {
        "last": np.array([-1]),
        "eps": np.array(1e-3, np.float32),
    }
    options = FoldOptions(target="portable")
    for tail, expected in (("y = MatMul (n, w)", False), ("s = Mul (n, h) y = MatMul (s, w)", True)):
        used = {k: v for k, v in constants.items() if k not in "gh" or f", {k})" in tail}
        text = f"g (float[2, 4, 5] x) => (float[2, 4, 2] y) {{ {body} {tail} }}"
        folded = fold_model(ir.from_proto(check.model(text, used)), options)
        assert ("InstanceNormalization" in operators(folded.model)) is expected
        if not expected:
            (site,) = (site for site in folded.sites if site.code == "NF403")
            assert "LayerNorm" in (site.reason or "")
