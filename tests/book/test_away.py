"""A chapter's notebook for a machine without the book: what it says it takes, and what its first cell brings."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from dataclasses import replace

import pytest
from descent.book.pages import elsewhere
from descent.book.sources.project import Project
from toybook import REPOSITORY

CITED = 'version: "3.2.1"\nrepository-code: "https://somewhere.example/book"\n'
NEEDED = """\
[project]
dependencies = ["numpy>=2.0", "torch>=2.11"]
[project.optional-dependencies]
book = ["jupyter-book>=1", "torchvision>=0.2", "seaborn>=0.13"]
"""


@pytest.fixture
def chapter(chapters):
    first, root = chapters[0], chapters[0].project.root
    (root / "CITATION.cff").write_text(CITED)
    (root / "pyproject.toml").write_text(NEEDED)
    return replace(first, stamp=replace(first.stamp, seconds=200.0))


def brought(cell, monkeypatch, tmp_path, known):
    """Execute the first cell where `descent` is known or not; return the commands it runs."""
    ran = []
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if known else None)
    monkeypatch.setattr(subprocess, "run", lambda command, check: ran.append(command))
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "away" / "book" / "chapters").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "away")
    exec(compile(cell.source, "cell", "exec"), {})
    return ran


def test_it_says_what_it_takes(chapter):
    note = elsewhere.away(chapter).cells[0].source
    assert "No GPU is needed" in note
    assert "took 4 minutes" in note
    quick = elsewhere.away(replace(chapter, stamp=replace(chapter.stamp, seconds=3.0)))
    assert "took one minute" in quick.cells[0].source


def test_it_brings_the_released_version_and_leaves_torch_as_it_is(chapter, monkeypatch, tmp_path):
    cell = elsewhere.away(chapter).cells[1]
    clone, install = brought(cell, monkeypatch, tmp_path, known=False)
    assert clone[-4:] == ["--branch", "v3.2.1", "https://somewhere.example/book", "book"]
    assert install[-3:] == ["numpy>=2.0", "seaborn>=0.13", "myst-nb>=1"]
    assert sys.path[0] == str(tmp_path / "away" / "book" / "lib")
    assert os.getcwd() == str(tmp_path / "away" / "book" / "chapters")


def test_in_a_checkout_it_does_nothing(chapter, monkeypatch, tmp_path):
    assert brought(elsewhere.away(chapter).cells[1], monkeypatch, tmp_path, known=True) == []
    assert os.getcwd() == str(tmp_path / "away")


def test_without_an_address_it_asks_for_one(chapter, monkeypatch, tmp_path):
    (chapter.project.root / "CITATION.cff").write_text('version: "1"\n')
    with pytest.raises(AssertionError, match="write the address"):
        brought(elsewhere.away(chapter).cells[1], monkeypatch, tmp_path, known=False)


def test_the_rest_is_the_chapter(chapter):
    made = elsewhere.away(chapter)
    assert [cell.source for cell in made.cells[2:]] == [cell.source for cell in chapter.notebook.cells]
    assert not any(cell.get("outputs") for cell in made.cells)


def test_nothing_it_brings_is_torch():
    names = elsewhere.packages(Project(REPOSITORY))
    assert any(name.startswith("matplotlib") for name in names)
    assert not [name for name in names if "torch" in name]
