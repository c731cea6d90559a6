"""A model as onnx's shape inference takes it: without weights, and with a place for what becomes known."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx.shape_inference
import onnx_ir as ir

from normfold.preparation.constants import constant_of
from normfold.preparation.shapes import Dims, Shapes, tensor_dims

SMALL = 1024
"""Elements of the largest constant that may say something about shapes."""

_READ_AS_FLOAT = frozenset({"OneHot", "Range", "Resize", "Upsample"})
"""Operators whose shape depends on the value of a float."""

_Path = tuple[tuple[int, int, int | None], ...]


@dataclass
class Scope:
    """One graph, and where its protobuf lies.

    Attributes:
        graph: the graph.
        path: from the main graph, per level: index of the node, of its attribute, and in a list of graphs.
        nodes: those that the protobuf has, in its order.
        values: inputs and results by name.
    """

    graph: ir.Graph
    path: _Path
    nodes: list[ir.Node] = field(default_factory=list)
    values: dict[str, ir.Value] = field(default_factory=dict)


class Skeleton:
    """The protobuf that shape inference runs on, built once: every round adds to what the last one found.

    Only constants small enough to be a shape, axes, scales or the like have data, so its size is that of the
    graph alone.
    """

    def __init__(self, model: ir.Model) -> None:
        self.scopes: list[Scope] = []
        self._proto = onnx.ModelProto(ir_version=model.ir_version or onnx.IR_VERSION)
        for domain, version in model.opset_imports.items():
            self._proto.opset_import.add(domain=domain, version=version)
        for function in model.functions.values():
            ir.serde.serialize_function_into(self._proto.functions.add(), function)
        self._write(self._proto.graph, model.graph, ())

    def _write(self, into: onnx.GraphProto, graph: ir.Graph, path: _Path) -> None:
        into.name = graph.name or "graph"
        scope = Scope(graph, path)
        self.scopes.append(scope)
        for value in graph.inputs:
            scope.values[value.name or ""] = value
            _declare(into.input.add(), value)
        for value in graph.initializers.values():
            if value.const_value is not None:
                self._write_constant(into, value, value.const_value)
        results = [v for node in graph for v in node.outputs if v.name]
        scope.values.update((v.name or "", v) for v in results)
        for node in graph:
            if (tensor := constant_of(node)) is not None:
                self._write_constant(into, node.outputs[0], tensor)
            else:
                scope.nodes.append(node)
                self._write_node(into.node.add(), node, (path, len(scope.nodes) - 1))
        for value in results:
            if value.type is not None and not value.is_graph_output():
                _declare(into.value_info.add(), value)
        for value in graph.outputs:
            _declare(into.output.add(), value)
            if (tensor := _stored(value)) is not None:
                # Whatever the output is declared as.
                _set_type(into.output[-1], tensor_dims(tensor), tensor.dtype)

    def _write_constant(self, into: onnx.GraphProto, value: ir.Value, tensor: ir.TensorProtocol) -> None:
        name = value.name or ""
        dims = tensor_dims(tensor)
        if _tells_of_shapes(value, tensor, dims):
            _fill(into.initializer.add(), name, tensor.numpy(), tensor.dtype)
        elif not value.is_graph_input():
            _set_type(into.value_info.add(name=name), dims, tensor.dtype)

    def _write_node(self, into: onnx.NodeProto, node: ir.Node, place: tuple[_Path, int]) -> None:
        into.op_type, into.domain, into.overload = node.op_type, node.domain, node.overload
        into.input.extend("" if v is None else v.name or "" for v in node.inputs)
        into.output.extend(v.name or "" for v in node.outputs)
        path, index = place
        for number, attribute in enumerate(node.attributes.values()):
            own = into.attribute.add()
            if attribute.is_ref():
                ir.serde.serialize_reference_attribute_into(own, attribute)
            elif attribute.type == ir.AttributeType.GRAPH:
                own.name, own.type = attribute.name, onnx.AttributeProto.GRAPH
                self._write(own.g, attribute.as_graph(), (*path, (index, number, None)))
            elif attribute.type == ir.AttributeType.GRAPHS:
                own.name, own.type = attribute.name, onnx.AttributeProto.GRAPHS
                for slot, graph in enumerate(attribute.as_graphs()):
                    self._write(own.graphs.add(), graph, (*path, (index, number, slot)))
            else:
                ir.serde.serialize_attribute_into(own, attribute)

    def infer(self) -> None:
        """Let onnx say what it can; what it cannot bars folds, no more."""
        try:
            self._proto = onnx.shape_inference.infer_shapes(self._proto, data_prop=True)
        except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):
            return

    def read(self, shapes: Shapes) -> None:
        """Enter into ``shapes`` what has been found."""
        for scope in self.scopes:
            for info in _infos(self._located(scope)):
                value = scope.values.get(info.name)
                if value is not None:
                    dims, dtype = _type_of(info.type)
                    shapes.refine(value, dims, dtype)

    def state_shapes(self, scope: Scope, found: dict[str, tuple[Dims, ir.DataType | None]]) -> None:
        """Say of values what inference did not see."""
        graph = self._located(scope)
        infos = {info.name: info for info in _infos(graph)}
        for name, (dims, dtype) in found.items():
            if dtype is not None:
                _set_type(infos.get(name) or graph.value_info.add(name=name), dims, dtype)

    def state_constants(self, scope: Scope, found: dict[int, tuple[int, np.ndarray[Any, Any]]]) -> None:
        """Give results their value.

        Args:
            scope: the graph of the nodes.
            found: index of the output and its value, by index of the node in ``scope.nodes``.
        """
        graph = self._located(scope)
        for index, (output, array) in found.items():
            node = graph.node[index]
            name = node.output[output]
            node.output[output] = f"{name}:computed"
            _fill(graph.initializer.add(), name, array, ir.DataType.from_numpy(array.dtype))

    def _located(self, scope: Scope) -> onnx.GraphProto:
        graph = self._proto.graph
        for index, number, slot in scope.path:
            attribute = graph.node[index].attribute[number]
            graph = attribute.g if slot is None else attribute.graphs[slot]
        return graph


def _infos(graph: onnx.GraphProto) -> Iterator[onnx.ValueInfoProto]:
    yield from graph.value_info
    yield from graph.input
    yield from graph.output


def _stored(value: ir.Value) -> ir.TensorProtocol | None:
    """The tensor of a constant that no caller can replace."""
    node = value.producer()
    if node is not None:
        return constant_of(node)
    return None if value.is_graph_input() else value.const_value


def _tells_of_shapes(value: ir.Value, tensor: ir.TensorProtocol, dims: tuple[int, ...]) -> bool:
    if math.prod(dims) > SMALL or tensor.dtype == ir.DataType.STRING:
        return False
    return not tensor.dtype.is_floating_point() or any(
        reader.op_type in _READ_AS_FLOAT for reader, _ in value.uses()
    )


def _fill(into: onnx.TensorProto, name: str, array: np.ndarray[Any, Any], dtype: ir.DataType) -> None:
    into.name, into.data_type = name, dtype.value
    into.dims.extend(array.shape)
    into.raw_data = ir.Tensor(array, dtype).tobytes()


def _declare(info: onnx.ValueInfoProto, value: ir.Value) -> None:
    info.name = value.name or ""
    if value.type is not None:
        ir.serde.serialize_type_into(info.type, value.type)
        if value.shape is not None:
            ir.serde.serialize_shape_into(info.type, value.shape)


def _set_type(info: onnx.ValueInfoProto, dims: Dims, dtype: ir.DataType) -> None:
    info.type.Clear()
    tensor = info.type.tensor_type
    tensor.elem_type = dtype.value
    tensor.shape.SetInParent()
    for dim in dims:
        own = tensor.shape.dim.add()
        if isinstance(dim, int):
            own.dim_value = dim
        elif dim is not None:
            own.dim_param = dim


def _type_of(proto: onnx.TypeProto) -> tuple[Dims | None, ir.DataType | None]:
    """Dimensions and element type of a tensor; of sequences, optionals and maps nothing is known."""
    if not proto.HasField("tensor_type"):
        return None, None
    tensor = proto.tensor_type
    dtype = ir.DataType(tensor.elem_type) if tensor.elem_type else None
    if not tensor.HasField("shape"):
        return None, dtype
    return tuple(map(_dim_of, tensor.shape.dim)), dtype


def _dim_of(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    if dim.HasField("dim_value"):
        return dim.dim_value if dim.dim_value >= 0 else None
    return None if dim.dim_param in ("", "?") else dim.dim_param
