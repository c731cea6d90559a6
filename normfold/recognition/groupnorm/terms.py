"""Arithmetic on x, its mean μ, the mean q of its square, and roots of ``a·q + b·μ² + e``.

A value is a sum of terms ``coefficient · x^i · μ^j · q^k · Π root^p``. The variance is ``q − μ²`` whether it
was computed as ``E[(x − μ)²]`` or as ``E[x²] − E[x]²``: both multiply out to the same terms.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from normfold.recognition.groupnorm.frame import Axis, Laid, NotRead, Piece, View, uncut

_MOST_TERMS = 24
_HIGHEST_POWER = 4
_EQUAL = 1e-12

Roots = tuple[tuple[int, int], ...]
Monomial = tuple[int, int, int, Roots]
"""Powers of x, μ, q, and of roots by their number."""

ONE: Monomial = (0, 0, 0, ())


@dataclass(frozen=True)
class Radicand:
    """``square·q + mean·μ² + constant``."""

    square: float
    mean: float
    constant: float

    def is_close(self, other: Radicand) -> bool:
        ours, theirs = (np.array([r.square, r.mean, r.constant]) for r in (self, other))
        return bool(np.allclose(ours, theirs, rtol=_EQUAL, atol=0.0))


@dataclass(frozen=True, eq=False)
class Expression:
    """A value of the graph.

    Attributes:
        view: what its axes run over.
        terms: what it is the sum of.
        shadow: the view that it had before a reduction left axes of size 1.
        form: ``gate`` is the sigmoid of the sum, ``silu`` the sum times its sigmoid.
    """

    view: View
    terms: dict[Monomial, Laid]
    shadow: View
    form: Literal["sum", "gate", "silu"] = "sum"

    def viewed(self, view: View) -> Expression:
        """The same elements in another order or shape."""
        return Expression(view, self.terms, view, self.form)

    def computed(self, terms: dict[Monomial, Laid]) -> Expression:
        return Expression(self.view, terms, self.shadow)


@dataclass
class Statistics:
    """What is shared by all expressions over one base value.

    Attributes:
        averaged: the pieces that the mean is taken over, once one was.
        radicands: of the roots, by number.
    """

    averaged: Axis | None = None
    radicands: list[Radicand] = field(default_factory=list)

    def mean(self, expression: Expression, over: Axis) -> dict[Monomial, Laid]:
        """The mean over pieces: of x it is μ, of x² it is q; the rest is constant along them.

        Raises:
            NotRead: where means are taken over different pieces, or of what has no name here.
        """
        pieces = frozenset(uncut(over))
        if not pieces:
            return expression.terms
        if self.averaged is None:
            self.averaged = tuple(pieces)
        if frozenset(uncut(self.averaged)) != pieces:
            raise NotRead("means are taken over different axes")
        result: dict[Monomial, Laid] = {}
        for (x, mean, square, roots), laid in expression.terms.items():
            settled = laid.settled()
            if pieces & set(settled.pieces) or x > 2:
                raise NotRead("a mean is taken of something else than x or its square")
            key = (0, mean + (x == 1), square + (x == 2), roots)
            _add(result, key, settled)
        return result

    def root(self, expression: Expression) -> Monomial:
        """The term that is the square root of an expression.

        Raises:
            NotRead: where it is not ``a·q + b·μ² + e``.
        """
        parts = {key: laid.settled().scalar for key, laid in expression.terms.items()}
        square, mean, constant = (parts.pop(key, 0.0) for key in ((0, 0, 1, ()), (0, 2, 0, ()), ONE))
        if parts or square is None or mean is None or constant is None or square <= 0:
            raise NotRead("a root is taken of something else than a variance and an epsilon")
        radicand = Radicand(square, mean, constant)
        for number, known in enumerate(self.radicands):
            if known.is_close(radicand):
                return (0, 0, 0, ((number, 1),))
        self.radicands.append(radicand)
        return (0, 0, 0, ((len(self.radicands) - 1, 1),))


def total(a: dict[Monomial, Laid], b: dict[Monomial, Laid], sign: float = 1.0) -> dict[Monomial, Laid]:
    result = dict(a)
    for key, laid in b.items():
        _add(result, key, laid if sign == 1.0 else laid.combined(Laid.number(sign), np.multiply))
    if len(result) > _MOST_TERMS:
        raise NotRead("it has too many terms")
    return result


def product(a: dict[Monomial, Laid], b: dict[Monomial, Laid]) -> dict[Monomial, Laid]:
    if len(a) * len(b) > _MOST_TERMS:
        raise NotRead("it has too many terms")
    result: dict[Monomial, Laid] = {}
    for (x, mean, square, roots), laid in a.items():
        for (x2, mean2, square2, roots2), laid2 in b.items():
            if x + x2 > _HIGHEST_POWER:
                raise NotRead("a power is too high")
            powers = dict(roots)
            for number, power in roots2:
                powers[number] = powers.get(number, 0) + power
            merged = tuple(sorted((n, p) for n, p in powers.items() if p))
            key = (x + x2, mean + mean2, square + square2, merged)
            _add(result, key, laid.combined(laid2, np.multiply))
    return result


def inverse(terms: dict[Monomial, Laid]) -> dict[Monomial, Laid]:
    """One over a single term of constants and roots.

    Raises:
        NotRead: for any other divisor, ``√var + ε`` among them.
    """
    if len(terms) != 1:
        raise NotRead("it is divided by a sum, such as a deviation and an epsilon outside of the root")
    ((key, laid),) = terms.items()
    if key[:3] != (0, 0, 0) or not laid.array.all():
        raise NotRead("it is divided by something else than a root")
    return {(0, 0, 0, tuple((n, -p) for n, p in key[3])): Laid(laid.pieces, 1.0 / laid.array)}


def _add(terms: dict[Monomial, Laid], key: Monomial, laid: Laid) -> None:
    """Add a term in place; what cancels up to rounding is gone."""
    known = terms.get(key)
    if known is None:
        terms[key] = laid
        return
    summed = known.combined(laid, np.add)
    largest = max(float(np.abs(known.array).max(initial=0)), float(np.abs(laid.array).max(initial=0)))
    if float(np.abs(summed.array).max(initial=0)) <= _EQUAL * largest:
        del terms[key]
    else:
        terms[key] = summed


def without(view: View, pieces: Axis, keep: bool, axes: set[int]) -> View:
    """The view of a reduction over ``axes``."""
    gone: set[Piece] = set(uncut(pieces))
    left = [tuple(p for p in uncut(axis) if p not in gone) for axis in view]
    return tuple(axis for place, axis in enumerate(left) if keep or place not in axes)
