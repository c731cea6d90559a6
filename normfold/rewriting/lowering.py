"""Spell virtual nodes out again: untouched ones as they were, changed ones in the cheapest way."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from normfold.affine import Affine, Array64, vector
from normfold.planning.cost import fits_batchnorm, is_per_channel
from normfold.planning.ranges import fits
from normfold.preparation.constant64 import Constant64
from normfold.preparation.workspace import Workspace
from normfold.recognition.batchnorm import epsilon_of
from normfold.recognition.virtual import VirtualAffine, virtual
from normfold.rewriting.initializers import new_initializer

_BATCHNORM_OF_BFLOAT16 = 14


def lower(node: ir.Node, workspace: Workspace) -> list[ir.Node]:
    """Replace one virtual node by ONNX nodes, which are returned."""
    content = virtual(node)
    if not content.touched:
        return _restore(node, content, workspace)
    if content.affine.is_identity:
        return _vanish(node, workspace)
    if _is_batchnorm(node, workspace):
        return _as_batchnorm(node, content, workspace)
    return _as_arithmetic(node, content, workspace)


def shortens(node: ir.Node, workspace: Workspace) -> bool:
    """Whether the chain that a virtual node stands for can be said in fewer nodes than it was made of."""
    content = virtual(node)
    scales = content.affine.has_scale or content.keeps_mul
    needed = 1 if _is_batchnorm(node, workspace) else scales + content.affine.has_shift
    return needed < len(content.spelling)


def _is_batchnorm(node: ir.Node, workspace: Workspace) -> bool:
    """Whether a virtual node becomes a BatchNormalization."""
    content = virtual(node)
    if workspace.opset < _BATCHNORM_OF_BFLOAT16 and content.batchnorm is None:
        dtype = workspace.shapes.dtype(node.outputs[0])
        if dtype == ir.DataType.BFLOAT16:
            return False
    x = node.inputs[0]
    assert x is not None
    return not content.anchored and fits_batchnorm(
        content.affine,
        from_batchnorm=content.batchnorm is not None,
        per_channel=is_per_channel(x, workspace, content),
    )


def _restore(node: ir.Node, content: VirtualAffine, workspace: Workspace) -> list[ir.Node]:
    """The original nodes, object for object; only what feeds the first may have been renamed."""
    for member, inputs in zip(content.spelling, content.inputs, strict=True):
        for slot, value in enumerate(inputs):
            member.replace_input_with(slot, value)
    content.spelling[0].replace_input_with(content.x_slot, node.inputs[0])
    graph = node.graph
    assert graph is not None
    for member in content.spelling:
        graph.insert_before(node, member)
    _take_over(node, content.spelling[-1].outputs[0], workspace)
    return list(content.spelling)


def _vanish(node: ir.Node, workspace: Workspace) -> list[ir.Node]:
    x, y = node.inputs[0], node.outputs[0]
    assert x is not None
    if y.is_graph_output():
        identity = ir.Node("", "Identity", [x], num_outputs=1)
        node.prepend(identity)
        _take_over(node, identity.outputs[0], workspace)
        return [identity]
    y.replace_all_uses_with(x)
    _remove(node)
    return []


def _as_batchnorm(node: ir.Node, content: VirtualAffine, workspace: Workspace) -> list[ir.Node]:
    """A BatchNormalization: the one that was there with the same statistics, or one of mean 0 and variance
    1 − epsilon.

    With ``scale = s·√(var + epsilon)`` and ``B = t + s·mean`` it computes ``s·x + t``.
    """
    x, y, graph = node.inputs[0], node.outputs[0], node.graph
    assert x is not None and graph is not None
    found = content.batchnorm
    member, inputs = found if found is not None else (_plain_batchnorm(workspace), (None,) * 5)
    old_scale, old_bias, old_mean, old_var = inputs[1:5]
    mean, var = workspace.constants.array(old_mean), workspace.constants.array(old_var)
    epsilon = epsilon_of(member)
    dtype = workspace.constants.dtype_of(old_scale if old_scale is not None else y)
    affine = content.affine
    size = _channels(affine, x, workspace) if mean is None else mean.size

    def parameter(values: Array64, stem: str, old: ir.Value | None = None) -> ir.Value:
        name = old.name if old is not None and old.name else f"{y.name}_{stem}"
        return new_initializer(Constant64.of(values, dtype), name, graph, workspace, replaces=old)

    if mean is None or var is None:
        mean = np.zeros(size)
        var = Constant64.of(np.full(size, 1.0 - epsilon), dtype).rounded().astype(np.float64)
        old_mean, old_var = parameter(mean, "mean"), parameter(var, "var")
    scale, shift = vector(affine.scale, 1, size), vector(affine.shift, 1, size)
    gamma, beta = scale * np.sqrt(var + epsilon), shift + scale * mean
    if not (fits(gamma, dtype) and fits(beta, dtype)):
        return _as_arithmetic(node, content, workspace)
    operands = [
        x,
        parameter(gamma, "scale", old_scale),
        parameter(beta, "bias", old_bias),
        old_mean,
        old_var,
    ]
    member.resize_inputs(len(operands))
    for slot, operand in enumerate(operands):
        member.replace_input_with(slot, operand)
    graph.insert_before(node, member)
    _take_over(node, member.outputs[0], workspace)
    return [member]


def _channels(affine: Affine, x: ir.Value, workspace: Workspace) -> int:
    """The size of axis 1; one that shape inference does not know is that of constants on it."""
    channels = (workspace.dims(x) or (None, None))[1]
    return channels if isinstance(channels, int) else max(affine.scale.size, affine.shift.size)


def _plain_batchnorm(workspace: Workspace) -> ir.Node:
    attributes: dict[str, float | int] = {"epsilon": float(np.float32(1e-5))}
    if workspace.opset < 7:
        attributes["is_test"] = 1
    return ir.node("BatchNormalization", [None] * 5, attributes)


def _as_arithmetic(node: ir.Node, content: VirtualAffine, workspace: Workspace) -> list[ir.Node]:
    """Mul, Add or both."""
    affine = content.affine
    graph, source, y = node.graph, node.inputs[0], node.outputs[0]
    assert graph is not None and source is not None
    dtype = workspace.shapes.dtype(y) or workspace.shapes.dtype(source) or ir.DataType.FLOAT
    steps = [("Mul", affine.scale)] * affine.has_scale + [("Add", affine.shift)] * affine.has_shift
    if content.keeps_mul and not affine.has_scale:
        steps.insert(0, ("Mul", affine.scale))
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
    _take_over(node, source, workspace)
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


def _take_over(node: ir.Node, output: ir.Value, workspace: Workspace) -> None:
    """``output`` becomes what the virtual node produced: readers, name, annotations."""
    y = node.outputs[0]
    y.replace_all_uses_with(output, replace_graph_outputs=True)
    output.name = y.name
    output.shape, output.type, output.doc_string = y.shape, y.type, y.doc_string
    workspace.shapes.copy(y, output)
    if y.metadata_props is not output.metadata_props:
        output.metadata_props.update(y.metadata_props)
    _remove(node)


def _remove(node: ir.Node) -> None:
    graph = node.graph
    assert graph is not None
    node.replace_input_with(0, None)
    graph.remove(node)
