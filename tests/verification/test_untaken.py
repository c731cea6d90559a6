"""What one input does not show: the other branch of an If, the body of a Loop, other sizes."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from normfold.verification import VerifyOptions, verify_models
from tests.verification.conftest import model_of

pytest.importorskip("onnxruntime")

HEADER = '<ir_version: 8, opset_import: ["" : 17]> '
RNG = np.random.default_rng(0)
WEIGHT = RNG.standard_normal((3, 3)).astype(np.float32)
BIAS = RNG.standard_normal(3).astype(np.float32)
WRONG = WEIGHT * np.float32(1.001)

CONDITIONS = {
    "an input": (", bool c", ""),
    "the number of rows": (
        "",
        "s = Shape(x) n = ReduceMax<keepdims = 0>(s) l = Constant<value_int = 900>() c = Greater(n, l)",
    ),
    "what the rows hold": (
        "",
        "m = ReduceMax<keepdims = 0>(x) l = Constant<value_float = 900.0>() c = Greater(m, l)",
    ),
}


def branched(condition: str, then: np.ndarray, other: np.ndarray, *, split: str = "") -> ir.Model:
    more, made = CONDITIONS[condition]
    text = f"""{HEADER} g (float[rows, 3] x{more}) => (float[N, M] y) {{ {made}
        y = If(c)<then_branch = t () => (float[N, M] p) {{ p0 = MatMul(x, w) p = Add(p0, b) }},
                  else_branch = e () => (float[N, M] q) {{ {split} q0 = MatMul(x, v) q = Add(q0, b) }}>
    }}"""
    return model_of(text, {"w": then, "v": other, "b": BIAS})


@pytest.mark.parametrize("condition", sorted(CONDITIONS))
@pytest.mark.parametrize("wrong", ["then", "else", "neither"])
def test_both_branches_are_compared(condition: str, wrong: str) -> None:
    first = branched(condition, WEIGHT, WEIGHT)
    second = branched(condition, WRONG if wrong == "then" else WEIGHT, WRONG if wrong == "else" else WEIGHT)
    found = verify_models(first, second)
    assert found.verdict == ("pass" if wrong == "neither" else "fail"), found.messages


@pytest.mark.parametrize("wrong", [True, False])
def test_branch_that_does_not_run_is_named_where_it_differs(wrong: bool) -> None:
    """The then-branch wants a multiple of 11 numbers."""
    rows, text = CONDITIONS["what the rows hold"][1], "p0 = Reshape(x, r) p = {}(p0, p0)"

    def model(operator: str) -> ir.Model:
        body = f"""{HEADER} g (float[rows, 3] x) => (float[N, M] y) {{ {rows}
            y = If(c)<then_branch = t () => (float[N, M] p) {{ {text.format(operator)} }},
                      else_branch = e () => (float[N, M] q) {{ q = MatMul(x, v) }}>
        }}"""
        return model_of(body, {"v": WEIGHT, "r": np.array([-1, 11])})

    found = verify_models(model("Add"), model("Sub" if wrong else "Add"))
    assert found.verdict == ("inconclusive" if wrong else "pass"), found.messages
    assert any(message.startswith("NF220: the If that makes 'y'") for message in found.messages) is wrong


@pytest.mark.parametrize(("weight", "verdict"), [(WEIGHT, "pass"), (WRONG, "fail")])
def test_loop_of_a_number_given_as_input_is_entered(weight: np.ndarray, verdict: str) -> None:
    text = f"""{HEADER} g (float[rows, 3] x, int64 n) => (float[N, M] y) {{
        y = Loop(n, , x)<body = l (int64 i, bool k, float[N, 3] s) => (bool o, float[N, 3] t)
            {{ o = Identity(k) t = MatMul(s, w) }}> }}"""
    found = verify_models(model_of(text, {"w": WEIGHT}), model_of(text, {"w": weight}))
    assert found.verdict == verdict, found.messages


@pytest.mark.parametrize(
    "other",
    [
        "AveragePool<kernel_shape = [32, 32]>(x)",
        "AveragePool<kernel_shape = [32, 32], strides = [32, 32]>(x)",
    ],
    ids=["more positions", "a part of the image"],
)
def test_right_at_one_size_only_fails(other: str) -> None:
    text = f"{HEADER} g (float[n, 3, h, w] x) => (float[N, C, H, W] y) {{ y = %s }}"
    found = verify_models(model_of(text % "GlobalAveragePool(x)", {}), model_of(text % other, {}))
    assert found.verdict == "fail"
    shapes = [run["shapes"]["x"] for run in found.inputs["runs"]]
    assert len(shapes) == 2 and all(a != b for a, b in zip(*shapes, strict=True) if a != 3)


def test_sizes_that_are_given_stay() -> None:
    text = f"{HEADER} g (float[n, 3, h, w] x) => (float[N, C, H, W] y) {{ y = Relu(x) }}"
    models = model_of(text, {}), model_of(text, {})
    found = verify_models(*models, VerifyOptions(dims={"h": 8, "w": 6}))
    assert [run["shapes"]["x"][2:] for run in found.inputs["runs"]] == [[8, 6], [8, 6]]
    found = verify_models(*models, VerifyOptions(shapes={"x": (2, 3, 8, 6)}))
    assert [run["shapes"]["x"] for run in found.inputs["runs"]] == [[2, 3, 8, 6]]


def test_second_size_that_the_evaluator_turns_down_is_not_taken() -> None:
    """A pool larger than its input: runtimes compute something all the same, and there is no reference."""
    text = f"""{HEADER} g (float[n, 3, h, w] x) => (float[N, C, H, W] y) {{
        p = MaxPool<kernel_shape = [40, 40], strides = [40, 40]>(x) y = Relu(p) }}"""
    found = verify_models(model_of(text, {}), model_of(text, {}))
    assert found.verdict == "pass" and not any("NF209" in message for message in found.messages)
    assert all(run["shapes"]["x"][2] >= 40 for run in found.inputs["runs"])


def windowed(dilation: int) -> ir.Model:
    """A causal convolution of two taps over an open length."""
    text = f"""{HEADER} g (float[N, 3, L] x) => (float[N, 3, M] y) {{
        y = Conv<dilations = [{dilation}], pads = [{dilation}, 0], kernel_shape = [2]>(x, w)
    }}"""
    return model_of(text, {"w": RNG.standard_normal((3, 3, 2)).astype(np.float32)})


@pytest.mark.parametrize("dilation", [3, 40])
@pytest.mark.parametrize("thorough", [False, True])
def test_open_lengths_hold_the_widest_window(dilation: int, thorough: bool) -> None:
    first, second = windowed(dilation), windowed(dilation + 1)
    weight = first.graph.initializers["w"].const_value
    second.graph.initializers["w"].const_value = weight
    options = VerifyOptions(thorough=thorough)
    assert verify_models(first, second, options).verdict == "fail"
    assert verify_models(first, first.clone(), options).verdict == "pass"
