"""What a signal does: the same as Ctrl-C, so that whatever was staged is taken back."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

_HANDLED = (signal.SIGTERM, signal.SIGHUP)


class Terminated(KeyboardInterrupt):
    """A signal asked this process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


def exit_code_of(interrupt: BaseException | None) -> int:
    """128 and the number of the signal, as shells have it: 130 for Ctrl-C."""
    return interrupt.exit_code if isinstance(interrupt, Terminated) else 128 + signal.SIGINT


@contextlib.contextmanager
def interrupts() -> Iterator[None]:
    """Ends the block by an exception when a signal asks the process to end. One that is ignored stays so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _HANDLED}
    for number, handler in before.items():
        if handler == signal.SIG_DFL:
            signal.signal(number, _terminate)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _terminate(number: int, _: FrameType | None) -> NoReturn:
    raise Terminated(number)
