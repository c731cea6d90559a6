"""Arithmetic on x, its mean μ, the mean q of its square, roots of ``a·q + b·μ² + e``, and open sizes.

A value is a sum of terms ``coefficient · x^i · μ^j · q^k · Π factor^p``. The variance is ``q − μ²`` whether
it was computed as ``E[(x − μ)²]`` or as ``E[x²] − E[x]²``: both multiply out to the same terms.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from normfold.preparation.sizes import Size
from normfold.recognition.groupnorm.frame import Axis, DividedBySum, Laid, NotRead, View, uncut

_MOST_TERMS = 24
_HIGHEST_POWER = 4
_EQUAL = 1e-12

Factors = tuple[tuple[int, int], ...]
Monomial = tuple[int, int, int, Factors]
"""Powers of x, μ, q, and of factors by their number."""

ONE: Monomial = (0, 0, 0, ())


@dataclass(frozen=True)
class Radicand:
    """``counts · (square·q + mean·μ²) + constant``, whose root is a factor.

    ``counts`` are powers of open sizes and of sums of them, such as those of ``K/(K − 1)``.
    """

    square: float
    mean: float
    constant: float
    counts: Factors = ()

    def is_close(self, other: Radicand) -> bool:
        ours, theirs = (np.array([r.square, r.mean, r.constant]) for r in (self, other))
        return self.counts == other.counts and bool(np.allclose(ours, theirs, rtol=_EQUAL, atol=0.0))


@dataclass(frozen=True)
class OpenSize:
    """A size that is not static, as a factor."""

    symbol: Hashable


@dataclass(frozen=True)
class SumOfCounts:
    """``Σ coefficient · Π open size^p`` of more than one term, such as ``K − 1``, as a factor."""

    terms: frozenset[tuple[Factors, float]]


@dataclass(frozen=True, eq=False)
class Expression:
    """A value of the graph.

    Attributes:
        view: what its axes run over.
        terms: what it is the sum of.
        form: ``gate`` is the sigmoid of the sum, ``silu`` the sum times its sigmoid.
    """

    view: View
    terms: dict[Monomial, Laid]
    form: Literal["sum", "gate", "silu"] = "sum"

    def viewed(self, view: View) -> Expression:
        """The same elements in another order or shape."""
        return Expression(view, self.terms, self.form)

    def computed(self, terms: dict[Monomial, Laid]) -> Expression:
        return Expression(self.view, terms)


Factor = Radicand | OpenSize | SumOfCounts


@dataclass
class Statistics:
    """What is shared by all expressions over one base value.

    Attributes:
        averaged: the pieces that the mean is taken over, once one was.
        factors: what stands behind the numbers of factors; of a radicand, its root.
    """

    averaged: Axis | None = None
    factors: list[Factor] = field(default_factory=list)

    def mean(self, expression: Expression, over: Axis) -> dict[Monomial, Laid]:
        """The mean over pieces: of x it is μ, of x² it is q; the rest is constant along them.

        Raises:
            NotRead: where means are taken over different pieces, or of what has no name here.
        """
        pieces = frozenset(uncut(over))
        if not pieces:
            return expression.terms
        if any(piece.axis is None for piece in pieces):
            raise NotRead("a mean is taken over what only a constant spans")
        if self.averaged is None:
            self.averaged = tuple(pieces)
        if frozenset(uncut(self.averaged)) != pieces:
            raise NotRead("means are taken over different axes")
        result: dict[Monomial, Laid] = {}
        for (x, mean, square, factors), laid in expression.terms.items():
            settled = laid.settled()
            if pieces & set(settled.pieces) or x > 2:
                raise NotRead("a mean is taken of something else than x or its square")
            key = (0, mean + (x == 1), square + (x == 2), factors)
            _add(result, key, settled)
        return result

    def root(self, expression: Expression) -> Monomial:
        """The term that is the square root of an expression.

        Raises:
            NotRead: where it is not ``counts · (a·q + b·μ²) + e``, or one over that.
        """
        return self._halved(expression.terms) or self._root(self.radicand(expression.terms))

    def _root(self, radicand: Radicand) -> Monomial:
        for number, known in enumerate(self.factors):
            if isinstance(known, Radicand) and known.is_close(radicand):
                return (0, 0, 0, ((number, 1),))
        return self._factor(radicand)

    def _halved(self, terms: dict[Monomial, Laid]) -> Monomial | None:
        """The root of a product of squares of roots."""
        if len(terms) != 1:
            return None
        ((key, laid),) = terms.items()
        are_roots = all(isinstance(self.factors[n], Radicand) and p % 2 == 0 for n, p in key[3])
        if key[:3] != (0, 0, 0) or not key[3] or not are_roots or laid.scalar != 1.0:
            return None
        return (0, 0, 0, tuple((n, p // 2) for n, p in key[3]))

    def expanded(self, terms: dict[Monomial, Laid]) -> dict[Monomial, Laid]:
        """The same terms; squares of roots are what the roots are of."""
        result: dict[Monomial, Laid] = {}
        for key, laid in terms.items():
            square = next((n for n, p in key[3] if p > 1 and isinstance(self.factors[n], Radicand)), None)
            if square is None:
                _add(result, key, laid)
                continue
            radicand = self.factors[square]
            assert isinstance(radicand, Radicand)
            rest: dict[Monomial, Laid] = {(0, 0, 0, ((square, -2),)): Laid.number(1.0)}
            inside = product(product({key: laid}, rest), _terms_of(radicand))
            for inner, part in self.expanded(inside).items():
                _add(result, inner, part)
        return result

    def radicand(self, terms: dict[Monomial, Laid]) -> Radicand:
        """A sum of terms as ``counts · (a·q + b·μ²) + e``.

        Raises:
            NotRead: where it is something else.
        """
        parts = {key: laid.settled().scalar for key, laid in terms.items()}
        counts = next((key[3] for key in parts if key[:3] == (0, 0, 1)), ())
        keys: tuple[Monomial, ...] = ((0, 0, 1, counts), (0, 2, 0, counts), ONE)
        square, mean, constant = (parts.pop(key, 0.0) for key in keys)
        if parts or square is None or mean is None or constant is None or square <= 0:
            raise NotRead("a root is taken of something else than a variance and an epsilon")
        if any(isinstance(self.factors[number], Radicand) for number, _ in counts):
            raise NotRead("a root is taken of a root")
        return Radicand(square, mean, constant, counts)

    def count(self, size: Size) -> dict[Monomial, Laid]:
        """A size as a term."""
        powers = [(self._number(OpenSize(symbol)), power) for symbol, power in size.symbols]
        return {(0, 0, 0, tuple(sorted(powers))): Laid.number(float(size.factor))}

    def inverse(self, terms: dict[Monomial, Laid]) -> dict[Monomial, Laid]:
        """One over a single term of constants and factors, over a variance and an epsilon, or over a sum
        of counts.

        Raises:
            NotRead: for any other divisor; DividedBySum for ``√var + ε`` and the like.
        """
        if len(terms) > 1:
            terms = {self._divisor(terms): Laid.number(1.0)}
        if len(terms) != 1:
            raise NotRead("it is divided by zero")
        ((key, laid),) = terms.items()
        if key[:3] != (0, 0, 0) or not laid.array.all():
            raise NotRead("it is divided by something else than a root")
        return {(0, 0, 0, tuple((n, -p) for n, p in key[3])): Laid(laid.pieces, 1.0 / laid.array)}

    def _divisor(self, terms: dict[Monomial, Laid]) -> Monomial:
        """A sum as one factor, or as the square of a root."""
        try:
            ((number, _),) = self._root(self.radicand(terms))[3]
        except NotRead:
            return self._factor(self._sum(terms))
        return (0, 0, 0, ((number, 2),))

    def _sum(self, terms: dict[Monomial, Laid]) -> SumOfCounts:
        parts = set()
        for key, laid in terms.items():
            coefficient = laid.settled().scalar
            is_count = key[:3] == (0, 0, 0) and all(
                isinstance(self.factors[number], OpenSize) for number, _ in key[3]
            )
            if coefficient is None or not is_count:
                raise DividedBySum("it is divided by a sum, such as one of a deviation and an epsilon")
            parts.add((key[3], coefficient))
        return SumOfCounts(frozenset(parts))

    def _factor(self, factor: Factor) -> Monomial:
        return (0, 0, 0, ((self._number(factor), 1),))

    def _number(self, factor: Factor) -> int:
        if factor not in self.factors:
            self.factors.append(factor)
        return self.factors.index(factor)


def _terms_of(radicand: Radicand) -> dict[Monomial, Laid]:
    keys: tuple[Monomial, ...] = ((0, 0, 1, radicand.counts), (0, 2, 0, radicand.counts), ONE)
    numbers = (radicand.square, radicand.mean, radicand.constant)
    return {key: Laid.number(number) for key, number in zip(keys, numbers, strict=True) if number}


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
    for (x, mean, square, factors), laid in a.items():
        for (x2, mean2, square2, factors2), laid2 in b.items():
            if x + x2 > _HIGHEST_POWER:
                raise NotRead("a power is too high")
            powers = dict(factors)
            for number, power in factors2:
                powers[number] = powers.get(number, 0) + power
            merged = tuple(sorted((n, p) for n, p in powers.items() if p))
            key = (x + x2, mean + mean2, square + square2, merged)
            _add(result, key, laid.combined(laid2, np.multiply))
    return result


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
