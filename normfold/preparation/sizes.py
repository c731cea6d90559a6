"""Sizes as symbolic products."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Size:
    """An integer known as ``factor · Π symbols``; a symbol is whatever names an unknown number."""

    factor: int
    symbols: frozenset[tuple[Hashable, int]] = frozenset()

    @classmethod
    def symbol(cls, name: Hashable) -> Size:
        return cls(1, frozenset({(name, 1)}))

    @classmethod
    def product(cls, sizes: Iterable[Size]) -> Size:
        result = cls(1)
        for size in sizes:
            result = result * size
        return result

    @property
    def number(self) -> int | None:
        """The integer, where it does not depend on a symbol."""
        return None if self.symbols else self.factor

    def __mul__(self, other: Size) -> Size:
        return _size(self.factor * other.factor, Counter(dict(self.symbols)) + Counter(dict(other.symbols)))

    def resolved(self, known: Mapping[Hashable, Size]) -> Size:
        """The same with each symbol that is known as what it is."""
        result = Size(self.factor)
        for symbol, power in self.symbols:
            for _ in range(power):
                result = result * known.get(symbol, Size.symbol(symbol))
        return result

    def divided_by(self, other: Size) -> Size | None:
        """The exact quotient, ``None`` where it is not provably an integer of this form."""
        if other.factor == 0 or self.factor % other.factor:
            return None
        mine, theirs = Counter(dict(self.symbols)), Counter(dict(other.symbols))
        return None if theirs - mine else _size(self.factor // other.factor, mine - theirs)


def _size(factor: int, symbols: Counter[Hashable]) -> Size:
    return Size(factor, frozenset(symbols.items()))
