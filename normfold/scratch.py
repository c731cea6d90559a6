"""Temporary folders that outlive no process for long: what a killed one left, the next one removes."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import sys
import tempfile
import weakref
from pathlib import Path
from types import TracebackType

from normfold.signals import interrupts_later

if sys.platform != "win32":
    import fcntl

_PREFIX = ".normfold-"


class ScratchFolder:
    """A new folder for temporary files, removed when it is closed or forgotten.

    It carries an advisory lock that dies with the process, so that the next process can tell a folder in use
    from one that a kill left behind.
    """

    def __init__(self) -> None:
        _remove_abandoned()
        with interrupts_later():
            while True:
                self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
                descriptor = os.open(self.path, os.O_RDONLY)
                _lock(descriptor, shared=True)
                # Another process may have taken it for abandoned before it was locked.
                if self.path.exists():
                    break
                os.close(descriptor)
            self._finalizer = weakref.finalize(self, _remove, self.path, descriptor, os.getpid())

    def __enter__(self) -> Path:
        return self.path

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cleanup()

    def cleanup(self) -> None:
        """Removes the folder and all in it."""
        self._finalizer()


@functools.cache
def _remove_abandoned() -> None:
    """Removes the folders of dead processes, once in the life of this one. Never fails."""
    with contextlib.suppress(OSError):
        for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
            with contextlib.suppress(OSError):
                if path.is_symlink() or path.stat().st_uid != os.getuid():
                    continue
                descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
                if _lock(descriptor, shared=False):
                    _remove(path, descriptor, os.getpid())
                else:
                    os.close(descriptor)


def _remove(path: Path, descriptor: int, owner: int) -> None:
    if os.getpid() != owner:
        # A forked child inherits the object, not the folder.
        return
    with interrupts_later():
        shutil.rmtree(path, ignore_errors=True)
        os.close(descriptor)


def _lock(descriptor: int, *, shared: bool) -> bool:
    """Takes an advisory lock; waits for a shared one only, which leaves outputs made in the folder theirs.

    Returns:
        Whether it was obtained: never where there are no such locks, so nothing is taken for abandoned.
    """
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
