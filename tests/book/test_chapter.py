"""A build reads a chapter once as what it is, and else only to see what has moved."""

from __future__ import annotations

import sys
from collections import Counter

import pytest
from descent.book.commands.build import build
from descent.book.execute.chapter import load
from descent.book.execute.stamps import book_place
from descent.book.sources.project import BookError
from toybook import edit

pytestmark = pytest.mark.slow
WATCHED: list[Counter[str]] = []


def note(event, arguments):
    """Count the files this process opens to read, while somebody counts: an audit hook cannot be taken away again."""
    if WATCHED and event == "open" and not set(str(arguments[1] or "r")) & set("wax+"):
        WATCHED[-1][str(arguments[0])] += 1


@pytest.fixture
def reads():
    """Return how often each file is opened from now on."""
    sys.addaudithook(note)
    WATCHED.append(Counter())
    yield WATCHED[-1]
    WATCHED.pop()


def test_a_build_reads_the_files_of_a_chapter_only_a_few_times(project, log, reads):
    edit(project.library / "toy" / "law.py", "2 * lr", "lr * 2")
    build(project, log)
    assert log.lines[:2] == ["alpha: re-executed because: library toy.law, value", "beta: reused"]

    def opened(path):
        return reads[str(path)]

    # To be hashed, to be checked, to see what moved, to be executed, to become a page.
    assert opened(project.source("alpha")) == 5
    assert opened(project.source("beta")) == 4
    for page in ("index", "ledger", "status"):
        assert opened(project.source(page)) == 2  # to be hashed and to become a page
    for name in ("alpha", "beta"):
        place = book_place(project, name)
        assert opened(place.notebook) <= 3
        assert opened(place.results / "records.json") <= 4


def test_an_execution_that_was_lost_is_named(project):
    book_place(project, "alpha").stamp.unlink()
    with pytest.raises(BookError, match="alpha: its execution left no stamp"):
        load(project, "alpha")
