"""A page says when it was last changed and by what, as far as the repository's history knows."""

from __future__ import annotations

import re
import subprocess

import pytest
from descent.book.pages.changes import SHOWN, Change, box, changes
from descent.book.site import assemble
from descent.book.sources.project import Project


def git(folder, *arguments, day="2026-02-03"):
    own = ["-c", "user.name=somebody", "-c", "user.email=somebody@somewhere.example"]
    when = {"GIT_AUTHOR_DATE": f"{day}T12:00:00Z", "GIT_COMMITTER_DATE": f"{day}T12:00:00Z", "PATH": "/usr/bin:/bin"}
    subprocess.run(["git", "-C", str(folder), *own, *arguments], check=True, capture_output=True, env=when)


@pytest.fixture
def book(tmp_path):
    """Return a book of two pages in a repository of its own, with three commits."""
    root = tmp_path / "a book"
    (root / "chapters").mkdir(parents=True)
    git(root, "init", "-q", "-b", "main")
    for name, text, said, day in (
        ("one", "first", "Page <one> stands", "2026-02-03"),
        ("two", "first", "Page two stands", "2026-02-04"),
        ("one", "second", "Page one is shorter", "2026-03-05"),
    ):
        (root / "chapters" / f"{name}.md").write_text(text)
        git(root, "add", ".")
        git(root, "commit", "-q", "-m", f"{said}\n\nWith a reason.", day=day)
    return Project(root)


def test_every_page_has_its_own_changes_the_latest_first(book):
    found = changes(book)
    assert found["one"] == [Change("2026-03-05", "Page one is shorter"), Change("2026-02-03", "Page <one> stands")]
    assert found["two"] == [Change("2026-02-04", "Page two stands")]


def test_outside_a_repository_there_are_none(tmp_path, book):
    (tmp_path / "chapters").mkdir()
    assert changes(Project(tmp_path)) == {}
    inside = book.root / "unpacked"  # an archive unpacked in somebody's repository is no page of that
    (inside / "chapters").mkdir(parents=True)
    assert changes(Project(inside)) == {}


def test_without_its_history_a_repository_knows_nothing(tmp_path, book):
    git(tmp_path, "clone", "-q", "--depth", "1", book.root.as_uri(), "shallow")
    assert changes(Project(tmp_path / "shallow")) == {}


def test_without_git_there_are_none(book, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert changes(book) == {}


def test_the_box_lists_the_latest_and_counts_the_rest():
    made = [Change(f"2026-01-{day:02}", f"a < b, {day}") for day in range(20, 20 - SHOWN - 2, -1)]
    text = box(made)
    assert "Last changed on 2026-01-20" in text
    assert text.count("<li>") == SHOWN
    assert "a &lt; b, 20" in text
    assert "and 2 earlier" in text
    assert "earlier" not in box(made[:1])
    assert box([]) == ""


def test_pages_and_chapters_end_with_them(project, chapters, monkeypatch):
    said = {"index": [Change("2026-01-02", "It begins")], "alpha": [Change("2026-01-03", "Alpha is there")]}
    monkeypatch.setattr(assemble, "changes", lambda project: said)
    texts = "\n".join(project.texts.values())
    staged = assemble.stage(project, chapters, dict.fromkeys(re.findall(r"<!-- ([\w-]+) -->", texts), ""))
    assert "Last changed on 2026-01-02" in (staged / "index.md").read_text()
    assert "Last changed on 2026-01-03" in (staged / "alpha.ipynb").read_text()
    assert "Last changed" not in (staged / "beta.ipynb").read_text()
