"""Identity and Dropout in evaluation stand between affines and do nothing: their readers read past them."""

from __future__ import annotations

import onnx_ir as ir

from normfold.preparation.graphs import graphs_of
from normfold.preparation.workspace import Workspace
from normfold.rewriting.initializers import remove_unread


def bypass_no_ops(workspace: Workspace, keep: frozenset[str]) -> None:
    """Takes Identity and Dropout in evaluation out, but for those that make a value named in ``keep``."""
    for graph in graphs_of(workspace.model):
        for node in list(graph):
            if _may_go(node, keep) and node.outputs[0].uses() and _does_nothing(node, workspace):
                source = node.inputs[0]
                assert source is not None
                node.outputs[0].replace_all_uses_with(source)
                graph.remove(node, safe=True)


def bypass_round_trips(workspace: Workspace, keep: frozenset[str]) -> bool:
    """Takes out a Reshape to the shape that is there already, or that undoes the one in front of it, now that
    nothing stands between them. Returns whether there was any."""
    progress = False
    for graph in graphs_of(workspace.model):
        for node in list(graph):
            if node.op_type != "Reshape" or not _may_go(node, keep) or not node.outputs[0].uses():
                continue
            # The nodes that a virtual one stands for read constants too, which no use tells.
            if workspace.constants.is_constant(node.outputs[0]):
                continue
            source = node.inputs[0]
            first = None if source is None else source.producer()
            before = source
            if first is not None and first.op_type == "Reshape" and first.graph is graph:
                before = first.inputs[0]
            for same in (source, before):
                if same is not None and _is_shaped_like(same, node, workspace):
                    node.outputs[0].replace_all_uses_with(same)
                    remove_unread([node])
                    progress = True
                    break
    return progress


def _is_shaped_like(value: ir.Value, node: ir.Node, workspace: Workspace) -> bool:
    """Whether the value has the shape of the node's result for certain."""
    dims = workspace.dims(value)
    return (
        dims is not None
        and dims == workspace.dims(node.outputs[0])
        and all(isinstance(dim, int) for dim in dims)
    )


def _may_go(node: ir.Node, keep: frozenset[str]) -> bool:
    output = node.outputs[0]
    return node.domain in ("", "ai.onnx") and not output.is_graph_output() and output.name not in keep


def _does_nothing(node: ir.Node, workspace: Workspace) -> bool:
    if node.op_type == "Identity":
        return True
    if node.op_type != "Dropout" or any(v.uses() or v.is_graph_output() for v in node.outputs[1:]):
        return False
    return is_eval_dropout(node, workspace)


def is_eval_dropout(node: ir.Node, workspace: Workspace) -> bool:
    """Opset 1 and 6 have ``is_test``, 7 and 10 always infer, from 12 on ``training_mode`` is an input."""
    if workspace.opset_of(node) < 7:
        return node.attributes.get_int("is_test", 0) == 1
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return True
    training = workspace.constants.array(node.inputs[2], native=True)
    return training is not None and not training.any()
