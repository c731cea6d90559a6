"""Which layers stand in front of which."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from normfold.consistency.layers import NormLayer
from normfold.evaluation.schedule import subgraphs

_LOOPS = ("Loop", "Scan")


def independent_groups(model: ir.Model, layers: Sequence[NormLayer]) -> list[list[NormLayer]]:
    """Layers by how many others stand above them at most; a group needs those before it alone.

    What a loop hands on from one iteration to the next is left out of account; see ``in_loop``.

    Args:
        model: that the layers are of.
        layers: those to order.
    """
    own = {layer.node: layer for layer in layers}
    depth: dict[ir.Value, int] = {}
    groups: dict[int, list[NormLayer]] = {}

    def enter(graph: ir.Graph) -> int:
        """Goes through a graph; returns the largest depth in it."""
        deepest = 0
        for node in graph:
            reach = max((depth.get(value, 0) for value in node.inputs if value is not None), default=0)
            for body in subgraphs(node) if node.attributes else ():
                depth.update(dict.fromkeys(body.inputs, reach))
                reach = max(reach, enter(body))
            if node in own:
                groups.setdefault(reach, []).append(own[node])
                reach += 1
            depth.update(dict.fromkeys(node.outputs, reach))
            deepest = max(deepest, reach)
        return deepest

    enter(model.graph)
    return [groups[level] for level in sorted(groups)]


def first_layers(model: ir.Model, layers: Sequence[NormLayer]) -> list[NormLayer]:
    """The layers that no other of them stands in front of."""
    return next(iter(independent_groups(model, layers)), [])


def in_loop(layer: NormLayer) -> bool:
    """Whether its own output may come back to it."""
    return any(node.op_type in _LOOPS for node in layer.within)
