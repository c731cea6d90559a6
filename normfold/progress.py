"""How far long work has come, told to whoever listens.

A listener is called with the name of each phase. If it also has a method ``amount``, that is told how many
bytes of a file have been read or written, and of how many.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Protocol

Progress = Callable[[str], None]
"""Is told the name of each phase when it begins."""


class AmountListener(Protocol):
    """What a listener may have besides."""

    def amount(self, done: int, total: int) -> None:
        """Is told how many of how many bytes are done."""


_amount: ContextVar[Callable[[int, int], None] | None] = ContextVar("amount", default=None)


@contextlib.contextmanager
def listening(listener: Progress | None) -> Iterator[None]:
    """Lets ``listener`` hear of the bytes that are read and written in the block."""
    token = _amount.set(getattr(listener, "amount", None))
    try:
        yield
    finally:
        _amount.reset(token)


def meter(total: int) -> Callable[[int], None]:
    """Gives a function to call with the number of each further bytes, out of ``total``."""
    tell = _amount.get()
    if tell is None:
        return _nobody
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        tell(done, total)

    return advance


def _nobody(_: int) -> None:
    return
