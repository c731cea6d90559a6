"""Mul, Add, Sub, Div, Neg and Sum with a constant operand, read as an affine."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from normfold.affine import Affine, Array64
from normfold.preparation.shapes import Dims
from normfold.preparation.workspace import Workspace
from normfold.refusal import Refused

_BINARY = frozenset({"Mul", "Add", "Sub", "Div", "Sum"})


def operand_slot(node: ir.Node, workspace: Workspace) -> int | None:
    """The slot of the one operand that is not constant, ``None`` where the node is no affine of one value."""
    if node.op_type == "Neg":
        slot = 0
    elif node.op_type in _BINARY and len(node.inputs) == 2:
        constant = [workspace.constants.is_constant(v) for v in node.inputs]
        if constant == [False, True]:
            slot = 0
        elif constant == [True, False] and node.op_type != "Div":
            slot = 1
        else:
            return None
    else:
        return None
    value = node.inputs[slot]
    if value is None or not (workspace.is_float(value) or workspace.is_float(node.outputs[0])):
        return None
    return slot


def read_elementwise(node: ir.Node, slot: int, workspace: Workspace) -> Affine:
    """The affine that the node applies to its operand in ``slot``.

    Raises:
        Refused: where the constant enlarges the operand, is not finite, or the rank is not known.
    """
    value = node.inputs[slot]
    assert value is not None
    dims = workspace.dims(value)
    if dims is None:
        raise Refused("NF112", f"the rank of {value.name!r} is not known")
    rank = len(dims)
    if node.op_type == "Neg":
        return Affine.of(-1.0, rank=rank)
    operand = node.inputs[1 - slot]
    array = workspace.constants.array(operand)
    if array is None or array.dtype != np.float64:
        raise Refused("NF101", f"{operand.name if operand else '?'!r} could not be evaluated")
    constant = _aligned(node, array, rank, workspace.opset_of(node))
    _check_broadcast(constant, dims, value)
    if not np.isfinite(constant).all():
        raise Refused("NF108", "a constant is NaN or infinite")
    if node.op_type == "Mul":
        return Affine.of(constant, rank=rank)
    if node.op_type == "Div":
        if not constant.all():
            raise Refused("NF108", "it divides by zero")
        with np.errstate(over="ignore"):
            return Affine.of(1.0 / constant, rank=rank)
    if node.op_type == "Sub":
        if slot == 0:
            return Affine.of(1.0, -constant, rank=rank)
        return Affine.of(-1.0, constant, rank=rank)
    return Affine.of(1.0, constant, rank=rank)


def _aligned(node: ir.Node, array: Array64, rank: int, opset: int) -> Array64:
    """Before opset 7 the second operand is laid from ``axis`` on (attribute ``broadcast``), not from the
    last axis."""
    if opset < 7 and "axis" in node.attributes and array.ndim:
        axis = node.attributes.get_int("axis", 0) % rank
        array = array.reshape(array.shape + (1,) * (rank - axis - array.ndim))
    return array


def _check_broadcast(constant: Array64, dims: Dims, value: ir.Value) -> None:
    rank = len(dims)
    if constant.ndim > rank and (
        rank == 0 or any(size != 1 for size in constant.shape[: constant.ndim - rank])
    ):
        raise Refused("NF113", f"a constant of shape {list(constant.shape)} enlarges {value.name!r}")
    if constant.ndim > rank:
        raise Refused("NF113", f"a constant of rank {constant.ndim} raises the rank of {value.name!r}")
    for size, dim in zip(constant.shape[::-1], dims[::-1], strict=False):
        if size != 1 and size != dim:
            shown = "?" if dim is None else dim
            raise Refused(
                "NF113",
                f"a constant of size {size} on an axis of {value.name!r} of size {shown} may enlarge it",
            )
