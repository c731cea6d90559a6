"""Walks over everything that a model protobuf nests: subgraphs, functions, tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import onnx


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yields the graphs that are attributes of ``node`` (branches and loop bodies)."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def nodes(top: Iterable[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Yields ``top`` and all nodes nested in their subgraphs."""
    for node in top:
        yield node
        for graph in subgraphs(node):
            yield from nodes(graph.node)


def graphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """Yields the main graph, then every subgraph, those of local functions included."""
    yield model.graph
    for top in (model.graph.node, *(function.node for function in model.functions)):
        for node in nodes(top):
            yield from subgraphs(node)


def tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yields every dense tensor: initializers of all graphs, then tensor attributes of all nodes."""
    for graph in graphs(model):
        yield from graph.initializer
    for top in (model.graph.node, *(function.node for function in model.functions)):
        for node in nodes(top):
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors


def is_repeated(value: object) -> bool:
    """Whether what a field holds is a list. Descriptors are asked differently in every age of protobuf."""
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)
