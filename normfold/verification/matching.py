"""Finds which values of two models correspond: by name, then by how they are computed."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator

import onnx_ir as ir

from normfold.verification.graph_index import GraphIndex, literal, subgraphs_of

Twins = dict[ir.Value, ir.Value]
"""Values of the second model by those of the first that they should equal."""

_Number = Callable[[ir.TensorProtocol], Hashable]


def match_values(a: GraphIndex, b: GraphIndex) -> Twins:
    """Pairs the non-constant values of two main graphs, one to one.

    Names come first: inputs, outputs, and whatever else is called the same. A name is not believed where both
    of its values have another partner that is computed exactly alike, or both have one computed by the same
    operators while they themselves are not: somebody has numbered the values anew. What is left is paired by
    the operators that make it, from the inputs forward and from the outputs backward; contents of weights
    play no part.

    Args:
        a: the first model.
        b: the second model.

    Returns:
        The pairs.
    """
    fixed = dict(_interface(a, b))
    exact = _by_number(a, b, fixed, _content)
    similar = _by_number(a, b, fixed, _layout)
    pairs = dict(fixed)
    taken = set(fixed.values())

    def add(left: ir.Value, right: ir.Value) -> bool:
        if left in pairs or right in taken:
            return False
        pairs[left] = right
        taken.add(right)
        return True

    reached = set(exact.values()), set(similar.values())
    for left, right in _named(a, b):
        elsewhere = exact.get(left, right) is not right and right in reached[0]
        renumbered = similar.get(left, right) is not right and right in reached[1]
        if not (elsewhere or (renumbered and _other_kind(left, right))):
            add(left, right)
    for found in (exact, similar, _by_number(a, b, pairs, _layout)):
        for left, right in found.items():
            add(left, right)
    _backward(a, b, pairs, add)
    return pairs


def _interface(a: GraphIndex, b: GraphIndex) -> Iterator[tuple[ir.Value, ir.Value]]:
    for first, second in (
        (a.model.graph.inputs, b.model.graph.inputs),
        (a.model.graph.outputs, b.model.graph.outputs),
    ):
        named = {value.name: value for value in second}
        for value in first:
            if value.name in named and value not in a.constants and named[value.name] not in b.constants:
                yield value, named[value.name]


def _named(a: GraphIndex, b: GraphIndex) -> Iterator[tuple[ir.Value, ir.Value]]:
    for key, value in a.values.items():
        if not key[0] and a.is_shared_name(key) and b.is_shared_name(key):
            yield value, b.values[key]


def _other_kind(left: ir.Value, right: ir.Value) -> bool:
    first, second = left.producer(), right.producer()
    return first is None or second is None or first.op_identifier() != second.op_identifier()


def _by_number(a: GraphIndex, b: GraphIndex, known: Twins, constant: _Number) -> Twins:
    """Pairs values that are computed alike from ``known`` pairs, equals in the order of execution.

    Args:
        a: the first model.
        b: the second model.
        known: pairs to start from.
        constant: what of a constant's content counts.
    """
    anchors: tuple[dict[ir.Value, Hashable], dict[ir.Value, Hashable]] = ({}, {})
    for number, (left, right) in enumerate(known.items()):
        anchors[0][left] = anchors[1][right] = ("known", number)
    first, second = (
        _numbered(index, anchor, constant) for index, anchor in zip((a, b), anchors, strict=True)
    )
    return {
        left: right
        for number, values in first.items()
        for left, right in zip(values, second.get(number, ()), strict=False)
    }


def _numbered(
    index: GraphIndex, anchors: dict[ir.Value, Hashable], constant: _Number
) -> dict[Hashable, list[ir.Value]]:
    """Values of the main graph by a number that says how they are computed."""
    numbers: dict[ir.Value, Hashable] = dict(anchors)
    found: dict[Hashable, list[ir.Value]] = defaultdict(list)

    def number_of(value: ir.Value | None) -> Hashable:
        if value is None:
            return None
        if value not in numbers:
            tensor = literal(value)
            numbers[value] = ("constant", constant(tensor)) if tensor is not None else ("unknown", id(value))
        return numbers[value]

    for node in index.model.graph:
        key = (
            node.op_identifier(),
            _attributes(node, constant),
            tuple(number_of(v) for v in index.reads(node)),
        )
        digest = hashlib.sha1(repr(key).encode(), usedforsecurity=False).hexdigest()
        for slot, value in enumerate(node.outputs):
            if value in numbers:
                continue
            numbers[value] = (digest, slot)
            if value not in index.constants and value.name:
                found[(digest, slot)].append(value)
    return found


def _attributes(node: ir.Node, constant: _Number) -> Hashable:
    parts: list[Hashable] = []
    for name, attribute in sorted(node.attributes.items()):
        if attribute.is_ref():
            parts.append((name, attribute.ref_attr_name))
        elif attribute.type == ir.AttributeType.TENSOR:
            parts.append((name, constant(attribute.as_tensor())))
        elif attribute.type not in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS):
            parts.append((name, repr(attribute.value)))
    inner = tuple((slot, tuple(n.op_type for n in graph)) for slot, graph in subgraphs_of(node))
    return (*parts, inner)


def _content(tensor: ir.TensorProtocol) -> Hashable:
    return (_layout(tensor), hashlib.sha1(_bytes(tensor), usedforsecurity=False).hexdigest())


def _bytes(tensor: ir.TensorProtocol) -> bytes:
    if tensor.dtype == ir.DataType.STRING:
        return repr(tensor.numpy().tolist()).encode()
    return tensor.tobytes()


def _layout(tensor: ir.TensorProtocol) -> Hashable:
    return tensor.dtype.name, tuple(tensor.shape.numpy())


def _backward(a: GraphIndex, b: GraphIndex, pairs: Twins, add: Callable[[ir.Value, ir.Value], bool]) -> None:
    """Pairs the operands of paired values that the same operator makes."""
    pending = list(pairs.items())
    while pending:
        left, right = pending.pop()
        if _other_kind(left, right) or left.index() != right.index():
            continue
        first, second = left.producer(), right.producer()
        assert first is not None and second is not None
        for x, y in zip(first.inputs, second.inputs, strict=False):
            if x is None or y is None or x in a.constants or y in b.constants:
                continue
            if x in a.keys and y in b.keys and add(x, y):
                pending.append((x, y))
