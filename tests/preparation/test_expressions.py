"""Expressions of constants are evaluated once, in float64, where that takes no more room."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from normfold.preparation.workspace import Workspace


def standardised(weight: np.ndarray, epsilon: float) -> np.ndarray:
    flat = weight.astype(np.float64).reshape(len(weight), -1)
    flat = flat - flat.mean(1, keepdims=True)
    flat /= np.sqrt((flat**2).mean(1, keepdims=True) + epsilon)
    return flat.reshape(weight.shape)


def test_weight_standardisation_by_a_training_batchnorm(check: Any) -> None:
    """As exporters leave it: the weight is a batch of one with a channel per filter."""
    constants = check.weights(w=(6, 3, 3, 3), g=6) | {
        "one": np.ones(6, np.float32),
        "zero": np.zeros(6, np.float32),
    }
    model = check.model(
        """g (float[N, 3, H, W] x) => (float[N, 6, H2, W2] y) {
            to = Constant <value = int64[3] {1, 6, -1}> ()
            back = Constant <value = int64[4] {6, 3, 3, 3}> ()
            flat = Reshape (w, to)
            n, rm, rv = BatchNormalization <training_mode = 1, epsilon = 1e-6> (flat, one, zero, zero, one)
            k = Reshape (n, back)
            y = Conv (x, k)
        }""",
        constants,
        opset=15,
    )
    del model.graph.node[2].output[3:]
    model.graph.initializer.remove(next(t for t in model.graph.initializer if t.name == "g"))
    outcome = check(model)
    outcome.gone("Conv")
    weight = outcome.proto.graph.node[0].input[1]
    expected = standardised(constants["w"], float(np.float32(1e-6)))
    np.testing.assert_allclose(outcome.folded.exact[weight](), expected, rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(outcome.tensor(weight), expected.astype(np.float32))


def test_weight_norm(check: Any) -> None:
    """g · v / ‖v‖, the norm taken per filter, then a BatchNormalization behind the Conv."""
    constants = check.weights(dir=(6, 3, 3, 3), g=(6, 1, 1, 1)) | check.batchnorm(6)
    model = check.model(
        """g (float[N, 3, H, W] x) => (float[N, 6, H2, W2] y) {
            norm = ReduceL2 <axes = [1, 2, 3], keepdims = 1> (dir)
            unit = Div (dir, norm)
            w = Mul (unit, g)
            c = Conv (x, w)
            y = BatchNormalization (c, s, b, m, v)
        }""",
        constants,
        opset=15,
    )
    check(model).gone("Conv")


@pytest.mark.parametrize("lender", ["x", "w"])
def test_a_bias_of_zeros_that_only_borrows_a_type(check: Any, lender: str) -> None:
    """How torch's default exporter writes a Conv without bias, before it optimises."""
    model = check.model(
        f"""g (float[N, 3, H, W] x) => (float[N, 6, H2, W2] y) {{
            whole = Shape (w)
            one = Constant <value = int64[1] {{1}}> ()
            zero = Constant <value_float = 0.0> ()
            channels = Slice (whole, nought, one)
            like = CastLike (zero, {lender})
            bias = Expand (like, channels)
            c = Conv (x, w, bias)
            y = BatchNormalization (c, s, b, m, v)
        }}""",
        check.weights(w=(6, 3, 3, 3)) | check.batchnorm(6) | {"nought": np.array([0])},
        opset=18,
    )
    check(model).gone("Conv")


WIDTHS = {
    "Gather": "sizes = Shape (x) width = Gather (sizes, last)",
    "Slice": "sizes = Shape (x) width = Slice (sizes, last, end)",
    "Slice of an axis": "sizes = Shape (x) width = Slice (sizes, last, end, nought)",
    "Shape from there on": "sizes = Shape <start = 1> (x) width = Gather (sizes, last)",
}


def scaled_by_a_width(check: Any, width: str, shape: str) -> onnx.ModelProto:
    """Attention's ``q / √d``, as the TorchScript exporter writes it."""
    model = check.model(
        f"""g (float{shape} x) => (float{shape} y) {{
            {width} number = Cast <to = 1> (width) root = Sqrt (number)
            q = MatMul (x, w) y = Div (q, root)
        }}""",
        check.weights(w=(5, 5)) | {"last": np.array([-1]), "end": np.array([2**62]), "nought": np.array([0])},
        opset=18,
    )
    used = {name for node in model.graph.node for name in node.input}
    for tensor in [t for t in model.graph.initializer if t.name not in used]:
        model.graph.initializer.remove(tensor)
    return model


@pytest.mark.parametrize("width", WIDTHS)
def test_a_static_size_of_a_value_with_open_ones(check: Any, width: str) -> None:
    check(scaled_by_a_width(check, WIDTHS[width], "[N, L, 5]")).gone("MatMul")


@pytest.mark.parametrize("width", ["Gather (sizes, nought)", "Slice (sizes, nought, end)"])
def test_an_open_size_is_no_constant(check: Any, width: str) -> None:
    model = scaled_by_a_width(check, f"sizes = Shape (x) width = {width}", "[N, 5]")
    assert "Div" in [node.op_type for node in check.fold_only(model).model.graph]


def test_a_type_that_is_computed_on_is_no_constant(check: Any) -> None:
    """Only the second operand of CastLike lends its type."""
    model = check.model(
        """g (float[N, 6, 1, 1] x) => (float[N, 6, 1, 1] y) {
            bias = CastLike (x, s)
            y = BatchNormalization (x, s, b, m, v)
        }""",
        check.batchnorm(6),
        opset=18,
    )
    model.graph.node[1].input[0] = "bias"
    assert check(model).counts["BatchNormalization"] == 1


def test_an_expression_that_would_grow_stays(check: Any) -> None:
    """Expanding a scalar to a large tensor is cheaper at run time than in the file."""
    model = check.model(
        """g (float[N, 64, 8, 8] x) => (float[N, 64, 8, 8] y) {
            sh = Constant <value = int64[3] {64, 8, 8}> ()
            q = Sqrt (p) e = Expand (q, sh)
            y = Max (x, e)
        }""",
        {"p": np.array([2.0], np.float32)},
    )
    outcome = check(model)
    assert "Expand" in outcome.ops


def test_expressions_that_share_what_they_are_made_of(check: Any) -> None:
    """The first takes no room only once the second is gone."""
    model = check.model(
        """g (float[N, 4] x) => (float[N, 4] y) {
            a = Exp (p) m = Max (x, a)
            b = Pow (p, q) y = Min (m, b)
        }""",
        check.weights(p=(4,), q=(4,)) | {"p": np.array([0.5, 1.5, 1.0, 2.0], np.float32)},
    )
    check(model).gone("Max", "Min")


def test_an_expression_behind_a_reshape_that_does_nothing(check: Any) -> None:
    model = check.model(
        """g (float[N, 4] x) => (float[N, 4] y) {
            to = Constant <value = int64[1] {4}> ()
            r = Reshape (p, to) a = Exp (r) y = Max (x, a)
        }""",
        check.weights(p=(4,)),
    )
    check(model).gone("Max")


def test_integer_expressions_stay(check: Any) -> None:
    """Shape arithmetic is no affine of anything: it is left to the runtime."""
    model = check.model(
        """g (float[N, 6, 4] x) => (float[A, B] y) {
            sh = Shape (x)
            i = Constant <value = int64 {0}> () f = Gather (sh, i)
            two = Constant <value = int64 {2}> () t = Mul (f, two)
            ax = Constant <value = int64[1] {0}> () u = Unsqueeze (t, ax)
            r = Constant <value = int64[1] {-1}> () target = Concat <axis = 0> (u, r)
            y = Reshape (x, target)
        }""",
        {},
    )
    assert not check(model).folded.changed


@pytest.mark.parametrize(
    "source",
    [
        "k = RandomNormal <shape = [6, 1, 1], seed = 1.0> ()",
        "z = Constant <value = float[6, 1, 1] {1, 2, 3, 4, 5, 6}> () k = RandomUniformLike <seed = 1.0> (z)",
    ],
)
def test_random_constants_are_not_constant(check: Any, source: str) -> None:
    model = check.model(
        f"g (float[N, 3, 5, 5] x) => (float[N, 6, 3, 3] y) {{ {source} c = Conv (x, w) y = Mul (c, k) }}",
        check.weights(w=(6, 3, 3, 3)),
    )
    folded = check.fold_only(model)
    assert not folded.changed


def test_dropout_in_training_mode_is_not_constant(check: Any) -> None:
    model = check.model(
        """g (float[N, 3, 5, 5] x) => (float[N, 6, 3, 3] y) {
            r = Constant <value = float {0.5}> () t = Constant <value = bool {1}> ()
            k = Dropout (p, r, t)
            c = Conv (x, w) y = Mul (c, k)
        }""",
        check.weights(w=(6, 3, 3, 3), p=(6, 1, 1)),
    )
    assert not check.fold_only(model).changed


@pytest.mark.parametrize("op", ["Dropout <ratio = 0.5>", "Dropout <is_test = 0, ratio = 0.5>"])
def test_old_dropout_trains_unless_told_otherwise(check: Any, op: str) -> None:
    model = check.model(
        f"""g (float[N, 3, 5, 5] x) => (float[N, 6, 3, 3] y) {{
            k = {op} (p) c = Conv (x, w) y = Mul <broadcast = 1> (c, k)
        }}""",
        check.weights(w=(6, 3, 3, 3), p=(6, 1, 1)),
        opset=6,
    )
    assert not check.fold_only(model).changed


def test_eval_dropout_between_conv_and_norm(check: Any) -> None:
    for opset, text in ((6, "<is_test = 1> (c)"), (9, "(c)"), (12, "(c, r)"), (13, "(c, r, f)")):
        constants = check.weights(w=(6, 3, 3, 3)) | check.batchnorm(6)
        if "r" in text:
            constants["r"] = np.array(0.5, np.float32)
        if ", f" in text:
            constants["f"] = np.array(False)
        test = "<is_test = 1>" if opset < 7 else ""
        model = check.model(
            f"""g (float[N, 3, 5, 5] x) => (float[N, 6, 3, 3] y) {{
                c = Conv (x, w) d = Dropout {text} y = BatchNormalization {test} (d, s, b, m, v)
            }}""",
            constants,
            opset=opset,
        )
        check(model).gone("Conv")


def test_a_deep_expression_does_not_exhaust_the_stack(check: Any) -> None:
    steps = 3000
    chain = " ".join(f"t{i + 1} = Neg (t{i})" for i in range(steps))
    model = check.model(
        f"""g (float[N, 3, 5, 5] x) => (float[N, 6, 3, 3] y) {{
            {chain} c = Conv (x, w) y = Mul (c, t{steps})
        }}""",
        check.weights(w=(6, 3, 3, 3), t0=(6, 1, 1)),
    )
    check(model).gone("Conv")


def test_a_parameter_as_a_constant_node_of_any_kind(check: Any) -> None:
    for text in (
        "k = Constant <value_float = 2.5> ()",
        "k = Constant <value_floats = [2.5]> ()",
        "k = Constant <value = float {2.5}> ()",
    ):
        model = check.model(
            f"g (float[N, 3, 5, 5] x) => (float[N, 6, 3, 3] y) {{ {text} c = Conv (x, w) y = Mul (c, k) }}",
            check.weights(w=(6, 3, 3, 3)),
        )
        check(model).gone("Conv")


def test_a_weight_as_a_constant_node(check: Any) -> None:
    model = check.model(
        """g (float[N, 1, 5, 5] x) => (float[N, 2, 5, 5] y) {
            w = Constant <value = float[2, 1, 1, 1] {2.5, -1}> ()
            c = Conv (x, w) y = BatchNormalization (c, s, b, m, v)
        }""",
        check.batchnorm(2),
    )
    check(model).gone("Conv")


def test_a_terabyte_of_constants_is_not_made(check: Any) -> None:
    model = check.model(
        """g (float[1] x) => (float[A, B] y) {
            sh = Constant <value = int64[2] {1000000, 1000000}> ()
            k = ConstantOfShape <value = float[1] {2}> (sh)
            y = Mul (x, k)
        }""",
        {},
    )
    assert not check.fold_only(model).changed


def test_a_cast_weight(check: Any) -> None:
    """The weight is stored in float16 and cast: what is folded is the cast one, in float32."""
    model = check.model(
        """g (float[N, 3, 5, 5] x) => (float[N, 6, 3, 3] y) {
            w = Cast <to = 1> (h) c = Conv (x, w) y = BatchNormalization (c, s, b, m, v)
        }""",
        {"h": check.weights(w=(6, 3, 3, 3))["w"].astype(np.float16)} | check.batchnorm(6),
    )
    outcome = check(model).gone("Conv")
    assert {t.data_type for t in outcome.proto.graph.initializer} == {onnx.TensorProto.FLOAT}


def test_a_cast_that_rounds_is_not_evaluated_away(check: Any) -> None:
    """Cast to float16 and back rounds; whatever is done with it, the value is that of the cast chain."""
    model = check.model(
        """g (float[N, 3, 5, 5] x) => (float[N, 6, 3, 3] y) {
            h = Cast <to = 10> (f) w = Cast <to = 1> (h) c = Conv (x, w) y = Mul (c, k)
        }""",
        check.weights(f=(6, 3, 3, 3), k=(6, 1, 1)),
    )
    check(model).gone("Conv")


def test_a_weight_of_a_constant_node_is_read_in_pieces() -> None:
    """It lies in the model as an initializer does."""
    array = np.random.default_rng(0).standard_normal((2000, 300)).astype(np.float32)
    tensor = onnx.numpy_helper.from_array(array)
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Constant", [], ["w"], value=tensor),
            onnx.helper.make_node("Neg", ["w"], ["y"]),
        ],
        "g",
        [],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, array.shape)],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    workspace = Workspace(ir.from_proto(model))
    constant = workspace.constants.recipe(workspace.model.graph.node(0).outputs[0])
    assert constant is not None
    blocks = list(constant.blocks())
    assert len(blocks) > 1
    np.testing.assert_array_equal(np.concatenate(blocks), array.astype(np.float64))


@pytest.mark.parametrize(
    ("expression", "known"),
    [
        ("k = Neg (p)", True),
        ("k = com.example.Neg (p)", False),
        ("k = RandomNormal <shape = [6, 1, 1]> ()", False),
        ("k = RandomUniform <shape = [6, 1, 1]> ()", False),
        ("k = Dropout (p, half, yes)", False),
        ("k = Dropout (p, half)", True),
    ],
)
def test_what_counts_as_constant(check: Any, expression: str, known: bool) -> None:
    """Before anything is evaluated: what is drawn anew is none, nor what is of an unknown domain."""
    arrays = {"p": np.ones((6, 1, 1), np.float32), "half": np.array(0.5, np.float32), "yes": np.array(True)}
    model = check.model(
        f"g (float[N, 6, 4, 4] x) => (float[N, 6, 4, 4] y) {{ {expression} y = Mul (x, k) }}",
        {name: array for name, array in arrays.items() if name in expression},
        also=', "com.example": 1',
    )
    workspace = Workspace(ir.from_proto(model))
    assert workspace.constants.is_constant(workspace.model.graph.node(0).outputs[0]) == known


@pytest.mark.parametrize("shared", [True, False])
def test_an_expression_of_what_others_read_frees_nothing(check: Any, shared: bool) -> None:
    other = "w" if shared else "u"
    model = check.model(
        f"""g (float[N, 3, 4, 4] x) => (float[N, 6, 4, 4] y, float[N, 6, 4, 4] z) {{
            e = Exp (w) y = Conv (x, e) z = Conv (x, {other})
        }}""",
        check.weights(**dict.fromkeys(("w", other), (6, 3, 1, 1))),
    )
    assert check(model).counts["Exp"] == shared


def test_an_expression_that_is_an_output_stays_one(check: Any) -> None:
    model = check.model(
        """g (float[N, 3, 4, 4] x) => (float[N, 6, 4, 4] y, float[6, 3, 1, 1] e) {
            e = Exp (w) y = Conv (x, e)
        }""",
        check.weights(w=(6, 3, 1, 1)),
    )
    assert not check(model).folded.changed
