"""A toy book, executed and built once, copied for every test that plants a fault in it."""

from __future__ import annotations

import shutil

import pytest
from descent.book.commands.build import build
from descent.book.execute.progress import Progress
from descent.book.sources.project import Project
from toybook import make


class Log(Progress):
    """Progress that remembers its lines."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def log():
    return Log()


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """Return a finished toy book; not to be changed."""
    project = make(tmp_path_factory.mktemp("toy"))
    build(project, Log())
    return project


@pytest.fixture
def project(built, tmp_path):
    """Return a copy of the finished toy book, to be changed."""
    return Project(shutil.copytree(built.root, tmp_path / "book"))
