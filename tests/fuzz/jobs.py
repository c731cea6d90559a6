"""Processes that share the seeds of a run. One that dies costs a model: another takes up the rest."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from tests.fuzz.census import Census
from tests.fuzz.search import search

LONGEST_MODEL = 600.0
"""Seconds after which a process that is still at the same model is ended: mostly it takes tenths of one."""


@dataclasses.dataclass
class Share:
    """What a process has to do, and what it has done; its file is as of the seed that is at work.

    Attributes:
        save: the folder for what fails.
        seed: the next.
        stride: from there to the one after that.
        end: the seed behind the last; ``None`` where the time is limited.
        until: the time (since the epoch) after which no seed is begun.
        dead: models that are left out, because a process died of them.
        census: what was found.
    """

    save: str
    seed: int
    stride: int = 1
    end: int | None = None
    until: float | None = None
    dead: list[str] = dataclasses.field(default_factory=list)
    census: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)

    @classmethod
    def loaded(cls, path: Path) -> Share:
        return cls(**json.loads(path.read_text()))

    def write(self, path: Path) -> None:
        new = path.with_suffix(".new")
        new.write_text(json.dumps(dataclasses.asdict(self)))
        new.replace(path)


def work(path: Path) -> None:
    """Goes through a share, in the process that was started for it."""
    share, census = Share.loaded(path), Census()
    census.add(share.census)

    def seeds() -> Iterator[int]:
        while True:
            share.census = census.as_dict()
            share.write(path)
            if share.end is not None and share.seed >= share.end:
                return
            if share.until is not None and time.time() >= share.until:
                return
            yield share.seed
            share.seed += share.stride

    search(
        seeds(),
        census,
        save=Path(share.save),
        current=_current(path),
        dead=frozenset(share.dead),
        tell=_tell,
    )


class Job:
    """One share and the process that is at it.

    Args:
        path: of the share's file, which is there.
        command: what goes through the share in that file.
    """

    def __init__(self, path: Path, command: list[str]) -> None:
        self._path, self._command = path, command
        self._is_abandoned = False
        self._process = self._started()

    def is_at_work(self) -> bool:
        """Whether there is more to wait for; starts another process where one has died."""
        if self._is_abandoned:
            return False
        code = self._process.poll()
        if code is None and self._is_stuck():
            self._process.kill()
            code = self._process.wait()
        if code is None:
            return True
        if code == 0:
            return False
        self._bury(code)
        return not self._is_abandoned

    def census(self) -> dict[str, dict[str, int]]:
        """What it has found up to now, but for the seed that is at work."""
        return Share.loaded(self._path).census

    def _started(self) -> subprocess.Popen[bytes]:
        _current(self._path).unlink(missing_ok=True)
        self._since = time.time()
        # One thread each: the models are small, and more threads only wait for each other.
        return subprocess.Popen(self._command, env={**os.environ, "OMP_NUM_THREADS": "1"})

    def _is_stuck(self) -> bool:
        with contextlib.suppress(FileNotFoundError):
            self._since = max(self._since, _current(self._path).stat().st_mtime)
        return time.time() - self._since > LONGEST_MODEL

    def _bury(self, code: int) -> None:
        share, current = Share.loaded(self._path), _current(self._path)
        name = _name(current)
        if name is not None:
            kept = Path(share.save) / f"died-{name.replace('/', '-')}.onnx"
            kept.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(current, kept)
            _tell(f"seed {name}: the process died with {code} -> {kept}")
            share.dead.append(name)
        else:
            # Not while it judged a model: nothing tells how to get past this but to leave the seed.
            self._is_abandoned = not share.census
            _tell(f"seed {share.seed}: the process died with {code} between models; the seed is left")
            census = Census()
            census.add(share.census)
            census.died[f"{share.seed}"] += 1
            share.census = census.as_dict()
            share.seed += share.stride
        share.write(self._path)
        if not self._is_abandoned:
            self._process = self._started()


def _tell(line: str) -> None:
    print(line, flush=True)


def _current(path: Path) -> Path:
    return path.with_suffix(".onnx")


def _name(current: Path) -> str | None:
    """Seed and number of the model that was being judged."""
    if not current.exists():
        return None
    try:
        return onnx.load(current).producer_version or None
    except DecodeError:
        return None
