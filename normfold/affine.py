"""The one thing that travels: ``y = scale ⊙ x + shift`` with constants, in float64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from normfold.refusal import Refused

Array64 = NDArray[np.float64]

# Two units in the last place of 1.
_ROUNDING = 2.0**-51
# What a few steps of float64 arithmetic make of it. Numbers of float32 are 2⁻²⁴ apart.
_NOISE = 2.0**-49


@dataclass(frozen=True, eq=False)
class Affine:
    """A constant affine on a value of rank r.

    Attributes:
        scale: shape of rank r; each dimension is 1 or the value's own size on that axis.
        shift: likewise; the two need not have the same shape.
    """

    scale: Array64
    shift: Array64

    def __post_init__(self) -> None:
        if self.scale.ndim != self.shift.ndim:
            raise ValueError(f"scale has rank {self.scale.ndim}, shift has rank {self.shift.ndim}")

    @classmethod
    def of(cls, scale: Array64 | float = 1.0, shift: Array64 | float = 0.0, *, rank: int) -> Affine:
        """Build from arrays that broadcast against a value of rank ``rank`` (trailing axes aligned)."""
        return cls(_collapse(_to_rank(scale, rank)), _collapse(_to_rank(shift, rank)))

    @classmethod
    def on_axis(cls, scale: Array64 | float, shift: Array64 | float, *, axis: int, rank: int) -> Affine:
        """Build from one number per index of ``axis`` (arrays of shape [C])."""
        return cls.of(along(scale, axis, rank), along(shift, axis, rank), rank=rank)

    @property
    def rank(self) -> int:
        return self.scale.ndim

    @property
    def has_scale(self) -> bool:
        return not (self.scale.size == 1 and self.scale.item() == 1.0)

    @property
    def has_shift(self) -> bool:
        return not (self.shift.size == 1 and self.shift.item() == 0.0)

    @property
    def is_identity(self) -> bool:
        return not self.has_scale and not self.has_shift

    @property
    def scale_axes(self) -> tuple[int, ...]:
        """Axes that the scale varies on."""
        return varying_axes(self.scale)

    @property
    def shift_axes(self) -> tuple[int, ...]:
        """Axes that the shift varies on."""
        return varying_axes(self.shift)

    @property
    def axes(self) -> tuple[int, ...]:
        """Axes that either varies on."""
        return tuple(sorted({*self.scale_axes, *self.shift_axes}))

    @property
    def map_elements(self) -> int:
        """Number of constants in arrays that vary on more than one axis."""
        return sum(array.size for array in (self.scale, self.shift) if len(varying_axes(array)) > 1)

    @property
    def is_finite(self) -> bool:
        return bool(np.isfinite(self.scale).all() and np.isfinite(self.shift).all())

    def outgrows(self, *parts: Affine) -> bool:
        """Whether it has a larger array than any of the affines that it was made of: an outer product."""
        return self._largest > max(part._largest for part in parts)

    @property
    def _largest(self) -> int:
        return max(self.scale.size, self.shift.size)

    def lies_on(self, axis: int) -> bool:
        """Whether it varies on no axis but this one, counted from the end."""
        return set(self.axes) <= {self.rank + axis}

    def only_scale(self) -> Affine:
        return Affine(self.scale, np.zeros((1,) * self.rank))

    def only_shift(self) -> Affine:
        return Affine(np.ones((1,) * self.rank), self.shift)

    def shift_first(self) -> Affine | None:
        """The shift ``t/s`` that, applied before the scale, gives the same affine; ``None`` where s = 0."""
        if not self.scale.all():
            return None
        with np.errstate(over="ignore"):
            return Affine.of(1.0, self.shift / self.scale, rank=self.rank)

    def then(self, outer: Affine) -> Affine:
        """``outer(self(x))``. What undoes itself, such as a factor c and then 1/c, leaves no rounding."""
        scale, moved = outer.scale * self.scale, outer.scale * self.shift
        scale = np.where(np.abs(scale - 1.0) <= _ROUNDING, 1.0, scale)
        return Affine.of(scale, summed(moved, outer.shift), rank=self.rank)

    def except_where(self, mask: NDArray[np.bool_]) -> Affine:
        """The identity where ``mask``, which broadcasts against the value, is set; the same elsewhere."""
        return Affine.of(np.where(mask, 1.0, self.scale), np.where(mask, 0.0, self.shift), rank=self.rank)

    def same_as(self, other: Affine) -> bool:
        return (
            self.rank == other.rank
            and self.scale.shape == other.scale.shape
            and self.shift.shape == other.shift.shape
            and bool(alike(self.scale, other.scale).all() and alike(self.shift, other.shift).all())
        )

    def channel(self, axis: int, size: int) -> tuple[Array64, Array64]:
        """Scale and shift as vectors of shape [size] on ``axis``; every other axis must be 1."""
        return vector(self.scale, axis, size), vector(self.shift, axis, size)

    def apply(self, x: Array64) -> Array64:
        return self.scale * x + self.shift


def alike(a: Array64, b: Array64) -> NDArray[np.bool_]:
    """Whether numbers are equal up to the rounding of float64, elementwise.

    The same number of real arithmetic comes out a bit different where it was computed of other constants.
    Taken for two, it would be one as soon as it is written in a narrower type.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        same: NDArray[np.bool_] = (a == b) | (np.abs(a - b) < _NOISE * np.abs(b))
    return same


def summed(a: Array64, b: Array64) -> Array64:
    """``a + b``, broadcast; what cancels leaves no rounding."""
    total = a + b
    return np.where(np.abs(total) <= _ROUNDING * np.abs(a), 0.0, total)


def varying_axes(array: Array64) -> tuple[int, ...]:
    return tuple(axis for axis, size in enumerate(array.shape) if size != 1)


def along(values: Array64 | float, axis: int, rank: int) -> Array64:
    """Lay a vector of shape [C] along ``axis`` of a rank-``rank`` array; a scalar stays uniform."""
    vector_ = np.asarray(values, dtype=np.float64)
    if vector_.size == 1:
        return vector_.reshape((1,) * rank)
    shape = [1] * rank
    shape[axis] = vector_.size
    return vector_.reshape(shape)


def vector(array: Array64, axis: int, size: int) -> Array64:
    """The values on ``axis`` as a vector of shape [size].

    Raises:
        Refused: NF113, they are more or fewer: operands of the model do not fit each other.
    """
    if array.size not in (1, size):
        raise Refused("NF113", f"{array.size} numbers do not fit an axis of size {size}")
    return np.broadcast_to(array.reshape(-1), (size,))


def move_axes(array: Array64, sources: Sequence[int | None]) -> Array64:
    """Re-index: axis i of the result is axis ``sources[i]`` of ``array`` (``None``: size 1)."""
    kept = [axis for axis in sources if axis is not None]
    dropped = [axis for axis in range(array.ndim) if axis not in kept]
    compact = array.transpose(kept + dropped).reshape([array.shape[axis] for axis in kept])
    shape = iter(compact.shape)
    return compact.reshape([1 if axis is None else next(shape) for axis in sources])


def _to_rank(values: Array64 | float, rank: int) -> Array64:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim > rank:
        array = array.reshape(array.shape[array.ndim - rank :])
    return array.reshape((1,) * (rank - array.ndim) + array.shape)


def _collapse(array: Array64) -> Array64:
    """Shrink every axis along which nothing varies to size 1."""
    for axis, size in enumerate(array.shape):
        if size > 1:
            first, last = array.take([0], axis=axis), array.take([-1], axis=axis)
            # Most of what varies has another number at its end: it need not be looked through.
            if alike(last, first).all() and alike(array, first).all():
                array = first
    return array
