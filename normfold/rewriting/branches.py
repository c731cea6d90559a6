"""Apply a merge of parallel branches: one Conv in the place of a sum."""

from __future__ import annotations

import onnx_ir as ir

from normfold.planning.branches import BranchMerge
from normfold.preparation.constants import Constant64
from normfold.preparation.workspace import Workspace
from normfold.recognition.virtual import SiteRecord, is_virtual, virtual
from normfold.rewriting.initializers import new_initializer

# Far below the distance of two nodes of the original order.
_STEP = 1e-6


def apply_merge(merge: BranchMerge, workspace: Workspace) -> tuple[ir.Node, list[SiteRecord]]:
    """Replace the sum. Returns the new Conv and the records of the affines that went into it."""
    root, merged = merge.root, merge.merged
    graph, result = root.graph, root.outputs[0]
    assert graph is not None
    stem = f"{result.name}_merged"
    operands: list[ir.Value] = [
        merge.x,
        new_initializer(Constant64.of(merged.kernel, merge.dtype), f"{stem}_weight", graph, workspace),
    ]
    if merged.bias.any():
        operands.append(
            new_initializer(Constant64.of(merged.bias, merge.dtype), f"{stem}_bias", graph, workspace)
        )
    conv = ir.node(
        "Conv",
        operands,
        {
            "kernel_shape": list(merged.kernel.shape[2:]),
            "strides": list(merged.strides),
            "dilations": list(merged.dilations),
            "pads": [*merged.begin, *merged.end],
            "group": merged.groups,
        },
    )
    root.prepend(conv)
    workspace.place(conv, workspace.position(root))
    value = conv.outputs[0]
    value.name = workspace.fresh_name(stem)
    value.shape, value.type = result.shape, result.type
    workspace.shapes.copy(result, value)
    for count, term in enumerate(merge.others, 1):
        step = ir.node("Add" if term.sign > 0 else "Sub", [value, term.value])
        root.prepend(step)
        workspace.place(step, workspace.position(root) + count * _STEP)
        value = step.outputs[0]
        value.name = workspace.fresh_name(f"{stem}_sum")
        value.shape, value.type = result.shape, result.type
        workspace.shapes.copy(result, value)
    result.replace_all_uses_with(value, replace_graph_outputs=True)
    records = [record for node in merge.nodes if is_virtual(node) for record in virtual(node).records]
    for node in merge.nodes:
        for slot in range(len(node.inputs)):
            node.replace_input_with(slot, None)
    for node in merge.nodes:
        graph.remove(node)
    value.name, value.doc_string = result.name, result.doc_string
    return conv, records
