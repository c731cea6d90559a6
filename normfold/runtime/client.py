"""Sessions of onnxruntime in a child process, asked over its standard input."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import json
import queue
import re
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
import onnx_ir as ir

from normfold.runtime.processes import command
from normfold.scratch import ScratchFolder

EXTERNAL_ABOVE = 1_500_000_000
"""Bytes of weights above which a temporary model file keeps them beside it."""

_LOGGED_ERROR = re.compile(
    r"\[E:onnxruntime.*\[ONNXRuntimeError\] : \d+ : \w+ : (?P<logged>.+)"
    r"|^EP Error .*?(?P<cuda>CUDA failure \d+: [^;]+)"
    r"|^EP Error (?P<other>.+)"
)
"""Why onnxruntime gave a provider up: what its library logged, or the error that its package caught."""

T = TypeVar("T")


class RuntimeRefused(Exception):
    """onnxruntime could not load or run a model and said why."""


class RuntimeCrashed(Exception):
    """The process that holds onnxruntime died or did not answer in time."""


def onnxruntime_installed() -> bool:
    """Whether onnxruntime can be imported; it is not imported for the answer."""
    return importlib.util.find_spec("onnxruntime") is not None


@dataclass(frozen=True)
class Session:
    """A model loaded in the child process.

    Attributes:
        number: its number there.
        generation: which child process holds it; sessions die with their process.
        providers: execution providers in order of preference, as onnxruntime reports them.
        options: what the provider was set up with.
        complaint: the last error that onnxruntime logged, where the provider asked for is not among them.
        assigned: nodes by provider, ``operator:name`` each, or ``operator`` where it has no name.
        version: version of onnxruntime.
    """

    number: int
    generation: int
    providers: tuple[str, ...]
    options: Mapping[str, str]
    complaint: str
    assigned: Mapping[str, Sequence[str]]
    version: str


class Runtime:
    """A child process with onnxruntime, started on first use and started again after a crash.

    Use it as a context manager. One thread at a time may use it; :meth:`submit` lends it one of its own.

    Args:
        timeout_seconds: time limit of one load or run.
        provider_options: what every session on a provider is opened with, by its full name.
    """

    def __init__(
        self,
        timeout_seconds: float = 120.0,
        provider_options: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self._timeout = timeout_seconds
        self._provider_options = provider_options or {}
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._listener: threading.Thread | None = None
        self._generation = 0
        self._numbers = itertools.count()
        self._folder = ScratchFolder()
        self._worker: ThreadPoolExecutor | None = None
        self._closed = False

    def __enter__(self) -> Runtime:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def folder(self) -> Path:
        """A folder for files that should vanish with the runtime."""
        return self._folder.path

    def options_of(self, provider: str) -> Mapping[str, str]:
        """What every session on a provider, given by its full name, is opened with."""
        return self._provider_options.get(provider, {})

    def start(self) -> None:
        """Starts the process without waiting for it, so that its imports overlap with other work."""
        if self._closed:
            raise RuntimeCrashed("the process was ended")
        if self._process is not None and self._process.poll() is None:
            return
        self._stop()
        self._generation += 1
        with (self.folder / "stderr.txt").open("wb") as errors:
            self._process = subprocess.Popen(
                command("serving"),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                encoding="utf-8",
            )
        self._answers = queue.SimpleQueue()
        self._listener = threading.Thread(
            target=self._listen, args=(self._process, self._answers), daemon=True
        )
        self._listener.start()

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Does work that uses the runtime in a thread of its own, one piece after the other, while this one
        does something else. Until it is done, nothing else may use the runtime."""
        if self._worker is None:
            self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="normfold-runtime")
        return self._worker.submit(work)

    @staticmethod
    def _listen(process: subprocess.Popen[str], answers: queue.SimpleQueue[str | None]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            answers.put(line)
        answers.put(None)

    def open(
        self,
        model: Path,
        provider: str,
        *,
        optimize: bool,
        options: Mapping[str, str] | None = None,
        seconds: float | None = None,
    ) -> Session:
        """Loads a model from its file.

        Args:
            model: the model file.
            provider: full name of the execution provider.
            optimize: all graph optimisations, or none.
            options: provider options of this session, on top of the runtime's own.
            seconds: time limit, where it is tighter than the runtime's own.

        Raises:
            RuntimeRefused: onnxruntime cannot load it, or the provider is not registered.
            RuntimeCrashed: the process died or took too long.
        """
        self.start()
        number = next(self._numbers)
        chosen = {**self.options_of(provider), **(options or {})}
        answer = self._ask(
            {
                "op": "open",
                "session": number,
                "model": str(model),
                "provider": provider,
                "options": chosen,
                "optimize": optimize,
            },
            seconds,
        )
        providers = tuple(answer["providers"])
        return Session(
            number,
            self._generation,
            providers,
            chosen,
            "" if provider in providers else self._last_logged_error(),
            answer["assigned"],
            answer["version"],
        )

    def run(
        self, session: Session, inputs: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Runs a session.

        Raises:
            RuntimeRefused: onnxruntime rejected the inputs or failed.
            RuntimeCrashed: the process died or took too long, now or since the session was opened.
        """
        if session.generation != self._generation:
            raise RuntimeCrashed("the process that held this session is gone")
        feeds, results = self.folder / "feeds.npz", self.folder / "results.npz"
        np.savez(feeds, *(_storable(array) for array in inputs.values()))
        answer = self._ask(
            {
                "op": "run",
                "session": session.number,
                "names": list(inputs),
                "feeds": str(feeds),
                "outputs": list(outputs) if outputs is not None else None,
                "results": str(results),
            }
        )
        with np.load(results, allow_pickle=False) as stored:
            return {name: stored[f"arr_{i}"] for i, name in enumerate(answer["names"])}

    def release(self, session: Session) -> None:
        """Unloads a session; one that died with its process is gone already."""
        if session.generation == self._generation and self._process is not None:
            self._ask({"op": "close", "session": session.number})

    def close(self) -> None:
        """Ends the process, in the middle of a run too, and deletes the folder."""
        self._closed = True
        if self._worker is not None:
            process = self._process
            if process is not None:
                process.kill()
            self._worker.shutdown(cancel_futures=True)
        self._stop()
        self._folder.cleanup()

    def _stop(self) -> None:
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        if self._listener is not None:
            # A stream must not be closed while another thread reads it.
            self._listener.join()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                # Closing writes what a dead process never read.
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        self._process = None

    def _ask(self, request: Mapping[str, Any], seconds: float | None = None) -> dict[str, Any]:
        if self._closed:
            raise RuntimeCrashed("the process was ended")
        limit = min(self._timeout, seconds or self._timeout)
        process = self._process
        assert process is not None and process.stdin is not None
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            line = self._answers.get(timeout=limit)
        except queue.Empty:
            self._end_generation()
            raise RuntimeCrashed(f"no answer within {limit:g} s") from None
        except OSError:
            line = None
        if line is None:
            raise RuntimeCrashed(self._epitaph())
        answer: dict[str, Any] = json.loads(line)
        if not answer["ok"]:
            raise RuntimeRefused(answer["error"])
        return answer

    def _end_generation(self) -> None:
        self._stop()
        self._generation += 1

    def _epitaph(self) -> str:
        process = self._process
        assert process is not None
        status = process.wait()
        last = next((line.strip() for line in reversed(self._printed()) if line.strip()), "")
        self._end_generation()
        how = f"signal {-status}" if status < 0 else f"status {status}"
        return f"the process ended with {how}" + (f": {last[:200]}" if last else "")

    def _last_logged_error(self) -> str:
        found = (_LOGGED_ERROR.search(line) for line in reversed(self._printed()))
        return next((match[match.lastgroup or 0].strip()[:300] for match in found if match), "")

    def _printed(self) -> list[str]:
        return (self.folder / "stderr.txt").read_text(encoding="utf-8", errors="replace").split("\n")


def _storable(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind == "O":
        return array.astype(str)
    if array.dtype.kind == "V":
        raise RuntimeRefused(f"onnxruntime's Python interface takes no {array.dtype.name} arrays")
    return array


def write_model(model: ir.Model, folder: Path, name: str) -> Path:
    """Writes a model for a runtime to load, large weights beside it.

    Args:
        model: the model; not changed.
        folder: where it goes.
        name: stem of the file's name.
    """
    path = folder / f"{name}.onnx"
    weights = sum(
        value.const_value.nbytes
        for graph in model.graphs()
        for value in graph.initializers.values()
        if value.const_value is not None
    )
    ir.save(model, path, external_data=f"{name}.data" if weights > EXTERNAL_ABOVE else None)
    return path
