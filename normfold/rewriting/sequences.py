"""A tensor split into a sequence of which single parts are taken becomes a Split, which affines can cross.

Torch's default exporter writes ``SplitToSequence`` and ``SequenceAt`` for split, chunk and unbind where its
own optimiser is switched off.
"""

from __future__ import annotations

import math

import onnx_ir as ir

from normfold.preparation.graphs import graphs_of
from normfold.preparation.workspace import Workspace
from normfold.rewriting.initializers import integer_initializer

_SIZES_ARE_AN_OPERAND = 13


def split_without_sequences(workspace: Workspace, keep: frozenset[str]) -> None:
    """Replaces every SplitToSequence all of whose readers take a part with a constant number.

    Parts of given sizes become outputs of a Split, the slices of an unbind Gathers. Values named in ``keep``,
    and sequences that are read in another graph or are outputs, stay as they are.
    """
    for graph in graphs_of(workspace.model):
        for node in list(graph):
            if node.op_type != "SplitToSequence" or node.domain not in ("", "ai.onnx"):
                continue
            readers = _readers(node, graph, workspace, keep)
            if readers and len(node.inputs) > 1 and node.inputs[1] is not None:
                _split(node, readers, workspace)
            elif readers and not node.attributes.get_int("keepdims", 1):
                _gather(node, readers, workspace)


def _readers(
    node: ir.Node, graph: ir.Graph, workspace: Workspace, keep: frozenset[str]
) -> list[tuple[ir.Node, int]]:
    """The nodes that take a part, with its number; none if anything else reads the sequence."""
    sequence = node.outputs[0]
    if sequence.is_graph_output() or sequence.name in keep:
        return []
    found = []
    for reader, slot in sequence.uses():
        if reader.op_type != "SequenceAt" or reader.graph is not graph or slot != 0:
            return []
        number = workspace.constants.array(reader.inputs[1], native=True)
        if number is None or number.size != 1 or reader.outputs[0].name in keep:
            return []
        found.append((reader, int(number.reshape(()))))
    return found


def _split(node: ir.Node, readers: list[tuple[ir.Node, int]], workspace: Workspace) -> None:
    x = node.inputs[0]
    assert x is not None and node.graph is not None
    axis = node.attributes.get_int("axis", 0)
    sizes = _sizes(node, x, axis, workspace)
    numbers = [number + len(sizes) if sizes and number < 0 else number for _, number in readers]
    distinct = len(set(numbers)) == len(numbers)
    if not sizes or not distinct or not all(0 <= number < len(sizes) for number in numbers):
        return
    operands, attributes = [x], {"axis": axis}
    if workspace.opset_of(node) < _SIZES_ARE_AN_OPERAND:
        attributes["split"] = sizes  # type: ignore[assignment]
    else:
        operands.append(integer_initializer(sizes, f"{node.outputs[0].name}_sizes", node.graph, workspace))
    split = ir.node("Split", operands, attributes, num_outputs=len(sizes))
    node.graph.insert_before(node, split)
    workspace.place(split, workspace.position(node))
    dims, dtype = workspace.dims(x), workspace.shapes.dtype(x)
    taken = {number: reader for (reader, _), number in zip(readers, numbers, strict=True)}
    for number, part in enumerate(split.outputs):
        if number in taken:
            _take_over(taken[number], part, workspace)
        else:
            part.name = workspace.fresh_name(f"{node.outputs[0].name}_part")
        if dims is not None:
            at = axis % len(dims)
            shape = (*dims[:at], sizes[number], *dims[at + 1 :])
            workspace.shapes.refine(part, shape, dtype)
    node.graph.remove(node, safe=True)


def _gather(node: ir.Node, readers: list[tuple[ir.Node, int]], workspace: Workspace) -> None:
    x, graph = node.inputs[0], node.graph
    assert x is not None and graph is not None
    axis = node.attributes.get_int("axis", 0)
    dims, dtype = workspace.dims(x), workspace.shapes.dtype(x)
    for reader, number in readers:
        place = integer_initializer(number, f"{reader.outputs[0].name}_place", graph, workspace)
        gather = ir.node("Gather", [x, place], {"axis": axis})
        graph.insert_before(reader, gather)
        workspace.place(gather, workspace.position(reader))
        _take_over(reader, gather.outputs[0], workspace)
        if dims is not None:
            at = axis % len(dims)
            workspace.shapes.refine(gather.outputs[0], (*dims[:at], *dims[at + 1 :]), dtype)
    graph.remove(node, safe=True)


def _sizes(node: ir.Node, x: ir.Value, axis: int, workspace: Workspace) -> list[int]:
    """Sizes of the parts: as given, or equal ones but for the last; none where they are open."""
    given = workspace.constants.array(node.inputs[1], native=True)
    if given is None or given.ndim > 1:
        return []
    dims = workspace.dims(x)
    whole = None if dims is None else dims[axis % len(dims)]
    if given.ndim == 1:
        sizes = [int(size) for size in given]
        fit = min(sizes, default=-1) >= 0 and (not isinstance(whole, int) or sum(sizes) == whole)
        return sizes if fit else []
    size = int(given)
    if not isinstance(whole, int) or size < 1:
        return []
    return [min(size, whole - size * number) for number in range(math.ceil(whole / size))]


def _take_over(reader: ir.Node, part: ir.Value, workspace: Workspace) -> None:
    """``part`` stands where the reader's result stood, under its name; the reader is removed."""
    old = reader.outputs[0]
    part.name, part.shape, part.type, part.doc_string = old.name, old.shape, old.type, old.doc_string
    part.metadata_props.update(old.metadata_props)
    workspace.shapes.copy(old, part)
    old.replace_all_uses_with(part, replace_graph_outputs=True)
    assert reader.graph is not None
    reader.graph.remove(reader, safe=True)
