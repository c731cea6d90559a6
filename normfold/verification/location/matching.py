"""Finds which values of two models correspond: by name, then by how they are computed."""

from __future__ import annotations

import hashlib
import operator
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import onnx_ir as ir

from normfold.verification.graph_index import GraphIndex, literal, subgraphs_of

Twins = dict[ir.Value, ir.Value]
"""Values of the second model by those of the first that they should equal."""

_Number = Callable[[ir.TensorProtocol], Hashable]

_Part = TypeVar("_Part")

_COERCING = frozenset({"Softmax", "LogSoftmax", "Hardmax"})
_NOT_COERCING_SINCE = 13
"""Until then they took all axes from ``axis`` on for one."""


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
    found = _Matching(a, b)
    found.add_names()
    for pairs in (found.exact, found.similar, _by_number(a, b, found.pairs, _layout)):
        found.add_all(pairs)
    _backward(found, lambda _left, _right: True)
    return found.pairs


def corresponding_values(a: GraphIndex, b: GraphIndex) -> Twins:
    """Pairs values as :func:`match_values` does, without those that only look alike: a pair has a name in
    common, or is computed alike from the inputs on, or the outputs are computed alike from it."""
    found = _Matching(a, b)
    _backward(found, partial(_same_operation, a, b))
    found.add_names()
    found.add_all(found.exact)
    return found.pairs


class _Matching:
    """Pairs, one to one, and what is known of how values are computed.

    Attributes:
        a: the first model.
        b: the second model.
        pairs: values of ``b`` by those of ``a``.
        exact: pairs that are computed exactly alike from the inputs.
        similar: pairs that are, but for the contents of weights.
    """

    def __init__(self, a: GraphIndex, b: GraphIndex) -> None:
        self.a, self.b = a, b
        self.pairs = dict(_interface(a, b))
        self.exact = _by_number(a, b, self.pairs, _content)
        self.similar = _by_number(a, b, self.pairs, _layout)
        self._taken = set(self.pairs.values())

    def add(self, left: ir.Value, right: ir.Value) -> bool:
        """Adds a pair unless one of the two is taken."""
        if left in self.pairs or right in self._taken:
            return False
        self.pairs[left] = right
        self._taken.add(right)
        return True

    def add_all(self, pairs: Twins) -> None:
        """Adds what is not taken."""
        for left, right in pairs.items():
            self.add(left, right)

    def add_names(self) -> None:
        """Adds values of the same name where the name is believed."""
        reached = set(self.exact.values()), set(self.similar.values())
        for left, right in _named(self.a, self.b):
            elsewhere = self.exact.get(left, right) is not right and right in reached[0]
            renumbered = self.similar.get(left, right) is not right and right in reached[1]
            if not (elsewhere or (renumbered and _other_kind(left, right))):
                self.add(left, right)


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


def _backward(found: _Matching, accept: Callable[[ir.Node, ir.Node], bool]) -> None:
    """Pairs the operands of paired values that the same operator makes, if ``accept`` agrees."""
    pending = list(found.pairs.items())
    while pending:
        left, right = pending.pop()
        if _other_kind(left, right) or left.index() != right.index():
            continue
        first, second = left.producer(), right.producer()
        assert first is not None and second is not None
        if not accept(first, second):
            continue
        for x, y in zip(first.inputs, second.inputs, strict=False):
            if x is None or y is None or x in found.a.constants or y in found.b.constants:
                continue
            if x in found.a.keys and y in found.b.keys and found.add(x, y):
                pending.append((x, y))


def _same_operation(a: GraphIndex, b: GraphIndex, left: ir.Node, right: ir.Node) -> bool:
    """Whether two nodes do the same to what is not constant."""
    operands = _trimmed(left.inputs), _trimmed(right.inputs)
    return (
        left.op_identifier() == right.op_identifier()
        and _attributes(left, _content) == _attributes(right, _content)
        and not (left.op_type in _COERCING and _coerces(a) != _coerces(b))
        and len(operands[0]) == len(operands[1])
        and all(_same_if_constant(a, b, x, y) for x, y in zip(*operands, strict=True))
    )


def _same_if_constant(a: GraphIndex, b: GraphIndex, x: ir.Value | None, y: ir.Value | None) -> bool:
    if x is None or y is None:
        return x is y
    if x in a.constants or y in b.constants:
        return x in a.constants and y in b.constants and _same_constant(a, b, x, y)
    return True


def computed_alike(a: GraphIndex, b: GraphIndex, left: ir.Node, right: ir.Node) -> bool:
    """Whether two nodes of main graphs give the same from values of the same names: operator, attributes, and
    the contents of constants."""
    results = ([value.name or None for value in node.outputs] for node in (left, right))
    operands = ([v.name if v is not None else None for v in _trimmed(node.inputs)] for node in (left, right))
    return (
        _same_operation(a, b, left, right)
        and operator.eq(*map(_trimmed, results))
        and all(
            x == y or left.inputs[slot] in a.constants
            for slot, (x, y) in enumerate(zip(*operands, strict=True))
        )
    )


def _same_constant(a: GraphIndex, b: GraphIndex, x: ir.Value, y: ir.Value) -> bool:
    first, second = literal(x), literal(y)
    if first is not None and second is not None:
        return _content(first) == _content(second)
    left, right = x.producer(), y.producer()
    if left is None or right is None or x.index() != y.index():
        return False
    return _same_operation(a, b, left, right)


def _coerces(index: GraphIndex) -> bool:
    return index.model.opset_imports.get("", _NOT_COERCING_SINCE) < _NOT_COERCING_SINCE


def _trimmed(parts: Sequence[_Part]) -> list[_Part]:
    """Without what is left out at the end."""
    kept = list(parts)
    while kept and kept[-1] is None:
        kept.pop()
    return kept


def aligned(a: GraphIndex, b: GraphIndex) -> ir.Model:
    """A copy of the second model in which values of the same name as in the first correspond, and no others.

    Inputs and outputs keep their names, and so does a pair where a subgraph has a value of the first's name.
    """
    fixed = {value.name for value in (*b.model.graph.inputs, *b.model.graph.outputs)}
    taken = fixed | {name for scope, name in b.values if scope}
    wanted = {
        right.name: left.name
        for left, right in corresponding_values(a, b).items()
        if right.name == left.name or not {left.name, right.name} & taken
    }
    targets = set(wanted.values())
    known = {name for _, name in (*a.values, *b.values)}
    copy = b.model.clone()
    index = GraphIndex(copy)
    renamed: dict[ir.Value, str | None] = {}
    for key, value in index.values.items():
        scope, name = key
        if scope or wanted.get(name, name if name in fixed else None) == name:
            continue
        if name in wanted or name in targets or (key in a.values and value not in index.constants):
            renamed[value] = wanted.get(name) or _free(f"{name}~other", known)
    for value in renamed:
        value.name = _free(f"{value.name}~", known)
    for value, new in renamed.items():
        value.name = new
    return copy


def _free(name: str, known: set[str]) -> str:
    while name in known:
        name += "~"
    known.add(name)
    return name
