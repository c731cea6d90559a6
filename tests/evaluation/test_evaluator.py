"""Whole models: promotion, decisions, scopes, memory."""

from __future__ import annotations

import tracemalloc

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest

from normfold.evaluation import EvaluationFailed, Evaluator, NotCovered, evaluate_node

THIRD = np.array([1 / 3], np.float64)


def model(text: str, **initializers: np.ndarray) -> ir.Model:
    """A model from ONNX text, with initializers by name."""
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(v, k) for k, v in initializers.items())
    return ir.from_proto(proto)


HEAD = '<ir_version: 10, opset_import: ["": 20]>'


def test_float_values_and_weights_are_promoted():
    m = model(f"{HEAD} g (float[1] x) => (float[1] y) {{ y = Mul(x, w) }}", w=np.array([0.1], np.float32))
    (y,) = Evaluator(m).run({"x": THIRD}).values()
    assert y.dtype == np.float64
    assert y[0] == THIRD[0] * float(np.float32(0.1))


def test_native_precision_keeps_every_type():
    m = model(f"{HEAD} g (float[1] x) => (float[1] y) {{ y = Mul(x, w) }}", w=np.array([0.1], np.float32))
    (y,) = Evaluator(m, precision="native").run({"x": THIRD}).values()
    assert y.dtype == np.float32
    assert y[0] == np.float32(THIRD[0]) * np.float32(0.1)


def test_a_cast_through_float16_loses_nothing_in_float64():
    m = model(f"{HEAD} g (float[1] x) => (float[1] y) {{ h = Cast<to = 10>(x) y = Cast<to = 1>(h) }}")
    assert Evaluator(m).run({"x": THIRD})["y"][0] == THIRD[0]
    native = Evaluator(m, precision="native").run({"x": THIRD.astype(np.float32)})["y"]
    assert native[0] == np.float32(np.float16(np.float32(THIRD[0])))


def test_float_constants_become_double_and_bfloat16_weights_too():
    m = model(
        f"{HEAD} g (float[1] x) => (float[1] y) {{"
        " c = Constant<value_float = 0.1>() b = Cast<to = 1>(w) s = Add(c, b) y = Add(x, s) }",
        w=np.array([0.25]).astype(ml_dtypes.bfloat16),
    )
    assert Evaluator(m).run({"x": THIRD})["y"][0] == THIRD[0] + (float(np.float32(0.1)) + 0.25)


SIZES = f"""{HEAD} g (float[10] x) => (float[N] y) {{
    s = Shape(x) f = Cast<to = 1>(s) p = Mul(f, w) q = Floor(p) n = Cast<to = 7>(q)
    zero = Constant<value_ints = [0]>() y = Slice(x, zero, n)
}}"""


def test_what_decides_a_size_is_computed_in_the_models_own_precision():
    # 10 · 0.7f is 7 in float32, but 6.9999998… in double.
    m = model(SIZES, w=np.array([0.7], np.float32))
    assert Evaluator(m).run({"x": np.arange(10.0)})["y"].shape == (7,)


def test_a_value_that_decides_a_size_and_is_also_data_exists_in_both_precisions():
    m = model(SIZES.replace("float[N] y)", "float[N] y, float[1] p)"), w=np.array([0.7], np.float32))
    results = Evaluator(m).run({"x": np.arange(10.0)})
    assert results["y"].shape == (7,)
    assert results["p"][0] == 10 * float(np.float32(0.7))


def test_integer_decisions_used_both_ways_agree():
    m = model(
        f"{HEAD} g (float[4] x) => (float[N] y, int64[1] k, float[N] d) {{"
        " q = Mul(x, w) f = Floor(q) k4 = Cast<to = 7>(f) one = Constant<value_ints = [1]>()"
        " zero = Constant<value_ints = [0]>() k = Slice(k4, zero, one) y = Slice(x, zero, k)"
        " kf = Cast<to = 1>(k) d = Mul(y, kf) }",
        w=np.array([0.7], np.float32),
    )
    results = Evaluator(m).run({"x": np.array([10.0, 1, 2, 3])})
    assert results["k"] == [7]
    assert results["y"].shape == (4,)
    np.testing.assert_array_equal(results["d"], 7 * results["y"])


def test_constants_replace_initializers_unrounded():
    m = model(f"{HEAD} g (float[1] x) => (float[1] y) {{ y = Mul(x, w) }}", w=np.array([2], np.float32))
    calls = []

    def third() -> np.ndarray:
        calls.append(1)
        return THIRD

    evaluator = Evaluator(m, constants={"w": third})
    assert not calls
    assert evaluator.run({"x": np.ones(1)})["y"][0] == THIRD[0]
    native = Evaluator(m, precision="native", constants={"w": third})
    assert native.run({"x": np.ones(1)})["y"][0] == np.float32(THIRD[0])


def test_a_replaced_initializer_that_also_decides_a_size_stays_unrounded():
    text = f"""{HEAD} g (float[2] x) => (float[2] y, float[K] z) <float[1] w = {{1.0}}> {{
        i = Cast <to = 7> (w) z = Expand (x, i) v = Mul (x, w) y = Mul (v, w) }}"""
    model = ir.from_proto(onnx.parser.parse_model(text))
    exact = {"w": lambda: np.array([1.0 + 1e-12])}
    result = Evaluator(model, constants=exact).run({"x": np.ones(2, np.float32)}, ["z", "y"])
    np.testing.assert_allclose(result["y"], (1.0 + 1e-12) ** 2, rtol=1e-15)


def test_a_fed_value_is_used_and_what_makes_it_is_not_computed():
    m = model(
        f"{HEAD} g (float[2] x) => (float[2] y) {{ a = RandomUniformLike(x) r = Round(a) y = Add(r, x) }}"
    )
    with pytest.raises(NotCovered, match="random"):
        Evaluator(m).run({"x": np.zeros(2)})
    results = Evaluator(m).run({}, feed={"r": np.array([3, 4], np.float32), "x": np.zeros(2)})
    np.testing.assert_array_equal(results["y"], [3, 4])
    assert results["y"].dtype == np.float64


def test_fed_indices_replace_the_decision_of_one_output_only():
    m = model(
        f"{HEAD} g (float[3] x) => (float[1] v, float[1] y) {{"
        " k = Constant<value_ints = [1]>() v, i = TopK(x, k) y = Gather(x, i) }"
    )
    results = Evaluator(m).run({"x": np.array([1.0, 3.0, 2.0])}, feed={"i": np.array([2])})
    assert (results["v"][0], results["y"][0]) == (3, 2)


def test_only_what_is_needed_is_computed_and_observed_in_order():
    m = model(f"{HEAD} g (float[1] x) => (float[1] y, float[1] z) {{ a = Neg(x) y = Abs(a) z = Exp(x) }}")
    seen = []
    results = Evaluator(m).run(
        {"x": THIRD}, ["y", "a"], observe=lambda name, value: seen.append((name, value))
    )
    assert list(results) == ["y", "a"]
    assert [name for name, _ in seen] == ["a", "y"]
    assert all(value.dtype == np.float64 for _, value in seen)


def test_watched_nodes_tell_their_input_wherever_they_run():
    model = ir.from_onnx_text(
        '<ir_version: 8, opset_import: ["": 17]> main (float[3] x) => (float[3] y) '
        "{ n = Constant<value_int = 3>() a = Abs(x) y = Loop<body = step (int64 i, bool c, float[3] s) => "
        "(bool k, float[3] o) { k = Identity(c) o = Neg(s) }>(n, , a) }"
    )
    negation = next(node for node in model.graph.all_nodes() if node.op_type == "Neg")
    seen = []
    Evaluator(model).run({"x": THIRD * np.ones(3, np.float32)}, watch={negation: seen.append})
    assert [array.dtype for array in seen] == [np.float64] * 3
    np.testing.assert_array_equal([array[0] for array in seen], np.array([1, -1, 1]) * np.float64(THIRD))


def test_an_input_with_an_initializer_may_be_left_out_or_given():
    m = model(f"{HEAD} g (float[1] w) => (float[1] y) {{ y = Neg(w) }}", w=np.array([2], np.float32))
    assert Evaluator(m).run({})["y"] == [-2]
    assert Evaluator(m).run({"w": np.array([5.0])})["y"] == [-5]


def test_if_evaluates_one_branch_and_captures_outer_values():
    m = model(
        f"{HEAD} g (float[1] x, bool c) => (float[1] y) {{ a = Mul(x, w) y = If(c)<"
        "then_branch = t () => (p) { p = Add(a, w) },"
        " else_branch = e () => (q) { q = RandomUniformLike(a) }> }",
        w=np.array([0.1], np.float32),
    )
    w = float(np.float32(0.1))
    assert Evaluator(m).run({"x": THIRD, "c": np.array(True)})["y"][0] == THIRD[0] * w + w
    with pytest.raises(NotCovered, match="RandomUniformLike"):
        Evaluator(m).run({"x": THIRD, "c": np.array(False)})


LOOP = f"""{HEAD} g (float[2] x) => (float[2] last, float[N, 2] all) {{
    m = Constant<value_int = 4>() c = Constant<value = bool {{1}}>()
    last, all = Loop(m, c, x)<body =
        b (int64 i, bool going, float[2] h) => (bool more, float[2] n, float[2] out) {{
        n = Mul(h, w)
        out = Identity(n)
        limit = Constant<value_int = 2>()
        more = Less(i, limit)
    }}>
}}"""


def test_loop_carries_stacks_and_stops():
    m = model(LOOP, w=np.array([0.1], np.float32))
    results = Evaluator(m).run({"x": np.array([1.0, 2.0])})
    w = float(np.float32(0.1))
    expected = np.array([[w, 2 * w], [w * w, 2 * w * w], [w * w * w, 2 * w * w * w]])
    np.testing.assert_allclose(results["all"], expected, rtol=1e-15)
    np.testing.assert_array_equal(results["last"], results["all"][-1])


def test_loop_without_iterations_gives_empty_scans():
    m = model(LOOP.replace("value_int = 4", "value_int = 0"), w=np.array([0.1], np.float32))
    results = Evaluator(m).run({"x": np.array([1.0, 2.0])})
    np.testing.assert_array_equal(results["last"], [1, 2])
    assert results["all"].shape == (0, 2)


@pytest.mark.parametrize("reverse", [0, 1])
def test_scan_runs_over_a_named_axis_in_both_directions(reverse):
    m = model(
        f"{HEAD} g (float[1] s, float[1, 3] x) => (float[1] t, float[1, 3] y) {{"
        f" t, y = Scan<num_scan_inputs = 1, scan_input_axes = [1], scan_output_axes = [1],"
        f" scan_input_directions = [{reverse}],"
        " body = b (float[1] a, float[1] v) => (float[1] n, float[1] o)"
        " { n = Add(a, v) o = Identity(n) }>(s, x) }"
    )
    x = np.array([[1.0, 2.0, 4.0]])
    results = Evaluator(m).run({"s": np.zeros(1), "x": x})
    np.testing.assert_array_equal(results["y"], np.cumsum(x[:, ::-1] if reverse else x, axis=1))
    assert results["t"] == [7]


FUNCTION = """<ir_version: 10, opset_import: ["": 20, "local": 1]>
g (float[10] x) => (float[N] y) { y = local.cut<slope = 0.5>(x, w) }
<domain: "local", opset_import: ["": 20, "local": 1]>
cut <slope: float = 0.1, other: float = 0.25> (a, f) => (c) {
    s = Shape(a)
    n0 = Cast<to = 1>(s)
    n1 = Mul(n0, f)
    n = Cast<to = 7>(n1)
    zero = Constant<value_ints = [0]>()
    b = Slice(a, zero, n)
    d = LeakyRelu<alpha: float = @slope>(b)
    c = local.inner<beta: float = @other>(d)
}
<domain: "local", opset_import: ["": 20]>
inner <beta> (a) => (c) { k = Constant<value_float: float = @beta>() c = Mul(a, k) }
"""


def test_local_functions_nest_take_attributes_and_keep_decisions_native():
    m = model(FUNCTION, w=np.array([0.7], np.float32))
    x = np.arange(-4.0, 6.0)
    (y,) = Evaluator(m).run({"x": x}).values()
    np.testing.assert_array_equal(y, np.where(x < 0, 0.5 * x, x)[:7] * 0.25)


def test_intermediates_are_freed_after_their_last_use():
    body = " ".join(f"v{i + 1} = Abs(v{i})" for i in range(20))
    m = model(f"{HEAD} g (float[N] x) => (float[N] v20) {{ v0 = Neg(x) {body} }}")
    x = np.zeros(1 << 20)
    evaluator = Evaluator(m)
    tracemalloc.start()
    evaluator.run({"x": x})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4.5 * x.nbytes


def test_operands_that_do_not_fit_are_one_clear_error():
    m = model(f"{HEAD} g (float[2] x, float[3] z) => (float[2] y) {{ y = Add(x, z) }}")
    with pytest.raises(EvaluationFailed, match=r"^Add: .*broadcast") as caught:
        Evaluator(m).run({"x": np.zeros(2), "z": np.zeros(3)})
    assert caught.value.op_type == "Add"


@pytest.mark.parametrize(
    ("node", "shapes"),
    [
        ("Conv", [(1, 3, 4, 4), (2, 4, 1, 1)]),
        ("Conv", [(1, 4, 4), (2, 4, 1, 1)]),
        ("ConvTranspose", [(1, 3, 4, 4), (4, 2, 1, 1)]),
        ("Gemm", [(2, 3), (3, 4), (3, 4)]),
        ("GroupNormalization", [(1, 5, 4), (5,), (5,)]),
        ("GroupNormalization", [(1, 4, 4), (3,), (3,)]),
    ],
)
def test_sizes_that_do_not_fit_are_no_gap_of_the_evaluator(node: str, shapes: list[tuple[int, ...]]) -> None:
    """Other sizes are tried where these came from inference; what is not covered is given up on."""
    inputs = [ir.Value(name=str(slot)) for slot in range(len(shapes))]
    attributes = {"num_groups": 2} if node == "GroupNormalization" else {}
    with pytest.raises(EvaluationFailed):
        evaluate_node(ir.node(node, inputs, attributes), [np.zeros(shape) for shape in shapes], {"": 21})


@pytest.mark.parametrize("opset", [11, 18])
def test_the_sizes_of_a_split_have_to_add_up(opset: int) -> None:
    x, sizes = np.arange(8.0).reshape(4, 2), np.array([1, 3])
    operands = [x] if opset < 13 else [x, sizes]
    attributes = {"axis": 0, **({"split": [1, 3]} if opset < 13 else {})}
    node = ir.node("Split", [ir.Value(name=str(i)) for i in operands], attributes, num_outputs=2)
    first, second = evaluate_node(node, operands, {"": opset})
    np.testing.assert_array_equal(first, x[:1])
    np.testing.assert_array_equal(second, x[1:])
    with pytest.raises(EvaluationFailed):
        evaluate_node(node, [x[1:], *operands[1:]], {"": opset})


def test_an_unknown_operator_names_itself():
    node = ir.node("Frobnicate", [ir.Value(name="x")], domain="acme")
    with pytest.raises(NotCovered, match=r"^acme\.Frobnicate: ") as caught:
        evaluate_node(node, [np.zeros(1)], {"acme": 3})
    assert (caught.value.op_type, caught.value.domain) == ("Frobnicate", "acme")


def test_omitted_outputs_are_none():
    node = ir.node(
        "TopK", [ir.Value(name="x"), ir.Value(name="k")], outputs=[ir.Value(name=""), ir.Value(name="i")]
    )
    values, indices = evaluate_node(node, [np.array([1.0, 5.0]), np.array([1])], {"": 20})
    assert values is None
    np.testing.assert_array_equal(indices, [1])


@pytest.mark.parametrize(
    ("op_type", "count", "expected"),
    [
        ("HannWindow", 8, lambda n: 0.5 - 0.5 * np.cos(2 * np.pi * n / 8)),
        ("Range", 4, lambda n: float(np.float32(0.1)) * n[:4]),
    ],
)
def test_generated_values_are_exact_in_double(op_type, count, expected):
    operands = [np.array(count)]
    if op_type == "Range":
        operands = [np.array(v, np.float32) for v in (0.0, 0.35, 0.1)]
    node = ir.node(op_type, [ir.Value(name=f"x{i}") for i in range(len(operands))])
    (y,) = evaluate_node(node, operands, {"": 20})
    assert y.dtype == np.float64
    np.testing.assert_allclose(y, expected(np.arange(8.0)), rtol=1e-14, atol=1e-16)
