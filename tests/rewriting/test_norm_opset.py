"""A form may raise the opset where nothing else in the model minds."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.helper as oh
import onnx_ir as ir
import onnxruntime as ort
import pytest

from benchmarks.groupnorm import source
from normfold import fold
from normfold.folding import Folded, fold_model
from normfold.options import FoldOptions
from normfold.planning.opset import obstacle_to_opset

SHAPE = (2, 12, 4, 5)


def model_at(opset: int, *more: onnx.NodeProto, kind: str = "exported") -> onnx.ModelProto:
    """GroupNorm ``y``, at opset 18 or later, with nodes behind that make ``z`` of it."""
    model = source(kind, SHAPE, 3)
    model.opset_import[0].version = opset
    model.ir_version = 8
    if more:
        model.graph.node.extend(more)
        model.graph.output[0].CopyFrom(oh.make_tensor_value_info("z", onnx.TensorProto.FLOAT, [None] * 4))
    return model


def folded(model: onnx.ModelProto, **options: str) -> Folded:
    return fold_model(ir.from_proto(model), FoldOptions(**options))


def site_of(result: Folded) -> tuple[str, str | None, str | None, str]:
    site = next(s for s in result.sites if s.site == "y")
    return site.action, site.rule, site.code, site.reason or ""


def test_it_is_raised_for_the_native_operator() -> None:
    model = model_at(18, oh.make_node("Relu", ["y"], ["z"]))
    result = folded(model, groupnorm="native")
    assert site_of(result) == ("substituted", "native", None, "")
    proto = ir.to_proto(result.model)
    assert [o.version for o in proto.opset_import] == [21]
    assert proto.ir_version == 10
    onnx.checker.check_model(proto, full_check=True)
    x = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    before, after = (
        ort.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
        for m in (model, proto)
    )
    np.testing.assert_allclose(after, before, rtol=0, atol=5e-6)


def test_raising_is_proven_and_told() -> None:
    report = fold(model_at(18), groupnorm="native", allow_unstable=True).report
    assert report.verification.verdict == "pass"
    assert report.summary["opset"] == [18, 21]


@pytest.mark.parametrize(
    ("node", "operator"),
    [
        (oh.make_node("GridSample", ["y", "grid"], ["z"], mode="bilinear"), "GridSample"),
        (oh.make_node("AveragePool", ["y"], ["z"], kernel_shape=[2, 2], ceil_mode=1), "AveragePool"),
    ],
)
def test_it_is_not_raised_past_a_change_of_meaning(node: onnx.NodeProto, operator: str) -> None:
    model = model_at(18, node, kind="handwritten")
    if operator == "GridSample":
        grid = np.zeros((2, 4, 5, 2), np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(grid, "grid"))
    result = folded(model, groupnorm="native", target="tensorrt")
    action, rule, code, reason = site_of(result)
    assert (action, rule, code) == ("substituted", "instancenorm", "NF403")
    assert operator in reason and "opset 21" in reason and "18" in reason
    assert result.model.opset_imports[""] == 18


def test_what_the_form_replaces_does_not_count() -> None:
    """ReduceMean's axes became an operand with opset 18; these go with the hand-written GroupNorm."""
    model = model_at(17, kind="handwritten")
    for node in model.graph.node:
        if node.op_type == "ReduceMean":
            del node.input[1]
            node.attribute.append(oh.make_attribute("axes", [2]))
    onnx.checker.check_model(model)
    assert site_of(folded(model, groupnorm="native"))[:2] == ("substituted", "native")
    model.graph.node.append(oh.make_node("ReduceMean", ["y"], ["z"], axes=[1]))
    model.graph.output[0].CopyFrom(oh.make_tensor_value_info("z", onnx.TensorProto.FLOAT, [None] * 4))
    action, _, code, reason = site_of(folded(model, groupnorm="native"))
    assert (action, code) == ("kept", "NF403")
    assert "ReduceMean" in reason


def test_nothing_is_raised_without_need() -> None:
    result = folded(model_at(18, kind="handwritten"), target="ort-cpu")
    assert result.changed
    assert result.model.opset_imports[""] == 18


def test_layernorm_needs_no_more_than_17() -> None:
    model = model_at(16, kind="exported")
    result = folded(model, groupnorm="layernorm")
    assert site_of(result)[:2] == ("substituted", "layernorm")
    assert result.model.opset_imports[""] == 17


NODES = {
    "Softmax": oh.make_node("Softmax", ["x"], ["y"]),
    "Dropout": oh.make_node("Dropout", ["x"], ["y"], ratio=0.1),
    "Relu": oh.make_node("Relu", ["x"], ["y"]),
    "Resize": oh.make_node("Resize", ["x", "", "s"], ["y"]),
    "Split": oh.make_node("Split", ["x"], ["y"]),
    "Unheard": oh.make_node("Unheard", ["x"], ["y"]),
}


@pytest.mark.parametrize(
    ("operator", "opset", "wanted", "fine"),
    [
        ("Softmax", 11, 21, False),
        ("Softmax", 13, 21, True),
        ("Dropout", 11, 17, False),
        ("Relu", 11, 21, True),
        ("Resize", 17, 21, False),
        ("Resize", 18, 21, True),
        ("Split", 13, 21, False),
        ("Unheard", 18, 21, False),
        ("Relu", 18, 999, False),
    ],
)
def test_which_operators_stay_the_same(operator: str, opset: int, wanted: int, *, fine: bool) -> None:
    value = [oh.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [4]) for name in "xy"]
    graph = oh.make_graph([NODES[operator]], "g", value[:1], value[1:])
    model = oh.make_model(graph, opset_imports=[oh.make_opsetid("", opset)], ir_version=8)
    assert (obstacle_to_opset(ir.from_proto(model), wanted, ()) is None) is fine


def test_an_old_ir_version_is_not_raised() -> None:
    model = ir.from_proto(model_at(18))
    model.ir_version = 3
    assert "IR version" in (obstacle_to_opset(model, 21, ()) or "")
