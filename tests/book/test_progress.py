"""Progress is a live line in a terminal, and plain lines in a log."""

from __future__ import annotations

import io

from descent.book.execute import progress as module
from descent.book.execute.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_log_is_told_now_and_then_in_plain_lines(monkeypatch):
    seconds = iter(range(0, 1000, 4))
    monkeypatch.setattr(module.time, "monotonic", lambda: next(seconds))
    stream = io.StringIO()
    progress = Progress(stream)
    progress.start("alpha", 500)
    for fraction in (0.1, 0.2, 0.3, 0.4):
        progress.advance("alpha", fraction)
    lines = stream.getvalue().splitlines()
    assert 1 <= len(lines) < 5
    assert all(line.startswith("alpha ") and line.endswith(" s left") for line in lines)
    assert not {"\r", "\x1b"} & set(stream.getvalue())


def test_a_short_log_holds_only_finished_lines():
    stream = io.StringIO()
    progress = Progress(stream)
    progress.start("alpha", 10)
    progress.advance("alpha", 0.5)
    progress.finish("alpha", "alpha: executed in 3 s")
    assert stream.getvalue() == "alpha: executed in 3 s\n"


def test_terminal_shows_share_and_time_left():
    stream = Terminal()
    progress = Progress(stream)
    progress.start("alpha", 100)
    progress.advance("alpha", 0.25)
    assert "alpha 25%, 100 s left" in stream.getvalue()


def test_time_left_follows_the_share_when_nothing_is_known():
    progress = Progress(Terminal())
    progress.start("alpha")
    assert progress.remaining("alpha") is None
    progress.advance("alpha", 0.5)
    assert progress.remaining("alpha") < 1
