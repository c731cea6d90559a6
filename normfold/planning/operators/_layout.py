"""How the axes of a value correspond to those of its reshaped form.

A reshape keeps the row-major order of elements. Where the product of the first i input dimensions provably
equals that of the first j output dimensions, the tensors can be *cut* at (i, j): the axes between two
neighbouring cuts only mix among themselves. Such a pair of axis ranges is a segment.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from normfold.affine import Affine, Array64, alike
from normfold.preparation.sizes import Size
from normfold.refusal import Refused

Cut = tuple[int, int]


@dataclass(frozen=True)
class Correspondence:
    """How the axes of a value and of its reshaped form belong together.

    Attributes:
        before: sizes of the input axes, ``None`` where not static.
        after: sizes of the output axes, likewise.
        cuts: pairs (i, j) in ascending order, from (0, 0) to the two ranks.
    """

    before: tuple[int | None, ...]
    after: tuple[int | None, ...]
    cuts: tuple[Cut, ...]

    @classmethod
    def of(cls, before: Sequence[Size], after: Sequence[Size]) -> Correspondence:
        return cls(tuple(s.number for s in before), tuple(s.number for s in after), find_cuts(before, after))

    def reversed(self) -> Correspondence:
        return Correspondence(self.after, self.before, tuple((j, i) for i, j in self.cuts))

    def carry(self, array: Array64) -> Array64 | None:
        """The array over the output axes that says of each element what ``array`` says over the input axes.

        ``None`` where that depends on a size that is not known.
        """
        if 0 in self.before or 0 in self.after:
            return None
        for (i, j), (next_i, next_j) in reversed(list(zip(self.cuts, self.cuts[1:], strict=False))):
            # From the last segment to the first, so that the axes in front keep their places.
            lead, own, rest = array.shape[:i], array.shape[i:next_i], array.shape[next_i:]
            block = array.reshape((math.prod(lead), *own, math.prod(rest)))
            moved = _carry_segment(block, self.before[i:next_i], self.after[j:next_j])
            if moved is None:
                return None
            array = moved.reshape((*lead, *moved.shape[1:-1], *rest))
        return array


def find_cuts(before: Sequence[Size], after: Sequence[Size]) -> tuple[Cut, ...]:
    """Cuts that are provable from the front (equal prefix products) or the back (equal suffix products)."""
    fronts = [_running(before), _running(after)]
    backs = [_running(before[::-1])[::-1], _running(after[::-1])[::-1]]
    found = {(0, 0), (len(before), len(after))}
    for ours, theirs in (fronts, backs):
        found |= {(i, j) for i, a in enumerate(ours) for j, b in enumerate(theirs) if a == b}
    cuts: list[Cut] = []
    for i, j in sorted(found, key=lambda cut: (sum(cut), cut)):
        # Provable cuts only cross each other between axes of size 1.
        if not cuts or (i >= cuts[-1][0] and j >= cuts[-1][1]):
            cuts.append((i, j))
    return tuple(cuts)


def _running(sizes: Sequence[Size]) -> list[Size]:
    """Products of the first 0, 1, … sizes."""
    products = [Size(1)]
    for size in sizes:
        products.append(products[-1] * size)
    return products


def _carry_segment(
    block: Array64, before: Sequence[int | None], after: Sequence[int | None]
) -> Array64 | None:
    """[P, *before, Q] → [P, *after, Q], every axis between P and Q of size 1 or full."""
    varying = [axis for axis, size in enumerate(block.shape[1:-1]) if size != 1]
    outer, inner = block.shape[0], block.shape[-1]
    if not varying:
        return block.reshape(outer, *(1 for _ in after), inner)
    known = [own if own != 1 else size for own, size in zip(block.shape[1:-1], before, strict=True)]
    known, after = _solved(known, after), _solved(after, known)
    first, last = varying[0], varying[-1]
    tail = _static_run(after[::-1])
    if None not in known[first:]:
        sizes = [int(size or 1) for size in known[first:]]
        flat = np.broadcast_to(
            block.reshape(outer, *block.shape[1 + first : -1], inner), (outer, *sizes, inner)
        ).reshape(outer, -1, inner)
        target = [int(size or 1) for size in after[len(after) - tail :]]
        period = _periodic(flat, math.prod(target))
        if period is not None:
            return period.reshape(outer, *(1 for _ in after[: len(after) - tail]), *target, inner)
    if None not in known[: last + 1]:
        sizes = [int(size or 1) for size in known[: last + 1]]
        flat = np.broadcast_to(
            block.reshape(outer, *block.shape[1 : 2 + last], inner), (outer, *sizes, inner)
        ).reshape(outer, -1, inner)
        head = _static_run(after)
        target = [int(size or 1) for size in after[:head]]
        blocks = _blockwise(flat, math.prod(target))
        if blocks is not None:
            return blocks.reshape(outer, *target, *(1 for _ in after[head:]), inner)
    return None


def _solved(sizes: Sequence[int | None], other: Sequence[int | None]) -> list[int | None]:
    """The one unknown size, where the product of the other side is known."""
    unknown = [axis for axis, size in enumerate(sizes) if size is None]
    solved = list(sizes)
    if len(unknown) == 1 and None not in other:
        total = math.prod(size for size in other if size is not None)
        solved[unknown[0]] = total // math.prod(size for size in sizes if size is not None)
    return solved


def _static_run(sizes: Sequence[int | None]) -> int:
    """How many sizes from the front are known."""
    return next((count for count, size in enumerate(sizes) if size is None), len(sizes))


def _periodic(flat: Array64, length: int) -> Array64 | None:
    """[P, T, Q], repeated without end along T, as a repetition of [P, length, Q]; ``None`` if it is none."""
    outer, period, inner = flat.shape
    common = math.lcm(period, length)
    tiled = np.tile(flat, (1, common // period, 1)).reshape(outer, common // length, length, inner)
    first = tiled[:, 0]
    return first if alike(tiled, first[:, None]).all() else None


def _blockwise(flat: Array64, length: int) -> Array64 | None:
    """[P, T, Q], each entry an equal share of the whole, as ``length`` shares; ``None`` if it is finer."""
    outer, count, inner = flat.shape
    common = math.lcm(count, length)
    repeated = np.repeat(flat, common // count, axis=1).reshape(outer, length, common // length, inner)
    first = repeated[:, :, 0]
    return first if alike(repeated, first[:, :, None]).all() else None


def mapped(affine: Affine, function: Callable[[Array64], Array64]) -> Affine:
    """The affine whose scale and shift are those of ``affine``, re-indexed by ``function``."""
    scale, shift = function(affine.scale), function(affine.shift)
    return Affine.of(scale, shift, rank=scale.ndim)


def carried(affine: Affine, axes: Correspondence, name: str) -> Affine:
    """The affine over the other side's axes.

    Raises:
        Refused: NF112 where a size that matters is not known.
    """
    scale, shift = axes.carry(affine.scale), axes.carry(affine.shift)
    if scale is None or shift is None:
        raise Refused("NF112", f"{name} mixes an axis that the affine varies on with one of unknown size")
    return Affine.of(scale, shift, rank=len(axes.after))


def normalised(axis: int, rank: int) -> int:
    """The axis counted from the front.

    Raises:
        Refused: NF113, there is no such axis.
    """
    if not -rank <= axis < rank:
        raise Refused("NF113", f"there is no axis {axis} of {rank}")
    return axis + rank if axis < 0 else axis


def joined(parts: Sequence[Affine], axis: int, sizes: Callable[[], Sequence[int]]) -> Affine:
    """The affine of parts laid one behind the other along ``axis``; ``sizes`` is asked only if it matters."""
    arrays = (_joined([p.scale for p in parts], axis, sizes), _joined([p.shift for p in parts], axis, sizes))
    return Affine.of(*arrays, rank=parts[0].rank)


def _joined(arrays: Sequence[Array64], axis: int, sizes: Callable[[], Sequence[int]]) -> Array64:
    first = arrays[0]
    if first.shape[axis] == 1 and all(a.shape == first.shape and alike(a, first).all() for a in arrays):
        return first
    shape = list(np.broadcast_shapes(*(a.take([0], axis=axis).shape for a in arrays)))
    full = []
    for array, size in zip(arrays, sizes(), strict=True):
        shape[axis] = size
        full.append(np.broadcast_to(array, shape))
    return np.concatenate(full, axis=axis)
