"""Apply a merge of parallel branches: one Conv in the place of a sum."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import onnx_ir as ir

from normfold.affine import Array64, summed
from normfold.planning.branches import BranchMerge, Term
from normfold.preparation.constant64 import Constant64
from normfold.preparation.shapes import Dims
from normfold.preparation.workspace import Workspace
from normfold.recognition.virtual import SiteRecord, is_virtual, virtual
from normfold.rewriting.initializers import new_initializer

# Far below the distance of two nodes of the original order.
_STEP = 1e-6


def apply_merge(merge: BranchMerge, workspace: Workspace) -> tuple[ir.Node, list[SiteRecord]]:
    """Replace the sum. Returns the new Conv and the records of the affines that went into it."""
    root, layout = merge.root, merge.layout
    graph, result = root.graph, root.outputs[0]
    assert graph is not None
    stem = f"{result.name}_merged"
    operands: list[ir.Value] = [
        merge.x,
        new_initializer(Constant64.of(merge.kernel, merge.dtype), f"{stem}_weight", graph, workspace),
    ]
    if merge.bias.any():
        operands.append(
            new_initializer(Constant64.of(merge.bias, merge.dtype), f"{stem}_bias", graph, workspace)
        )
    conv = ir.node(
        "Conv",
        operands,
        {
            "kernel_shape": list(layout.shape[2:]),
            "strides": list(layout.strides),
            "dilations": list(layout.dilations),
            "pads": [*layout.begin, *layout.end],
            "group": layout.groups,
        },
    )
    root.prepend(conv)
    workspace.place(conv, workspace.position(root))
    value = conv.outputs[0]
    value.name, value.type = workspace.fresh_name(stem), result.type
    workspace.shapes.copy(merge.like, value)
    for count, term in enumerate(_with_one_constant(merge, stem, graph, workspace), 1):
        step = ir.node("Add" if term.sign > 0 else "Sub", [value, term.value])
        root.prepend(step)
        workspace.place(step, workspace.position(root) + count * _STEP)
        value = step.outputs[0]
        value.name, value.type = workspace.fresh_name(f"{stem}_sum"), result.type
        workspace.shapes.set(value, _common(merge.like, result, workspace), merge.dtype)
    value.shape = result.shape
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


def _with_one_constant(
    merge: BranchMerge, stem: str, graph: ir.Graph, workspace: Workspace
) -> Sequence[Term]:
    """The other terms, their constants added up: one that may enlarge the sum is no affine, which would have
    met the next. Where that is an outer product, all of them."""
    arrays: list[Array64] = []
    computed: list[Term] = []
    for term in merge.others:
        recipe = workspace.constants.recipe(term.value)
        if recipe is None:
            computed.append(term)
        else:
            arrays.append(term.sign * recipe.compute())
    if len(arrays) < 2:
        return merge.others
    total = functools.reduce(summed, arrays)
    if total.size > max(array.size for array in arrays):
        return merge.others
    constant = new_initializer(Constant64.of(total, merge.dtype), f"{stem}_shift", graph, workspace)
    return [*computed, Term(constant, 1.0)]


def _common(a: ir.Value, b: ir.Value, workspace: Workspace) -> Dims | None:
    """What both agree on: a later term may enlarge the sum."""
    first, second = workspace.dims(a), workspace.dims(b)
    if first is None or second is None or len(first) != len(second):
        return None
    return tuple(one if one == other else None for one, other in zip(first, second, strict=True))
