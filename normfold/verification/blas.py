"""Keeps numpy's matrix library to one thread.

The proof multiplies thousands of small matrices, and threads of OpenBLAS wait for each other by spinning.
Measured on two cores with other work on them: products of 256×256 matrices took eighteen times as long with
two threads as with one, the verification of a ResNet-50 twice as long.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np

CHOSEN_BY = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_PREFIXES = ("", "scipy_")
_SUFFIXES = ("", "64_", "_64")


@contextlib.contextmanager
def single_threaded() -> Iterator[None]:
    """Limits OpenBLAS to one thread for the duration; does nothing where it is not found or where the
    environment says how many threads there are to be."""
    libraries = [] if any(os.environ.get(name) for name in CHOSEN_BY) else _libraries()
    before = [get() for get, _ in libraries]
    try:
        for _, set_threads in libraries:
            set_threads(1)
        yield
    finally:
        for (_, set_threads), count in zip(libraries, before, strict=True):
            set_threads(count)


@cache
def _libraries() -> list[tuple[Callable[[], int], Callable[[int], None]]]:
    found = []
    for path in _candidates():
        with contextlib.suppress(OSError):
            library = ctypes.CDLL(path)
            for prefix in _PREFIXES:
                for suffix in _SUFFIXES:
                    get = getattr(library, f"{prefix}openblas_get_num_threads{suffix}", None)
                    change = getattr(library, f"{prefix}openblas_set_num_threads{suffix}", None)
                    if get is not None and change is not None:
                        found.append((get, change))
    return found


def _candidates() -> list[str]:
    """Paths of the OpenBLAS libraries that this process has loaded, or that numpy's wheel brings."""
    bundled = (Path(np.__file__).parents[1] / "numpy.libs").glob("*openblas*")
    paths = {str(path) for path in bundled}
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines():
            path = line.split(maxsplit=5)[-1]
            if "openblas" in path.rsplit("/", 1)[-1]:
                paths.add(path)
    return sorted(paths)
