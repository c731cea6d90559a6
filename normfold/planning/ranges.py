"""Whether a folded constant survives the one rounding to its own type."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import onnx_ir as ir

from normfold.affine import Array64
from normfold.planning.crossing import Crossing, NodeView
from normfold.preparation.constants import Constant64
from normfold.refusal import Refused


def check_ranges(node: NodeView, crossing: Crossing) -> None:
    """Refuse a crossing whose constants overflow, or lose a channel to subnormal numbers.

    Raises:
        Refused: NF108 (not finite in float64), NF111 (outside the range of the tensor's type).
    """
    for slot, constant in crossing.constants.items():
        values = constant.compute()
        if not np.isfinite(values).all():
            raise Refused("NF108", f"a constant of {node.op_type} {node.name!r} would not be finite")
        largest, smallest_normal = _limits(constant.dtype)
        if np.abs(values).max(initial=0.0) > largest:
            raise Refused(
                "NF111",
                f"a constant of {node.op_type} {node.name!r} would overflow {constant.dtype.name.lower()}",
            )
        before = node.constant(slot)
        if before is not None and len(constant.shape) >= 2 and before.shape == constant.shape:
            _check_subnormal(node, before, values, smallest_normal)


def _check_subnormal(node: NodeView, before: Constant64, after: Array64, smallest_normal: float) -> None:
    """A channel whose largest weight falls well below the normal range has lost its digits.

    Unless its factor is subnormal itself: then the original model had lost them already.
    """
    if np.abs(after).max(axis=None, initial=0.0) == 0.0:
        return
    original = before.compute()
    limit = smallest_normal / 4
    for axis in (0, 1):
        others = tuple(i for i in range(after.ndim) if i != axis)
        new, old = np.abs(after).max(axis=others), np.abs(original).max(axis=others)
        with np.errstate(divide="ignore", invalid="ignore"):
            lost = (new > 0) & (new < limit) & (old >= limit) & (new / old >= smallest_normal)
        if lost.any():
            channel = int(np.argmax(lost))
            raise Refused(
                "NF111",
                f"channel {channel} of {node.op_type} {node.name!r} would shrink to {new[channel]:.3g}, below the normal"
                f" range of {before.dtype.name.lower()}",
            )


def safe_shift(shift: Array64, dtype: ir.DataType) -> bool:
    """Whether a shift divided by a scale stays well inside the range of the type."""
    largest = _limits(dtype)[0]
    return bool(np.isfinite(shift).all()) and float(np.abs(shift).max(initial=0.0)) < math.sqrt(largest)


def _limits(dtype: ir.DataType) -> tuple[float, float]:
    """Largest number and smallest normal number of a floating type."""
    info = ml_dtypes.finfo(dtype.numpy())  # type: ignore[no-untyped-call]
    return float(info.max), float(info.smallest_normal)
