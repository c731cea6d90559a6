"""A folder of small models, and the command line in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from tests.small_models import foldable

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "report.schema.json").read_text())

WAIT_SECONDS = 20.0


def content(factor: float = 4) -> bytes:
    """A small model; every factor makes another."""
    return bytes(foldable(factor).SerializeToString())


def write_external(path: Path, seed: int = 0) -> None:
    """A MatMul and an affine, the weight of the former in ``<name>.bin``."""
    model = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 40] x) => (float[N, 40] y) '
        "<float[1] s = {2}> { z = MatMul(x, w)  y = Mul(z, s) }"
    )
    weight = np.random.default_rng(seed).normal(size=(40, 40)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    onnx.save(model, path, save_as_external_data=True, location=f"{path.name}.bin", size_threshold=0)


@dataclass
class Ended:
    """What a process left behind."""

    code: int
    out: str
    err: str

    @property
    def report(self) -> dict[str, Any]:
        """Standard output as a report that fits the schema."""
        document: dict[str, Any] = json.loads(self.out)
        jsonschema.validate(document, SCHEMA)
        assert document["exit"] == self.code
        return document


class Started:
    """A running command line, in a session of its own."""

    def __init__(self, *arguments: str | Path, env: dict[str, str] | None = None) -> None:
        command = [sys.executable, "-m", "normfold", *map(str, arguments)]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
        )

    def end(self, seconds: float = 60.0) -> Ended:
        """Waits for the end."""
        try:
            out, err = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            for pid in self.members():
                os.kill(pid, signal.SIGKILL)
            raise
        return Ended(self.process.returncode, out, err)

    def members(self) -> list[int]:
        """Processes of the session that are alive."""
        alive = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    state, _, _, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
                    if int(session) == self.process.pid and state not in "ZX":
                        alive.append(int(entry.name))
        return alive

    @contextlib.contextmanager
    def reader_of(self, pipe: Path) -> Iterator[int]:
        """The process that reads a pipe, which is kept waiting."""

        def opened() -> int | None:
            with contextlib.suppress(OSError):
                return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
            return None

        def reader() -> int | None:
            for pid in self.members():
                with contextlib.suppress(OSError):
                    if any(link.readlink() == pipe for link in Path(f"/proc/{pid}/fd").iterdir()):
                        return pid
            return None

        writer = until(opened)
        try:
            yield until(reader)
        finally:
            os.close(writer)


def until(look: Callable[[], Any]) -> Any:
    """Waits until ``look`` finds something."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError("waited in vain")


def visible(folder: Path) -> list[str]:
    """Files that a user sees, with their folders."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def temporaries(folder: Path) -> list[Path]:
    """Hidden files of work in progress."""
    return [path for path in folder.rglob("*") if path.name.endswith(".normfold-tmp")]


class Tools:
    """The helpers above, for test modules, which cannot import this one."""

    content = staticmethod(content)
    write_external = staticmethod(write_external)
    visible = staticmethod(visible)
    temporaries = staticmethod(temporaries)
    until = staticmethod(until)
    start = Started

    def run(self, *arguments: str | Path, env: dict[str, str] | None = None) -> Ended:
        """Runs the command line to its end."""
        return Started(*arguments, env=env).end()


@pytest.fixture(scope="session")
def tools() -> Tools:
    return Tools()


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with three models, one in a sub-folder and one with external data."""
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.onnx").write_bytes(content(4))
    (folder / "sub" / "b.onnx").write_bytes(content(5))
    write_external(folder / "c.onnx")
    return folder


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    """A named pipe: who reads it waits until the test writes."""
    path = tmp_path / "pipe.onnx"
    os.mkfifo(path)
    return path
