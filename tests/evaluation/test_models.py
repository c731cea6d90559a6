"""ONNX's light models, with random weights, against onnxruntime."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from normfold.evaluation import Evaluator

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"


def randomised(path: Path) -> ir.Model:
    """The model with its constant-filled weights replaced by random ones that keep activations in range."""
    model = ir.load(path)
    rng = np.random.default_rng(0)
    graph = model.graph
    fed = {node.outputs[0]: node for node in graph if node.op_type == "ConstantOfShape"}
    for value, node in fed.items():
        shape = [int(d) for d in node.inputs[0].const_value.numpy()]
        uses = list(value.uses())
        user, slot = uses[0].node, uses[0].idx
        content = rng.standard_normal(shape).astype(np.float32)
        if user.op_type in ("Conv", "Gemm") and slot == 1:
            content *= np.float32(np.sqrt(2 / max(int(np.prod(shape[1:])), 1)))
        elif user.op_type == "BatchNormalization" and slot == 4:
            content = np.abs(content) + np.float32(0.5)
        else:
            content = content * np.float32(0.1) + np.float32(slot == 1)
        initializer = ir.Value(name=f"{value.name}_random", const_value=ir.tensor(content))
        initializer.shape, initializer.dtype = initializer.const_value.shape, ir.DataType.FLOAT
        graph.register_initializer(initializer)
        ir.convenience.replace_all_uses_with(value, initializer)
        graph.remove(node, safe=True)
    return model


@pytest.mark.parametrize(
    "name", ["densenet121", "inception_v2", "resnet50", "shufflenet", "squeezenet", "inception_v1"]
)
def test_light_models_agree_with_onnxruntime_within_float32_rounding(name):
    ort = pytest.importorskip("onnxruntime")
    model = randomised(LIGHT / f"light_{name}.onnx")
    (logits,) = (
        (n.inputs[0] for n in model.graph if n.op_type == "Softmax")
        if name != "densenet121"
        else (model.graph.outputs[0],)
    )
    softmax = logits.uses()[0].node if name != "densenet121" else None
    if softmax is not None:
        # Compare in front of the Softmax, which would flatten every difference.
        logits.dtype, logits.shape = ir.DataType.FLOAT, None
        model.graph.outputs[0] = logits
        model.graph.remove(softmax)
    source = next(v for v in model.graph.inputs if v.name not in model.graph.initializers)
    x = np.random.default_rng(1).standard_normal([int(d) for d in source.shape]).astype(np.float32)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(
        ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    (theirs,) = session.run(None, {source.name: x})
    (native,) = Evaluator(model, precision="native").run({source.name: x}).values()
    started = time.perf_counter()
    (double,) = Evaluator(model).run({source.name: x}).values()
    elapsed = time.perf_counter() - started
    size = np.abs(double).max()
    assert size > 1e-3
    assert double.std() > 1e-4 * size
    np.testing.assert_allclose(theirs, double, atol=2e-5 * size, rtol=0)
    np.testing.assert_allclose(native, double, atol=2e-5 * size, rtol=0)
    assert elapsed < 10
