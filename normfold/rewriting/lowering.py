"""Spell virtual nodes out again: untouched ones as they were, changed ones in the cheapest way."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from normfold.affine import Affine, Array64, vector
from normfold.planning.routes import is_batchnorm
from normfold.preparation.constants import Constant64
from normfold.preparation.workspace import Workspace
from normfold.recognition.virtual import VirtualAffine, virtual
from normfold.rewriting.initializers import new_initializer


def lower(node: ir.Node, workspace: Workspace) -> list[ir.Node]:
    """Replace one virtual node by ONNX nodes, which are returned."""
    content = virtual(node)
    if not content.touched:
        return _restore(node, content)
    if content.affine.is_identity:
        return _vanish(node)
    batchnorm = _batchnorm_of(content)
    if batchnorm is not None and _fits_batchnorm(content.affine):
        return _as_batchnorm(node, content.affine, batchnorm, workspace)
    return _as_arithmetic(node, content.affine, workspace)


def shortens(content: VirtualAffine) -> bool:
    """Whether the chain can be said in fewer nodes than it was made of."""
    affine = content.affine
    if _batchnorm_of(content) is not None and _fits_batchnorm(affine):
        needed = 1
    else:
        needed = affine.has_scale + affine.has_shift
    return needed < len(content.spelling)


def is_bias(node: ir.Node, workspace: Workspace) -> bool:
    """Whether the affine is nothing but the bias of a linear layer spelled MatMul, Add."""
    affine, x = virtual(node).affine, node.inputs[0]
    producer = None if x is None else x.producer()
    return (
        producer is not None
        and producer.op_type == "MatMul"
        and any(workspace.constants.is_constant(v) for v in producer.inputs)
        and not affine.has_scale
        and all(axis == affine.rank - 1 for axis in affine.shift_axes)
    )


def _fits_batchnorm(affine: Affine) -> bool:
    return affine.has_scale and is_batchnorm(affine)


def _restore(node: ir.Node, content: VirtualAffine) -> list[ir.Node]:
    """The original nodes, object for object; only what feeds the first may have been renamed."""
    for member, inputs in zip(content.spelling, content.inputs, strict=True):
        for slot, value in enumerate(inputs):
            member.replace_input_with(slot, value)
    content.spelling[0].replace_input_with(content.x_slot, node.inputs[0])
    graph = node.graph
    assert graph is not None
    for member in content.spelling:
        graph.insert_before(node, member)
    _take_over(node, content.spelling[-1].outputs[0])
    return list(content.spelling)


def _vanish(node: ir.Node) -> list[ir.Node]:
    x, y = node.inputs[0], node.outputs[0]
    assert x is not None
    if y.is_graph_output():
        identity = ir.Node("", "Identity", [x], num_outputs=1)
        node.prepend(identity)
        _take_over(node, identity.outputs[0])
        return [identity]
    y.replace_all_uses_with(x)
    _remove(node)
    return []


def _batchnorm_of(content: VirtualAffine) -> tuple[ir.Node, tuple[ir.Value | None, ...]] | None:
    for member, inputs in zip(content.spelling, content.inputs, strict=True):
        if member.op_type == "BatchNormalization":
            return member, inputs
    return None


def _as_batchnorm(
    node: ir.Node,
    affine: Affine,
    batchnorm: tuple[ir.Node, tuple[ir.Value | None, ...]],
    workspace: Workspace,
) -> list[ir.Node]:
    """The BatchNormalization that was there, with the same statistics and new ``scale = s·√(var + eps)``, ``B = t + s·mean``."""
    member, inputs = batchnorm
    mean, var = (workspace.constants.array(v) for v in inputs[3:5])
    assert mean is not None and var is not None
    epsilon = member.attributes.get_float("epsilon", 1e-5)
    size = mean.size
    scale, shift = vector(affine.scale, 1, size), vector(affine.shift, 1, size)
    dtype = workspace.constants.dtype_of(inputs[1])
    graph = node.graph
    assert graph is not None
    y = node.outputs[0]
    for slot, value in enumerate(inputs):
        member.replace_input_with(slot, value)
    member.replace_input_with(0, node.inputs[0])
    for slot, values in ((1, scale * np.sqrt(var + epsilon)), (2, shift + scale * mean)):
        old = inputs[slot]
        assert old is not None
        constant = Constant64.of(values, dtype)
        member.replace_input_with(
            slot, new_initializer(constant, old.name or f"{y.name}_scale", graph, workspace, replaces=old)
        )
    graph.insert_before(node, member)
    _take_over(node, member.outputs[0])
    return [member]


def _as_arithmetic(node: ir.Node, affine: Affine, workspace: Workspace) -> list[ir.Node]:
    """Mul, Add or both."""
    graph, source, y = node.graph, node.inputs[0], node.outputs[0]
    assert graph is not None and source is not None
    dtype = workspace.shapes.dtype(y) or workspace.shapes.dtype(source) or ir.DataType.FLOAT
    steps = [("Mul", affine.scale)] * affine.has_scale + [("Add", affine.shift)] * affine.has_shift
    nodes: list[ir.Node] = []
    for op_type, values in steps:
        array, attributes = _operand(values, workspace, source)
        constant = new_initializer(
            Constant64.of(array, dtype),
            f"{y.name}_{'scale' if op_type == 'Mul' else 'shift'}",
            graph,
            workspace,
        )
        made = ir.node(op_type, [source, constant], attributes)
        made.outputs[0].shape, made.outputs[0].type = y.shape, y.type
        graph.insert_before(node, made)
        nodes.append(made)
        source = made.outputs[0]
        source.name = workspace.fresh_name(f"{y.name}_{op_type.lower()}")
    _take_over(node, source)
    return nodes


def _operand(values: Array64, workspace: Workspace, x: ir.Value) -> tuple[Array64, dict[str, int]]:
    """The constant as the opset wants it: trailing-aligned, or before opset 7 laid from ``axis`` on."""
    axes = [axis for axis, size in enumerate(values.shape) if size != 1]
    if not axes:
        return values.reshape(() if workspace.opset >= 7 else (1,)), {} if workspace.opset >= 7 else {
            "broadcast": 1
        }
    if workspace.opset >= 7:
        return values.reshape(values.shape[axes[0] :]), {}
    dims = workspace.dims(x) or values.shape
    span = slice(axes[0], axes[-1] + 1)
    full = [int(d) if isinstance(d, int) else 1 for d in dims[span]]
    return np.broadcast_to(values.reshape(values.shape[span]), full), {"axis": axes[0], "broadcast": 1}


def _take_over(node: ir.Node, output: ir.Value) -> None:
    """``output`` becomes what the virtual node produced: readers, name, annotations."""
    y = node.outputs[0]
    y.replace_all_uses_with(output, replace_graph_outputs=True)
    output.name = y.name
    output.shape, output.type, output.doc_string = y.shape, y.type, y.doc_string
    if y.metadata_props is not output.metadata_props:
        output.metadata_props.update(y.metadata_props)
    _remove(node)


def _remove(node: ir.Node) -> None:
    graph = node.graph
    assert graph is not None
    node.replace_input_with(0, None)
    graph.remove(node)
