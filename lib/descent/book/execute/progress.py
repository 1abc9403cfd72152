"""Progress of several jobs at once: one live line in a terminal, a plain line now and then in a log or a pipe."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from typing import TextIO

EVERY = 15.0
"""Seconds between two lines about progress where there is no terminal."""


class Progress:
    """Collects how far each named job is (0 to 1) and shows it with the time that is left."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._live = self._stream.isatty()
        self._started: dict[str, float] = {}
        self._done: dict[str, float] = {}
        self._expected: dict[str, float] = {}
        self._lock = threading.Lock()
        self._said = time.monotonic()

    def start(self, name: str, expected_seconds: float | None = None) -> None:
        """Begin a job; `expected_seconds` is what it took last time."""
        with self._lock:
            self._started[name], self._done[name] = time.monotonic(), 0.0
            if expected_seconds:
                self._expected[name] = expected_seconds
        self._show()

    def advance(self, name: str, fraction: float) -> None:
        """Say that a job has got this far."""
        with self._lock:
            self._done[name] = fraction
        self._show()

    def finish(self, name: str, line: str) -> None:
        """End a job and print one line about it."""
        with self._lock:
            self._started.pop(name, None)
        self.say(line)
        self._show()

    def say(self, line: str) -> None:
        """Print one line that stays."""
        with self._lock:
            self._write(("\r\x1b[K" if self._live else "") + line + "\n")

    def remaining(self, name: str) -> float | None:
        """Return the seconds a job will still take, None when nothing is known."""
        elapsed = time.monotonic() - self._started[name]
        if name in self._expected:
            return max(self._expected[name] - elapsed, 0.0)
        done = self._done[name]
        return elapsed * (1 - done) / done if done > 0 else None

    def _show(self) -> None:
        with self._lock:
            parts = "   ".join(self._part(name) for name in self._started)
            if self._live:
                self._write("\r\x1b[K" + parts)
            elif parts and time.monotonic() - self._said >= EVERY:
                self._said = time.monotonic()
                self._write(parts + "\n")

    def _write(self, text: str) -> None:
        with contextlib.suppress(OSError):  # a terminal that has been closed is no reason to lose what was computed
            self._stream.write(text)
            self._stream.flush()

    def _part(self, name: str) -> str:
        left = self.remaining(name)
        rest = "" if left is None else f", {left:.0f} s left"
        return f"{name} {self._done[name]:.0%}{rest}"
