"""Constants and attributes that an operator gets when an affine crosses it."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx_ir as ir

from normfold.affine import Affine, Array64
from normfold.preparation.constant64 import FLOAT_TYPES, Constant64
from normfold.preparation.node_view import NodeView
from normfold.refusal import Refused


def output_type(node: NodeView) -> ir.DataType:
    """The floating type of the first output.

    Raises:
        Refused: NF112 where it is not known.
    """
    dtype = node.output_dtype()
    if dtype is None or dtype not in FLOAT_TYPES:
        raise Refused("NF112", f"the type of {node.name!r} is not known")
    return dtype


def operand(values: Array64, node: NodeView) -> Constant64:
    """A constant operand that broadcasts to the output: leading axes of size 1 are left out."""
    axes = [axis for axis, size in enumerate(values.shape) if size != 1]
    return Constant64.of(values.reshape(values.shape[axes[0] :] if axes else ()), output_type(node))


def scalar(value: float, node: NodeView) -> Constant64:
    """A constant of shape []."""
    return Constant64.of(np.array(value), output_type(node))


def attribute(value: float, node: NodeView) -> float:
    """A float attribute's new value. Attributes are float32: in a float64 model they may not round.

    Raises:
        Refused: NF111 where it would.
    """
    if output_type(node) == ir.DataType.DOUBLE and float(np.float32(value)) != value:
        raise Refused("NF111", f"an attribute of {node.op_type} {node.name!r} cannot hold {value!r}")
    return value


def uniform(affine: Affine, node: NodeView) -> tuple[float, float]:
    """Scale and shift of an affine that varies nowhere.

    Raises:
        Refused: NF110 where it varies.
    """
    if affine.axes:
        raise Refused(
            "NF110", f"{node.op_type} {node.name!r} has the same constants for every element of its input"
        )
    return float(affine.scale.item()), float(affine.shift.item())


def limits(dtype: ir.DataType) -> tuple[float, float]:
    """Largest number and smallest normal number of a floating type."""
    info = ml_dtypes.finfo(dtype.numpy())  # type: ignore[no-untyped-call]
    return float(info.max), float(info.smallest_normal)


def largest(dtype: ir.DataType) -> float:
    """The largest number of a floating type."""
    return limits(dtype)[0]
