"""Jupyter Book is given what it can digest, and only so much time."""

from __future__ import annotations

import os
import signal

import psutil
import pytest
from descent.book.commands.build import build
from descent.book.site import assemble
from descent.book.sources.project import BookError
from test_endings import gone
from test_faults import descent, wait_for
from toybook import edit

pytestmark = pytest.mark.slow

STUCK = """\
import os
import pathlib
import time


def main():
    print("reading sources... beta", flush=True)
    sign = pathlib.Path({sign!r})
    sign.with_suffix(".part").write_text(str(os.getpid()))
    sign.with_suffix(".part").rename(sign)
    time.sleep(60)
"""


@pytest.fixture
def stuck(project, monkeypatch):
    """Put a Jupyter Book that never ends in the place of the real one; return the file it writes its number to."""
    package, sign = project.root / "stuck" / "jupyter_book", project.root / "rendering"
    (package / "cli").mkdir(parents=True)
    for folder in (package, package / "cli"):
        (folder / "__init__.py").write_text("")
    (package / "cli" / "main.py").write_text(STUCK.format(sign=str(sign)))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(package.parent), os.environ.get("PYTHONPATH", "")]))
    edit(project.source("index"), "A toy book\n", "A toy book, again\n")
    return sign


def test_jupyter_book_is_stopped_when_it_takes_too_long(project, log, stuck, monkeypatch):
    monkeypatch.setattr(assemble, "RENDERING", 3.0, raising=False)
    with pytest.raises(BookError, match=r"Jupyter Book was stopped after 3 s, .*run this again"):
        build(project, log)
    assert not stuck.exists() or not psutil.pid_exists(int(stuck.read_text()))


def test_jupyter_book_is_stopped_by_ctrl_c(project, stuck):
    running = descent(project, "build")
    wait_for(stuck)
    book = psutil.Process(int(stuck.read_text()))
    running.send_signal(signal.SIGINT)
    said = running.communicate(timeout=60)[0]
    assert running.returncode == 130
    assert "Traceback" not in said
    assert gone([book])


def test_more_text_than_a_page_can_hold_is_refused_by_chapter_and_cell(project, log):
    edit(project.source("alpha"), 'print(f"T1-C1 value {value:.3f}")', 'print("x" * 100_001)')
    with pytest.raises(BookError, match=r'alpha: code cell 3 leaves 100002 characters .*print less: print\("x" \*'):
        build(project, log)
