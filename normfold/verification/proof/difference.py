"""Which nodes of two models differ. Nodes correspond by the names of the values that they produce."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir

from normfold.verification.graph_index import GraphIndex, Key, first_output, literal, subgraphs_of


@dataclass
class Difference:
    """What the two models do not have in common.

    Attributes:
        original: nodes of the original without an equal counterpart.
        folded: nodes of the folded model without an equal counterpart.
        constant_outputs: keys of graph outputs that are constant in at least one model and not literally
            equal.
        missing_outputs: names of outputs of the original that the folded model does not have.
    """

    original: set[ir.Node] = field(default_factory=set)
    folded: set[ir.Node] = field(default_factory=set)
    constant_outputs: list[Key] = field(default_factory=list)
    missing_outputs: list[str] = field(default_factory=list)


class Differ:
    """Compares two indexed models node by node.

    Args:
        original: the model that is right by definition.
        folded: the model to be judged.
        edited: names of initializers of ``folded`` whose exact content is not what is stored; they equal
            nothing.
    """

    def __init__(self, original: GraphIndex, folded: GraphIndex, edited: Collection[str] = ()) -> None:
        self.original = original
        self.folded = folded
        self._edited = frozenset(edited)
        self._same_constant: dict[tuple[ir.Value, ir.Value], bool] = {}
        self._same_operator: dict[tuple[str, str], bool] = {}

    def shared(self, key: Key) -> bool:
        """Whether the key is a non-constant value of both models, so that it means the same in both."""
        return self.original.is_shared_name(key) and self.folded.is_shared_name(key)

    def compare(self, whole: Collection[Key] = ()) -> Difference:
        """Finds the nodes that differ.

        Args:
            whole: first outputs of control-flow nodes that count as different as a whole, subgraphs included.

        Returns:
            The difference; nodes inside a control-flow node that differs as a whole are not listed.
        """
        difference = Difference()
        self._scope(self.original.model.graph, self.folded.model.graph, "", set(whole), difference)
        self._outputs(difference)
        return difference

    def _outputs(self, difference: Difference) -> None:
        for key in self.original.outputs:
            if key not in self.folded.values:
                difference.missing_outputs.append(key[1])
                continue
            a, b = self.original.values[key], self.folded.values[key]
            if (a in self.original.constants or b in self.folded.constants) and not self._constants_equal(
                a, b
            ):
                difference.constant_outputs.append(key)

    def _scope(
        self, a_graph: ir.Graph, b_graph: ir.Graph, scope: str, whole: set[Key], out: Difference
    ) -> None:
        matched: set[ir.Node] = set()
        for node in a_graph:
            if self._makes_constant(self.original, node):
                continue
            name = first_output(node)
            twin_value = self.folded.values.get((scope, name)) if name else None
            twin = twin_value.producer() if twin_value is not None else None
            if twin is None or (scope, name) in whole or not self._equal(node, twin):
                out.original.add(node)
                continue
            matched.add(twin)
            for (slot, a_inner), (_, b_inner) in zip(subgraphs_of(node), subgraphs_of(twin), strict=True):
                self._scope(a_inner, b_inner, self.original.inner_scope(node, slot), whole, out)
        out.folded.update(
            node for node in b_graph if node not in matched and not self._makes_constant(self.folded, node)
        )

    @staticmethod
    def _makes_constant(index: GraphIndex, node: ir.Node) -> bool:
        return all(value in index.constants for value in node.outputs if value.name)

    def _equal(self, a: ir.Node, b: ir.Node) -> bool:
        if (a.domain, a.op_type, a.overload) != (b.domain, b.op_type, b.overload):
            return False
        if not self._operators_equal(a.domain, a.op_type):
            return False
        if _names(a.outputs) != _names(b.outputs) or not self._attributes_equal(a, b):
            return False
        a_inputs, b_inputs = _without_trailing_none(a.inputs), _without_trailing_none(b.inputs)
        return len(a_inputs) == len(b_inputs) and all(map(self._values_equal, a_inputs, b_inputs))

    def _operators_equal(self, domain: str, op_type: str) -> bool:
        """Whether both models' opsets give the operator the same definition."""
        known = self._same_operator.get((domain, op_type))
        if known is None:
            left, right = (
                index.model.graph.opset_imports.get(domain) for index in (self.original, self.folded)
            )
            known = left == right
            if not known and left is not None and right is not None:
                try:
                    schemas = [onnx.defs.get_schema(op_type, version, domain) for version in (left, right)]
                    known = schemas[0].since_version == schemas[1].since_version
                except onnx.defs.SchemaError:
                    known = False
            self._same_operator[(domain, op_type)] = known
        return known

    def _attributes_equal(self, a: ir.Node, b: ir.Node) -> bool:
        if a.attributes.keys() != b.attributes.keys():
            return False
        for name, left in a.attributes.items():
            right = b.attributes[name]
            if left.type != right.type or left.is_ref() != right.is_ref():
                return False
            if left.is_ref():
                if left.ref_attr_name != right.ref_attr_name:
                    return False
            elif left.type == ir.AttributeType.TENSOR:
                if not tensors_equal(left.as_tensor(), right.as_tensor()):
                    return False
            elif left.type not in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) and (
                left.value != right.value
            ):
                return False
        a_inner, b_inner = list(subgraphs_of(a)), list(subgraphs_of(b))
        return len(a_inner) == len(b_inner) and all(
            a_slot == b_slot and self._signatures_equal(a_graph, b_graph)
            for (a_slot, a_graph), (b_slot, b_graph) in zip(a_inner, b_inner, strict=True)
        )

    def _signatures_equal(self, a: ir.Graph, b: ir.Graph) -> bool:
        return (
            _names(a.inputs) == _names(b.inputs)
            and len(a.outputs) == len(b.outputs)
            and all(map(self._values_equal, a.outputs, b.outputs))
        )

    def _values_equal(self, a: ir.Value | None, b: ir.Value | None) -> bool:
        if a is None or b is None:
            return a is b
        a_constant, b_constant = a in self.original.constants, b in self.folded.constants
        if a_constant or b_constant:
            return a_constant and b_constant and self._constants_equal(a, b)
        return self.original.keys.get(a) == self.folded.keys.get(b)

    def _constants_equal(self, a: ir.Value, b: ir.Value) -> bool:
        known = self._same_constant.get((a, b))
        if known is None:
            known = self._same_constant[(a, b)] = self._compare_constants(a, b)
        return known

    def _compare_constants(self, a: ir.Value, b: ir.Value) -> bool:
        if b.name in self._edited and b.is_initializer():
            return False
        left, right = literal(a), literal(b)
        if left is not None and right is not None:
            return tensors_equal(left, right)
        a_node, b_node = a.producer(), b.producer()
        return (
            a_node is not None
            and b_node is not None
            and a in self.original.constants
            and b in self.folded.constants
            and a.index() == b.index()
            and (a_node.domain, a_node.op_type) == (b_node.domain, b_node.op_type)
            and self._operators_equal(a_node.domain, a_node.op_type)
            and self._attributes_equal(a_node, b_node)
            and len(a_node.inputs) == len(b_node.inputs)
            and all(map(self._values_equal, a_node.inputs, b_node.inputs))
        )


def tensors_equal(a: ir.TensorProtocol, b: ir.TensorProtocol) -> bool:
    """Whether two tensors have the same type, shape and bits. The same object is equal without being read."""
    if a is b:
        return True
    if a.dtype != b.dtype or tuple(a.shape) != tuple(b.shape):
        return False
    if a.dtype == ir.DataType.STRING:
        return bool(np.array_equal(a.numpy(), b.numpy()))
    return a.tobytes() == b.tobytes()


def _names(values: Collection[ir.Value]) -> list[str]:
    return [value.name or "" for value in values]


def _without_trailing_none(values: Collection[ir.Value | None]) -> list[ir.Value | None]:
    kept = list(values)
    while kept and kept[-1] is None:
        kept.pop()
    return kept
