"""Whether a folded constant survives the one rounding to its own type."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from normfold.affine import Affine, Array64
from normfold.planning.crossing import Crossing
from normfold.planning.numbers import limits
from normfold.planning.plan import Walk
from normfold.preparation.constant64 import FLOAT_TYPES, Constant64, round_once
from normfold.preparation.node_view import NodeView
from normfold.preparation.workspace import Workspace
from normfold.refusal import Refused

# No type moves 1, or 0, by more when it rounds.
_COARSEST = 2.0**-7
_SUMS = frozenset({"MatMul", "Gemm", "Conv", "ConvTranspose", "DeformConv", "ReduceSum", "Add", "Sub", "Sum"})


def check_ranges(node: NodeView, crossing: Crossing) -> None:
    """Refuse a crossing whose constants overflow, or lose a channel to subnormal numbers.

    Raises:
        Refused: NF108 (not finite in float64), NF111 (outside the range of the tensor's type).
    """
    for slot, constant in crossing.constants.items():
        if constant.dtype not in FLOAT_TYPES:
            continue
        peak = _peak(constant)
        if not math.isfinite(peak):
            raise Refused("NF108", f"a constant of {node.op_type} {node.name!r} would not be finite")
        largest, smallest_normal = limits(constant.dtype)
        if peak > largest:
            raise Refused(
                "NF111",
                f"a constant of {node.op_type} {node.name!r} would overflow {constant.dtype.name.lower()}",
            )
        before = node.constant(slot)
        if (
            before is not None
            and len(constant.shape) >= 2
            and all(constant.shape)
            and before.shape == constant.shape
        ):
            _check_subnormal(node, before, constant, smallest_normal)


def _peak(constant: Constant64) -> float:
    """The largest magnitude; NaN if a value is."""
    peaks = [max(-block.min(initial=0.0), block.max(initial=0.0)) for block in constant.blocks()]
    return float(np.max(peaks))


def _sizes(constant: Constant64) -> tuple[Array64, Array64]:
    """Largest magnitude of each channel on axis 0 and on axis 1."""
    rows, columns = [], np.zeros(constant.shape[1])
    for block in constant.blocks():
        sizes = np.abs(block).reshape(*block.shape[:2], -1).max(axis=2, initial=0.0)
        rows.append(sizes.max(axis=1, initial=0.0))
        columns = np.maximum(columns, sizes.max(axis=0, initial=0.0))
    return np.concatenate(rows), columns


def _check_subnormal(node: NodeView, before: Constant64, after: Constant64, smallest_normal: float) -> None:
    """A channel whose largest weight falls well below the normal range has lost its digits.

    Unless its factor is subnormal itself: then the original model had lost them already.
    """
    limit = smallest_normal / 4
    smalls = [(new, (new > 0) & (new < limit)) for new in _sizes(after)]
    if not any(small.any() for _, small in smalls):
        return
    for (new, small), old in zip(smalls, _sizes(before), strict=True):
        with np.errstate(divide="ignore", invalid="ignore"):
            lost = small & (old >= limit) & (new / old >= smallest_normal)
        if lost.any():
            channel = int(np.argmax(lost))
            raise Refused(
                "NF111",
                f"channel {channel} of {node.op_type} {node.name!r} would shrink to {new[channel]:.3g}, "
                f"below the normal"
                f" range of {before.dtype.name.lower()}",
            )


def check_sums(way: Walk, workspace: Workspace) -> None:
    """Refuse to carry a shrinking scale past a sum in float16: attention divides before its MatMul for a
    reason.

    Raises:
        Refused: NF111.
    """
    for node, crossing in way.crossings.items():
        if node.op_type not in _SUMS or workspace.shapes.dtype(node.outputs[0]) != ir.DataType.FLOAT16:
            continue
        if way.forward and any(np.abs(a.scale).min() < 1.0 for a in crossing.affines.values()):
            raise Refused("NF111", f"without its scale the sum of {node.op_type} might overflow float16")


def check_affine(affine: Affine, dtype: ir.DataType | None, name: str) -> None:
    """Refuse an affine that cannot be written down in the type of the value that it stays on.

    Raises:
        Refused: NF108 (not finite in float64), NF111 (outside the range of the type).
    """
    if not affine.is_finite:
        raise Refused("NF108", f"the affine left on {name!r} would not be finite")
    if dtype is not None and not is_representable(affine, dtype):
        raise Refused(
            "NF111",
            f"the affine left on {name!r} would leave the range of {dtype.name.lower()}, or be nothing in it",
        )


def is_representable(affine: Affine, dtype: ir.DataType) -> bool:
    """Whether no constant overflows the type, no factor loses digits that count, and something is left.

    Below the normal range of float16 a factor still makes results that count; in the wider types it does not.
    What is no identity, c times the rounded 1/c for one, must not be written as one: the next fold would take
    it away.
    """
    least = np.abs(affine.scale[affine.scale != 0.0]).min(initial=math.inf)
    in_digits = dtype != ir.DataType.FLOAT16 or least >= limits(dtype)[1]
    in_range = fits(affine.scale, dtype) and fits(affine.shift, dtype)
    vanishes = _becomes(1.0, affine.scale, dtype) or _becomes(0.0, affine.shift, dtype)
    return in_range and bool(in_digits) and not vanishes


def _becomes(number: float, values: Array64, dtype: ir.DataType) -> bool:
    """Whether ``number`` is what all of ``values`` round to, which are not all that number."""
    if not (np.abs(values - number) <= _COARSEST).all():
        return False
    rounded = round_once(values, dtype).astype(np.float64)
    return bool((rounded == number).all() and (values != number).any())


def fits(values: Array64, dtype: ir.DataType) -> bool:
    """Whether all values are finite in the type."""
    return bool((np.abs(values) <= limits(dtype)[0]).all())


def safe_shift(shift: Array64, dtype: ir.DataType) -> bool:
    """Whether a shift divided by a scale stays well inside the range of the type."""
    largest = limits(dtype)[0]
    return bool(np.isfinite(shift).all()) and float(np.abs(shift).max(initial=0.0)) < math.sqrt(largest)
