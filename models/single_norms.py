"""One normalisation as an ONNX graph from ``x`` to ``y``, made without an exporter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import onnx
import onnx.helper as oh

Kind = Literal["native", "exported", "handwritten"]

GROUPNORM_EPSILON = 1e-5
EPSILON = 1e-6
"""Of the others."""


def groupnorm(kind: Kind, shape: tuple[int, ...], groups: int) -> onnx.ModelProto:
    """GroupNorm of ``[N, C, …]``: the operator, as torch's exporter decomposes it, or of ReduceMeans."""
    rng = np.random.default_rng(0)
    channels = shape[1]
    tensors = {
        "gamma": rng.standard_normal(channels).astype(np.float32),
        "beta": rng.standard_normal(channels).astype(np.float32),
        "g": rng.standard_normal((channels, 1, 1)).astype(np.float32),
        "b": rng.standard_normal((channels, 1, 1)).astype(np.float32),
        "ones": np.ones(groups, np.float32),
        "zeros": np.zeros(groups, np.float32),
        "rows": np.array([0, groups, -1]),
        "shape": np.array(shape),
        "axes": np.array([2]),
        "eps": np.array(GROUPNORM_EPSILON, np.float32),
    }
    scaled = [
        oh.make_node("Reshape", ["n", "shape"], ["u"]),
        oh.make_node("Mul", ["u", "g"], ["m"]),
        oh.make_node("Add", ["m", "b"], ["y"]),
    ]
    nodes = {
        "native": [
            oh.make_node(
                "GroupNormalization",
                ["x", "gamma", "beta"],
                ["y"],
                num_groups=groups,
                epsilon=GROUPNORM_EPSILON,
            )
        ],
        "exported": [
            oh.make_node("Reshape", ["x", "rows"], ["r"]),
            oh.make_node("InstanceNormalization", ["r", "ones", "zeros"], ["n"], epsilon=GROUPNORM_EPSILON),
            *scaled,
        ],
        "handwritten": [
            oh.make_node("Reshape", ["x", "rows"], ["r"]),
            oh.make_node("ReduceMean", ["r", "axes"], ["mean"]),
            oh.make_node("Sub", ["r", "mean"], ["c"]),
            oh.make_node("Mul", ["c", "c"], ["sq"]),
            oh.make_node("ReduceMean", ["sq", "axes"], ["var"]),
            oh.make_node("Add", ["var", "eps"], ["ve"]),
            oh.make_node("Sqrt", ["ve"], ["sd"]),
            oh.make_node("Div", ["c", "sd"], ["n"]),
            *scaled,
        ],
    }
    return _model(kind, nodes[kind], shape, tensors, opset=21)


def layernorm_over_channels(shape: tuple[int, ...]) -> dict[str, onnx.ModelProto]:
    """Of ``[N, C, H, W]``, as ConvNeXt writes it, and between two Transposes."""
    rng, channels = np.random.default_rng(0), shape[1]
    gamma, beta = (rng.standard_normal(channels).astype(np.float32) for _ in range(2))
    tensors = {"gamma": gamma, "beta": beta, "g": gamma[:, None, None], "b": beta[:, None, None]}
    tensors |= {"axes": np.array([1]), "two": np.array(2, np.float32), "e": np.array(EPSILON, np.float32)}
    hand = [
        oh.make_node("ReduceMean", ["x", "axes"], ["mean"]),
        oh.make_node("Sub", ["x", "mean"], ["c"]),
        oh.make_node("Pow", ["c", "two"], ["squares"]),
        oh.make_node("ReduceMean", ["squares", "axes"], ["variance"]),
        oh.make_node("Add", ["variance", "e"], ["radicand"]),
        oh.make_node("Sqrt", ["radicand"], ["deviation"]),
        oh.make_node("Div", ["c", "deviation"], ["n"]),
        oh.make_node("Mul", ["n", "g"], ["m"]),
        oh.make_node("Add", ["m", "b"], ["y"]),
    ]
    single = [
        oh.make_node("Transpose", ["x"], ["t"], perm=[0, 2, 3, 1]),
        oh.make_node("LayerNormalization", ["t", "gamma", "beta"], ["n"], epsilon=EPSILON),
        oh.make_node("Transpose", ["n"], ["y"], perm=[0, 3, 1, 2]),
    ]
    return _both(hand, single, shape, tensors)


def rmsnorm(shape: tuple[int, ...]) -> dict[str, onnx.ModelProto]:
    """Over the last axis, as language models write it, and RMSNormalization of opset 23."""
    gamma = np.random.default_rng(0).standard_normal(shape[-1]).astype(np.float32)
    tensors = {"gamma": gamma, "axes": np.array([-1])}
    tensors |= {"two": np.array(2, np.float32), "e": np.array(EPSILON, np.float32)}
    hand = [
        oh.make_node("Pow", ["x", "two"], ["squares"]),
        oh.make_node("ReduceMean", ["squares", "axes"], ["mean"]),
        oh.make_node("Add", ["mean", "e"], ["radicand"]),
        oh.make_node("Sqrt", ["radicand"], ["root"]),
        oh.make_node("Div", ["x", "root"], ["n"]),
        oh.make_node("Mul", ["gamma", "n"], ["y"]),
    ]
    single = [oh.make_node("RMSNormalization", ["x", "gamma"], ["y"], epsilon=EPSILON)]
    return _both(hand, single, shape, tensors)


def _both(
    hand: Sequence[onnx.NodeProto],
    single: Sequence[onnx.NodeProto],
    shape: tuple[int, ...],
    tensors: Mapping[str, np.ndarray],
) -> dict[str, onnx.ModelProto]:
    spellings = {"hand-written": hand, "one operator": single}
    return {name: _model("g", nodes, shape, tensors, opset=23) for name, nodes in spellings.items()}


def _model(
    name: str,
    nodes: Sequence[onnx.NodeProto],
    shape: tuple[int, ...],
    tensors: Mapping[str, np.ndarray],
    opset: int,
) -> onnx.ModelProto:
    read = {operand for node in nodes for operand in node.input}
    value = [oh.make_tensor_value_info(end, onnx.TensorProto.FLOAT, shape) for end in "xy"]
    initializers = [onnx.numpy_helper.from_array(array, n) for n, array in tensors.items() if n in read]
    graph = oh.make_graph(nodes, name, value[:1], value[1:], initializers)
    return oh.make_model(graph, opset_imports=[oh.make_opsetid("", opset)], ir_version=10)
