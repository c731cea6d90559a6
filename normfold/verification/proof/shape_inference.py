"""Shapes and element types of a model's values, by onnx shape inference on a copy without weights.

https://onnx.ai/onnx/repo-docs/ShapeInference.html
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any, cast

import numpy as np
import onnx
import onnx_ir as ir

from normfold.verification.graph_index import GraphIndex, Key

Dims = tuple[int | str | None, ...]

CARRIED_ELEMENTS = 64
"""Larger initializers take no part in the propagation of data; only their shapes do."""


def infer(index: GraphIndex) -> tuple[dict[Key, Dims], dict[Key, np.dtype]]:
    """Infers what is known of each value.

    Args:
        index: the model; not changed.

    Returns:
        Dimensions (a string is a symbolic size, ``None`` an unknown one) and element types, by key. Values of
        which not even the rank is known are left out.
    """
    dims: dict[Key, Dims] = {}
    dtypes: dict[Key, np.dtype] = {}
    for key, value in index.values.items():
        if value.shape is not None:
            dims[key] = tuple(
                d.value if not isinstance(d, int) else d if d >= 0 else None for d in value.shape
            )
        if isinstance(value.type, ir.TensorType):
            dtypes[key] = value.type.dtype.numpy()
    with contextlib.suppress(onnx.shape_inference.InferenceError, ValueError):
        inferred = onnx.shape_inference.infer_shapes(_skeleton(index.model), data_prop=True)
        _collect(inferred.graph, "", dims, dtypes)
    return dims, dtypes


def _skeleton(model: ir.Model) -> onnx.ModelProto:
    """The model with its larger initializers turned into inputs."""
    graph = model.graph
    small, large = [], []
    for value in graph.initializers.values():
        tensor = value.const_value
        if tensor is None or tensor.size <= CARRIED_ELEMENTS:
            small.append(value)
        elif not value.is_graph_input():
            large.append(
                onnx.helper.make_tensor_value_info(value.name or "", int(tensor.dtype), tensor.shape.numpy())
            )
    view = ir.GraphView(
        graph.inputs, graph.outputs, nodes=list(graph), initializers=small, name=graph.name or "graph"
    )
    proto = onnx.ModelProto(ir_version=max(model.ir_version, 4), graph=ir.to_proto(cast(Any, view)))
    proto.graph.input.extend(large)
    for domain, version in graph.opset_imports.items():
        proto.opset_import.add(domain=domain, version=version)
    for function in model.functions.values():
        proto.functions.append(ir.serde.serialize_function(function))
    return proto


def _collect(graph: onnx.GraphProto, scope: str, dims: dict[Key, Dims], dtypes: dict[Key, np.dtype]) -> None:
    for info in (*graph.value_info, *graph.output):
        if not info.type.HasField("tensor_type"):
            continue
        tensor = info.type.tensor_type
        if tensor.elem_type:
            dtypes.setdefault((scope, info.name), ir.DataType(tensor.elem_type).numpy())
        if tensor.HasField("shape"):
            found = _sharper(_dims_of(tensor.shape.dim), dims.get((scope, info.name)))
            dims[(scope, info.name)] = found
    for node in graph.node:
        first = next((name for name in node.output if name), None)
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                _collect(attribute.g, f"{scope}/{first}.{attribute.name}", dims, dtypes)
            for position, inner in enumerate(attribute.graphs):
                _collect(inner, f"{scope}/{first}.{attribute.name}[{position}]", dims, dtypes)


def _dims_of(protos: Iterable[onnx.TensorShapeProto.Dimension]) -> Dims:
    return tuple(
        proto.dim_value if proto.HasField("dim_value") and proto.dim_value >= 0 else proto.dim_param or None
        for proto in protos
    )


def _sharper(inferred: Dims, declared: Dims | None) -> Dims:
    """The declared dimensions, with inferred ones where those are not static."""
    if declared is None or len(declared) != len(inferred):
        return inferred
    return tuple(a if isinstance(a, int) else b for a, b in zip(declared, inferred, strict=True))
