"""A BatchNormalization over channels tiled by the batch becomes one over the channels."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from normfold.preparation.workspace import Workspace
from normfold.recognition.tiled_batchnorm import TiledBatchNorm, read_tiled_batchnorm


def untile_batchnorms(
    workspace: Workspace, is_kept: Callable[[ir.Node], bool]
) -> dict[ir.Node, tuple[str, ...]]:
    """Untile every BatchNormalization none of whose nodes is to be kept.

    Returns:
        By node, the operator types that it stands for.
    """
    untiled = {}
    for graph in workspace.model.graphs():
        for node in list(graph):
            found = read_tiled_batchnorm(node, workspace) if node.graph is graph else None
            if found is not None and not any(is_kept(member) for member in found.nodes):
                untiled[node] = tuple(member.op_type for member in found.nodes)
                _untile(found, workspace)
    return untiled


def _untile(found: TiledBatchNorm, workspace: Workspace) -> None:
    norm, y = found.norm, found.split.outputs[0]
    replaced = list(norm.inputs)
    for slot, value in enumerate((found.x, *found.parameters)):
        norm.replace_input_with(slot, value)
    result, name = norm.outputs[0], y.name
    y.replace_all_uses_with(result, replace_graph_outputs=True)
    result.shape, result.type, result.doc_string = y.shape, y.type, y.doc_string
    result.metadata_props.update(y.metadata_props)
    workspace.shapes.copy(y, result)
    y.name = workspace.fresh_name(f"{name}_tiled")
    result.name = name
    assert norm.graph is not None
    norm.graph.remove(found.split, safe=True)
    _remove_unread(replaced, norm.graph)


def _remove_unread(values: list[ir.Value | None], graph: ir.Graph) -> None:
    pending = list(values)
    while pending:
        value = pending.pop()
        node = None if value is None else value.producer()
        if node is None or node.graph is not graph:
            continue
        if not any(output.uses() or output.is_graph_output() for output in node.outputs):
            pending.extend(node.inputs)
            graph.remove(node, safe=True)
