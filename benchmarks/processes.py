"""Whole processes, measured: processor time, and peak memory in all and anonymous."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

MEGABYTE = 1_000_000
_SAMPLE_SECONDS = 0.002


@dataclass(frozen=True)
class Usage:
    """What one process took.

    Attributes:
        code: its exit code.
        processor: user and system time together, in seconds.
        wall: seconds from start to end.
        total: largest resident memory, in MB; pages of mapped files are part of it.
        anonymous: largest resident memory that is no file's, in MB. Both are sampled every two milliseconds,
            and 0 where nothing was.
    """

    code: int
    processor: float
    wall: float
    total: float
    anonymous: float


def measured(command: Sequence[str], *, seconds: float = 600, sampled: bool = True) -> Usage:
    """Runs ``command`` on one thread to its end, its output thrown away."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    # Its own bytecode would be compiled anew by every process.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    total = anonymous = 0.0
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG if sampled else 0)
        if pid:
            break
        # Not ru_maxrss, which remembers the size of this process from before the new program was loaded.
        total = max(total, _resident(process.pid, "VmHWM"))
        anonymous = max(anonymous, _resident(process.pid, "RssAnon"))
        if time.perf_counter() - began > seconds:
            process.kill()
        time.sleep(_SAMPLE_SECONDS)
    process.returncode = os.waitstatus_to_exitcode(status)
    return Usage(
        process.returncode,
        usage.ru_utime + usage.ru_stime,
        time.perf_counter() - began,
        total,
        anonymous,
    )


def _resident(pid: int, kind: str) -> float:
    with contextlib.suppress(OSError, IndexError, ValueError):
        status = Path(f"/proc/{pid}/status").read_text()
        return int(status.split(f"{kind}:")[1].split()[0]) * 1024 / MEGABYTE
    return 0.0
