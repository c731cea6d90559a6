"""What the readers of a value agree on, when some of them ask for an affine.

A value may change only if every use is accounted for: it asked, it sees the shape alone, or it is *blind* to
the change. Blind is a reader whose rule takes the affine over without an edit and hands nothing on: a Slice
of the keys does not see that the queries are scaled.
"""

from __future__ import annotations

from functools import reduce

import onnx_ir as ir

from normfold.affine import Affine
from normfold.planning.crossing import Table
from normfold.planning.plan import Use
from normfold.preparation.node_view import NodeView
from normfold.preparation.workspace import Workspace
from normfold.recognition.virtual import is_virtual, virtual
from normfold.refusal import Refused

Ask = tuple[Affine, tuple[Use, ...]]


def agreed(value: ir.Value, asks: dict[Use, Affine], workspace: Workspace, table: Table) -> Affine:
    """The one affine that gives every reader of ``value`` what it asked for, and the others nothing new.

    Readers of disjoint parts may ask for different affines: then it is all of them together.

    Raises:
        Refused: NF105 a graph output, NF104 a reader in a subgraph, NF103 a reader that would see the
            change, NF119 readers that want different things.
    """
    if value.is_graph_output():
        raise Refused("NF105", f"{value.name!r} is a graph output")
    try:
        return _together(value, asks, workspace, table)
    except Refused as plain:
        if plain.code == "NF104":
            raise
        try:
            return _together(value, _narrowed(asks, workspace, table), workspace, table)
        except Refused:
            raise plain from None


def _narrowed(asks: dict[Use, Affine], workspace: Workspace, table: Table) -> dict[Use, Affine]:
    """The same asks, each with the identity at elements that its reader does not read."""
    return {
        (reader, slot): affine
        if is_virtual(reader)
        else table[reader.op_type].narrowed(NodeView(reader, workspace), affine)
        for (reader, slot), affine in asks.items()
    }


def _together(value: ir.Value, asks: dict[Use, Affine], workspace: Workspace, table: Table) -> Affine:
    groups = grouped(asks)
    whole = reduce(Affine.then, (affine for affine, _ in groups))
    for affine, uses in groups if len(groups) > 1 else ():
        others = reduce(Affine.then, (other for other, _ in groups if other is not affine))
        apart = affine.then(others).same_as(whole)
        if not (apart and all(_is_blind(reader, value, others, workspace, table) for reader, _ in uses)):
            raise Refused("NF119", f"the readers of {value.name!r} ask for different affines")
    for reader in value.uses():
        if (reader.node, reader.idx) in asks or reads_no_element(reader.node, reader.idx):
            continue
        if reader.node.graph is not value.graph:
            raise Refused("NF104", f"{value.name!r} is read inside a subgraph")
        if not _is_blind(reader.node, value, whole, workspace, table):
            raise Refused("NF103", f"{value.name!r} is also read by {_shown(reader.node)}")
    return whole


def grouped(asks: dict[Use, Affine]) -> list[Ask]:
    """The different affines that are asked for, each with the uses that ask for it."""
    groups: list[tuple[Affine, list[Use]]] = []
    for use, affine in asks.items():
        for other, uses in groups:
            if other.same_as(affine):
                uses.append(use)
                break
        else:
            groups.append((affine, [use]))
    return [(affine, tuple(uses)) for affine, uses in groups]


def _is_blind(reader: ir.Node, value: ir.Value, affine: Affine, workspace: Workspace, table: Table) -> bool:
    """Whether no output of ``reader`` changes when ``value`` becomes ``affine(value)``."""
    operator = None if reader.domain not in ("", "ai.onnx") else table.get(reader.op_type)
    if operator is None or is_virtual(reader):
        return False
    slots = [slot for slot, operand in enumerate(reader.inputs) if operand is value]
    try:
        crossing = operator.forward(NodeView(reader, workspace), dict.fromkeys(slots, affine))
    except Refused:
        return False
    return not crossing.edits_node and all(brought.is_identity for brought in crossing.affines.values())


def reads_no_element(node: ir.Node, slot: int) -> bool:
    """Whether a reader sees the shape or the type of its operand only, which no affine changes."""
    if node.domain not in ("", "ai.onnx"):
        return False
    return node.op_type in ("Shape", "Size") or (node.op_type == "CastLike" and slot == 1)


def _shown(node: ir.Node) -> str:
    op_type = (
        virtual(node).records[0].operators[0] if is_virtual(node) and virtual(node).records else node.op_type
    )
    return f"{op_type} {node.outputs[0].name!r}"
