"""Which element types take part in float64 promotion, and how low-precision types are computed natively."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir

Array = np.ndarray[Any, np.dtype[Any]]

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

# The 8-bit and smaller floats are codes of a quantisation: promoting them would undo a decision of the model.
_PROMOTED = frozenset({np.dtype(np.float16), BFLOAT16, np.dtype(np.float32)})
_HALF = frozenset({np.dtype(np.float16), BFLOAT16})
_FLOATING = _PROMOTED | {np.dtype(np.float64)}


def is_floating(dtype: np.dtype[Any]) -> bool:
    """Whether the type is float16, bfloat16, float32 or float64."""
    return dtype in _FLOATING


def is_half(dtype: np.dtype[Any]) -> bool:
    """Whether the type is float16 or bfloat16."""
    return dtype in _HALF


def promotes(dtype: ir.DataType) -> bool:
    """Whether an ONNX element type becomes double in float64 evaluation."""
    return dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE)


def promote(value: Any) -> Any:
    """Cast a floating tensor, or every tensor of a sequence, to float64; anything else is returned as it
    is.
    """
    if isinstance(value, np.ndarray):
        return value.astype(np.float64) if value.dtype in _PROMOTED else value
    if isinstance(value, list):
        return [promote(item) for item in value]
    return value


def as_value(content: Any) -> Any:
    """A runtime value: arrays for tensors and numpy scalars, lists for sequences, ``None`` for nothing."""
    if content is None or isinstance(content, np.ndarray):
        return content
    if isinstance(content, list):
        return [as_value(item) for item in content]
    return np.asarray(content)


def cast_like(value: Any, dtype: np.dtype[Any]) -> Any:
    """Cast a floating tensor (or every tensor of a sequence) to another floating type; leave others alone."""
    if isinstance(value, np.ndarray):
        if is_floating(value.dtype) and is_floating(dtype) and value.dtype != dtype:
            return value.astype(dtype)
        return value
    if isinstance(value, list):
        return [cast_like(item, dtype) for item in value]
    return value


def working(array: Array) -> Array:
    """float16 and bfloat16 are accumulated in float32, as runtimes do; other types in themselves."""
    return array.astype(np.float32) if array.dtype in _HALF else array
