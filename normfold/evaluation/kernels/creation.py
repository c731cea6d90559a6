"""Operators that make tensors or name an element type: Constant, Cast and their like.

In float64 evaluation every named float type of 16 or 32 bits means double.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from normfold.evaluation.call import Kernel, NodeCall
from normfold.evaluation.dtypes import Array, is_floating, promote, promotes
from normfold.evaluation.reference import run_reference

# numpy's own numbers, in whichever byte order a file has them; float8 and the like convert by rules of ONNX.
_NUMPY_TYPES = frozenset(map(np.dtype, "?bhilqBHILQefdFD"))


def element_type(call: NodeCall, code: int) -> np.dtype[Any]:
    """The numpy type that an ONNX element type code means in this evaluation."""
    dtype = ir.DataType(code)
    if call.double and promotes(dtype):
        return np.dtype(np.float64)
    return dtype.numpy()


def constant(call: NodeCall) -> Sequence[Any]:
    """Constant, with any of its value attributes. Sparse ones are not covered."""
    for name, attribute in call.attributes.items():
        if name == "value":
            value = attribute.value.numpy()
        elif name in ("value_float", "value_floats"):
            value = np.asarray(attribute.value, dtype=np.float32)
        elif name in ("value_int", "value_ints"):
            value = np.asarray(attribute.value, dtype=np.int64)
        elif name in ("value_string", "value_strings"):
            value = np.asarray(attribute.value, dtype=object)
        else:
            continue
        return (promote(value) if call.double else value,)
    raise call.refuse("no dense value attribute")


def constant_of_shape(call: NodeCall) -> Sequence[Array]:
    """ConstantOfShape: a tensor of the given shape, filled with the one element of ``value`` (float32 0)."""
    fill = np.zeros(1, np.float32)
    if call.has("value"):
        fill = call.attributes["value"].value.numpy().reshape(-1)
    fill = promote(fill) if call.double else fill
    return (np.full(tuple(int(d) for d in call.tensor(0)), fill[0], dtype=fill.dtype),)


def cast(call: NodeCall) -> Sequence[Array]:
    """Cast. To a float type that promotes, in float64 evaluation, it is the identity or a conversion to
    double.
    """
    x, target = call.tensor(0), ir.DataType(call.integer("to"))
    return _cast_to(call, x, target)


def cast_like_operator(call: NodeCall) -> Sequence[Array]:
    """CastLike: Cast to the element type of the second operand."""
    return _cast_to(call, call.tensor(0), ir.DataType.from_numpy(call.tensor(1).dtype))


def _cast_to(call: NodeCall, x: Array, target: ir.DataType) -> Sequence[Array]:
    if target == ir.DataType.STRING or x.dtype == object:
        if call.double and x.dtype == object and promotes(target):
            return (np.asarray([float(v) for v in x.reshape(-1)], np.float64).reshape(x.shape),)
        attribute = ir.AttrInt64("to", int(target))
        return run_reference(call, op_type="Cast", attributes={"to": attribute}, inputs=(x,))
    dtype = element_type(call, int(target))
    if x.dtype == dtype:
        return (x,)
    if is_floating(dtype) or (x.dtype in _NUMPY_TYPES and dtype in _NUMPY_TYPES):
        with np.errstate(over="ignore", invalid="ignore"):
            return (x.astype(dtype),)
    narrow = x.astype(np.float32) if x.dtype == np.float64 else x
    attributes = {**call.attributes, "to": ir.AttrInt64("to", int(target))}
    return run_reference(call, op_type="Cast", attributes=attributes, inputs=(narrow,))


def eye_like(call: NodeCall) -> Sequence[Array]:
    """EyeLike: ones on diagonal ``k`` of a matrix of the operand's shape."""
    x = call.tensor(0)
    dtype = element_type(call, call.integer("dtype")) if call.has("dtype") else x.dtype
    return (np.eye(x.shape[0], x.shape[1], k=call.integer("k", 0)).astype(dtype),)


def range_operator(call: NodeCall) -> Sequence[Array]:
    """Range: ``start + i · delta``; how many there are is decided in the operands' own type."""
    start, limit, delta = (call.tensor(index).reshape(()) for index in range(3))
    count = max(int(np.ceil((limit - start) / delta)), 0)
    if call.double and is_floating(start.dtype):
        start, delta = start.astype(np.float64), delta.astype(np.float64)
    return ((start + np.arange(count) * delta).astype(start.dtype),)


def dropout(call: NodeCall) -> Sequence[Array | None]:
    """Dropout in evaluation: the identity, and a mask of ones.

    Training with a ratio above 0 draws random numbers and is not covered.
    """
    x = call.tensor(0)
    if call.version >= 12:
        mode, ratio = call.optional(2), call.optional(1)
        training = mode is not None and bool(mode) and (ratio is None or float(ratio) != 0)
    else:
        training = call.version < 7 and call.integer("is_test", 0) == 0 and call.number("ratio", 0.5) != 0
    if training:
        raise call.refuse("draws random numbers in training mode")
    mask = np.ones(x.shape, dtype=bool if call.version >= 10 else x.dtype)
    return (x, mask)[: max(len(call.wanted), 1)]


def identity(call: NodeCall) -> Sequence[Any]:
    """Identity of a tensor, sequence or optional."""
    return (call.inputs[0],)


def random(call: NodeCall) -> Sequence[Array]:
    """Random operators have no reproducible value."""
    raise call.refuse("draws random numbers")


KERNELS: dict[tuple[str, str], Kernel] = {
    ("", "Constant"): constant,
    ("", "ConstantOfShape"): constant_of_shape,
    ("", "Cast"): cast,
    ("", "CastLike"): cast_like_operator,
    ("", "EyeLike"): eye_like,
    ("", "Range"): range_operator,
    ("", "Dropout"): dropout,
    ("", "Identity"): identity,
    **{
        ("", name): random
        for name in (
            "RandomNormal",
            "RandomNormalLike",
            "RandomUniform",
            "RandomUniformLike",
            "Multinomial",
            "Bernoulli",
        )
    },
}
