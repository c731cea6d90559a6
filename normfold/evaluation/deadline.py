"""A time limit for evaluation that holds inside nodes too: loops of kernels and of subgraphs ask for it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_END: ContextVar[float] = ContextVar("evaluation_deadline", default=float("inf"))


class DeadlineExceeded(Exception):
    """The evaluation took longer than its caller allows."""


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Ends evaluation in this context after some time; an earlier deadline around it stays in force.

    Args:
        seconds: from now.
    """
    token = _END.set(min(_END.get(), time.monotonic() + seconds))
    try:
        yield
    finally:
        _END.reset(token)


def check_deadline() -> None:
    """Raises where the time is over.

    Raises:
        DeadlineExceeded: it is.
    """
    if time.monotonic() > _END.get():
        raise DeadlineExceeded
