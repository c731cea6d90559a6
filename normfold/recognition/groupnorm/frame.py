"""The axes of one value, cut into pieces as reshapes of it need, and arrays laid over those pieces."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from normfold.affine import Array64
from normfold.preparation.sizes import Size


class NotRead(Exception):
    """The value is not arithmetic that is understood here. Its text says why."""


class DividedBySum(NotRead):
    """The divisor is no single term, such as ``√var + ε``."""


@dataclass(eq=False)
class Piece:
    """A factor of one axis of the base value: the axis itself, or a part of it, once it has been cut.

    A constant may enlarge a value along an axis of size 1. What it spans there is a piece of no axis until
    it meets an operand that has pieces of the base value in that place: then those are its parts.

    Attributes:
        size: number of elements along it; never 1.
        axis: axis of the base value; ``None`` for what a constant spans.
        parts: the pieces that it was cut into, or turned out to be, outer first.
    """

    size: Size
    axis: int | None
    parts: tuple[Piece, ...] = ()

    def cut(self, outer: Size, inner: Size) -> tuple[Piece, ...]:
        self.parts = (Piece(outer, self.axis), Piece(inner, self.axis))
        return self.parts


Axis = tuple[Piece, ...]
View = tuple[Axis, ...]
"""What each axis of a value runs over, outer piece first; an axis of size 1 over nothing."""


def uncut(pieces: Iterable[Piece]) -> Axis:
    """The pieces as they are cut by now."""
    found: list[Piece] = []
    for piece in pieces:
        found.extend(uncut(piece.parts) if piece.parts else (piece,))
    return tuple(found)


def repeats(view: View) -> bool:
    """Whether two axes run over the same piece, as those of ``x_i − x_j`` do."""
    pieces = uncut(piece for axis in view for piece in axis)
    return len(set(pieces)) < len(pieces)


def broadcast(a: View, b: View) -> View:
    """What the axes of a result run over that is computed of two values, elementwise.

    Raises:
        NotRead: where their axes are not the same.
    """
    rank = max(len(a), len(b))
    a, b = (((),) * (rank - len(view)) + view for view in (a, b))
    return tuple(_common(p, q) for p, q in zip(a, b, strict=True))


def _common(a: Axis, b: Axis) -> Axis:
    a, b = uncut(a), uncut(b)
    if a and b and a != b and not (_named(a, b) or _named(b, a)):
        raise NotRead("operands run over different axes")
    return uncut(a or b)


def _named(spanned: Axis, axis: Axis) -> bool:
    """Whether one piece that a constant spans is what it meets; it is that from now on."""
    while spanned and axis and spanned[0] is axis[0]:
        spanned, axis = spanned[1:], axis[1:]
    while spanned and axis and spanned[-1] is axis[-1]:
        spanned, axis = spanned[:-1], axis[:-1]
    if (
        len(spanned) != 1
        or spanned[0].axis is not None
        or Size.product(p.size for p in axis) != spanned[0].size
    ):
        return False
    spanned[0].parts = axis
    return True


def base_view(sizes: Sequence[Size]) -> View:
    return tuple(() if size.number == 1 else (Piece(size, axis),) for axis, size in enumerate(sizes))


def sizes_of_view(view: View) -> list[Size]:
    return [Size.product(piece.size for piece in axis) for axis in view]


def same_view(a: View, b: View) -> bool:
    return len(a) == len(b) and all(uncut(p) == uncut(q) for p, q in zip(a, b, strict=True))


def reshaped(view: View, target: Sequence[Size]) -> View:
    """The view of the same elements in row-major order under other sizes.

    Pieces are dealt out from the front and from the back; one axis in between may take what is left,
    whatever its size is called.

    Raises:
        NotRead: where the sizes do not provably meet.
    """
    pieces = list(uncut(piece for axis in view for piece in axis))
    result: list[Axis | None] = [None] * len(target)
    front = 0
    while front < len(target) and (axis := _taken(pieces, target[front], from_front=True)) is not None:
        result[front] = axis
        front += 1
    back = len(target)
    while back > front and (axis := _taken(pieces, target[back - 1], from_front=False)) is not None:
        back -= 1
        result[back] = axis
    if back - front == 1:
        result[front], pieces = tuple(pieces), []
    if pieces or any(axis is None for axis in result):
        raise NotRead("the sizes of a reshape do not provably meet")
    return tuple(axis for axis in result if axis is not None)


def _taken(pieces: list[Piece], wanted: Size, *, from_front: bool) -> Axis | None:
    """Take an axis of size ``wanted`` off one end of ``pieces``, cutting a piece where need be."""
    place, taken, left = (0 if from_front else -1), [], list(pieces)
    while wanted != Size(1):
        if not left:
            return None
        piece = left.pop(place)
        rest = wanted.divided_by(piece.size)
        if rest is not None:
            taken.append(piece)
            wanted = rest
            continue
        rest = piece.size.divided_by(wanted)
        if rest is None:
            return None
        parts = piece.cut(wanted, rest) if from_front else piece.cut(rest, wanted)
        taken.append(parts[place])
        left.insert(0 if from_front else len(left), parts[1 if from_front else 0])
        wanted = Size(1)
    pieces[:] = left
    return tuple(taken if from_front else reversed(taken))


@dataclass(frozen=True, eq=False)
class Laid:
    """An array over pieces of the base value.

    Attributes:
        pieces: what each axis of ``array`` runs over.
        array: the numbers; constant along every piece that is not named.
    """

    pieces: Axis
    array: Array64

    @classmethod
    def number(cls, value: float) -> Laid:
        return cls((), np.asarray(value, dtype=np.float64))

    @classmethod
    def over(cls, view: View, constant: Array64) -> tuple[Laid, View]:
        """A constant that broadcasts against a value of this view, and the view of the result.

        Raises:
            NotRead: where it raises the rank, or runs over an axis of unknown size.
        """
        if constant.ndim > len(view):
            if any(size != 1 for size in constant.shape[: constant.ndim - len(view)]):
                raise NotRead("a constant raises the rank")
            constant = constant.reshape(constant.shape[constant.ndim - len(view) :])
        pieces: list[Piece] = []
        shape: list[int] = []
        result = list(view)
        for place, size in enumerate(constant.shape, len(view) - constant.ndim):
            if size == 1:
                continue
            own = uncut(view[place]) or (Piece(Size(size), None),)
            result[place] = own
            sizes = [piece.size.number for piece in own]
            if None in sizes or math.prod(s for s in sizes if s is not None) != size:
                raise NotRead("a constant may enlarge an axis")
            pieces.extend(own)
            shape.extend(s for s in sizes if s is not None)
        return cls(tuple(pieces), constant.reshape(shape)), tuple(result)

    @property
    def scalar(self) -> float | None:
        """The number, where it is the same everywhere."""
        first = self.array.reshape(-1)[:1]
        return float(first[0]) if self.array.size and (self.array == first[0]).all() else None

    def settled(self) -> Laid:
        """The same over the pieces as they are cut by now; pieces along which nothing varies are left out."""
        pieces, shape = uncut(self.pieces), []
        for piece in pieces:
            assert piece.size.number is not None
            shape.append(piece.size.number)
        array = self.array.reshape(shape)
        kept = []
        for place, piece in reversed(list(enumerate(pieces))):
            first = array.take([0], axis=place)
            if (array == first).all():
                array = first.squeeze(axis=place)
            else:
                kept.append(piece)
        return Laid(tuple(reversed(kept)), array)

    def combined(self, other: Laid, function: Callable[[Array64, Array64], Array64]) -> Laid:
        a, b = self.settled(), other.settled()
        pieces = (*a.pieces, *(piece for piece in b.pieces if piece not in a.pieces))
        return Laid(pieces, np.asarray(function(a.aligned(pieces), b.aligned(pieces)), dtype=np.float64))

    def aligned(self, pieces: Axis) -> Array64:
        """The array with one axis for each of ``pieces``, of size 1 where it does not vary."""
        order = [self.pieces.index(piece) for piece in pieces if piece in self.pieces]
        if len(order) != len(self.pieces):
            raise NotRead("a constant varies along another axis")
        shape = iter(self.array.transpose(order).shape)
        return self.array.transpose(order).reshape([next(shape) if p in self.pieces else 1 for p in pieces])
