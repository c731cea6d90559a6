"""BatchNormalization in every opset: what it means, and when it is not an affine."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest

CONV = "c = Conv <pads = [1, 1, 1, 1]> (x, w)"
GRAPH = "g (float[N, 3, H, W] x) => (float[N, 6, H2, W2] y)"
NORM = "BatchNormalization {attributes} (c, s, b, m, v)"


def conv_then(check: Any, attributes: str, opset: int, outputs: str = "y", ir_version: int = 8) -> Any:
    body = f"{{ {CONV} {outputs} = {NORM.format(attributes=attributes)} }}"
    return check.model(
        f"{GRAPH} {body}",
        check.weights(w=(6, 3, 3, 3)) | check.batchnorm(6),
        opset=opset,
        ir_version=ir_version,
    )


@pytest.mark.parametrize(
    ("opset", "attributes"),
    [
        (6, "<is_test = 1>"),
        (6, "<is_test = 1, spatial = 1, epsilon = 0.01>"),
        (7, ""),
        (7, "<spatial = 1, momentum = 0.1>"),
        (8, "<epsilon = 0.001>"),
        (9, ""),
        (13, "<epsilon = 0.001>"),
        (14, ""),
        (14, "<training_mode = 0>"),
        (15, "<training_mode = 0, epsilon = 0.1>"),
        (20, "<epsilon = 0.001>"),
        (22, ""),
    ],
)
def test_inference_is_folded(check: Any, opset: int, attributes: str) -> None:
    check(conv_then(check, attributes, opset)).gone("Conv")


@pytest.mark.parametrize(
    ("opset", "attributes", "outputs"),
    [
        (6, "", "y"),
        (6, "<is_test = 0>", "y"),
        (7, "", "y, m1, v1, m2, v2"),
        (9, "", "y, m1, v1, m2, v2"),
        (13, "", "y, m1, v1"),
        (14, "<training_mode = 1>", "y, m1, v1"),
        (15, "<training_mode = 1>", "y"),
    ],
)
def test_training_is_kept(check: Any, opset: int, attributes: str, outputs: str) -> None:
    model = conv_then(check, attributes, opset, outputs)
    folded = check.fold_only(model)
    assert [(s.site, s.kind, s.action, s.code) for s in folded.sites] == [("y", "batchnorm", "kept", "NF107")]
    assert not folded.changed


@pytest.mark.parametrize("opset", [1])
def test_opset_1_is_read_like_6(check: Any, opset: int) -> None:
    model = conv_then(check, "<is_test = 1, consumed_inputs = [0, 0, 0, 1, 1]>", opset)
    folded = check.fold_only(model)
    assert [s.action for s in folded.sites] == ["folded"]


@pytest.mark.parametrize("opset", [6, 7, 8])
def test_statistics_per_element_go_into_a_layer_that_has_the_axes(check: Any, opset: int) -> None:
    """``spatial = 0`` normalises each position on its own: after a 2-D Gemm that is per column."""
    test = "is_test = 1, " if opset < 7 else ""
    broadcast = "<broadcast = 1>" if opset < 7 else ""
    model = check.model(
        f"""g (float[N, 4] x) => (float[N, 6] y) {{
            c = Gemm {broadcast} (x, w, z)
            y = BatchNormalization <{test} spatial = 0> (c, s, b, m, v)
        }}""",
        check.weights(w=(4, 6), z=6) | check.batchnorm(6),
        opset=opset,
    )
    check(model).gone("Gemm")


def test_statistics_per_element_do_not_go_into_a_conv(check: Any) -> None:
    model = check.model(
        """g (float[N, 3, 4, 5] x) => (float[N, 6, 4, 5] y) {
            c = Conv (x, w)
            y = BatchNormalization <spatial = 0> (c, s, b, m, v)
        }""",
        check.weights(w=(6, 3, 1, 1)) | check.batchnorm((6, 4, 5)),
        opset=8,
    )
    assert check(model).kept("NF110").kind == "batchnorm"


def test_uniform_statistics_per_element_stay_right_when_merged(check: Any) -> None:
    """All parameters equal: the affine is uniform although the parameters have every axis."""
    shape = (6, 4, 5)
    constants = {
        name: np.full(shape, value, np.float32) for name, value in zip("sbmv", (2, 1, 3, 4), strict=True)
    }
    model = check.model(
        """g (float[N, 6, 4, 5] x) => (float[N, 6, 4, 5] y) {
            r = Sigmoid (x)
            n = BatchNormalization <spatial = 0> (r, s, b, m, v)
            y = Mul (n, k)
        }""",
        constants | check.weights(k=(6, 1, 1)),
        opset=8,
    )
    check(model)


@pytest.mark.parametrize("rank", [2, 3, 4, 5])
def test_every_rank(check: Any, rank: int) -> None:
    """The channel is axis 1 whatever the rank; on a graph input there is nothing in front to fold into."""
    dims = ", ".join(["N", "6", "L", "H", "W"][:rank])
    linear = "Gemm (x, w)" if rank == 2 else "Conv (x, w)"
    kernel = (3, 6) if rank == 2 else (6, 3, *[1] * (rank - 2))
    model = check.model(
        f"""g (float[{dims.replace("6", "3")}] x) => (float[{dims}] y) {{
            c = {linear}
            y = BatchNormalization (c, s, b, m, v)
        }}""",
        check.weights(w=kernel) | check.batchnorm(6),
    )
    check(model).gone(linear.split()[0])


def test_rank_one_has_one_channel(check: Any) -> None:
    """From opset 9 on a vector of size N is N samples of one channel."""
    model = check.model(
        """g (float[4] x) => (float[6] y) {
            c = MatMul (x, w)
            y = BatchNormalization (c, s, b, m, v)
        }""",
        check.weights(w=(4, 6)) | check.batchnorm(1),
        opset=15,
    )
    check(model).gone("MatMul", "Add")


@pytest.mark.parametrize("epsilon", [0.0, 1e-12, 1e-5, 1e-3, 0.8])
def test_epsilon_is_the_one_of_the_node(check: Any, epsilon: float) -> None:
    outcome = check(conv_then(check, f"<epsilon = {epsilon:.12f}>", 15))
    parameters = {k: v.astype(np.float64) for k, v in check.batchnorm(6).items()}
    scale = parameters["s"] / np.sqrt(parameters["v"] + np.float64(np.float32(epsilon)))
    weight = check.weights(w=(6, 3, 3, 3))["w"].astype(np.float64) * scale[:, None, None, None]
    (name,) = outcome.proto.graph.node[0].input[1:2]
    np.testing.assert_allclose(outcome.folded.exact[name](), weight, rtol=1e-14)


@pytest.mark.parametrize(
    ("data", "parameters", "statistics"),
    [
        ("FLOAT16", "FLOAT", "FLOAT"),
        ("BFLOAT16", "FLOAT", "FLOAT"),
        ("FLOAT16", "FLOAT16", "FLOAT"),
        ("FLOAT", "FLOAT", "DOUBLE"),
        ("DOUBLE", "DOUBLE", "FLOAT"),
        ("FLOAT16", "BFLOAT16", "DOUBLE"),
    ],
)
@pytest.mark.parametrize("opset", [15, 20])
def test_parameters_of_other_float_types(
    check: Any, opset: int, data: str, parameters: str, statistics: str
) -> None:
    """From opset 15 on scale and B, mean and var have types of their own. What is folded has the Conv's."""
    kind, affine, stats = (getattr(onnx.TensorProto, t) for t in (data, parameters, statistics))
    values = check.weights(w=(6, 3, 3, 3)) | check.batchnorm(6)
    types = {"w": kind, "s": affine, "b": affine, "m": stats, "v": stats}
    tensors = [
        onnx.numpy_helper.from_array(values[n].astype(onnx.helper.tensor_dtype_to_np_dtype(t)), n)
        for n, t in types.items()
    ]
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
            onnx.helper.make_node("BatchNormalization", ["c", "s", "b", "m", "v"], ["y"], epsilon=1e-3),
        ],
        "g",
        [onnx.helper.make_tensor_value_info("x", kind, [1, 3, 5, 5])],
        [onnx.helper.make_tensor_value_info("y", kind, [1, 6, 5, 5])],
        tensors,
    )
    opsets = [onnx.helper.make_opsetid("", opset if data != "BFLOAT16" else 22)]
    outcome = check(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10))
    outcome.gone("Conv")
    assert {t.data_type for t in outcome.proto.graph.initializer} == {kind}


def test_mixed_types_after_a_cast(check: Any) -> None:
    """float16 Conv, Cast to float32, float32 BatchNormalization: the model that comes out is valid."""
    half = {"w": check.weights(w=(6, 3, 3, 3))["w"].astype(np.float16)}
    model = check.model(
        """g (float16[N, 3, 5, 5] x) => (float[N, 6, 3, 3] y) {
            c = Conv (x, w)
            f = Cast <to = 1> (c)
            y = BatchNormalization (f, s, b, m, v)
        }""",
        half | check.batchnorm(6),
    )
    check(model)


def test_channels_that_do_not_fit_are_reported(check: Any) -> None:
    model = check.model(
        """g (float[N, 3, 5, 5] x) => (float[N, 6, 3, 3] y) {
            c = Conv (x, w)
            y = BatchNormalization (c, s, b, m, v)
        }""",
        check.weights(w=(6, 3, 3, 3)) | check.batchnorm(5),
    )
    folded = check.fold_only(model)
    assert [(s.action, s.code) for s in folded.sites] == [("kept", "NF113")]


@pytest.mark.parametrize("which", ["s", "b", "m", "v"])
def test_a_parameter_computed_at_run_time(check: Any, which: str) -> None:
    constants = check.weights(w=(6, 3, 3, 3)) | check.batchnorm(6)
    del constants[which]
    model = check.model(
        f"""g (float[N, 3, 5, 5] x, float[6] p) => (float[N, 6, 3, 3] y) {{
            {which} = Abs (p)
            c = Conv (x, w)
            y = BatchNormalization (c, s, b, m, v)
        }}""",
        constants,
    )
    name = {"s": "scale", "b": "B", "m": "mean", "v": "var"}[which]
    assert name in (check(model).kept("NF101").reason or "")


def test_one_set_of_parameters_for_two_layers(check: Any) -> None:
    model = check.model(
        """g (float[N, 3, 5, 5] x) => (float[N, 6, 3, 3] y) {
            c = Conv (x, w)
            n = BatchNormalization (c, s, b, m, v)
            d = Conv (n, u)
            y = BatchNormalization (d, s, b, m, v)
        }""",
        check.weights(w=(6, 3, 3, 3), u=(6, 6, 1, 1)) | check.batchnorm(6),
    )
    check(model).gone("Conv", "Conv")


def test_bfloat16_is_rounded_to_nearest_even() -> None:
    """The one rounding of a folded bfloat16 weight, against the definition, on halfway cases too."""
    import onnx_ir as ir

    from normfold.preparation.constant64 import round_once

    exact = np.array([1.0 + 2.0**-8, 1.0 + 3 * 2.0**-8, 1.0 + 2.0**-8 + 2.0**-40, -(1.0 + 2.0**-8), 0.0])
    expected = np.array([1.0, 1.0 + 2.0**-6, 1.0 + 2.0**-7, -1.0, 0.0])
    rounded = round_once(exact, ir.DataType.BFLOAT16)
    assert rounded.dtype == ml_dtypes.bfloat16
    np.testing.assert_array_equal(rounded.astype(np.float64), expected)
