"""Initializers that are also graph inputs: constants before IR version 4, a caller's from then on."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from normfold.options import FoldOptions

PARAMETERS = ("w", "s", "b", "m", "v")


def listed(check: Any, names: tuple[str, ...], *, ir_version: int, opset: int = 8) -> onnx.ModelProto:
    """Conv, BatchNormalization with the initializers in ``names`` listed as inputs."""
    model = check.model(
        """g (float[1, 3, 5, 5] x) => (float[1, 4, 3, 3] y) {
            c = Conv (x, w) y = BatchNormalization (c, s, b, m, v)
        }""",
        check.weights(w=(4, 3, 3, 3)) | check.batchnorm(4),
        opset=opset,
        ir_version=ir_version,
    )
    for tensor in model.graph.initializer:
        if tensor.name in names:
            info = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            model.graph.input.append(info)
    return model


def test_constants_before_ir_version_4(check: Any) -> None:
    outcome = check(listed(check, PARAMETERS, ir_version=3)).gone("Conv")
    assert {i.name for i in outcome.proto.graph.input} == {"x", "w", "c_bias"}
    assert {t.name for t in outcome.proto.graph.initializer} == {"w", "c_bias"}
    assert outcome.proto.graph.input[0].name == "x"


@pytest.mark.parametrize("ir_version", [4, 8, 10])
@pytest.mark.parametrize("name", PARAMETERS)
def test_a_callers_input_from_ir_version_4(check: Any, ir_version: int, name: str) -> None:
    outcome = check(listed(check, (name,), ir_version=ir_version))
    assert "BatchNormalization" in outcome.ops
    assert outcome.kept("NF102").action == "kept"
    assert {i.name for i in outcome.proto.graph.input} == {"x", name}


@pytest.mark.parametrize("ir_version", [4, 10])
def test_frozen_on_demand(check: Any, ir_version: int) -> None:
    model = listed(check, PARAMETERS, ir_version=ir_version)
    outcome = check(model, FoldOptions(freeze_initializers=True)).gone("Conv")
    assert [i.name for i in outcome.proto.graph.input] == ["x"]


def test_freezing_what_nothing_folds_is_a_change(check: Any) -> None:
    model = check.model("g (float[2] x) => (float[2] y) { y = Pow (x, k) }", check.weights(k=2), ir_version=8)
    model.graph.input.append(onnx.helper.make_tensor_value_info("k", onnx.TensorProto.FLOAT, [2]))
    folded = check.fold_only(model, FoldOptions(freeze_initializers=True))
    assert folded.changed and [v.name for v in folded.model.graph.inputs] == ["x"]
    assert not check.fold_only(model).changed


def test_an_overridable_weight_keeps_its_default(check: Any) -> None:
    outcome = check(listed(check, ("w",), ir_version=8))
    assert "w" in {t.name for t in outcome.proto.graph.initializer}


def test_an_expression_over_a_callers_input_is_not_constant(check: Any) -> None:
    model = check.model(
        """g (float[1, 3, 5, 5] x, float[4, 1, 1] k) => (float[1, 4, 3, 3] y) {
            q = Sqrt (k) c = Conv (x, w) y = Mul (c, q)
        }""",
        check.weights(w=(4, 3, 3, 3)) | {"k": check.batchnorm(4)["v"].reshape(4, 1, 1)},
    )
    outcome = check(model)
    assert "Mul" in outcome.ops and "Sqrt" in outcome.ops


def test_an_unused_default_stays_an_input(check: Any) -> None:
    model = listed(check, ("spare",), ir_version=8)
    model.graph.initializer.append(onnx.numpy_helper.from_array(check.weights(spare=3)["spare"], "spare"))
    model.graph.input.append(onnx.helper.make_tensor_value_info("spare", onnx.TensorProto.FLOAT, [3]))
    outcome = check(model).gone("Conv")
    assert [i.name for i in outcome.proto.graph.input] == ["x", "spare"]


def test_an_overridable_value_behind_an_if(check: Any) -> None:
    """The default of an input that an If body captures is no constant there either."""
    model = check.model(
        """g (float[1, 3, 5, 5] x, bool p, float[4, 3, 3, 3] w) => (float[1, 4, 3, 3] y) {
            y = If (p) <
                then_branch = t () => (float[1, 4, 3, 3] a) {
                    c = Conv (x, w) a = BatchNormalization (c, s, b, m, v)
                },
                else_branch = e () => (float[1, 4, 3, 3] d) { d = Conv (x, w) }
            >
        }""",
        check.weights(w=(4, 3, 3, 3)) | check.batchnorm(4),
    )
    outcome = check(model, feeds={"p": np.array(True)})
    assert outcome.kept("NF102").site == "a"


def test_a_default_that_nothing_reads_any_more_is_an_input_still(check: Any) -> None:
    """A caller may go on giving the ratio of the Dropout that the fold has removed."""
    model = check.model(
        """g (float[N, 3, 4, 4] x, float r) => (float[N, 6, 4, 4] y) {
            c = Conv (x, w) d = Dropout (c, r) y = BatchNormalization (d, s, b, m, v)
        }""",
        check.weights(w=(6, 3, 1, 1)) | check.batchnorm(6) | {"r": np.array(0.5, np.float32)},
    )
    outcome = check(model).gone("Conv")
    assert [value.name for value in outcome.proto.graph.input] == ["x", "r"]
    assert outcome.tensor("r") == 0.5
