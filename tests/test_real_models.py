"""Models that others trained and ship, and the graphs in onnx's wheel: what goes, and that it is right."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from models import real
from normfold.folding import Folded, fold_model

# Networks of 50 layers in float32, against themselves with their weights rounded differently.
AGREEMENT = 2e-4


def counts(model: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray], folder: Path) -> list[np.ndarray]:
    """onnxruntime on one core, its own graph optimisations off: they are not always right."""
    ort = pytest.importorskip("onnxruntime")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    file = folder / "model.onnx"
    onnx.save(model, file)
    return ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"]).run(None, feeds)


def fold(model: onnx.ModelProto) -> tuple[Folded, onnx.ModelProto]:
    folded = fold_model(ir.from_proto(model))
    proto = ir.to_proto(folded.model)
    onnx.checker.check_model(proto)
    again = fold_model(ir.from_proto(proto))
    assert not again.changed, [(s.site, s.action) for s in again.sites if s.action != "kept"]
    return folded, proto


def compare(
    model: onnx.ModelProto, folded: onnx.ModelProto, feeds: dict[str, np.ndarray], folder: Path
) -> None:
    for before, after in zip(run(model, feeds, folder), run(folded, feeds, folder), strict=True):
        assert np.isfinite(before).all() and before.std() > 0
        limit = AGREEMENT * np.abs(before).max()
        np.testing.assert_allclose(after, before, rtol=0, atol=limit)


def randomised(file: Path, seed: int = 0) -> onnx.ModelProto:
    """A light model with random weights in the place of its constant fillings."""
    model = onnx.load(file)
    rng = np.random.default_rng(seed)
    shapes = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    variances = {n.input[4] for n in model.graph.node if n.op_type == "BatchNormalization"}
    nodes = []
    for node in model.graph.node:
        value = next((a.t for a in node.attribute if a.name == "value"), None)
        is_weight = node.op_type == "ConstantOfShape" and value is not None
        if not is_weight or value.data_type != onnx.TensorProto.FLOAT:
            nodes.append(node)
            continue
        shape, name = [int(n) for n in shapes[node.input[0]]], node.output[0]
        if name in variances:
            array = rng.uniform(0.5, 2.0, shape)
        elif len(shape) == 1:
            array = rng.uniform(0.6, 1.4, shape) * rng.choice([-1, 1, 1], shape)
        else:
            array = rng.standard_normal(shape) * math.sqrt(2 / math.prod(shape[1:]))
        tensor = onnx.numpy_helper.from_array(array.astype(np.float32), name)
        model.graph.initializer.append(tensor)
        model.graph.input.append(onnx.helper.make_tensor_value_info(name, tensor.data_type, shape))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def with_logits(file: Path) -> onnx.ModelProto:
    """The model with what its last Sigmoid reads as its output: on random input the Sigmoid is all zeros."""
    model = onnx.load(file)
    outputs = {o.name for o in model.graph.output}
    for node in model.graph.node:
        if node.op_type == "Sigmoid" and node.output[0] in outputs:
            dims = [d.dim_value or None for d in model.graph.output[0].type.tensor_type.shape.dim]
            info = onnx.helper.make_tensor_value_info(node.input[0], onnx.TensorProto.FLOAT, dims)
            model.graph.output.append(info)
            model.graph.output.remove(next(o for o in model.graph.output if o.name == node.output[0]))
    return model


LIGHT = {
    "resnet50": {"BatchNormalization": (53, 0)},
    "shufflenet": {"BatchNormalization": (49, 0)},
    "inception_v2": {"BatchNormalization": (69, 0), "Mul": (69, 0), "Add": (69, 0)},
    "densenet121": {"BatchNormalization": (121, 62), "Mul": (121, 0), "Add": (121, 0)},
}


@pytest.mark.parametrize("name", LIGHT)
def test_a_light_model(name: str, tmp_path: Path) -> None:
    model = randomised(real.light()[name])
    folded, proto = fold(model)
    for op_type, (before, most) in LIGHT[name].items():
        assert counts(model)[op_type] == before
        assert counts(proto)[op_type] <= most, op_type
    assert {s.action for s in folded.sites} <= {"folded", "merged", "moved", "kept"}
    assert all(s.code for s in folded.sites if s.action == "kept")
    (data,) = [i for i in model.graph.input if i.name not in {t.name for t in model.graph.initializer}]
    shape = [d.dim_value for d in data.type.tensor_type.shape.dim]
    compare(model, proto, {data.name: np.random.default_rng(1).standard_normal(shape, np.float32)}, tmp_path)


@pytest.mark.parametrize("name", LIGHT)
def test_a_light_model_as_it_is(name: str) -> None:
    """With its constant fillings, made by ConstantOfShape."""
    model = onnx.load(real.light()[name])
    _, proto = fold(model)
    for op_type, (_, most) in LIGHT[name].items():
        assert counts(proto)[op_type] <= most, op_type


@pytest.mark.parametrize("name", ["squeezenet", "vgg19", "bvlc_alexnet"])
def test_a_light_model_without_anything_to_fold(name: str) -> None:
    model = onnx.load(real.light()[name])
    folded = fold_model(ir.from_proto(model))
    assert not folded.changed


@pytest.mark.real
@pytest.mark.parametrize("name", ["paddle-cls", "paddle-rec", "paddle-det", "paddle-det-v3", "orientation"])
def test_no_batchnorm_is_left(name: str, tmp_path: Path) -> None:
    model = with_logits(real.path_or_skip(name))
    folded, proto = fold(model)
    assert counts(model)["BatchNormalization"] == real.available()[name].batch_norms > 0
    assert counts(proto)["BatchNormalization"] == 0
    assert all(s.code and s.reason for s in folded.sites if s.action == "kept")
    compare(model, proto, real.feeds(name), tmp_path)


@pytest.mark.real
def test_scalar_affines_behind_the_detectors_convs_are_gone(tmp_path: Path) -> None:
    """Each Conv is followed by a learnable scalar scale and bias: what reads the Conv alone is absorbed."""
    model = onnx.load(real.path_or_skip("paddle-det"))
    _, proto = fold(model)
    producers = {o: n for n in proto.graph.node for o in n.output}
    readers = Counter(i for n in proto.graph.node for i in n.input)
    constants = {t.name for t in proto.graph.initializer}
    constants |= {n.output[0] for n in proto.graph.node if n.op_type == "Constant"}
    outputs = {o.name for o in proto.graph.output}
    left = []
    for node in proto.graph.node:
        if node.op_type not in ("Mul", "Add", "Sub", "Div") or not set(node.input) & constants:
            continue
        for name in set(node.input) - constants:
            if name in producers and producers[name].op_type == "Conv" and readers[name] == 1:
                left.append(node.output[0])
    assert left == [] and not outputs & set(left)
    assert counts(proto)["Div"] == 0


@pytest.mark.real
@pytest.mark.parametrize(
    "name",
    [
        "speech-embedding",
        "wake-word",
        "silero-vad",
        "silero-vad-ifless",
        "basic-pitch",
        "pitch-f0",
        "nudenet",
    ],
)
def test_other_models_stay_right(name: str, tmp_path: Path) -> None:
    model = onnx.load(real.path_or_skip(name))
    _, proto = fold(model)
    assert len(proto.graph.node) <= len(model.graph.node)
    feeds = real.feeds(name)
    for before, after in zip(run(model, feeds, tmp_path), run(proto, feeds, tmp_path), strict=True):
        limit = AGREEMENT * max(float(np.abs(before).max(initial=0.0)), 1e-3)
        np.testing.assert_allclose(after, before, rtol=0, atol=limit)
