"""What the comparison needs to know of one model: its values by scope and name, what is constant, who reads
what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

Key = tuple[str, str]
"""A value's address: path of the (sub)graph that owns it, ``""`` for the main graph, and its name."""

RANDOM_OPERATORS = frozenset(
    {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli"}
)
STANDARD_DOMAINS = frozenset({"", "ai.onnx"})
_LITERAL_TYPES = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}


def subgraphs_of(node: ir.Node) -> Iterator[tuple[str, ir.Graph]]:
    """Yields ``(slot, graph)`` for each subgraph held by the node's attributes, in a stable order."""
    for name in sorted(node.attributes):
        attribute = node.attributes[name]
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.GRAPH:
            yield name, attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            for position, graph in enumerate(attribute.as_graphs()):
                yield f"{name}[{position}]", graph


def first_output(node: ir.Node) -> str | None:
    """Name of the first output that the node really has; it identifies the node in its scope."""
    return next((output.name for output in node.outputs if output.name), None)


def dtype_of(value: ir.Value) -> ir.DataType | None:
    """Element type of a tensor value, where known."""
    if value.const_value is not None:
        return value.const_value.dtype
    return value.dtype


def literal(value: ir.Value) -> ir.TensorProtocol | None:
    """The tensor of an initializer or of a ``Constant`` node, ``None`` where there is no such tensor."""
    if value.const_value is not None:
        return value.const_value
    producer = value.producer()
    if producer is None or producer.op_type != "Constant" or producer.domain not in STANDARD_DOMAINS:
        return None
    for name, attribute in producer.attributes.items():
        if attribute.is_ref():
            return None
        if name == "value":
            return attribute.as_tensor()
        if name in _LITERAL_TYPES:
            return ir.tensor(np.array(attribute.value, dtype=_LITERAL_TYPES[name]), name=value.name)
    return None


def is_random(node: ir.Node) -> bool:
    """Whether two runs of the node may differ: random generators and dropout in training mode."""
    if node.domain not in STANDARD_DOMAINS:
        return False
    if node.op_type in RANDOM_OPERATORS:
        return True
    if node.op_type != "Dropout":
        return False
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        mode = literal(node.inputs[2])
        return mode is None or bool(mode.numpy().any())
    return "is_test" in node.attributes and not node.attributes["is_test"].as_int()


@dataclass
class GraphIndex:
    """One model, indexed. Building it reads no tensor data and takes time linear in the graph.

    Attributes:
        model: the model.
        freeze: whether initializers that callers could override count as constants.
        values: value by key.
        keys: key by value, the inverse of ``values``.
        scope_of: scope path of each node.
        owners: the control-flow node that owns a subgraph's scope, by scope path.
        position: place of each node in execution order, subgraphs' nodes after their owner's.
        constants: values that no input can change: initializers that callers cannot override, and what
            deterministic operators make of such values alone.
        outputs: keys of the main graph's outputs.
    """

    model: ir.Model
    freeze: bool = False
    values: dict[Key, ir.Value] = field(default_factory=dict)
    keys: dict[ir.Value, Key] = field(default_factory=dict)
    scope_of: dict[ir.Node, str] = field(default_factory=dict)
    owners: dict[str, ir.Node] = field(default_factory=dict)
    position: dict[ir.Node, int] = field(default_factory=dict)
    constants: set[ir.Value] = field(default_factory=set)
    outputs: list[Key] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._functions = {identifier[:2] for identifier in self.model.functions}
        self._walk(self.model.graph, "")
        self.outputs = [self.keys[value] for value in self.model.graph.outputs if value in self.keys]

    def _add(self, value: ir.Value, scope: str) -> None:
        if value.name:
            self.values[(scope, value.name)] = value
            self.keys[value] = (scope, value.name)

    def _walk(self, graph: ir.Graph, scope: str) -> None:
        overridable = self.model.ir_version >= 4 and not self.freeze
        for value in graph.initializers.values():
            self._add(value, scope)
            if not (overridable and value.is_graph_input()):
                self.constants.add(value)
        for value in graph.inputs:
            self._add(value, scope)
        for node in graph:
            self.scope_of[node] = scope
            self.position[node] = len(self.position)
            nested = False
            for slot, subgraph in subgraphs_of(node):
                nested = True
                inner = self.inner_scope(node, slot)
                self.owners[inner] = node
                self._walk(subgraph, inner)
            constant = not nested and self._is_constant(node)
            for value in node.outputs:
                self._add(value, scope)
                if constant:
                    self.constants.add(value)

    def _is_constant(self, node: ir.Node) -> bool:
        if (node.domain, node.op_type) in self._functions or is_random(node):
            return False
        if node.op_type == "Constant" and node.domain in STANDARD_DOMAINS:
            return True
        present = [value for value in node.inputs if value is not None]
        return bool(present) and all(value in self.constants for value in present)

    def inner_scope(self, node: ir.Node, slot: str) -> str:
        """Path of the scope that a control-flow node's subgraph opens."""
        return f"{self.scope_of[node]}/{first_output(node)}.{slot}"

    def is_shared_name(self, key: Key) -> bool:
        """Whether the key names a value of this model that is not a constant."""
        value = self.values.get(key)
        return value is not None and value not in self.constants

    def producer(self, key: Key) -> ir.Node | None:
        """The node that produces the value, ``None`` for inputs and initializers."""
        return self.values[key].producer()

    def reads(self, node: ir.Node) -> list[ir.Value]:
        """Values that the node reads, those that its subgraphs capture included, each once."""
        found: dict[ir.Value, None] = {value: None for value in node.inputs if value is not None}
        pending = [graph for _, graph in subgraphs_of(node)]
        inner: set[ir.Value] = set()
        candidates: dict[ir.Value, None] = {}
        while pending:
            graph = pending.pop()
            inner.update(graph.inputs)
            inner.update(graph.initializers.values())
            candidates.update(dict.fromkeys(graph.outputs))
            for nested in graph:
                inner.update(nested.outputs)
                candidates.update((value, None) for value in nested.inputs if value is not None)
                pending.extend(subgraph for _, subgraph in subgraphs_of(nested))
        found.update((value, None) for value in candidates if value not in inner)
        return list(found)

    def readers(self, value: ir.Value) -> list[ir.Node]:
        """Nodes of the main graph that read a value of it, those that capture it in a subgraph included."""
        found: dict[ir.Node, None] = {}
        for node, _ in value.uses():
            outer: ir.Node | None = node
            while outer is not None and self.scope_of.get(outer):
                outer = self.owners[self.scope_of[outer]]
            if outer is not None:
                found[outer] = None
        return list(found)

    def with_constant_producers(self, nodes: set[ir.Node]) -> list[ir.Node]:
        """The nodes and all nodes that make constants for them, in execution order."""
        complete = set(nodes)
        pending = list(nodes)
        while pending:
            for value in self.reads(pending.pop()):
                producer = value.producer()
                if value in self.constants and producer is not None and producer not in complete:
                    complete.add(producer)
                    pending.append(producer)
        return sorted(complete, key=self.position.__getitem__)
