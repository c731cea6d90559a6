"""Hand-written BatchNorm in evaluation, given the form of a layer so that it can be judged like one.

``(x − mean) / deviation``, with a scale γ in front of the division or behind it, becomes BatchNormalization
with ``var = deviation² − ε``: the same function. ε is what the deviation is seen to be made with, or a usual
one where the exporter folded it: a channel that turns out constant on other data must not divide by zero.
Scale and shift behind it stay where they are. A product ``(x − mean) · s`` is not enough: s may hold γ as
well, so that the variance cannot be told.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from normfold.affine import Array64
from normfold.consistency.static.subject import is_op, maker
from normfold.preparation.workspace import Workspace

_LEAST_OPSET = 9
_USUAL_EPSILON = 1e-5
_PREPARING = ("Cast", "Transpose", "Identity", "Mul", "Div", "Add", "Sub", "Reshape", "Unsqueeze", "Squeeze")


@dataclass(frozen=True)
class _Written:
    """One hand-written layer: ``scale · (x − mean) / √(var + epsilon)``; arrays of shape ``[C]``."""

    node: ir.Node
    x: ir.Value
    mean: Array64
    var: Array64
    epsilon: float
    scale: Array64


def spelled_as_layers(model: ir.Model) -> tuple[ir.Model, tuple[str, ...]]:
    """A copy in which every hand-written BatchNorm of the main graph is a BatchNormalization.

    What prepares a graph input, such as pixels minus their mean, is none: it was never trained.

    Args:
        model: without local functions; is not changed.

    Returns:
        The copy and the output values of its new layers; the model itself where there are none.
    """
    workspace = Workspace(model)
    if workspace.opset < _LEAST_OPSET or not any(True for _ in _written(model, workspace)):
        return model, ()
    copy = model.clone()
    workspace = Workspace(copy)
    return copy, tuple([_replace(layer, workspace) for layer in list(_written(copy, workspace))])


def _written(model: ir.Model, workspace: Workspace) -> Iterator[_Written]:
    for node in model.graph:
        found = _read(node, workspace) if is_op(node, "Div") else None
        if found is not None:
            yield found


def _read(node: ir.Node, workspace: Workspace) -> _Written | None:
    centred, scale = _centred(node.inputs[0], workspace)
    x = centred.inputs[0] if centred is not None else None
    dims = workspace.dims(x) if x is not None else None
    if centred is None or x is None or dims is None or len(dims) < 2 or not isinstance(dims[1], int):
        return None
    mean, deviation, gamma = (
        _per_channel(value, len(dims), dims[1], workspace)
        for value in (centred.inputs[1], node.inputs[1], scale)
    )
    if mean is None or deviation is None or (scale is not None and gamma is None) or _prepares(x):
        return None
    if mean.size < 2 or not (np.isfinite(deviation).all() and (deviation > 0).all()):
        return None
    square = np.square(deviation)
    epsilon = _epsilon(node.inputs[1], workspace)
    if epsilon is None or not 0 < epsilon <= square.min():
        epsilon = float(np.float32(min(_USUAL_EPSILON, square.min() / 2)))
    return _Written(node, x, mean, square - epsilon, epsilon, np.ones_like(mean) if gamma is None else gamma)


def _epsilon(deviation: ir.Value | None, workspace: Workspace) -> float | None:
    """The epsilon of ``√(var + ε)``, where the graph still computes it; as a node holds it, in float32."""
    root = maker(deviation)
    total = maker(root.inputs[0]) if is_op(root, "Sqrt") else None
    if not is_op(total, "Add"):
        return None
    for value in total.inputs:
        array = workspace.constants.array(value) if value is not None else None
        if array is not None and array.size == 1:
            return float(np.float32(array.reshape(())))
    return None


def _centred(value: ir.Value | None, workspace: Workspace) -> tuple[ir.Node | None, ir.Value | None]:
    """The ``x − mean`` that makes a value, and the constant scale in between."""
    node, scale = maker(value), None
    if is_op(node, "Mul") and len(node.inputs) == 2:
        slot = 0 if workspace.constants.is_constant(node.inputs[0]) else 1
        scale, node = node.inputs[slot], maker(node.inputs[1 - slot])
    if not is_op(node, "Sub") or workspace.constants.is_constant(node.inputs[0]):
        return None, None
    return node, scale


def _per_channel(value: ir.Value | None, rank: int, channels: int, workspace: Workspace) -> Array64 | None:
    """A constant with one value for each channel of axis 1, shape ``[C]``."""
    array = workspace.constants.array(value) if value is not None else None
    if array is None or array.dtype != np.float64 or array.ndim > rank or array.size != channels:
        return None
    aligned = (1,) * (rank - array.ndim) + array.shape
    return array.reshape(-1) if aligned[1] == channels else None


def _prepares(x: ir.Value) -> bool:
    """Whether nothing but arithmetic with constants stands between a graph input and ``x``."""
    stack = [x]
    while stack:
        value = stack.pop()
        node = value.producer()
        if node is None:
            if value.is_graph_input():
                return True
        elif is_op(node, *_PREPARING):
            stack.extend(v for v in node.inputs if v is not None)
    return False


def _replace(layer: _Written, workspace: Workspace) -> str:
    """Puts the layer in the place of the division; returns the name of its output."""
    node: ir.Node | None = layer.node
    output = layer.node.outputs[0]
    graph, dtype = workspace.model.graph, workspace.shapes.dtype(output) or ir.DataType.FLOAT
    name = output.name or ""
    parameters = []
    for stem, values in (
        ("scale", layer.scale),
        ("B", np.zeros_like(layer.mean)),
        ("mean", layer.mean),
        ("var", layer.var),
    ):
        label = workspace.fresh_name(f"{name}:{stem}")
        value = ir.Value(name=label, const_value=ir.tensor(values.astype(dtype.numpy()), name=label))
        value.dtype, value.shape = dtype, ir.Shape(values.shape)
        graph.register_initializer(value)
        parameters.append(value)
    norm = ir.Node(
        "", "BatchNormalization", [layer.x, *parameters], [ir.AttrFloat32("epsilon", layer.epsilon)]
    )
    made = norm.outputs[0]
    made.dtype, made.shape = dtype, output.shape
    graph.insert_before(layer.node, norm)
    output.replace_all_uses_with(made, replace_graph_outputs=True)
    output.name = workspace.fresh_name(f"{name}:written")
    made.name = name
    while node is not None and not any(value.uses() or value.is_graph_output() for value in node.outputs):
        following = next((maker(v) for v in node.inputs if is_op(maker(v), "Mul", "Sub")), None)
        graph.remove(node, safe=True)
        if node.op_type == "Sub":
            break
        node = following
    return name
