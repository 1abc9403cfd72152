"""Progress is a live line in a terminal and silent in a log."""

from __future__ import annotations

import io

from descent.book.execute.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_log_holds_only_finished_lines():
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
