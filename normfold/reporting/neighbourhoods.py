"""The surroundings of each site before and after a fold, for pictures.

Values of one name mean the same in both models. So a site's region is what can be reached from it through
values that only one of the models has; where it ends, both models have the same values again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import onnx_ir as ir

from normfold.reporting.report import GraphNode, Site, SiteGraph

MOST_GRAPHS = 64
"""Sites that are drawn; the report stays readable, and small, for models of any depth."""

_MOST_NODES = 12
_MOST_NEIGHBOURS = 3

Role = Literal["site", "target", "changed", "context", "input"]


def site_graphs(original: ir.Model, folded: ir.Model, sites: Sequence[Site]) -> list[SiteGraph]:
    """Draws the surroundings of the first ``MOST_GRAPHS`` sites, those that changed before those that stay.

    Args:
        original: the model before the fold, local functions inlined.
        folded: what became of it.
        sites: what was found.

    Returns:
        One picture per site, in the order of ``sites``.
    """
    before, after = _Values(original), _Values(folded)
    chosen = sorted(range(len(sites)), key=lambda number: (sites[number].action == "kept", number))
    drawn = (_site_graph(sites[number], before, after) for number in sorted(chosen[:MOST_GRAPHS]))
    return [graph for graph in drawn if graph is not None]


class _Values:
    """The values of a model by name, subgraphs included, and the order of its nodes."""

    def __init__(self, model: ir.Model) -> None:
        self.by_name: dict[str, ir.Value] = {}
        self.order: dict[ir.Node, int] = {}
        for graph in model.graphs():
            for value in graph.inputs:
                self.by_name.setdefault(value.name or "", value)
            for node in graph:
                self.order[node] = len(self.order)
                for value in node.outputs:
                    self.by_name.setdefault(value.name or "", value)

    def producer(self, name: str) -> ir.Node | None:
        value = self.by_name.get(name)
        return None if value is None else value.producer()


def _site_graph(site: Site, before: _Values, after: _Values) -> SiteGraph | None:
    end = before.producer(site.site)
    if end is None:
        return None
    chain = _chain(end, site.nodes)
    gone = _region(chain, before, after)
    shared = {value.name or "" for node in gone for value in node.outputs if value.name in after.by_name}
    wanted = dict.fromkeys((*sorted(shared), *site.into))
    takers = [node for name in wanted if (node := after.producer(name)) is not None]
    come = _region(takers, after, before)
    targets = [node for name in site.into if (node := after.producer(name)) is not None]
    drawn_before = _draw(gone, before, dict.fromkeys(chain, "site"))
    if site.action == "kept":
        return SiteGraph(site.site, drawn_before)
    return SiteGraph(site.site, drawn_before, _draw(come, after, dict.fromkeys(targets, "target")))


def _chain(end: ir.Node, operators: Sequence[str]) -> list[ir.Node]:
    """The nodes that a site was made of: from its end backwards, as far as their types agree."""
    chain, node = [end], end
    for operator in reversed(operators[:-1]):
        found = next((producer for producer in _producers(node) if producer.op_type == operator), None)
        if found is None:
            break
        chain.append(found)
        node = found
    return chain


def _region(seeds: Iterable[ir.Node], own: _Values, other: _Values) -> list[ir.Node]:
    """Nodes that hang together with ``seeds`` through values that ``other`` lacks, the nearest first."""
    region = dict.fromkeys(seeds)
    waiting = deque(region)
    while waiting and len(region) < _MOST_NODES:
        node = waiting.popleft()
        for neighbour in _across(node, other):
            if neighbour in own.order and neighbour not in region and len(region) < _MOST_NODES:
                region[neighbour] = None
                waiting.append(neighbour)
    return list(region)


def _across(node: ir.Node, other: _Values) -> Iterator[ir.Node]:
    for value in node.inputs:
        producer = None if value is None else value.producer()
        if value is not None and producer is not None and value.name not in other.by_name:
            yield producer
    for value in node.outputs:
        if value.name not in other.by_name:
            yield from (reader for reader, _ in value.uses())


def _producers(node: ir.Node) -> Iterator[ir.Node]:
    for value in node.inputs:
        producer = None if value is None else value.producer()
        if producer is not None and producer.op_type != "Constant":
            yield producer


def _draw(region: Sequence[ir.Node], values: _Values, roles: dict[ir.Node, Role]) -> tuple[GraphNode, ...]:
    """The region and its neighbours: who feeds it, and its first readers."""
    nodes: dict[ir.Node, Role] = {node: roles.get(node, "changed") for node in region}
    inputs: dict[str, GraphNode] = {}
    for node in region:
        readers = (reader for value in node.outputs for reader, _ in value.uses())
        for number, neighbour in enumerate((*_producers(node), *dict.fromkeys(readers))):
            if number < _MOST_NEIGHBOURS and neighbour in values.order:
                nodes.setdefault(neighbour, "context")
        for value in node.inputs:
            if value is not None and value.producer() is None and value.const_value is None:
                name = value.name or ""
                inputs[name] = GraphNode(name, "input", role="input")
    nodes = {node: role for node, role in nodes.items() if node.op_type != "Constant"}
    ordered = sorted(nodes, key=values.order.__getitem__)
    present = inputs.keys() | {value.name for node in ordered for value in node.outputs}
    return (*inputs.values(), *(_drawn(node, nodes[node], present) for node in ordered))


def _drawn(node: ir.Node, role: Role, present: set[str | None]) -> GraphNode:
    reads = [value for value in node.inputs if value is not None]
    edges = dict.fromkeys(_drawn_as(value) for value in reads if value.name in present)
    constants = tuple("×".join(map(str, value.shape or ())) for value in reads if _is_constant(value))
    return GraphNode(_identity(node), node.op_type, tuple(edges), constants, role)


def _drawn_as(value: ir.Value) -> str:
    producer = value.producer()
    return value.name or "" if producer is None else _identity(producer)


def _identity(node: ir.Node) -> str:
    """A node is named by its first output, whichever is read; an output that is left out has no name."""
    return next((value.name for value in node.outputs if value.name), "")


def _is_constant(value: ir.Value) -> bool:
    producer = value.producer()
    return value.const_value is not None or (producer is not None and producer.op_type == "Constant")
