"""Identity and Dropout in evaluation stand between affines and do nothing: their readers read past them."""

from __future__ import annotations

import onnx_ir as ir

from normfold.preparation.graphs import graphs_of
from normfold.preparation.workspace import Workspace


def bypass_no_ops(workspace: Workspace) -> None:
    for graph in graphs_of(workspace.model):
        for node in list(graph):
            if (
                node.domain in ("", "ai.onnx")
                and node.outputs[0].uses()
                and not node.outputs[0].is_graph_output()
                and _does_nothing(node, workspace)
            ):
                source = node.inputs[0]
                assert source is not None
                node.outputs[0].replace_all_uses_with(source)
                graph.remove(node, safe=True)


def bypass_round_trips(workspace: Workspace) -> None:
    """A Reshape that undoes the one in front of it, now that nothing stands between them."""
    for graph in graphs_of(workspace.model):
        for node in list(graph):
            if (
                node.op_type != "Reshape"
                or node.domain not in ("", "ai.onnx")
                or node.outputs[0].is_graph_output()
            ):
                continue
            middle = node.inputs[0]
            first = None if middle is None else middle.producer()
            if first is None or first.op_type != "Reshape" or first.graph is not graph:
                continue
            source = first.inputs[0]
            dims = None if source is None else workspace.dims(source)
            if source is None or dims is None or dims != workspace.dims(node.outputs[0]):
                continue
            if all(isinstance(dim, int) for dim in dims):
                node.outputs[0].replace_all_uses_with(source)


def _does_nothing(node: ir.Node, workspace: Workspace) -> bool:
    if node.op_type == "Identity":
        return True
    if node.op_type != "Dropout" or any(v.uses() or v.is_graph_output() for v in node.outputs[1:]):
        return False
    return is_eval_dropout(node, workspace)


def is_eval_dropout(node: ir.Node, workspace: Workspace) -> bool:
    """Opset 1 and 6 have ``is_test``, 7 and 10 always infer, from 12 on ``training_mode`` is an input."""
    if workspace.opset < 7:
        return node.attributes.get_int("is_test", 0) == 1
    if len(node.inputs) < 3 or node.inputs[2] is None:
        return True
    training = workspace.constants.array(node.inputs[2], native=True)
    return training is not None and not training.any()
