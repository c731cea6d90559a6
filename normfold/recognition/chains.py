"""Maximal chains of adjacent constant affines, composed into one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from normfold.affine import Affine
from normfold.preparation.workspace import Workspace
from normfold.recognition.batchnorm import read_batchnorm
from normfold.recognition.elementwise import operand_slot, read_elementwise
from normfold.recognition.idioms import Idioms
from normfold.recognition.virtual import kernel_takes
from normfold.refusal import Refused


@dataclass(frozen=True)
class Chain:
    """Nodes in a row that together apply one affine to ``x``; the last one produces ``y``.

    ``kernel_axis``: where it is the scale and shift of a kernel, their axis (``recognition.idioms``).
    """

    nodes: tuple[ir.Node, ...]
    x_slot: int
    affine: Affine
    kernel_axis: int | None = None

    @property
    def x(self) -> ir.Value:
        value = self.nodes[0].inputs[self.x_slot]
        assert value is not None
        return value

    @property
    def y(self) -> ir.Value:
        return self.nodes[-1].outputs[0]


@dataclass(frozen=True)
class Unreadable:
    """A normalisation or affine node that is not a constant affine, and why."""

    node: ir.Node
    refusal: Refused


def find_chains(graph: ir.Graph, workspace: Workspace, idioms: Idioms) -> Iterator[Chain | Unreadable]:
    """Chains of one graph (not of its subgraphs), in topological order of their first node."""
    links: dict[ir.Value, tuple[ir.Node, ir.Value, Affine]] = {}
    unreadable: list[Unreadable] = []
    for node in graph:
        if node.domain not in ("", "ai.onnx") or node in idioms.opaque:
            continue
        if all(workspace.constants.is_constant(v) for v in node.outputs):
            continue
        try:
            link = _read(node, workspace)
        except Refused as refusal:
            unreadable.append(Unreadable(node, refusal.again()))
            continue
        if link is not None:
            links[node.outputs[0]] = (node, *link)
    started: set[ir.Value] = set()
    for y, (node, x, affine) in links.items():
        if y in started:
            continue
        nodes, kernel_axis = [node], idioms.anchored.get(node)
        while (following := _next(y, links)) is not None:
            next_node, _, next_affine = links[following]
            composed = affine.then(next_affine)
            if composed.outgrows(affine, next_affine):
                break
            if kernel_axis is not None and not kernel_takes(kernel_axis, node, next_affine):
                break
            nodes.append(next_node)
            affine, y = composed, following
            started.add(following)
        yield Chain(tuple(nodes), node.inputs.index(x), affine, kernel_axis=kernel_axis)
    yield from unreadable


def _read(node: ir.Node, workspace: Workspace) -> tuple[ir.Value, Affine] | None:
    if node.op_type == "BatchNormalization":
        affine = read_batchnorm(node, workspace)
        assert node.inputs[0] is not None
        return node.inputs[0], affine
    slot = operand_slot(node, workspace)
    if slot is None:
        return None
    value = node.inputs[slot]
    assert value is not None
    return value, read_elementwise(node, slot, workspace)


def _next(y: ir.Value, links: dict[ir.Value, tuple[ir.Node, ir.Value, Affine]]) -> ir.Value | None:
    """The affine that alone reads ``y`` in the same graph."""
    uses = y.uses()
    if y.is_graph_output() or len(uses) != 1:
        return None
    reader = next(iter(uses)).node
    output = reader.outputs[0]
    link = links.get(output)
    if link is None or link[1] is not y:
        return None
    return output
