"""Python's cyclic garbage collector, and work that it only slows down."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """No cyclic garbage collection while the block runs: graphs are made of many objects that all stay, and
    over ten thousand nodes looking through them again and again takes as long as the fold itself."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
