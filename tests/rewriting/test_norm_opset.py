"""A form may raise the opset where nothing else in the model minds."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.helper as oh
import onnx_ir as ir
import onnxruntime as ort
import pytest

from models.single_norms import groupnorm, layernorm_over_channels
from normfold import fold
from normfold.folding import Folded, fold_model
from normfold.folding.norm_step import NormStep
from normfold.options import FoldOptions
from normfold.planning.opset import obstacle_to_opset

SHAPE = (2, 12, 4, 5)


def model_at(opset: int, *more: onnx.NodeProto, kind: str = "exported") -> onnx.ModelProto:
    """GroupNorm ``y``, at opset 18 or later, with nodes behind that make ``z`` of it."""
    model = groupnorm(kind, SHAPE, 3)
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


def test_it_is_not_raised_past_a_part_of_the_norm_that_stays() -> None:
    """``s`` is read by the norm alone, but for a node that nobody reads and that stays as it is."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 12]> g (float[2, 12, 4, 5] x) => (float[2, 12, 4, 5] y)
        <float eps = {0.001}, float two = {2.0}> {
            m = ReduceMean <axes = [2, 3], keepdims = 0> (x) mu = Unsqueeze <axes = [2, 3]> (m)
            c = Sub (x, mu) sq = Pow (c, two) v = ReduceMean <axes = [2, 3]> (sq)
            ve = Add (v, eps) sd = Sqrt (ve) y = Div (c, sd)
        }"""
    )
    assert site_of(folded(model, groupnorm="native"))[:2] == ("substituted", "native")
    model.graph.node.append(oh.make_node("Sub", ["x", "mu"], ["unread"]))
    result = folded(model, groupnorm="native", target="ort-cpu")
    onnx.checker.check_model(ir.to_proto(result.model))
    action, rule, code, reason = site_of(result)
    assert (action, rule, code) == ("substituted", "instancenorm-bn", "NF403")
    assert "ReduceMean" in reason and "opset 21" in reason


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


@pytest.mark.parametrize("read", [False, True])
def test_constants_of_what_the_form_replaces_do_not_count(*, read: bool) -> None:
    """Here the epsilon is what a ReduceMean of old makes of two; it stays if it is read elsewhere too."""
    model = model_at(17, kind="handwritten")
    epsilon = next(t for t in model.graph.initializer if t.name == "eps")
    model.graph.initializer.remove(epsilon)
    model.graph.node.insert(0, oh.make_node("ReduceMean", ["epsilons"], ["eps"], axes=[0], keepdims=0))
    values = np.full(2, onnx.numpy_helper.to_array(epsilon).item(), np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(values, "epsilons"))
    if read:
        model.graph.output.append(oh.make_tensor_value_info("eps", onnx.TensorProto.FLOAT, []))
    for node in model.graph.node:
        if node.op_type == "ReduceMean" and len(node.input) > 1:
            del node.input[1]
            node.attribute.append(oh.make_attribute("axes", [2]))
    onnx.checker.check_model(model)
    action, rule, code, _ = site_of(folded(model, groupnorm="native"))
    assert (action, rule, code) == (("kept", None, "NF403") if read else ("substituted", "native", None))


def centred_weight(model: onnx.ModelProto, source: str) -> None:
    """``z``: a Conv of ``y`` whose weight an expression makes of ``source`` with the ReduceMean of old."""
    weight = np.random.default_rng(1).standard_normal((4, 12, 1, 1)).astype(np.float32)
    if source == "weight":
        model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "weight"))
    else:
        model.graph.input.append(oh.make_tensor_value_info(source, onnx.TensorProto.FLOAT, weight.shape))
    model.graph.node.extend(
        [
            oh.make_node("ReduceMean", [source], ["wm"], axes=[1]),
            oh.make_node("Sub", [source, "wm"], ["w"]),
            oh.make_node("Conv", ["y", "w"], ["z"]),
        ]
    )
    model.graph.output[0].CopyFrom(oh.make_tensor_value_info("z", onnx.TensorProto.FLOAT, [None] * 4))


def test_what_the_fold_removes_does_not_count() -> None:
    """ReduceMean of opset 17 bars the native operator, until the expression of a weight is evaluated."""
    model = model_at(17)
    centred_weight(model, "weight")
    result = folded(model, groupnorm="native")
    assert site_of(result) == ("substituted", "native", None, "")
    proto = ir.to_proto(result.model)
    assert [o.version for o in proto.opset_import] == [21]
    assert [node.op_type for node in proto.graph.node] == ["GroupNormalization", "Conv"]
    onnx.checker.check_model(proto, full_check=True)
    assert not fold_model(result.model, FoldOptions(groupnorm="native")).changed
    x = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    before, after = (
        ort.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
        for m in (model, proto)
    )
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-5)


def test_what_the_fold_removes_is_computed_as_its_own_opset_says() -> None:
    """Softmax over axis 1 was one over all axes behind it, before opset 13."""
    model = model_at(11)
    logits = np.random.default_rng(1).standard_normal((4, 12, 2, 1)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(logits, "logits"))
    model.graph.node.extend(
        [oh.make_node("Softmax", ["logits"], ["w"], axis=1), oh.make_node("Conv", ["y", "w"], ["z"])]
    )
    model.graph.output[0].CopyFrom(oh.make_tensor_value_info("z", onnx.TensorProto.FLOAT, [None] * 4))
    result = folded(model, groupnorm="native")
    proto = ir.to_proto(result.model)
    assert [o.version for o in proto.opset_import] == [21]
    assert [node.op_type for node in proto.graph.node] == ["GroupNormalization", "Conv"]
    x = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
    before, after = (
        ort.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
        for m in (model, proto)
    )
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-5)


def test_what_stays_counts_although_the_form_could_have_it() -> None:
    model = model_at(17)
    centred_weight(model, "fed")
    result = folded(model, groupnorm="native")
    assert "ReduceMean" in site_of(result)[3]
    assert result.model.opset_imports[""] == 17


def test_what_was_expected_to_go_and_did_not_undoes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_at(17)
    centred_weight(model, "fed")
    expected = folded(model, groupnorm="native")
    monkeypatch.setattr(NormStep, "opset_within_reach", lambda _self, _model, **_options: 21)
    result = folded(model, groupnorm="native")
    assert result.sites == expected.sites
    assert ir.to_proto(result.model) == ir.to_proto(expected.model)


def test_a_norm_is_judged_by_the_opset_that_another_needs() -> None:
    """A GroupNorm of float64 needs LayerNormalization of opset 17, which the LayerNorm over channels likes
    too."""
    group, layer = model_at(16, kind="handwritten"), layernorm_over_channels(SHAPE)["hand-written"]
    for tensor in group.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            array = onnx.numpy_helper.to_array(tensor).astype(np.float64)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    for value in (*group.graph.input, *group.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    layer.opset_import[0].version, layer.ir_version = 16, group.ir_version
    for model, axes in ((group, [2]), (layer, [1])):
        for node in model.graph.node:
            if node.op_type == "ReduceMean":
                del node.input[1:]
                node.attribute.append(oh.make_attribute("axes", axes))
    both = onnx.compose.merge_models(onnx.compose.add_prefix(layer, "l_"), group, io_map=[])
    onnx.checker.check_model(both, full_check=True)
    options = FoldOptions(target="ort-cpu")
    result = fold_model(ir.from_proto(both), options)
    assert [(site.kind, site.rule) for site in result.sites] == [
        ("layernorm", "layernorm"),
        ("groupnorm", "layernorm"),
    ]
    assert result.model.opset_imports[""] == 17
    assert not fold_model(result.model, options).changed


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


@pytest.mark.parametrize(("further", "fine"), [((), True), (("m", "v"), False)])
def test_a_batchnorm_that_trains_by_its_outputs(further: tuple[str, ...], *, fine: bool) -> None:
    """Until opset 13 it does; from 14 on an attribute says so."""
    node = oh.make_node("BatchNormalization", ["x", "s", "s", "s", "s"], ["y", *further])
    values = [oh.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2, 3]) for name in "xy"]
    scale = onnx.numpy_helper.from_array(np.ones(3, np.float32), "s")
    graph = oh.make_graph([node], "g", values[:1], values[1:], [scale])
    model = oh.make_model(graph, opset_imports=[oh.make_opsetid("", 11)], ir_version=8)
    assert (obstacle_to_opset(ir.from_proto(model), 17, ()) is None) is fine


def test_an_old_ir_version_is_not_raised() -> None:
    model = ir.from_proto(model_at(18))
    model.ir_version = 3
    assert "IR version" in (obstacle_to_opset(model, 21, ()) or "")
