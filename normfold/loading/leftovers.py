"""Temporary files beside an output, and what remains of them when a process dies.

While a result is being written, everything new carries a hidden name ``.OUT.<random>.normfold-tmp`` and an
advisory lock that dies with the process. So the next run can tell a leftover (lock free) from work in
progress (lock held), across containers and whatever the process ids. Data files under their final name,
``OUT.<hash8>.data``, certify themselves: the name holds the first eight digits of the content's SHA-256. One
is removed only if it is what its name says and no file of the folder mentions it.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from normfold.loading.load import file_sha256

if sys.platform != "win32":
    import fcntl

_SUFFIX = ".normfold-tmp"
_HASH_DIGITS = 8


def create_temporary(out: Path) -> tuple[Path, BinaryIO]:
    """Creates a hidden, locked file in the folder of ``out``. The lock is held until the file is closed."""
    path = out.with_name(f".{out.name}.{secrets.token_hex(6)}{_SUFFIX}")
    with _folder_lock(out.parent, exclusive=False):
        file = path.open("xb")
        try:
            _lock(file.fileno(), exclusive=True)
        except BaseException:
            file.close()
            path.unlink(missing_ok=True)
            raise
    return path, file


def data_name(out: Path, sha256: str) -> str:
    """Name of the external data of ``out`` with this content."""
    return f"{out.name}.{sha256[:_HASH_DIGITS]}.data"


def remove_leftovers(out: Path) -> None:
    """Removes what dead processes left beside ``out``. Never fails: a leftover that cannot be removed
    stays."""
    with contextlib.suppress(OSError), _folder_lock(out.parent, exclusive=True) as locked:
        if not locked:
            return
        _remove_dead_temporaries(out.parent, re.escape(out.name))
        _remove_unreferenced_data(out)


def sweep(folder: Path) -> None:
    """Removes the temporary files of dead processes below ``folder``, of whatever output. Never fails."""
    for place, _, files in os.walk(folder):
        if any(name.endswith(_SUFFIX) for name in files):
            with contextlib.suppress(OSError), _folder_lock(Path(place), exclusive=True) as locked:
                if locked:
                    _remove_dead_temporaries(Path(place), ".+")


def _remove_dead_temporaries(folder: Path, name: str) -> None:
    pattern = re.compile(rf"\.{name}\.[0-9a-f]{{12}}{re.escape(_SUFFIX)}")
    for path in _files(folder):
        if pattern.fullmatch(path.name) is None:
            continue
        with path.open("rb") as file:
            if _lock(file.fileno(), exclusive=True):
                path.unlink()


def _remove_unreferenced_data(out: Path) -> None:
    pattern = re.compile(rf"{re.escape(out.name)}\.([0-9a-f]{{{_HASH_DIGITS}}})\.data")
    files = sorted(_files(out.parent), key=lambda path: path != out)  # out is the likeliest to mention it
    for path in files:
        match = pattern.fullmatch(path.name)
        if match is None or any(_mentions(other, path.name) for other in files if other != path):
            continue
        if file_sha256(path).startswith(match[1]):
            path.unlink()


def _mentions(path: Path, name: str) -> bool:
    """Whether the bytes of ``name`` occur in the file. A file that cannot be read might mention anything."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                return False
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return content.find(name.encode()) >= 0
    except FileNotFoundError:
        return False
    except OSError:
        return True


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file())


@contextlib.contextmanager
def _folder_lock(folder: Path, *, exclusive: bool) -> Iterator[bool]:
    """Locks the folder itself, so that no leftover is judged between its creation and its lock."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield _lock(descriptor, exclusive=exclusive)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, *, exclusive: bool) -> bool:
    """Takes an advisory lock; waits for a shared one only.

    Returns:
        Whether it was obtained; never where the file system or the platform has no such locks.
    """
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB if exclusive else fcntl.LOCK_SH)
    except OSError:
        return False
    return True
