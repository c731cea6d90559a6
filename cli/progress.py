"""What a terminal shows on standard error while work goes on."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress

_SHOW_AFTER_SECONDS = 1.0
_MEGABYTE = 1_000_000


class Display(Protocol):
    """Is told how far the work has come."""

    def __call__(self, phase: str) -> None:
        """A phase begins."""

    def amount(self, done: int, total: int) -> None:
        """So many of so many bytes are read or written."""

    def models(self, done: int, total: int) -> None:
        """So many of so many models are done."""


class Nothing:
    """Shows nothing."""

    def __call__(self, phase: str) -> None:
        """Shows nothing."""

    def amount(self, done: int, total: int) -> None:
        """Shows nothing."""

    def models(self, done: int, total: int) -> None:
        """Shows nothing."""


@contextlib.contextmanager
def progress(quiet: bool) -> Iterator[Display]:
    """Shows a bar on standard error once the work takes over a second; nothing off a terminal."""
    if quiet or not sys.stderr.isatty():
        yield Nothing()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description} …", markup=False),
        BarColumn(),
        TextColumn("{task.fields[measure]}", markup=False),
        console=Console(stderr=True),
        transient=True,
        # Lines for standard output go through the bar only where they would be drawn over it.
        redirect_stdout=sys.stdout.isatty(),
    )
    timer = threading.Timer(_SHOW_AFTER_SECONDS, bar.start)
    timer.daemon = True
    timer.start()
    try:
        yield _Bar(bar)
    finally:
        timer.cancel()
        timer.join()
        bar.stop()


class _Bar:
    """One line: the phase, a bar where the end is known, the rate and the time that remains."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task = bar.add_task("starting", total=None, measure="")

    def __call__(self, phase: str) -> None:
        self._bar.reset(self._task, description=phase, measure="")
        self._bar.tasks[0].total = None

    def amount(self, done: int, total: int) -> None:
        self._move(done, total, f"{done / _MEGABYTE:.0f}/{total / _MEGABYTE:.0f} MB", "MB/s", _MEGABYTE)

    def models(self, done: int, total: int) -> None:
        self._move(done, total, f"{done}/{total} models", "models/s", 1)

    def _move(self, done: int, total: int, measure: str, unit: str, size: int) -> None:
        task = self._bar.tasks[0]
        if task.total != total or done < task.completed:
            self._bar.reset(self._task, total=total)
        self._bar.update(self._task, completed=done)
        if task.speed:
            measure += f" · {task.speed / size:.3g} {unit}"
        if task.time_remaining is not None:
            measure += f" · {_clock(task.time_remaining)} left"
        self._bar.update(self._task, measure=measure)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
