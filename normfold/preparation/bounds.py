"""How large the result of a node will be, before it is computed: a few bytes can ask for terabytes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx.shape_inference
import onnx_ir as ir

Array = np.ndarray[Any, Any]

# Results are no larger than the largest operand.
_KEEP_SIZE = frozenset(
    [
        "Abs",
        "Cast",
        "Ceil",
        "Clip",
        "Compress",
        "Constant",
        "Cos",
        "CumSum",
        "Erf",
        "Exp",
        "Flatten",
        "Floor",
        "HardSigmoid",
        "Identity",
        "IsInf",
        "IsNaN",
        "LayerNormalization",
        "LeakyRelu",
        "Log",
        "LogSoftmax",
        "Neg",
        "Not",
        "Reciprocal",
        "ReduceL2",
        "ReduceMax",
        "ReduceMean",
        "ReduceMin",
        "ReduceProd",
        "ReduceSum",
        "Relu",
        "Reshape",
        "Round",
        "ScatterElements",
        "ScatterND",
        "Shape",
        "Sigmoid",
        "Sign",
        "Sin",
        "Size",
        "Slice",
        "Softmax",
        "Split",
        "Sqrt",
        "Squeeze",
        "Tanh",
        "Transpose",
        "Trilu",
        "Unsqueeze",
    ]
)
_BROADCAST = frozenset(
    [
        "Add",
        "And",
        "BitwiseAnd",
        "BitwiseOr",
        "BitwiseXor",
        "Div",
        "Equal",
        "Greater",
        "GreaterOrEqual",
        "Less",
        "LessOrEqual",
        "Max",
        "Mean",
        "Min",
        "Mod",
        "Mul",
        "Or",
        "PRelu",
        "Pow",
        "Sub",
        "Sum",
        "Where",
        "Xor",
    ]
)
# Of shapes that depend on values: the largest there can be, per element of the first operand.
_PER_ELEMENT = {"NonZero": 8, "Unique": 4}
# Kernels that lay out each window, so they hold every element as often as windows cover it.
_WINDOWS = frozenset({"AveragePool", "Conv", "ConvTranspose", "LpPool", "MaxPool"})
_MOST_DATA = 1024
_UNKNOWN = (
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    onnx.checker.ValidationError,
    onnx.defs.SchemaError,
    onnx.shape_inference.InferenceError,
)
"""Operands that do not fit end in any of these."""


def elements(node: ir.Node, inputs: Sequence[Array | None], opsets: Mapping[str, int]) -> int | None:
    """Elements that the evaluation of ``node`` will hold at once, or more.

    Args:
        node: of the standard domain, without subgraphs.
        inputs: its operands.
        opsets: operator set version by domain, used where the node carries none.

    Returns:
        The number; ``None`` where nothing says it.
    """
    arrays = [array for array in inputs if isinstance(array, np.ndarray)]
    largest = max((array.size for array in arrays), default=0)
    if node.op_type in _KEEP_SIZE:
        return max(largest, 1)
    if node.op_type in _BROADCAST:
        try:
            return math.prod(np.broadcast_shapes(*(array.shape for array in arrays)))
        except ValueError:
            return largest  # it will be refused when it is evaluated
    if node.op_type in _PER_ELEMENT:
        return largest * _PER_ELEMENT[node.op_type]
    total = _inferred(node, inputs, opsets)
    if total is not None and node.op_type in _WINDOWS:
        kernel = node.attributes.get_ints("kernel_shape") if len(arrays) < 2 else arrays[1].shape[1:]
        return total * math.prod(kernel or ())
    return total


def _inferred(node: ir.Node, inputs: Sequence[Array | None], opsets: Mapping[str, int]) -> int | None:
    """What onnx's shape inference of this one node says, all results together."""
    version = node.version or opsets.get("", opsets.get("ai.onnx", 1))
    proto = onnx.NodeProto(op_type=node.op_type, output=[f"y{i}" for i in range(len(node.outputs))])
    types: dict[str, onnx.TypeProto] = {}
    data: dict[str, onnx.TensorProto] = {}
    try:
        for index, array in enumerate(inputs):
            proto.input.append("" if array is None else f"x{index}")
            if array is None:
                continue
            # Sizes are read from scales in float32 only, and nothing else depends on the kind of float.
            dtype = ir.DataType.FLOAT if array.dtype == np.float64 else ir.DataType.from_numpy(array.dtype)
            types[f"x{index}"] = onnx.helper.make_tensor_type_proto(dtype.value, array.shape)
            if array.size <= _MOST_DATA:
                data[f"x{index}"] = ir.to_proto(ir.Tensor(array.astype(dtype.numpy()), dtype))
        proto.attribute.extend(ir.to_proto(attribute) for attribute in node.attributes.values())
        found = onnx.shape_inference.infer_node_outputs(
            onnx.defs.get_schema(node.op_type, version, ""),
            proto,
            types,
            data,
            opset_imports=[onnx.helper.make_opsetid("", version)],
        )
    except _UNKNOWN:
        return None
    total = 0
    for kind in found.values():
        shape = kind.tensor_type.shape
        if not kind.tensor_type.HasField("shape") or not all(d.HasField("dim_value") for d in shape.dim):
            return None
        total += math.prod(d.dim_value for d in shape.dim)
    return total if found else None
