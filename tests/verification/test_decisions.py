"""Outputs behind decisions and saturation are compared where rounding cannot hide or inflate a difference."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from normfold.reporting.report import Verification
from normfold.verification import verify_models
from normfold.verification.endtoend.decisions import Cut, find_cut
from normfold.verification.graph_index import GraphIndex
from tests.verification.conftest import model_of

pytest.importorskip("onnxruntime")

RNG = np.random.default_rng(0)
WEIGHT = RNG.standard_normal((64, 64)).astype(np.float32)
FACTORS = RNG.uniform(0.5, 2.0, 64).astype(np.float32)


def pair(tail: str, output: str, error: float = 0.0, shift: float = 0.0) -> tuple[ir.Model, ir.Model]:
    """``MatMul → Mul`` and its fold, each followed by ``tail``, which reads ``b``."""
    header = '<ir_version: 8, opset_import: ["" : 17]> g (float[256, 64] x) => '
    start = {"k": FACTORS, "shift": np.float32(shift), "one": np.array([1])}
    before = header + f"({output}) {{ a = MatMul(x, w) m = Mul(a, k) b = Add(m, shift) {tail} }}"
    after = header + f"({output}) {{ m = MatMul(x, w2) b = Add(m, shift) {tail} }}"
    product = WEIGHT.astype(float) * FACTORS.astype(float) * (1 + error)
    unused = {name: start[name] for name in ("shift", "one") if name in tail or name == "shift"}
    return (
        model_of(before, {"w": WEIGHT, "k": FACTORS, **unused}),
        model_of(after, {"w2": product.astype(np.float32), **unused}),
    )


def codes(found: Verification) -> set[str]:
    return {message.split(":")[0] for message in found.messages}


ROUNDED = "r = Mul(b, big) i = Floor(r) y = Add(i, b)"


def rounded(error: float = 0.0) -> tuple[ir.Model, ir.Model]:
    """Steps so fine that rounding crosses some of them."""
    models = pair(ROUNDED, "float[256, 64] y", error)
    for model in models:
        big = ir.Value(name="big", const_value=ir.tensor(np.float32(4e4), name="big"))
        model.graph.register_initializer(big)
        for node in model.graph:
            if node.op_type == "Mul" and node.outputs[0].name == "r":
                node.replace_input_with(1, big)
    return models


def test_flipped_decisions_are_settled_in_front_of_them() -> None:
    found = verify_models(*rounded())
    assert found.verdict == "pass", found.messages
    by_output = {entry["output"]: entry["status"] for entry in found.rounding}
    assert by_output == {"y": "settled", "r": "pass"} or by_output["y"] == "pass"


def test_error_in_front_of_a_decision_still_fails() -> None:
    assert verify_models(*rounded(error=1e-4)).verdict == "fail"


def test_far_tail_of_a_sigmoid_is_compared_in_front_of_it() -> None:
    found = verify_models(*pair("y = Sigmoid(b)", "float[256, 64] y", shift=-600.0))
    assert found.verdict == "pass", found.messages


def test_error_in_front_of_a_saturated_sigmoid_fails() -> None:
    found = verify_models(*pair("y = Sigmoid(b)", "float[256, 64] y", error=1e-3, shift=-90.0))
    assert found.verdict == "fail" and codes(found) <= {"NF203", "NF211", "NF217"}


def test_top_k_is_cut_at_its_input_and_fed_both_outputs() -> None:
    models = pair("y, i = TopK(b, one)", "float[256, 1] y, int64[256, 1] i")
    cut = find_cut(*map(GraphIndex, models), ["i"])
    assert cut == Cut(fed=("y", "i"), outputs=("b",))
    assert verify_models(*models).verdict == "pass"


def test_argmax_keeps_its_verdict_when_the_scores_are_wrong() -> None:
    first, second = pair("y = ArgMax<axis = 1, keepdims = 0>(b)", "int64[256] y", error=0.0)
    weight = second.graph.initializers["w2"]
    assert weight.const_value is not None
    swapped = weight.const_value.numpy()[:, ::-1].copy()
    weight.const_value = ir.tensor(swapped, name="w2")
    assert verify_models(first, second).verdict == "fail"


def test_nothing_to_cut_at() -> None:
    models = pair("y = Relu(b)", "float[256, 64] y")
    assert find_cut(*map(GraphIndex, models), ["y"]) is None


def test_no_cut_where_the_name_is_not_shared() -> None:
    first, second = pair("y = Sigmoid(b)", "float[256, 64] y")
    for node in second.graph:
        if node.op_type == "Add":
            node.outputs[0].name = "other"
    assert find_cut(*map(GraphIndex, (first, second)), ["y"]) is None
