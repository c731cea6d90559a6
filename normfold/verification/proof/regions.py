"""Cuts two models into small regions that both can be run and compared on their own.

A region holds nodes that differ, together with everything that ties them to each other: its boundary consists
of values that have the same name in both models. If each region computes the same from the same boundary
values, then, by induction over the original's execution order, the models compute the same. The argument
holds for boundary values drawn independently of each other, so a region may even read what another value of
it feeds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, cast

import onnx_ir as ir

from normfold.verification.graph_index import STANDARD_DOMAINS, GraphIndex, Key, first_output, literal
from normfold.verification.proof.difference import Differ, Difference


@dataclass(frozen=True)
class Region:
    """Two sets of nodes that should compute the same.

    Attributes:
        original: nodes of the original in execution order, with those that make their constants.
        folded: nodes of the folded model, likewise.
        inputs: keys of the boundary values that either side reads.
        outputs: keys of the values that both sides produce, in the original's execution order.
    """

    original: tuple[ir.Node, ...]
    folded: tuple[ir.Node, ...]
    inputs: tuple[Key, ...]
    outputs: tuple[Key, ...]

    @property
    def name(self) -> str:
        """Name of the last value that the region produces, with its scope."""
        scope, name = self.outputs[-1]
        return f"{scope}/{name}".lstrip("/") if scope else name


class _Groups:
    """Disjoint sets of nodes, merged in near-constant time."""

    def __init__(self, nodes: Iterable[ir.Node]) -> None:
        self._parent = {node: node for node in nodes}

    def find(self, node: ir.Node) -> ir.Node:
        root = node
        while self._parent[root] is not root:
            root = self._parent[root]
        while self._parent[node] is not root:
            self._parent[node], node = root, self._parent[node]
        return root

    def merge(self, a: ir.Node, b: ir.Node) -> None:
        self._parent[self.find(a)] = self.find(b)

    def __contains__(self, node: ir.Node) -> bool:
        return node in self._parent


class Regions:
    """The regions of a pair of models.

    Attributes:
        regions: every region, in the original's execution order of their last outputs.
        missing_outputs: names of graph outputs that the folded model does not have.
        dead: nodes of the original that differ and feed nothing that the two models share.
    """

    def __init__(self, original: GraphIndex, folded: GraphIndex, edited: Collection[str] = ()) -> None:
        self.original = original
        self.folded = folded
        self._differ = Differ(original, folded, edited)
        whole: set[Key] = set()
        while True:
            difference = self._differ.compare(whole)
            groups, crossing = self._group(difference)
            if crossing <= whole:
                break
            whole |= crossing
        self._regions_of: dict[ir.Node, list[Region]] = {}
        self.missing_outputs = difference.missing_outputs
        self.dead: set[ir.Node] = set()
        self.regions = self._collect(difference, groups)

    def containing(self, node: ir.Node) -> list[Region]:
        """The regions that hold a node of the original; one that makes a constant may be in several."""
        return self._regions_of.get(node, [])

    def _group(self, difference: Difference) -> tuple[_Groups, set[Key]]:
        groups = _Groups([*difference.original, *difference.folded])
        crossing: set[Key] = set()
        for index, nodes in ((self.original, difference.original), (self.folded, difference.folded)):
            for node in nodes:
                for value in index.reads(node):
                    key = index.keys.get(value)
                    producer = value.producer()
                    if (
                        key is None
                        or producer is None
                        or value in index.constants
                        or self._differ.shared(key)
                    ):
                        continue
                    if index.scope_of[producer] != index.scope_of[node]:
                        crossing.add(_lifted(index, node, index.scope_of[producer]))
                    elif producer in groups:
                        groups.merge(node, producer)
        for node in difference.original:
            for key in self._shared_outputs(node):
                twin = self.folded.producer(key)
                if twin is not None and twin in groups:
                    groups.merge(node, twin)
        return groups, crossing

    def _shared_outputs(self, node: ir.Node) -> list[Key]:
        keys = (self.original.keys.get(value) for value in node.outputs)
        return [key for key in keys if key is not None and self._differ.shared(key)]

    def _collect(self, difference: Difference, groups: _Groups) -> list[Region]:
        members: dict[ir.Node, tuple[set[ir.Node], set[ir.Node]]] = {}
        for side, nodes in enumerate((difference.original, difference.folded)):
            for node in nodes:
                members.setdefault(groups.find(node), (set(), set()))[side].add(node)
        regions = []
        for a_nodes, b_nodes in members.values():
            ordered = sorted(a_nodes, key=self.original.position.__getitem__)
            outputs = [key for node in ordered for key in self._shared_outputs(node)]
            if outputs:
                regions.append(self._region(a_nodes, b_nodes, outputs))
            else:
                self.dead |= a_nodes
        regions.sort(key=self._place)
        for key in difference.constant_outputs:
            regions.append(self._constant_region(key))
        for region in regions:
            for node in region.original:
                self._regions_of.setdefault(node, []).append(region)
        return regions

    def _place(self, region: Region) -> int:
        producer = self.original.producer(region.outputs[-1])
        return self.original.position[producer] if producer is not None else -1

    def _constant_region(self, key: Key) -> Region:
        """What makes an output that no input changes in one model at least, back to values of both."""
        return self._region(self._back_from(self.original, key), self._back_from(self.folded, key), [key])

    def _back_from(self, index: GraphIndex, key: Key) -> set[ir.Node]:
        nodes: set[ir.Node] = set()
        waiting = [index.producer(key)]
        while waiting:
            node = waiting.pop()
            if node is None or node in nodes:
                continue
            nodes.add(node)
            for value in index.reads(node):
                read = index.keys.get(value)
                if read is not None and value not in index.constants and not self._differ.shared(read):
                    waiting.append(value.producer())
        return nodes

    def _region(self, a_nodes: set[ir.Node], b_nodes: set[ir.Node], outputs: Iterable[Key]) -> Region:
        inputs: dict[Key, None] = {}
        complete = []
        for index, nodes in ((self.original, a_nodes), (self.folded, b_nodes)):
            ordered = index.with_constant_producers(nodes)
            produced = {value for node in ordered for value in node.outputs}
            for node in ordered:
                for value in index.reads(node):
                    if value not in produced and value not in index.constants and value in index.keys:
                        inputs[index.keys[value]] = None
            complete.append(tuple(ordered))
        return Region(complete[0], complete[1], tuple(inputs), tuple(outputs))

    def widened(self, region: Region, levels: int) -> Region | None:
        """The region with the producers of its inputs taken in, for folds that use how its inputs depend on
        each other.

        Args:
            region: the region to widen; its outputs stay.
            levels: how many steps to go back.

        Returns:
            The wider region, or ``None`` if there is nothing in front of it in its scope.
        """
        scope = region.outputs[0][0]
        a_nodes, b_nodes = set(region.original), set(region.folded)
        wider = region
        for _ in range(levels):
            grown = False
            for key in wider.inputs:
                if key[0] != scope or not self._differ.shared(key):
                    continue
                producers = (self.original.producer(key), self.folded.producer(key))
                if None in producers:
                    continue
                whole = self.containing(producers[0]) if producers[0] is not None else []
                a_nodes.update(whole[0].original if whole else filter(None, producers[:1]))
                b_nodes.update(whole[0].folded if whole else filter(None, producers[1:]))
                grown = True
            if not grown:
                break
            wider = self._region(a_nodes, b_nodes, region.outputs)
        return None if wider is region else wider


def _lifted(index: GraphIndex, node: ir.Node, scope: str) -> Key:
    """Key of the control-flow node in ``scope`` whose subgraphs hold the node."""
    while index.scope_of[node] != scope:
        node = index.owners[index.scope_of[node]]
    return scope, first_output(node) or ""


def view(
    index: GraphIndex, nodes: Collection[ir.Node], inputs: Iterable[Key], outputs: Iterable[Key]
) -> ir.Model:
    """A read-only model made of a region's nodes where they stand; nothing is copied.

    Args:
        index: the model that the nodes belong to.
        nodes: the nodes in execution order, those that make their constants included.
        inputs: boundary values; those that this model does not read are left out.
        outputs: values that the new model returns.

    Returns:
        The model. Its opset imports and functions are those of the source.
    """
    source = index.model
    produced = {value for node in nodes for value in node.outputs}
    results = [index.values[key] for key in outputs]
    read = dict.fromkeys(value for node in nodes for value in index.reads(node))
    read.update(dict.fromkeys(results))
    graph = ir.GraphView(
        [index.values[key] for key in inputs if index.values.get(key) in read],
        results,
        nodes=nodes,
        initializers=[
            value for value in read if value in index.constants and value not in produced and value.name
        ],
        opset_imports=dict(source.graph.opset_imports),
        name="region",
    )
    # A view is documented to do for a graph here, and not typed so.
    return ir.Model(
        cast(Any, graph), ir_version=source.ir_version, functions=tuple(source.functions.values())
    )


def extract(
    index: GraphIndex, nodes: Collection[ir.Node], inputs: Iterable[Key], outputs: Iterable[Key]
) -> ir.Model:
    """As :func:`view`, a model of its own, ``Constant`` nodes turned into initializers. Tensors are shared
    with the source, never copied."""
    model = view(index, nodes, inputs, outputs)
    graph = model.graph.clone()
    _constants_to_initializers(graph)
    return ir.Model(graph, ir_version=model.ir_version, functions=tuple(model.functions.values()))


def _constants_to_initializers(graph: ir.Graph) -> None:
    """Turns ``Constant`` nodes into initializers, so that there is one kind of constant to perturb."""
    for node in [node for node in graph if node.op_type == "Constant" and node.domain in STANDARD_DOMAINS]:
        old = node.outputs[0]
        tensor = literal(old)
        if tensor is None or any(output is old for output in graph.outputs):
            continue
        new = ir.Value(
            name=old.name,
            shape=ir.Shape(tensor.shape.numpy()),
            type=ir.TensorType(tensor.dtype),
            const_value=tensor,
        )
        old.replace_all_uses_with(new)
        graph.remove(node, safe=True)
        graph.register_initializer(new)
