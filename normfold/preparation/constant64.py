"""A constant in float64, as a recipe that is evaluated late and rounded once.

However many folds a weight takes part in, its float64 values are computed when asked, row by row where that
is possible, and rounded to the tensor's own type when the model is written.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir

from normfold.affine import Array64
from normfold.preparation.shapes import tensor_dims

FLOAT_TYPES = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.FLOAT, ir.DataType.DOUBLE})

# Elements of a constant that is kept in float64 whatever becomes of it: a model may have any number of larger
# ones.
KEPT_IN_FLOAT64 = 1 << 10
# Elements that are in memory at once, of a tensor that is edited row by row.
_BLOCK = 1 << 18


@dataclass(frozen=True)
class Constant64:
    """A constant tensor in float64, computed when asked.

    Attributes:
        shape: dimensions of the tensor.
        dtype: the type that it is rounded to in the end.
        compute: yields the float64 values, shape ``shape``.
        rows: yields those of a range of axis 0 alone; ``None`` where there is no way but the whole.
    """

    shape: tuple[int, ...]
    dtype: ir.DataType
    compute: Callable[[], Array64]
    rows: Callable[[slice], Array64] | None = None

    @classmethod
    def of(cls, values: Array64, dtype: ir.DataType) -> Constant64:
        array = np.asarray(values, dtype=np.float64, order="C")
        return cls(array.shape, dtype, lambda: array)

    @classmethod
    def stored(cls, tensor: ir.TensorProtocol) -> Constant64:
        """A floating tensor as it is; read when it is asked for."""
        return cls(
            tensor_dims(tensor),
            tensor.dtype,
            lambda: tensor.numpy().astype(np.float64),
            lambda part: tensor.numpy()[part].astype(np.float64),
        )

    @classmethod
    def later(cls, shape: tuple[int, ...], dtype: ir.DataType, compute: Callable[[], Array64]) -> Constant64:
        """A small constant that takes long to compute: done when it is first asked for, and kept."""
        return cls(shape, dtype, _Once(compute))

    def map(self, function: Callable[[Array64], Array64], shape: tuple[int, ...] | None = None) -> Constant64:
        """The constant that ``function`` makes of it, evaluated late unless small."""
        if math.prod(self.shape) <= KEPT_IN_FLOAT64:
            return Constant64.of(function(self.compute()), self.dtype)
        compute = self.compute
        return Constant64(self.shape if shape is None else shape, self.dtype, lambda: function(compute()))

    def scaled(self, factor: Array64) -> Constant64:
        """Times ``factor``, which broadcasts to the shape. Row by row, if this constant is."""
        late, rows = self.map(lambda values: values * factor), self.rows
        if rows is None or math.prod(self.shape) <= KEPT_IN_FLOAT64:
            return late
        aligned = factor.reshape((1,) * (len(self.shape) - factor.ndim) + factor.shape)
        return dataclasses.replace(
            late, rows=lambda part: rows(part) * (aligned if len(aligned) == 1 else aligned[part])
        )

    def blocks(self) -> Iterator[Array64]:
        """The values along axis 0, in blocks of bounded size where ``rows`` allows; one whole otherwise."""
        if self.rows is None or not self.shape or math.prod(self.shape) <= _BLOCK:
            yield self.compute()
            return
        step = max(1, _BLOCK // math.prod(self.shape[1:]))
        for start in range(0, max(self.shape[0], 1), step):
            yield self.rows(slice(start, start + step))

    def rowwise(self, function: Callable[[Array64, slice], Array64]) -> Array64:
        """What ``function`` makes of blocks of rows and their places on axis 0, joined on axis 0."""
        parts, start = [], 0
        for block in self.blocks():
            parts.append(function(block, slice(start, start + len(block))))
            start += len(block)
        return np.concatenate(parts)

    def contracted(self, factor: Array64, axis: int) -> Array64:
        """``(values · factor).sum(axis)``; ``factor``, shape [length of the axis], lies on it."""
        laid = factor.reshape([-1 if i == axis else 1 for i in range(len(self.shape))])
        if axis:
            return self.rowwise(lambda block, _: (block * laid).sum(axis))
        total, start = np.zeros(self.shape[1:]), 0
        for block in self.blocks():
            total = total + (block * laid[start : start + len(block)]).sum(0)
            start += len(block)
        return total

    def rounded(self) -> np.ndarray[Any, Any]:
        return round_once(self.compute(), self.dtype)


class _Once:
    """Calls a function once. What it needed is let go of then."""

    def __init__(self, function: Callable[[], Array64]) -> None:
        self._function: Callable[[], Array64] | None = function
        self._result = np.empty(0)

    def __call__(self) -> Array64:
        if self._function is not None:
            self._result, self._function = self._function(), None
        return self._result


def round_once(values: Array64, dtype: ir.DataType) -> np.ndarray[Any, Any]:
    """Round float64 to ``dtype``, to nearest even, with a single rounding."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        if dtype != ir.DataType.BFLOAT16:
            return values.astype(dtype.numpy())
        # ml_dtypes goes through float32; rounding to odd on the way there keeps that step harmless.
        single = values.astype(np.float32)
        bits = single.view(np.uint32)
        away = np.abs(single.astype(np.float64)) > np.abs(values)
        inexact = (single.astype(np.float64) != values) & np.isfinite(single)
        bits = np.where(inexact, (bits - away.astype(np.uint32)) | np.uint32(1), bits).astype(np.uint32)
        return bits.view(np.float32).astype(ml_dtypes.bfloat16)
