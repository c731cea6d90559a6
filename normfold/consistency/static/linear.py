"""The linear operator in front of a normalisation, seen by output channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from normfold.affine import Array64
from normfold.consistency.static.subject import Subject, is_op, maker, only_reader
from normfold.preparation.constant64 import FLOAT_TYPES


@dataclass(frozen=True, eq=False)
class Linear:
    """``y = W·x + b``.

    Attributes:
        node: Conv, ConvTranspose, Gemm or MatMul.
        x: what it reads.
        weight: output channel first, then input channels of one group, then taps: ``[O, I/groups, K]``. A
            stored one is a view in its own type, so that nothing large is copied.
        bias: ``[O]``; zeros where there is none.
        groups: of the channels.
        padding: whether a border of zeros may be read.
    """

    node: ir.Node
    x: ir.Value
    weight: np.ndarray[Any, Any]
    bias: Array64
    groups: int = 1
    padding: bool = False


def linear_before(value: ir.Value | None, subject: Subject, *, shared: bool = False) -> Linear | None:
    """The linear operator with constant weights that makes ``value`` with its output channels on axis 1.

    Looks through an Add of a constant behind a MatMul or Gemm.

    Args:
        value: what it makes.
        subject: the model.
        shared: take it even if ``value`` has several readers.
    """
    if value is None or not (shared or only_reader(value) is not None):
        return None
    node, extra = maker(value), None
    if is_op(node, "Add"):
        extra = next((a for a in (subject.array(v) for v in node.inputs) if a is not None), None)
        x = next((v for v in node.inputs if not subject.workspace.constants.is_constant(v)), None)
        node = maker(x) if extra is not None and (shared or only_reader(x) is not None) else None
        if not is_op(node, "MatMul", "Gemm"):
            return None
    found = None
    if is_op(node, "Conv", "ConvTranspose"):
        found = _convolution(node, subject)
    elif is_op(node, "Gemm"):
        found = _gemm(node, subject)
    elif is_op(node, "MatMul") and len(subject.dims(value) or ()) == 2:
        found = _matmul(node, subject)
    if found is None or extra is None:
        return found
    size = found.weight.shape[0]
    if extra.size not in (1, size) or (extra.ndim and extra.shape[-1] != extra.size):
        return None
    bias = found.bias + np.broadcast_to(extra.reshape(-1).astype(np.float64), size)
    return Linear(found.node, found.x, found.weight, bias, found.groups, found.padding)


def _convolution(node: ir.Node, subject: Subject) -> Linear | None:
    weight, x = _weight(node, subject), node.inputs[0]
    bias = _optional(node, 2, subject)
    if weight is None or bias is None or x is None or weight.ndim < 3:
        return None
    groups = node.attributes.get_int("group", 1)
    if node.op_type == "ConvTranspose":
        inputs, outputs, *taps = weight.shape
        if inputs % groups:
            return None
        split = weight.reshape(groups, inputs // groups, outputs, *taps)
        weight = np.moveaxis(split, 2, 1).reshape(groups * outputs, inputs // groups, *taps)
    pads = node.attributes.get_ints("pads") or ()
    automatic = node.attributes.get_string("auto_pad", "NOTSET") in ("SAME_UPPER", "SAME_LOWER")
    size = weight.shape[0]
    if bias.size not in (1, size):
        return None
    return Linear(
        node,
        x,
        weight.reshape(size, weight.shape[1], -1),
        np.zeros(size) + bias.reshape(-1),
        groups,
        padding=automatic or any(pads),
    )


def _gemm(node: ir.Node, subject: Subject) -> Linear | None:
    weight, bias, x = _weight(node, subject), _optional(node, 2, subject), node.inputs[0]
    if weight is None or bias is None or x is None or node.attributes.get_int("transA", 0) == 1:
        return None
    transposed = node.attributes.get_int("transB", 0) == 1
    matrix = weight if transposed else weight.T
    size = matrix.shape[0]
    if bias.size not in (1, size) or (bias.ndim and bias.shape[-1] != bias.size):
        return None
    alpha, beta = (float(node.attributes.get_float(name, 1.0)) for name in ("alpha", "beta"))
    return Linear(node, x, _times(alpha, matrix)[:, :, None], np.zeros(size) + beta * bias.reshape(-1))


def _matmul(node: ir.Node, subject: Subject) -> Linear | None:
    weight, x = _weight(node, subject), node.inputs[0]
    if weight is None or x is None or weight.ndim != 2:
        return None
    return Linear(node, x, weight.T[:, :, None], np.zeros(weight.shape[1]))


def _weight(node: ir.Node, subject: Subject) -> np.ndarray[Any, Any] | None:
    """The floating constant in slot 1, as it is stored if it is."""
    value = node.inputs[1] if len(node.inputs) > 1 else None
    if value is None or not value.is_initializer():
        return _array(node, 1, subject)
    constants = subject.workspace.constants
    return constants.array(value, native=True) if constants.dtype_of(value) in FLOAT_TYPES else None


def _times(alpha: float, matrix: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return matrix if alpha == 1.0 else alpha * matrix.astype(np.float64)


def _array(node: ir.Node, slot: int, subject: Subject) -> Array64 | None:
    array = subject.array(node.inputs[slot]) if slot < len(node.inputs) else None
    return array if array is not None and array.dtype == np.float64 else None


def _optional(node: ir.Node, slot: int, subject: Subject) -> Array64 | None:
    """A constant operand, zero where it is left out, ``None`` where it is not constant."""
    if slot >= len(node.inputs) or node.inputs[slot] is None:
        return np.zeros(1)
    return _array(node, slot, subject)
