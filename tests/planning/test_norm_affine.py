"""γ and β of a normalisation go into the linear layer behind it, where asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from models.single_norms import groupnorm
from normfold.folding import fold_model
from normfold.options import FoldOptions

ASKED = FoldOptions(fold_norm_affine=True, groupnorm="keep")


def net(check: Any, norm: str, reader: str) -> onnx.ModelProto:
    """A normalisation ``n`` of x [N, 4, 6, 6] and what reads it."""
    constants = check.weights(g=4, b=4, w=(5, 4, 1, 1), p=(5, 4, 3, 3))
    used = {n: a for n, a in constants.items() if any(f" {n}{end}" in norm + reader for end in ",)")}
    return check.model(
        f"g (float[N, 4, 6, 6] x) => (float[N, C, H, W] y) {{ n = {norm} {reader} }}", used, opset=21
    )


INSTANCE = "InstanceNormalization (x, g, b)"
GROUP = "GroupNormalization <num_groups = 2> (x, g, b)"


def parameters_of_norm(model: onnx.ModelProto) -> list[np.ndarray]:
    (node,) = (n for n in model.graph.node if n.op_type.endswith("Normalization"))
    arrays = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    return [arrays[name] for name in node.input[1:3]]


def test_instance_normalization_gives_them_to_a_convolution(check: Any) -> None:
    outcome = check(net(check, INSTANCE, "c = Conv (n, w) y = Sigmoid (c)"), ASKED)
    gamma, beta = parameters_of_norm(outcome.proto)
    assert (gamma == 1).all() and (beta == 0).all()
    assert len(outcome.proto.graph.node) == 3


def test_group_normalization_gives_them_to_a_convolution(check: Any) -> None:
    ort = pytest.importorskip("onnxruntime")
    model = net(check, GROUP, "c = Conv (n, w) y = Sigmoid (c)")
    folded = ir.to_proto(fold_model(ir.from_proto(model), ASKED).model)
    gamma, beta = parameters_of_norm(folded)
    assert (gamma == 1).all() and (beta == 0).all()
    x = {"x": np.random.default_rng(0).standard_normal((2, 4, 6, 6)).astype(np.float32)}
    results = [
        ort.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, x)[0]
        for m in (model, folded)
    ]
    np.testing.assert_allclose(results[1], results[0], rtol=0, atol=2e-6)


def test_a_bias_that_another_normalisation_takes_out_is_not_left_behind(check: Any) -> None:
    """W·β would be the bias of the Conv; one release may make another, or this, possible."""
    model = net(check, INSTANCE, "c = Conv (n, w) y = InstanceNormalization (c, h, k)")
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(array, name) for name, array in check.weights(h=5, k=5).items()
    )
    outcome = check(model, ASKED)
    (conv,) = (node for node in outcome.proto.graph.node if node.op_type == "Conv")
    assert len(conv.input) == 2


def test_they_are_not_given_to_an_affine_that_stays(check: Any) -> None:
    """It varies over space, where the normalisation has no parameters, and would give its shift back."""
    model = net(check, INSTANCE, "y = Mul (n, k)")
    model.graph.initializer.append(
        onnx.numpy_helper.from_array(check.weights(k=(4, 6, 6))["k"], "k"),
    )
    assert not check(model, ASKED).folded.changed


def test_mul_and_add_of_a_form_stay_if_they_cannot_leave() -> None:
    options = FoldOptions(fold_norm_affine=True, target="openvino")
    folded = fold_model(ir.from_proto(groupnorm("handwritten", (2, 12, 4, 5), 3)), options)
    assert [node.op_type for node in folded.model.graph] == [
        "Reshape",
        "InstanceNormalization",
        "Reshape",
        "Mul",
        "Add",
    ]
    assert not fold_model(folded.model, options).changed


@pytest.mark.parametrize(
    ("norm", "opset"), [("LayerNormalization (x, g, b)", 21), ("RMSNormalization (x, g)", 23)]
)
def test_what_normalises_the_last_axis_gives_them_to_a_gemm(check: Any, norm: str, opset: int) -> None:
    constants = check.weights(g=4, b=4, w=(4, 5))
    model = check.model(
        f"g (float[6, 4] x) => (float[6, 5] y) {{ n = {norm} c = Gemm (n, w) y = Sigmoid (c) }}",
        {name: array for name, array in constants.items() if name != "b" or ", b)" in norm},
        opset=opset,
        ir_version=10,
    )
    gamma, *beta = parameters_of_norm(check(model, ASKED).proto)
    assert (gamma == 1).all() and all((array == 0).all() for array in beta)


@pytest.mark.parametrize("norm", [INSTANCE, GROUP])
def test_they_stay_unasked(check: Any, norm: str) -> None:
    model = ir.from_proto(net(check, norm, "c = Conv (n, w) y = Sigmoid (c)"))
    assert not fold_model(model, FoldOptions(groupnorm="keep")).changed


@pytest.mark.parametrize(
    "reader",
    [
        pytest.param(
            "c = Conv <pads = [1, 1, 1, 1]> (n, p) y = Sigmoid (c)", id="a shift in front of padding"
        ),
        pytest.param("r = Relu (n) c = Conv (r, w) y = Sigmoid (c)", id="Relu that would become Max"),
        pytest.param("c = Conv (n, w) y = Sigmoid (c) z = Tanh (n)", id="another reader"),
    ],
)
def test_they_stay_where_it_would_cost(check: Any, reader: str) -> None:
    model = net(check, INSTANCE, reader)
    if "z =" in reader:
        model.graph.output.append(
            onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, list("NCHW"))
        )
    assert not check(model, ASKED).folded.changed
