"""Signals that come at a bad moment."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
_MOMENT_SECONDS = 0.01


@contextlib.contextmanager
def interrupts_later() -> Iterator[None]:
    """A signal that arrives in here is raised again a moment after: an exception in a finalizer is lost."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    arrived: list[int] = []
    for number, handler in before.items():
        if callable(handler):
            signal.signal(number, lambda number, _: arrived.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            if callable(handler):
                signal.signal(number, handler)
        if arrived:
            again = threading.Timer(_MOMENT_SECONDS, signal.raise_signal, arrived[:1])
            again.daemon = True
            # The interpreter itself is about to end.
            with contextlib.suppress(RuntimeError):
                again.start()
