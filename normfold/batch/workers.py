"""Processes of this machine that fold, behind the interface of ``concurrent.futures``."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any

_GRACE_SECONDS = 10.0
"""For a worker that is to end: to take back what it has staged."""
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class Here(Executor):
    """Runs in this process, when it is submitted."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Calls ``fn``; an interrupt passes through."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


class WorkerPool(Executor):
    """Processes that take one call each at a time, started afresh after one has died.

    Every process is a ``ProcessPoolExecutor`` of its own: in a common one the death of a worker ends all the
    others, and nobody knows whose call it was. Workers are spawned, not forked, since onnxruntime and
    OpenBLAS have threads; they end with this process, however it ends.

    Args:
        width: number of processes.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        self._context = multiprocessing.get_context("spawn")
        # Nobody writes to it: its end is what tells workers to end.
        self._lifeline, self._held = self._context.Pipe(duplex=False)
        self._threads = max(1, (os.cpu_count() or 1) // width)
        self._idle: queue.SimpleQueue[ProcessPoolExecutor] = queue.SimpleQueue()
        for _ in range(width):
            self._idle.put(self._worker())

    def _worker(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            1, self._context, initializer=_begin_worker, initargs=(self._lifeline, self._threads)
        )

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Runs ``fn`` in an idle process; waits for one."""
        worker = self._idle.get()
        with _interrupts_held():
            try:
                future = worker.submit(_run, fn, args, kwargs)
            except BrokenExecutor:
                # It died in its last call, or between two, and nobody's work with it.
                worker.shutdown(wait=False)
                worker = self._worker()
                future = worker.submit(_run, fn, args, kwargs)
        # One that died comes back too: its executor holds a lock while this is called, and cannot be shut
        # down here.
        future.add_done_callback(lambda _: self._idle.put(worker))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Ends the processes; those that are busy take back what they have staged."""
        self._held.close()
        for _ in range(self._width):
            self._idle.get().shutdown(wait=wait, cancel_futures=cancel_futures)
        self._lifeline.close()


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Processes that begin in here cannot be interrupted before they have said what an interrupt is to do."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Ended(BaseException):
    """This worker is to end."""


_busy = False


def _begin_worker(lifeline: Connection, threads: int) -> None:
    """Runs first in a worker."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the parent decides.
    signal.signal(signal.SIGTERM, _end)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    for name in _THREADS:
        os.environ.setdefault(name, str(threads))
    threading.Thread(target=_watch, args=(lifeline,), daemon=True).start()


def _watch(lifeline: Connection) -> None:
    """Ends this worker when the parent has gone or wants it to."""
    with contextlib.suppress(EOFError, OSError):
        lifeline.recv()
    main = threading.main_thread().ident
    if main is not None:
        signal.pthread_kill(main, signal.SIGTERM)
    time.sleep(_GRACE_SECONDS)
    os._exit(128 + signal.SIGTERM)


def _end(number: int, _: FrameType | None) -> None:
    if _busy:
        raise _Ended
    os._exit(128 + number)


def _run(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    global _busy
    try:
        _busy = True
        return fn(*args, **kwargs)
    except _Ended:
        pass
    finally:
        _busy = False
    # What nobody refers to any more is cleaned up; an executor's worker cannot be left in any other way.
    gc.collect()
    os._exit(128 + signal.SIGTERM)
