"""A shift that reaches a sum may stand on the sum's other operand: ``(x + t) + z = x + (z + t)``.

So what neither the producers nor the readers of a value take goes forward to a sum and back from there, into
the bias of another branch.
"""

from __future__ import annotations

import onnx_ir as ir

from normfold.affine import Affine
from normfold.planning.broadcasting import fits, to_operand
from normfold.planning.crossing import Crossing, Table
from normfold.planning.outlook import outlook
from normfold.planning.plan import Walk
from normfold.planning.sums import is_sum, sign
from normfold.planning.walk import walk_backward
from normfold.preparation.node_view import NodeView
from normfold.preparation.workspace import Workspace
from normfold.refusal import Refused

_FARTHEST = 8


def walk_sideways(value: ir.Value, shift: Affine, workspace: Workspace, table: Table) -> tuple[Walk, ...]:
    """Let the sums that read ``value`` bring ``shift`` in by another operand.

    Returns:
        The way to the sums, then one walk backward for each.

    Raises:
        Refused: where a reader is no sum, or no other operand of a sum takes it.
    """
    way = Walk(forward=True)
    backward: list[Walk] = []
    _hand_over(value, shift, way, backward, workspace, table)
    return way, *backward


def _hand_over(
    value: ir.Value, shift: Affine, way: Walk, backward: list[Walk], workspace: Workspace, table: Table
) -> None:
    if value.is_graph_output():
        raise Refused("NF105", f"{value.name!r} is a graph output")
    if len(way.crossings) >= _FARTHEST:
        raise Refused("NF123", f"more than {_FARTHEST} sums lie between it and a bias")
    for use in value.uses():
        reader = NodeView(use.node, workspace)
        if not is_sum(use.node):
            raise Refused("NF114", f"{reader.op_type} {reader.name!r} is no sum")
        if use.node.graph is not value.graph or use.node in way.crossings:
            raise Refused("NF104", f"{value.name!r} is read twice, or inside a subgraph")
        crossing = table[use.node.op_type].forward(reader, {use.idx: shift})
        arriving = crossing.affines[0]
        taken = _into_another(reader, use.idx, arriving, workspace, table)
        if taken is not None:
            way.crossings[use.node] = Crossing()
            backward.append(taken)
        else:
            output = use.node.outputs[0]
            way.crossings[use.node] = crossing
            way.renamed.append(output)
            _hand_over(output, arriving, way, backward, workspace, table)


def _into_another(
    reader: NodeView, own: int, shift: Affine, workspace: Workspace, table: Table
) -> Walk | None:
    """The walk from another operand of a sum that takes ``shift``, the likeliest first."""
    slots = [slot for slot in range(len(reader.node.inputs)) if slot != own and fits(shift, reader, slot)]
    for slot in sorted(slots, key=lambda slot: -outlook(reader, slot)):
        operand = reader.value(slot)
        if operand is None or reader.is_constant(slot) or outlook(reader, slot) == 0:
            continue
        signed = Affine.of(1.0, sign(reader.node, slot) * shift.shift, rank=shift.rank)
        asked = to_operand(signed, reader, slot)
        try:
            return walk_backward(operand, (reader.node, slot), asked, workspace, table)
        except Refused:
            continue
    return None
