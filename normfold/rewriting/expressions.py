"""Expressions of constants that stay in the graph are evaluated once, where that takes no more room.

Weight standardisation exported as training-mode BatchNormalization of a weight is the case that matters:
runtimes recompute it in every inference, and onnxruntime's optimiser gets it wrong.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import onnx_ir as ir

from normfold.preparation.constant64 import FLOAT_TYPES
from normfold.preparation.graphs import graphs_of
from normfold.preparation.workspace import Workspace
from normfold.rewriting.initializers import new_initializer, remove_unread

# An expression of nothing but these is another way to write the same constant.
_SPELLING = frozenset(
    {
        "Constant",
        "Identity",
        "Cast",
        "CastLike",
        "Reshape",
        "Squeeze",
        "Unsqueeze",
        "Transpose",
        "Flatten",
        "ConstantOfShape",
        "Expand",
        "Shape",
    }
)


def evaluate_expressions(workspace: Workspace) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Replace them; yields the name of each value and the operators it took."""
    progress = True
    while progress:
        progress = False
        # One that goes leaves another the only reader of what both were made of.
        for graph in graphs_of(workspace.model):
            for node in list(graph):
                for value in node.outputs:
                    operators = _replace(value, graph, workspace) if _is_result(value, workspace) else None
                    if operators is not None:
                        progress = True
                        yield value.name or "", operators


def _is_result(value: ir.Value, workspace: Workspace) -> bool:
    """A constant float read by something that is not constant itself."""
    constants = workspace.constants
    return (
        workspace.shapes.dtype(value) in FLOAT_TYPES
        and not value.is_graph_output()
        and constants.is_constant(value)
        and any(not all(constants.is_constant(v) for v in use.node.outputs) for use in value.uses())
    )


def _replace(value: ir.Value, graph: ir.Graph, workspace: Workspace) -> tuple[str, ...] | None:
    nodes, leaves = _cone(value, workspace)
    if all(node.op_type in _SPELLING for node in nodes):
        return None
    constant = workspace.constants.recipe(value)
    freed = sum(math.prod(_dims(leaf)) for leaf in leaves if all(use.node in nodes for use in leaf.uses()))
    if constant is None or math.prod(constant.shape) > freed:
        return None
    new = new_initializer(constant, value.name or "constant", graph, workspace, replaces=value)
    value.replace_all_uses_with(new)
    remove_unread(nodes)
    return tuple(node.op_type for node in reversed(nodes))


def _cone(value: ir.Value, workspace: Workspace) -> tuple[list[ir.Node], list[ir.Value]]:
    """The nodes behind a constant, last first, and the initializers that they read."""
    nodes: dict[ir.Node, None] = {}
    leaves: dict[ir.Value, None] = {}
    stack = [value]
    while stack:
        node = stack.pop().producer()
        if node is None or node in nodes:
            continue
        nodes[node] = None
        for operand in workspace.constants.operands(node):
            if operand is not None:
                (leaves.setdefault(operand) if operand.is_initializer() else stack.append(operand))
    return list(nodes), list(leaves)


def _dims(value: ir.Value) -> tuple[int, ...]:
    tensor = value.const_value
    return () if tensor is None else tuple(tensor.shape.numpy())
