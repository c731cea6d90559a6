"""Elements touched, compared without knowing symbolic dimensions."""

from __future__ import annotations

from collections import Counter

from normfold.preparation.shapes import Dims


class Elements:
    """A sum of products of dimensions, such as ``64·N·H``; symbolic dimensions stand for numbers ≥ 1."""

    def __init__(self) -> None:
        self._terms: Counter[tuple[str, ...]] = Counter()

    def copy(self) -> Elements:
        twin = Elements()
        twin._terms = self._terms.copy()
        return twin

    def add(self, dims: Dims | None, times: int = 1, *, unknown: str = "?") -> None:
        """Add ``times`` the number of elements of a value. ``unknown`` names what is not known about it."""
        factor, symbols = times, []
        if dims is None:
            symbols.append(unknown)
        else:
            for axis, dim in enumerate(dims):
                if isinstance(dim, int):
                    factor *= dim
                else:
                    symbols.append(dim if dim is not None else f"{unknown}.{axis}")
        self._terms[tuple(sorted(symbols))] += factor

    @property
    def number(self) -> int | None:
        """The count, where no dimension is symbolic."""
        if any(self._terms[key] and key for key in self._terms):
            return None
        return self._terms[()]

    def at_most(self, other: Elements) -> bool:
        return self._paid_by(other) is not None

    def below(self, other: Elements) -> bool:
        """Strictly fewer elements, whatever the symbolic dimensions are."""
        left = self._paid_by(other)
        return left is not None and any(left.values())

    def _paid_by(self, other: Elements) -> Counter[tuple[str, ...]] | None:
        """What of ``other`` is left when each term here is paid with terms there that are at least as
        large."""
        budget = Counter(other._terms)
        for symbols, count in sorted(self._terms.items(), key=lambda item: (-len(item[0]), item[0])):
            needed = count
            for candidate in sorted(budget, key=lambda key: (len(key), key)):
                if needed <= 0:
                    break
                if not Counter(symbols) - Counter(candidate):
                    paid = min(needed, budget[candidate])
                    budget[candidate] -= paid
                    needed -= paid
            if needed > 0:
                return None
        return budget
