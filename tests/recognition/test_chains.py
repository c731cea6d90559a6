"""Affines written by hand: any spelling, operands in either position, constants from expressions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

SHAPES = {"C11": (6, 1, 1), "1C11": (1, 6, 1, 1), "scalar": (), "one": (1,), "1111": (1, 1, 1, 1)}


def behind_conv(check: Any, body: str, constants: dict[str, np.ndarray], opset: int = 20) -> Any:
    """``body`` turns ``c``, the result of a Conv with 6 channels, into ``y``."""
    return check.model(
        f"g (float[N, 3, H, W] x) => (float[N, 6, H2, W2] y) {{ c = Conv (x, w) {body} }}",
        check.weights(7, w=(6, 3, 3, 3)) | constants,
        opset=opset,
    )


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize(
    "node",
    [f"{op} ({a})" for op in ("Mul", "Add", "Sub", "Sum") for a in ("c, k", "k, c")]
    + ["Div (c, k)", "Neg (c)"],
)
def test_one_node(check: Any, node: str, shape: tuple[int, ...]) -> None:
    check(behind_conv(check, f"y = {node}", check.weights(k=shape))).gone("Conv")


def test_a_constant_divided_by_the_value_is_no_affine(check: Any) -> None:
    outcome = check(behind_conv(check, "y = Div (k, c)", check.weights(k=(6, 1, 1))))
    assert not outcome.folded.changed and sorted(outcome.ops) == ["Conv", "Div"]


def test_a_division_by_zero_is_reported(check: Any) -> None:
    k = np.array([1.0, 2.0, 0.0, 4.0, 5.0, 6.0], np.float32).reshape(6, 1, 1)
    folded = check.fold_only(behind_conv(check, "y = Div (c, k)", {"k": k}))
    assert [(s.code, s.reason) for s in folded.sites] == [("NF108", "it divides by zero")]


@pytest.mark.parametrize("node", ["Mul (c, c)", "Add (c, c)", "Sub (c, c)"])
def test_both_operands_the_same_value_is_no_affine_here(check: Any, node: str) -> None:
    check(behind_conv(check, f"y = {node}", {}))


_STEPS = {
    "Mul (k, {v})": True,
    "Mul ({v}, k)": True,
    "Add ({v}, k)": True,
    "Sub (k, {v})": True,
    "Sub ({v}, k)": True,
    "Div ({v}, k)": True,
    "Neg ({v})": False,
    "Identity ({v})": False,
    "Dropout ({v})": False,
    "BatchNormalization ({v}, s, b, m, v)": False,
}


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_any_chain_goes_into_the_conv(check: Any, data: st.DataObject) -> None:
    body, constants, value = "", check.batchnorm(6), "c"
    for index in range(data.draw(st.integers(1, 5), label="length")):
        step = data.draw(st.sampled_from(sorted(_STEPS)), label="step").format(v=value)
        if ", k)" in step or "(k," in step:
            shape = data.draw(st.sampled_from(sorted(SHAPES)), label="shape")
            name = f"k{index}"
            magnitude = np.random.default_rng(index).uniform(0.5, 2.0, SHAPES[shape])
            constants[name] = (magnitude * data.draw(st.sampled_from([-1, 1]))).astype(np.float32)
            step = step.replace("(k,", f"({name},").replace(", k)", f", {name})")
        body, value = f"{body} t{index} = {step}", f"t{index}"
    body += f" y = Sigmoid ({value})"
    # Small variances in a row amplify what cancels.
    outcome = check(behind_conv(check, body, constants), tolerance=1e-10)
    if outcome.folded.changed:
        outcome.gone("Conv", "Sigmoid")
    else:
        assert set(outcome.ops) <= {"Conv", "Identity", "Dropout", "Sigmoid"}


HAND_WRITTEN = {
    "pytorch eval: Sub Div Mul Add": """
        d = Sub (c, m) n = Div (d, sd) t = Mul (n, s) y = Add (t, b)""",
    "sqrt of var + eps in the graph": """
        e = Constant <value = float {1e-5}> () q = Add (v, e) sq = Sqrt (q)
        d = Sub (c, m) n = Div (d, sq) t = Mul (s, n) y = Add (b, t)""",
    "reciprocal of the root": """
        e = Constant <value = float {1e-5}> () q = Add (v, e) sq = Sqrt (q) r = Reciprocal (sq)
        d = Sub (c, m) n = Mul (d, r) t = Mul (s, n) y = Add (b, t)""",
    "power -0.5": """
        e = Constant <value = float {1e-5}> () h = Constant <value = float {-0.5}> ()
        q = Add (v, e) r = Pow (q, h) d = Sub (c, m) n = Mul (d, r) t = Mul (s, n) y = Add (b, t)""",
    "TensorFlow: x * inv + (offset - mean * inv)": """
        e = Constant <value = float {1e-5}> () q = Add (v, e) sq = Sqrt (q) r = Reciprocal (sq)
        inv = Mul (r, s) mi = Mul (m, inv) off = Sub (b, mi) t = Mul (c, inv) y = Add (t, off)""",
    "gamma scaled by one over sigma": """
        e = Constant <value = float {1e-5}> () q = Add (v, e) sq = Sqrt (q)
        d = Sub (c, m) g = Div (s, sq) t = Mul (g, d) y = Add (t, b)""",
}


@pytest.mark.parametrize("body", HAND_WRITTEN.values(), ids=HAND_WRITTEN)
def test_hand_written_normalisation(check: Any, body: str) -> None:
    parameters = {name: array.reshape(6, 1, 1) for name, array in check.batchnorm(6).items()}
    parameters["sd"] = np.sqrt(parameters["v"] + np.float32(1e-5))
    outcome = check(behind_conv(check, body, parameters))
    outcome.gone("Conv")


@pytest.mark.parametrize("name", [name for name in HAND_WRITTEN if "pytorch" not in name])
def test_the_expression_is_evaluated_in_double(check: Any, name: str) -> None:
    """The exact bias is what the definition gives in float64, not what float32 steps give."""
    body = HAND_WRITTEN[name]
    flat = {k: a.astype(np.float64) for k, a in check.batchnorm(6).items()}
    parameters = {name: array.reshape(6, 1, 1) for name, array in check.batchnorm(6).items()}
    outcome = check(behind_conv(check, body, parameters))
    scale = flat["s"] / np.sqrt(flat["v"] + np.float64(np.float32(1e-5)))
    bias = outcome.proto.graph.node[0].input[2]
    np.testing.assert_allclose(outcome.folded.exact[bias](), flat["b"] - flat["m"] * scale, rtol=1e-13)


SOURCES = {
    "Constant node": "k = Constant <value = float[6, 1, 1] {1.5, -2, 3, 0.5, 1, -1}> ()",
    "Unsqueeze": "ax = Constant <value = int64[2] {1, 2}> () k = Unsqueeze (p, ax)",
    "Reshape": "sh = Constant <value = int64[4] {1, -1, 1, 1}> () k = Reshape (p, sh)",
    "Cast": "h = Cast <to = 10> (p3) k = Cast <to = 1> (h)",
    "ConstantOfShape": "sh = Constant <value = int64[3] {6, 1, 1}> ()"
    " k = ConstantOfShape <value = float[1] {2.5}> (sh)",
    "Identity": "k = Identity (p3)",
    "Expand": "sh = Constant <value = int64[3] {6, 1, 1}> () q = Constant <value = float {0.3}> ()"
    " k = Expand (q, sh)",
    "Transpose": "k = Transpose <perm = [2, 1, 0]> (pt)",
    "Shape of a constant": "sh = Shape (p3) k = ConstantOfShape <value = float[1] {-0.75}> (sh)",
    "Concat, Slice": "z = Concat <axis = 0> (p3, p3) f = Constant <value = int64[1] {3}> ()"
    " t = Constant <value = int64[1] {9}> () k = Slice (z, f, t)",
}


@pytest.mark.parametrize("node", ["Mul", "Add"])
@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_where_constants_come_from(check: Any, source: str, node: str) -> None:
    constants = check.weights(p=6, p3=(6, 1, 1), pt=(1, 1, 6))
    used = {name: array for name, array in constants.items() if f"{name}," in source or f"{name})" in source}
    check(behind_conv(check, f"{source} y = {node} (c, k)", used)).gone("Conv")


class TestBeforeOpset7:
    """The second operand is broadcast only where ``broadcast`` says so, laid from ``axis`` on."""

    @pytest.mark.parametrize("op_type", ["Mul", "Add", "Sub", "Div"])
    def test_axis_one_is_the_channel(self, check: Any, op_type: str) -> None:
        body = f"y = {op_type} <broadcast = 1, axis = 1> (c, k)"
        check(behind_conv(check, body, check.weights(k=6), opset=6)).gone("Conv")

    @pytest.mark.parametrize("shape", [(1,), (6, 1, 1), ()])
    def test_without_axis_the_last_ones_match(self, check: Any, shape: tuple[int, ...]) -> None:
        check(behind_conv(check, "y = Mul <broadcast = 1> (c, k)", check.weights(k=shape), opset=6)).gone(
            "Conv"
        )

    def test_an_axis_that_the_conv_does_not_have(self, check: Any) -> None:
        model = check.model(
            """g (float[N, 3, 6, 6] x) => (float[N, 6, 6, 6] y) {
                c = Conv (x, w)
                y = Mul <broadcast = 1, axis = 2> (c, k)
            }""",
            check.weights(w=(6, 3, 1, 1), k=6),
            opset=6,
        )
        check(model).kept("NF110")

    def test_what_stays_is_spelled_in_the_old_way(self, check: Any) -> None:
        """Two affines on an input merge; what is left carries broadcast and axis."""
        model = check.model(
            """g (float[N, 6, H, W] x) => (float[N, 6, H, W] y) {
                r = Sigmoid (x)
                a = Mul <broadcast = 1, axis = 1> (r, k)
                b = Mul <broadcast = 1, axis = 1> (a, l)
                y = Sigmoid (b)
            }""",
            check.weights(k=6, l=6),
            opset=6,
        )
        outcome = check(model)
        assert outcome.counts["Mul"] + outcome.counts["BatchNormalization"] == 1


class TestBroadcasting:
    def test_trailing_axis_of_a_linear_layer(self, check: Any) -> None:
        model = check.model(
            "g (float[N, 4] x) => (float[N, 6] y) { c = Gemm (x, w) y = Mul (c, k) }",
            check.weights(w=(4, 6), k=6),
        )
        check(model).gone("Gemm")

    @pytest.mark.parametrize("shape", [(2, 6, 1, 1), (2, 1, 1, 1)])
    def test_a_constant_that_enlarges(self, check: Any, shape: tuple[int, ...]) -> None:
        model = check.model(
            "g (float[1, 3, 5, 5] x) => (float[A, B, C, D] y) {"
            " c = Conv (x, w) m = Mul (k, c) y = Tanh (m) }",
            check.weights(w=(6, 3, 1, 1), k=shape),
        )
        outcome = check(model)
        assert outcome.kept("NF113").site == "m"

    def test_a_constant_that_raises_the_rank(self, check: Any) -> None:
        model = check.model(
            "g (float[1, 3, 5, 5] x) => (float[A, B, C, D, E] y) {"
            " c = Conv (x, w) m = Mul (k, c) y = Tanh (m) }",
            check.weights(w=(6, 3, 1, 1), k=(1, 1, 6, 1, 1)),
        )
        assert check(model).kept("NF113").site == "m"

    def test_a_symbolic_dimension_may_be_one(self, check: Any) -> None:
        model = check.model(
            "g (float[N, 3] x) => (float[4, 3] y) { r = Relu (x) y = Mul (r, k) }",
            check.weights(k=(4, 1)),
        )
        assert [s.code for s in check.fold_only(model).sites] == ["NF113"]

    def test_integers_are_left_alone(self, check: Any) -> None:
        model = check.model(
            """g (int64[N, 4] x) => (int64[N, 4] y) { a = Mul (x, k) b = Add (a, l) y = Sub (b, k) }""",
            {"k": np.arange(4), "l": np.arange(4)},
        )
        outcome = check(model)
        assert outcome.folded.sites == [] and not outcome.folded.changed

    def test_a_varying_axis_per_row_of_a_gemm(self, check: Any) -> None:
        model = check.model(
            "g (float[5, 4] x) => (float[5, 6] y) { c = Gemm (x, w) y = Mul (c, k) }",
            check.weights(w=(4, 6), k=(5, 1)),
        )
        check(model).kept("NF110")


def test_two_affines_between_activations_become_one(check: Any) -> None:
    model = check.model(
        """g (float[N, 6, H, W] x) => (float[N, 6, H, W] y) {
            r = Sigmoid (x)
            a = Mul (r, k)
            d = Add (a, l)
            n = BatchNormalization (d, s, b, m, v)
            y = Sigmoid (n)
        }""",
        check.weights(k=(6, 1, 1), l=(6, 1, 1)) | check.batchnorm(6),
    )
    outcome = check(model)
    assert sorted(outcome.ops) == ["BatchNormalization", "Sigmoid", "Sigmoid"]
    assert {s.action for s in outcome.folded.sites} == {"merged"}


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_merging_does_not_leave_the_range_of_the_type(check: Any, dtype: Any) -> None:
    """Two harmless factors whose product is not a number of the type stay two nodes."""
    kind = {np.float16: "float16", np.float32: "float"}[dtype]
    large = np.full((6, 1, 1), np.finfo(dtype).max ** 0.7).astype(dtype) * np.linspace(1, 2, 6).reshape(
        6, 1, 1
    )
    model = check.model(
        f"""g ({kind}[N, 6, H, W] x) => ({kind}[N, 6, H, W] y) {{
            r = Sigmoid (x)
            a = Mul (r, k)
            d = Mul (a, k)
            y = Sigmoid (d)
        }}""",
        {"k": large.astype(dtype)},
    )
    outcome = check(model)
    for tensor in outcome.proto.graph.initializer:
        assert np.isfinite(outcome.tensor(tensor.name)).all()


def test_a_neutral_factor_disappears(check: Any) -> None:
    model = check.model(
        "g (float[N, 6] x) => (float[N, 6] y) { r = Relu (x) a = Mul (r, k) y = Tanh (a) }",
        {"k": np.ones(6, np.float32)},
    )
    check(model).gone("Relu", "Tanh")


def test_a_negation_twice_disappears(check: Any) -> None:
    model = check.model("g (float[N, 6] x) => (float[N, 6] y) { r = Relu (x) a = Neg (r) y = Neg (a) }", {})
    outcome = check(model)
    assert "Neg" not in outcome.ops


def test_what_is_no_batchnorm_is_a_product_and_a_sum(check: Any) -> None:
    """Along the width no BatchNormalization says it: ``(r·k + l)·k + l`` becomes one Mul and one Add."""
    model = check.model(
        """g (float[N, 3, 4, 6] x) => (float[N, 3, 4, 6] y) {
            r = Sigmoid (x)
            a = Mul (r, k)
            d = Add (a, l)
            e = Mul (d, k)
            n = Add (e, l)
            y = Sigmoid (n)
        }""",
        check.weights(k=6, l=6),
    )
    assert check(model).ops == ["Sigmoid", "Mul", "Add", "Sigmoid"]
