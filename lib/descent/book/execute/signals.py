"""Signals that end a command as Ctrl-C does: what it has started is stopped, and nothing is left behind."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType

ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
"""A system's wish that we end, and a terminal that has been closed."""


class Ended(KeyboardInterrupt):
    """A signal other than that of Ctrl-C has come."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = signal.Signals(number)


@contextlib.contextmanager
def raising() -> Iterator[None]:
    """Let the first of these signals raise Ended; one that is ignored, as under nohup, or handled already stays so."""
    main = threading.current_thread() is threading.main_thread()  # no other may say what a signal does
    ours = [number for number in ENDING if main and signal.getsignal(number) == signal.SIG_DFL]

    def end(number: int, frame: FrameType | None) -> None:
        _set(ours, signal.SIG_IGN)  # we are ending already: a second one must not interrupt that
        raise Ended(number)

    _set(ours, end)
    try:
        yield
    finally:
        _set(ours, signal.SIG_DFL)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Let Ctrl-C and these signals wait until something is done that must not be cut in two."""
    waiting: list[int] = []
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in ((signal.SIGINT, *ENDING) if main else ())}
    for number in before:
        signal.signal(number, lambda number, _: waiting.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for number in waiting[:1]:
        signal.raise_signal(number)


def _set(numbers: list[signal.Signals], handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    for number in numbers:
        signal.signal(number, handler)
