"""BatchNormalization in every opset, read as an affine.

``y = scale · (x − mean) / √(var + epsilon) + B``:
https://onnx.ai/onnx/operators/onnx__BatchNormalization.html
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from normfold.affine import Affine, Array64, along
from normfold.preparation.workspace import Workspace
from normfold.refusal import Refused

# An attribute is a float32, its default included.
_DEFAULT_EPSILON = float(np.float32(1e-5))


def epsilon_of(node: ir.Node) -> float:
    """``epsilon`` as the runtime reads it."""
    return float(node.attributes.get_float("epsilon", _DEFAULT_EPSILON))


def is_inference(node: ir.Node, opset: int) -> bool:
    """Whether the node uses its running statistics, by the rule of its opset.

    Opset 1 and 6: ``is_test`` (0 unless set, which means training). 7 to 13: training has more than one
    output.
    From 14 on: ``training_mode``.
    """
    extra = any(v.name and (v.uses() or v.is_graph_output()) for v in node.outputs[1:])
    if opset >= 14:
        return node.attributes.get_int("training_mode", 0) == 0
    if opset >= 7:
        return not any(v.name for v in node.outputs[1:])
    return node.attributes.get_int("is_test", 0) == 1 and not extra


def read_batchnorm(node: ir.Node, workspace: Workspace) -> Affine:
    """The affine of an inference BatchNormalization, of its input's rank.

    Raises:
        Refused: where the node is not a constant affine.
    """
    opset = workspace.opset_of(node)
    if not is_inference(node, opset):
        raise Refused("NF107", "it normalises with the statistics of the batch (training semantics)")
    x, y = node.inputs[0], node.outputs[0]
    assert x is not None
    dims = workspace.dims(x) or workspace.dims(y)
    if dims is None:
        raise Refused("NF112", "the rank of its input is not known")
    rank = len(dims)
    names = ("scale", "B", "mean", "var")
    arrays: list[Array64] = []
    for name, operand in zip(names, node.inputs[1:5], strict=True):
        array = workspace.constants.array(operand)
        if array is None:
            raise not_constant(name, operand, workspace)
        arrays.append(array.astype(np.float64))
    sizes = [a.size for a in arrays]
    if len({*sizes} - {1}) > 1:
        raise Refused("NF113", f"its parameters have {', '.join(map(str, sizes))} elements")
    per_element = opset < 9 and node.attributes.get_int("spatial", 1) == 0
    scale, bias, mean, var = arrays
    epsilon = epsilon_of(node)
    if not all(np.isfinite(a).all() for a in arrays):
        raise Refused("NF108", "a parameter is NaN or infinite")
    if not (var + epsilon > 0).all():
        raise Refused(
            "NF109",
            f"variance + epsilon is not positive (least variance {var.min():.6g}, epsilon {epsilon:.6g})",
        )
    inverse = scale / np.sqrt(var + epsilon)
    shift = bias - mean * inverse
    if per_element:
        lead = (1,) * (rank - inverse.ndim)
        return Affine.of(inverse.reshape(lead + inverse.shape), shift.reshape(lead + shift.shape), rank=rank)
    if rank < 2:
        return Affine.of(inverse.reshape(-1), shift.reshape(-1), rank=rank)
    channels = dims[1]
    if isinstance(channels, int) and inverse.size != channels:
        raise Refused("NF113", f"it has {inverse.size} parameters for {channels} channels")
    return Affine.of(along(inverse, 1, rank), along(shift, 1, rank), rank=rank)


def not_constant(name: str, operand: ir.Value | None, workspace: Workspace) -> Refused:
    """Why an operand cannot be taken as a constant."""
    if operand is not None and workspace.constants.is_overridable(operand):
        return Refused(
            "NF102", f"{name} ({operand.name!r}) is a graph input with a default that a caller may replace"
        )
    return Refused("NF101", f"{name} is computed at run time")
