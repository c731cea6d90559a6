"""Long models for measurements of scale."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

CHANNELS = 2


def conv_batchnorm_chain(length: int) -> ir.Model:
    """``length`` times Conv 1×1 → BatchNormalization, each with weights of its own."""
    rng = np.random.default_rng(0)
    nodes, tensors, last = [], [], "x"
    for i in range(length):
        arrays = {
            f"w{i}": rng.standard_normal((CHANNELS, CHANNELS, 1, 1)),
            f"s{i}": rng.uniform(0.5, 1.5, CHANNELS),
            f"b{i}": rng.standard_normal(CHANNELS),
            f"m{i}": rng.standard_normal(CHANNELS),
            f"v{i}": rng.uniform(0.5, 1.5, CHANNELS),
        }
        tensors += [numpy_helper.from_array(a.astype(np.float32), name) for name, a in arrays.items()]
        weight, *statistics = arrays
        nodes += [
            helper.make_node("Conv", [last, weight], [f"c{i}"]),
            helper.make_node("BatchNormalization", [f"c{i}", *statistics], [f"y{i}"]),
        ]
        last = f"y{i}"
    shape: list[str | int | None] = ["N", CHANNELS, 4, 4]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, shape)],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return ir.from_proto(model)


def residual_chain(length: int) -> ir.Model:
    """``length`` times ``x + BatchNormalization(Relu(x))``: nothing absorbs it; each sum is a diamond."""
    rng = np.random.default_rng(0)
    nodes, tensors, last = [], [], "x"
    for i in range(length):
        arrays = {
            f"s{i}": rng.uniform(0.5, 1.5, CHANNELS),
            f"b{i}": rng.standard_normal(CHANNELS),
            f"m{i}": rng.standard_normal(CHANNELS),
            f"v{i}": rng.uniform(0.5, 1.5, CHANNELS),
        }
        tensors += [numpy_helper.from_array(a.astype(np.float32), name) for name, a in arrays.items()]
        nodes += [
            helper.make_node("Relu", [last], [f"r{i}"]),
            helper.make_node("BatchNormalization", [f"r{i}", *arrays], [f"n{i}"]),
            helper.make_node("Add", [last, f"n{i}"], [f"y{i}"]),
        ]
        last = f"y{i}"
    shape: list[str | int | None] = ["N", CHANNELS, 4, 4]
    graph = helper.make_graph(
        nodes,
        "residual",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, shape)],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return ir.from_proto(model)
