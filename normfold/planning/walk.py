"""The walk of an affine over the graph, backward to producers or forward to readers.

Requests are collected per use (node and input slot), and a node is asked only when everything that can
reach it has been met: backward in reverse topological order, forward in topological order. So diamonds
need no special case.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Callable, Iterable

import numpy as np
import onnx_ir as ir

from normfold.affine import Affine
from normfold.planning.agreement import agreed, grouped, reads_no_element
from normfold.planning.balance import Toll
from normfold.planning.cost import Elements, is_bias
from normfold.planning.crossing import Crossing, Operator, Table
from normfold.planning.plan import Deposit, Use, Walk
from normfold.preparation.node_view import NodeView
from normfold.preparation.workspace import Workspace
from normfold.recognition.virtual import is_virtual, virtual
from normfold.refusal import Refused

# Keeps planning linear in the number of sites; real affines are absorbed within a dozen nodes.
_LONGEST_WALK = 64


class _Queue:
    """Nodes in topological order (or its reverse), each once."""

    def __init__(self, key: Callable[[ir.Node], float]) -> None:
        self._key = key
        self._heap: list[tuple[float, int, ir.Node]] = []
        self._seen: set[ir.Node] = set()

    def push(self, node: ir.Node) -> None:
        if node not in self._seen:
            self._seen.add(node)
            heapq.heappush(self._heap, (self._key(node), len(self._seen), node))

    def __bool__(self) -> bool:
        return bool(self._heap)

    def pop(self) -> ir.Node:
        return heapq.heappop(self._heap)[2]


def walk_backward(
    value: ir.Value,
    use: Use,
    affine: Affine,
    workspace: Workspace,
    table: Table,
    *,
    deposit: bool = False,
    toll: Toll | None = None,
) -> Walk:
    """Ask the producer of ``value`` to produce ``affine(value)`` for the reader ``use``.

    With ``deposit``, a part that nothing takes stays where it was refused. ``toll`` ends a way
    that costs too much.

    Raises:
        Refused: where it cannot be absorbed exactly, or where the way costs too much.
    """
    walk = Walk(forward=False)
    asked: dict[ir.Value, dict[Use, Affine]] = {value: {use: affine}}
    queue = _Queue(lambda node: -workspace.position(node))

    def request(target: ir.Value, reader: Use, wanted: Affine) -> None:
        asked.setdefault(target, {})[reader] = wanted
        producer = target.producer()
        if producer is None or producer.graph is not reader[0].graph:
            refuse([target], _no_producer(target, workspace))
        else:
            queue.push(producer)

    def refuse(values: Iterable[ir.Value], refusal: Refused) -> None:
        if not deposit:
            raise refusal.again()
        for target in values:
            if target is value or target in workspace.sealed:
                raise refusal.again()
            for wanted, uses in grouped(asked.pop(target)):
                walk.deposits.append(Deposit(target, uses, wanted))

    request(value, use, affine)
    while queue:
        if toll is not None:
            toll.pay(walk)
        node = queue.pop()
        outputs = [v for v in node.outputs if v in asked]
        if not outputs:
            continue
        try:
            if len(walk.crossings) > _LONGEST_WALK:
                raise Refused("NF123", f"more than {_LONGEST_WALK} nodes lie between it and a weight")
            wanted = {_index(v): agreed(v, asked[v], workspace, table) for v in outputs}
            if is_virtual(node):
                _check_kernel(node, wanted[0])
                walk.renamed.extend(outputs)
                through = _past_bias(node, wanted[0], workspace)
                if through is None:
                    walk.composed[node] = _compose(virtual(node).affine, wanted[0])
                else:
                    x, walk.composed[node], scale = through
                    request(x, (node, 0), scale)
                continue
            view = NodeView(node, workspace)
            crossing = _entry(view, table).backward(view, wanted)
            crossing, requests = _take_constants(view, crossing)
            if deposit and _enlarges([v for v, _, _ in requests], outputs, workspace):
                raise Refused(
                    "NF122", f"it would touch more elements in front of {node.op_type} {view.name!r}"
                )
        except Refused as refusal:
            refuse(outputs, refusal)
            continue
        walk.crossings[node] = crossing
        for index, left in crossing.leaves.items():
            target = node.outputs[index]
            if target is value and not crossing.edits_node and not requests:
                raise Refused("NF118", f"{node.op_type} {view.name!r} has no bias to take the shift")
            if target in workspace.sealed:
                raise Refused("NF128", f"{target.name!r} is inside of a normalisation")
            walk.deposits.append(Deposit(target, tuple(asked[target]), left))
        walk.renamed.extend(v for v in node.outputs if v in outputs or _is_dead(v))
        for target, slot, asks in requests:
            request(target, (node, slot), asks)
    return walk


def walk_forward(
    value: ir.Value,
    affine: Affine,
    workspace: Workspace,
    table: Table,
    *,
    deposit: bool = False,
    edits: bool = True,
    toll: Toll | None = None,
) -> Walk:
    """Let every reader of ``value`` take ``affine`` over, so that it is no longer applied in front of them.

    With ``deposit``, a part that nothing takes stays where it was refused. Without ``edits``, nothing on the
    way may change for it. ``toll`` ends a way that costs too much.

    Raises:
        Refused: where a reader cannot absorb it exactly, or where the way costs too much.
    """
    walk = Walk(forward=True)
    given: dict[ir.Node, dict[int, Affine]] = {}
    queue = _Queue(workspace.position)

    def give(source: ir.Value, brought: Affine) -> None:
        uses = source.uses()
        if source.is_graph_output():
            refuse(
                source,
                tuple((u.node, u.idx) for u in uses),
                brought,
                Refused("NF105", f"{source.name!r} is a graph output"),
            )
            return
        for reader in uses:
            if reader.node.graph is not source.graph:
                refuse(
                    source,
                    ((reader.node, reader.idx),),
                    brought,
                    Refused("NF104", f"{source.name!r} is read inside a subgraph"),
                )
            else:
                given.setdefault(reader.node, {})[reader.idx] = brought
                queue.push(reader.node)

    def refuse(source: ir.Value, uses: tuple[Use, ...], brought: Affine, refusal: Refused) -> None:
        if not deposit or source is value or source in workspace.sealed:
            raise refusal.again()
        walk.deposits.append(Deposit(source, uses, brought))

    give(value, affine)
    while queue:
        if toll is not None:
            toll.pay(walk)
        node = queue.pop()
        slots = given[node]
        try:
            if len(walk.crossings) > _LONGEST_WALK:
                raise Refused("NF123", f"more than {_LONGEST_WALK} nodes lie between it and a weight")
            if is_virtual(node) and edits:
                _check_kernel(node, slots[0])
                walk.composed[node] = _compose(slots[0], virtual(node).affine)
                continue
            view = NodeView(node, workspace)
            crossing = _entry(view, table).forward(view, slots)
            if crossing.edits_node and not edits:
                raise Refused("NF118", f"{node.op_type} {view.name!r} would have to change")
            outputs = {node.outputs[i]: a for i, a in crossing.affines.items() if not a.is_identity}
            sources = [v for slot in slots if (v := node.inputs[slot]) is not None]
            if deposit and outputs and _enlarges(list(outputs), sources, workspace):
                raise Refused("NF122", f"it would touch more elements behind {node.op_type} {view.name!r}")
        except Refused as refusal:
            for slot, brought in slots.items():
                source = node.inputs[slot]
                assert source is not None
                refuse(source, ((node, slot),), brought, refusal)
            continue
        walk.crossings[node] = crossing
        walk.renamed.extend(outputs)
        for output, brought in outputs.items():
            give(output, brought)
    return walk


def _entry(view: NodeView, table: Table) -> Operator:
    if view.is_fused:
        raise Refused("NF128", f"{view.op_type} {view.name!r} is part of what runtimes run as one kernel")
    operator = table.get(view.op_type) if view.node.domain in ("", "ai.onnx") else None
    if operator is None:
        raise Refused("NF114", f"an affine does not cross {view.op_type} {view.name!r}")
    return operator


def _no_producer(value: ir.Value, workspace: Workspace) -> Refused:
    """Why nothing can be asked to produce ``value``."""
    if workspace.constants.is_overridable(value):
        return Refused("NF102", f"{value.name!r} is a graph input with a default that a caller may replace")
    if value.is_graph_input() and value.graph is workspace.model.graph:
        return Refused("NF106", f"{value.name!r} is a graph input")
    return Refused("NF126", f"{value.name!r} comes into the subgraph from outside")


def _check_kernel(node: ir.Node, arriving: Affine) -> None:
    """Refuse what would make the scale and shift of a normalisation something else."""
    if not virtual(node).takes(arriving):
        name = node.outputs[0].name
        raise Refused("NF128", f"{name!r} is the scale or shift of a normalisation, and would be no longer")


def _compose(inner: Affine, outer: Affine) -> Affine:
    composed = inner.then(outer)
    if composed.outgrows(inner, outer):
        raise Refused("NF122", "together with its neighbour it would be an outer product of constants")
    return composed


def _past_bias(node: ir.Node, wanted: Affine, workspace: Workspace) -> tuple[ir.Value, Affine, Affine] | None:
    """``s·(x·W + b) + t = x·(s·W) + (s·b + t)`` where the node is the bias of a MatMul, whose weight takes s.

    Returns the MatMul's value, the new bias, and what the MatMul is asked for.
    """
    x = node.inputs[0]
    assert x is not None
    scale = wanted.only_scale()
    if not wanted.has_scale or not set(wanted.axes) <= {wanted.rank - 1}:
        return None
    matmul = x.producer()
    if (
        matmul is None
        or x.is_graph_output()
        or not is_bias(virtual(node).affine, x, workspace)
        or not workspace.constants.is_constant(matmul.inputs[1])
        or any(
            reader.node is not node and not reads_no_element(reader.node, reader.idx) for reader in x.uses()
        )
    ):
        return None
    return x, virtual(node).affine.then(wanted).only_shift(), scale


def _is_dead(value: ir.Value) -> bool:
    """An output that nothing reads: it changes with its siblings, whatever was asked of it."""
    return bool(value.name) and not value.uses() and not value.is_graph_output()


def _index(value: ir.Value) -> int:
    index = value.index()
    assert index is not None
    return index


def _take_constants(
    view: NodeView, crossing: Crossing
) -> tuple[Crossing, list[tuple[ir.Value, int, Affine]]]:
    """Constant operands take what they are asked for at once; requests on computed operands remain."""
    requests, constants = [], dict(crossing.constants)
    for slot, affine in crossing.affines.items():
        value = view.value(slot)
        if value is None or affine.is_identity:
            continue
        constant = view.constant(slot)
        if constant is None:
            requests.append((value, slot, affine))
        else:
            constants[slot] = constant.map(
                affine.apply, np.broadcast_shapes(constant.shape, *_shapes(affine))
            )
    return dataclasses.replace(crossing, constants=constants), requests


def _shapes(affine: Affine) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return affine.scale.shape, affine.shift.shape


def _enlarges(ahead: list[ir.Value], behind: list[ir.Value], workspace: Workspace) -> bool:
    """Whether the values ahead may have more elements than those behind."""
    return not total(ahead, workspace).at_most(total(behind, workspace))


def total(values: Iterable[ir.Value], workspace: Workspace) -> Elements:
    elements = Elements()
    for value in values:
        elements.add(workspace.dims(value), unknown=value.name or "?")
    return elements
