"""The graphs of a model."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

_GRAPH, _GRAPHS = ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS


def graphs_of(model: ir.Model) -> list[ir.Graph]:
    """The main graph, then those inside its nodes, each before its own; not those of functions.

    As ``model.graphs()``, which takes ten times as long: most nodes have no graph, and a fold asks often.
    """
    found: list[ir.Graph] = []
    waiting = [model.graph]
    while waiting:
        graph = waiting.pop()
        found.append(graph)
        inner = [each for node in graph if node.attributes for each in _inside(node)]
        waiting.extend(reversed(inner))
    return found


def named_values(graph: ir.Graph) -> list[ir.Value]:
    """Everything in a graph that has a name of its own, subgraphs not included."""
    return [*graph.inputs, *graph.initializers.values(), *(v for node in graph for v in node.outputs)]


def _inside(node: ir.Node) -> Iterator[ir.Graph]:
    for attribute in node.attributes.values():
        if attribute.type is _GRAPH and not attribute.is_ref():
            yield attribute.value
        elif attribute.type is _GRAPHS and not attribute.is_ref():
            yield from attribute.value
