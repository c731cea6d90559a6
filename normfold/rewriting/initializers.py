"""New initializers, and the removal of what nothing reads any more."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from normfold.preparation.constant64 import Constant64, round_once
from normfold.preparation.graphs import graphs_of, named_values
from normfold.preparation.workspace import Workspace

_REPLACES = "normfold.replaces"
_BIAS_SLOT = 2


def set_constant(node: ir.Node, slot: int, constant: Constant64, workspace: Workspace) -> None:
    """Give ``node`` a new constant in ``slot``; other readers of the old one keep it."""
    old = node.inputs[slot] if slot < len(node.inputs) else None
    if old is not None and old.name:
        stem = old.name
    else:
        stem = f"{node.outputs[0].name}_{'bias' if slot == _BIAS_SLOT else f'operand{slot}'}"
    graph = node.graph
    assert graph is not None
    value = new_initializer(constant, stem, graph, workspace, replaces=old)
    if slot >= len(node.inputs):
        node.resize_inputs(slot + 1)
    node.replace_input_with(slot, value)


def new_initializer(
    constant: Constant64,
    stem: str,
    graph: ir.Graph,
    workspace: Workspace,
    *,
    replaces: ir.Value | None = None,
) -> ir.Value:
    """An initializer that is evaluated, and rounded, only when it is written.

    It takes over the name of what it ``replaces`` if that is gone in the end.
    """
    name = workspace.fresh_name(stem)
    dtype, shape = constant.dtype, ir.Shape(constant.shape)
    value = ir.Value(name=name, shape=shape, type=ir.TensorType(dtype), const_value=_Edited(constant, name))
    if replaces is not None:
        value.meta[_REPLACES] = replaces.meta.get(_REPLACES, replaces)
    graph.register_initializer(value)
    workspace.constants.define(value, constant)
    workspace.shapes.set(value, constant.shape, dtype)
    return value


def integer_initializer(
    content: int | Sequence[int], stem: str, graph: ir.Graph, workspace: Workspace
) -> ir.Value:
    """An int64 initializer, such as a shape or an index."""
    name = workspace.fresh_name(stem)
    tensor = ir.tensor(np.array(content, dtype=np.int64), name=name)
    shape = tensor.shape.numpy()
    value = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph.register_initializer(value)
    workspace.shapes.set(value, tuple(shape), tensor.dtype)
    return value


class _Edited(ir.LazyTensor):
    """A recipe as a tensor: computed and rounded when it is read, and written block by block."""

    def __init__(self, constant: Constant64, name: str) -> None:
        self._constant = constant
        super().__init__(self._whole, constant.dtype, ir.Shape(constant.shape), name=name)

    def _whole(self) -> ir.TensorProtocol:
        return ir.Tensor(self._constant.rounded(), dtype=self.dtype, name=self.name)

    def tofile(self, file: Any) -> None:
        for block in self._constant.blocks():
            file.write(ir.Tensor(round_once(block, self.dtype), dtype=self.dtype).tobytes())


def unused(model: ir.Model) -> tuple[set[ir.Node], set[ir.Value]]:
    """Nodes and initializers that nothing reads: the user's own, which are not ours to remove."""
    nodes = {node for graph in graphs_of(model) for node in graph if _is_dead(node)}
    values = {v for graph in graphs_of(model) for v in graph.initializers.values() if not v.uses()}
    return nodes, values


def sweep(
    model: ir.Model, spared: tuple[set[ir.Node], set[ir.Value]], overridable: frozenset[ir.Value]
) -> None:
    """Remove what has become unused. ``spared`` was unused before anything was done."""
    nodes, values = spared
    graphs = graphs_of(model)
    for graph in reversed(graphs):
        for node in reversed(list(graph)):
            if node not in nodes and _is_dead(node):
                graph.remove(node, safe=True)
    for graph in graphs:
        for value in list(graph.initializers.values()):
            if value.uses() or value in values or value in overridable or value.is_graph_output():
                continue
            assert value.name is not None
            del graph.initializers[value.name]
            if value.is_graph_input():
                graph.inputs.remove(value)


def remove_unread(nodes: Iterable[ir.Node], spared: Collection[ir.Node] = ()) -> None:
    """Remove those of ``nodes`` that nothing reads any more, and what only they have read."""
    pending = list(nodes)
    while pending:
        node = pending.pop()
        if node.graph is None or not _is_dead(node):
            continue
        makers = [v.producer() for v in node.inputs if v is not None]
        node.graph.remove(node, safe=True)
        pending.extend(maker for maker in makers if maker is not None and maker not in spared)


def settle_names(model: ir.Model) -> None:
    """A new initializer takes over the name of the constant it replaced, where that is gone."""
    taken = {v.name for graph in graphs_of(model) for v in named_values(graph)}
    for graph in graphs_of(model):
        for value in list(graph.initializers.values()):
            old = value.meta.get(_REPLACES)
            if old is None or old.name in taken or not old.name:
                continue
            value.name = old.name
            taken.add(old.name)


def list_as_inputs(model: ir.Model, workspace: Workspace) -> None:
    """Before IR version 4 every initializer must be listed as a graph input."""
    if model.ir_version is not None and model.ir_version < 4:
        graph = model.graph
        for value in workspace.constants.exact:
            if value.is_initializer() and value.graph is graph and not value.is_graph_input():
                graph.inputs.append(value)


def _is_dead(node: ir.Node) -> bool:
    return not any(v.uses() or v.is_graph_output() for v in node.outputs)
