"""Errors that outputs do not show, and outputs that differ behind values that agree."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from normfold.verification import verify_models
from normfold.verification.endtoend import headtohead
from normfold.verification.endtoend.noise import is_rounded
from normfold.verification.endtoend.reference import _noise_of
from normfold.verification.graph_index import GraphIndex
from normfold.verification.location.matching import aligned
from tests.verification.conftest import ConvBatchNorm, model_of
from tests.verification.test_decisions import pair

pytest.importorskip("onnxruntime")

HIDING = {
    "argmax": ("y = ArgMax<axis = 1, keepdims = 0>(b)", "int64[256] y"),
    "top-k": ("v, y = TopK(b, one)", "int64[256, 1] y"),
    "comparison": ("y = Greater(b, shift)", "bool[256, 64] y"),
    "condition": ("z = Mul(shift, shift) p = Greater(b, shift) y = Where(p, z, shift)", "float[256, 64] y"),
    "sign": ("y = Sign(b)", "float[256, 64] y"),
    "integers": ("t = Tanh(b) s = Div(t, big) y = Cast<to = 7>(s)", "int64[256, 64] y"),
    "clip": ("s = Mul(b, big) l = Neg(one_f) y = Clip(s, l, one_f)", "float[256, 64] y"),
    "error function": ("s = Mul(b, big) y = Erf(s)", "float[256, 64] y"),
    "scaled sigmoid": ("s = Mul(b, big) t = Sigmoid(s) y = Mul(t, k2)", "float[256, 64] y"),
    "large addend": ("c = Mul(big, big) y = Add(b, c)", "float[256, 64] y"),
    "label, then table": (
        "l = ArgMax<axis = 1, keepdims = 0>(b) y = Gather<axis = 1>(k2, l)",
        "float[1, 256] y",
    ),
}


def hiding(name: str, error: float, *, renamed: bool = False) -> tuple[ir.Model, ir.Model]:
    """Two models whose output says little of what is in front of it, with a relative error in the second."""
    tail, output = HIDING[name]
    first, second = pair(tail, output, error)
    extra = {"big": np.float32(1e6), "one_f": np.float32(1), "k2": np.arange(1, 65, dtype=np.float32)[None]}
    for model in (first, second):
        for key, array in extra.items():
            if key in tail:
                add_initializer(model, key, array)
    if renamed:
        for node in second.graph:
            for value in node.outputs:
                if not value.is_graph_output():
                    value.name = f"other_{value.name}"
    return first, second


def add_initializer(model: ir.Model, name: str, array: np.ndarray) -> None:
    """Makes an initializer of what nodes read under a name that nothing has."""
    value = ir.Value(name=name, const_value=ir.tensor(np.asarray(array), name=name))
    model.graph.register_initializer(value)
    for node in model.graph:
        for slot, read in enumerate(node.inputs):
            if read is not None and read.name == name and read is not value:
                node.replace_input_with(slot, value)


@pytest.mark.parametrize("renamed", [False, True], ids=["named alike", "renamed"])
@pytest.mark.parametrize("name", sorted(HIDING))
def test_error_that_outputs_do_not_show_fails(name: str, renamed: bool) -> None:
    found = verify_models(*hiding(name, 1e-3, renamed=renamed))
    assert found.verdict == "fail"
    assert "in front" in found.messages[0] or "do not show it" in found.messages[0]
    assert all(entry["status"] == "pass" for entry in found.rounding if entry["output"] == "y")


@pytest.mark.parametrize("renamed", [False, True], ids=["named alike", "renamed"])
@pytest.mark.parametrize("name", sorted(HIDING))
def test_right_models_pass(name: str, renamed: bool) -> None:
    found = verify_models(*hiding(name, 0.0, renamed=renamed))
    assert found.verdict == "pass", found.messages


BEHIND = {
    "other function": ("y = Sigmoid(b)", "y = HardSigmoid(b)"),
    "negated": ("y = Sigmoid(b)", "n = Neg(b) y = Sigmoid(n)"),
    "other axis": ("y = Softmax<axis = 1>(b)", "y = Softmax<axis = 0>(b)"),
    "other layout": (
        "t = Sigmoid(b) y = Transpose<perm = [0, 1]>(t)",
        "t = Sigmoid(b) i = Transpose<perm = [1, 0]>(t) z = Shape(t) y = Reshape(i, z)",
    ),
    "other decision": (
        "t = ArgMax<axis = 1>(b) y = Cast<to = 1>(t)",
        "t = ArgMin<axis = 1>(b) y = Cast<to = 1>(t)",
    ),
    "other threshold": ("t = Floor(b) y = Add(t, b)", "t = Ceil(b) y = Add(t, b)"),
}


@pytest.mark.parametrize("name", sorted(BEHIND))
def test_what_saturates_or_decides_otherwise_is_a_difference(name: str) -> None:
    """Both models agree in front of it, which settles nothing."""
    tails = BEHIND[name]
    output = "float[256, N] y"
    assert verify_models(pair(tails[0], output)[0], pair(tails[0], output)[1]).verdict == "pass"
    assert verify_models(pair(tails[0], output)[0], pair(tails[1], output)[1]).verdict == "fail"


def test_other_constant_of_a_decision_is_a_difference() -> None:
    tail = "t = Greater(b, k) y = Cast<to = 1>(t)"
    first, second = pair(tail, "float[256, 64] y")
    assert first.graph.initializers["k"].const_value is not None
    add_initializer(second, "k", first.graph.initializers["k"].const_value.numpy())
    assert verify_models(first, second).verdict == "pass"
    second.graph.initializers["k"].const_value = ir.tensor(np.full(64, 0.5, np.float32), name="k")
    assert verify_models(first, second).verdict == "fail"


def test_error_below_the_rounding_of_operators_shows_in_float64(conv_bn: type[ConvBatchNorm]) -> None:
    """One weight in 36,864, off by 5e-5."""
    model = conv_bn(64, inputs=64)

    def spoil(weight: np.ndarray, _bias: np.ndarray) -> None:
        weight[5, 3, 1, 1] += 5e-5

    right, wrong = model.pair(), model.pair(spoil)
    assert verify_models(right.original, right.folded).verdict == "pass"
    found = verify_models(wrong.original, wrong.folded)
    assert found.verdict == "fail"
    assert any("in float64" in message for message in found.messages), found.messages
    assert found.located["value"] == "y"


def test_value_that_differs_without_consequence_is_not_where_models_part() -> None:
    """The bias in front of the normalisation is dead; the error is in the last weight."""
    header = """<ir_version: 8, opset_import: ["" : 17]> g (float[1, 3, 8, 8] x) => (float[N, C, H, W] y) {"""
    rng = np.random.default_rng(0)
    w, v = (rng.standard_normal(s).astype(np.float32) for s in ((4, 3, 3, 3), (5, 4, 1, 1)))
    rest = {"one": np.ones(4, np.float32), "zero": np.zeros(4, np.float32)}
    tail = "n = InstanceNormalization(c, one, zero) r = Relu(n) y = Conv(r, v) }"
    first = model_of(
        f"{header} c = Conv(x, w, b) {tail}", {"w": w, "b": np.arange(4, dtype=np.float32), "v": v, **rest}
    )
    bad = v.copy()
    bad[2] *= -1
    second = model_of(f"{header} c = Conv(x, w) {tail}", {"w": w, "v": bad, **rest})
    found = verify_models(first, second)
    assert found.verdict == "fail"
    assert found.located["value"] == "y" and found.located["agreeing"] == ["r"]


def test_names_are_aligned_where_values_correspond() -> None:
    first, second = hiding("argmax", 0.0, renamed=True)
    copy = aligned(GraphIndex(first), GraphIndex(second))
    assert "b" in {value.name for node in copy.graph for value in node.outputs}
    assert "other_b" in {value.name for node in second.graph for value in node.outputs}


def test_names_that_crossed_are_not_taken_for_the_same() -> None:
    """The second model calls the product what the first calls the sum, and the other way round."""
    header = '<ir_version: 8, opset_import: ["" : 17]> g (float[4, 4] x) => (float[4, 4] y) {'
    rest = {"w": np.eye(4, dtype=np.float32), "k": np.full(4, 2.0, np.float32)}
    first = model_of(f"{header} p = MatMul(x, w) q = Add(p, k) r = Abs(q) y = Sqrt(r) }}", rest)
    second = model_of(f"{header} q = MatMul(x, w) p = Add(q, k) r = Abs(p) y = Sqrt(r) }}", rest)
    copy = aligned(GraphIndex(first), GraphIndex(second))
    assert [node.outputs[0].name for node in copy.graph] == ["p", "q", "r", "y"]


def test_weights_in_constant_nodes_are_rounded_anew_too(conv_bn: type[ConvBatchNorm]) -> None:
    """Otherwise an honest fold would have no room, and a power of two would become one of a fraction."""
    pair_of = conv_bn(tail="Relu").pair()
    named = {name: value.const_value for name, value in pair_of.original.graph.initializers.items()}
    as_nodes = pair_of.original.clone()
    first = next(iter(as_nodes.graph))
    for name, tensor in named.items():
        assert tensor is not None
        node = ir.node("Constant", [], {"value": tensor})
        node.outputs[0].name = name
        value = as_nodes.graph.initializers.pop(name)
        value.replace_all_uses_with(node.outputs[0])
        as_nodes.graph.insert_before(first, node)
    (plain, lifted) = (verify_models(model, pair_of.folded) for model in (pair_of.original, as_nodes))
    assert lifted.verdict == "pass", lifted.messages
    assert lifted.rounding[0]["bound"] == pytest.approx(plain.rounding[0]["bound"], rel=0.5)


def test_exponent_is_not_rounded_anew() -> None:
    header = '<ir_version: 8, opset_import: ["" : 17]> g (float[4, 3] x) => (float[4, 3] y) {'
    rest = {"w": np.eye(3, dtype=np.float32) * np.float32(1.1), "two": np.float32(2.0)}
    model = model_of(f"{header} p = MatMul(x, w) y = Pow(p, two) }}", rest)
    assert [is_rounded(ir.tensor(array)) for array in rest.values()] == [True, False]
    found = verify_models(model, model.clone())
    assert found.verdict == "pass" and found.rounding[0]["bound"] > 1e-6


@pytest.mark.parametrize("wrong", [False, True])
def test_weights_that_nodes_make_round_alike(wrong: bool) -> None:
    """Filled by ConstantOfShape: all weights of all layers get the same rounding error, and it adds up."""
    layers, fill = 24, np.float32(0.0109375)
    product = np.full((8, 8), np.float64(fill) * 13.0).astype(np.float32)
    assert abs(np.float64(product[0, 0]) / (np.float64(fill) * 13.0) - 1) > 0.3 * 2.0**-23
    first = "".join(f" m{i} = MatMul(y{i}, w0) y{i + 1} = Mul(m{i}, k)" for i in range(layers))
    second = "".join(f" y{i + 1} = MatMul(y{i}, w)" for i in range(layers))
    header = '<ir_version: 8, opset_import: ["" : 17]> g (float[4, 8] y0) => (float[4, 8] y24) {'
    a = model_of(
        f"{header} w0 = ConstantOfShape<value = float {{0.0109375}}>(s) {first} }}",
        {"s": np.array([8, 8]), "k": np.float32(13)},
    )
    if wrong:
        product[3] *= np.float32(1 + 1e-3)
    found = verify_models(a, model_of(f"{header} {second} }}", {"w": product}))
    assert found.verdict == ("fail" if wrong else "pass"), found.messages


def test_noise_is_uniform_and_the_same_for_equal_numbers() -> None:
    numbers = np.random.default_rng(0).standard_normal(100_000)
    noise = _noise_of(numbers, (0, 1))
    assert np.array_equal(_noise_of(numbers[::-1].copy(), (0, 1)), noise[::-1])
    assert not np.array_equal(_noise_of(numbers, (0, 2)), noise)
    assert noise.min() >= -1 and noise.max() < 1
    assert abs(noise.mean()) < 0.01 and noise.std() == pytest.approx(1 / np.sqrt(3), rel=0.01)
    assert abs(np.corrcoef(noise[:-1], noise[1:])[0, 1]) < 0.02


def test_what_the_optimiser_does_inside_is_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both models are the same, and onnxruntime changes the scores in front of a label by fusing nodes."""
    real = headtohead.sweep

    def fused(runtime: Any, files: Any, provider: str, batches: Any, outputs: Any, **named: Any) -> Any:
        found = real(runtime, files, provider, batches, outputs, **named)
        if "cut" in files[0].stem:
            for outcome in (found.original[True], found.folded[True]):
                for run in outcome.runs:
                    run["b"] = run["b"] + np.float32(0.1)
        return found

    monkeypatch.setattr(headtohead, "sweep", fused)
    model, _ = hiding("argmax", 0.0)
    found = verify_models(model, model.clone())
    assert found.verdict == "pass", found.messages
    assert {entry["output"] for entry in found.rounding} == {"y", "b"}
    assert all(entry["status"] == "pass" for entry in found.rounding)
