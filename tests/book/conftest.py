"""A toy book, executed and built once, copied for every test that plants a fault in it."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import replace

import pytest
from descent.book.commands import build as pipeline
from descent.book.commands.build import build, is_current
from descent.book.execute.chapter import load_all
from descent.book.execute.lock import taken
from descent.book.execute.progress import Progress
from descent.book.sources import records
from descent.book.sources.project import Project, find_project
from toybook import REPOSITORY, copied, make


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
    """Return a finished toy book, one for all processes that share the tests; not to be changed."""
    base = tmp_path_factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "toy"
    with root.with_suffix(".lock").open("a") as file:
        while not taken(file):
            time.sleep(0.1)
        project = Project(root)
        if not (root.is_dir() and is_current(project)):
            shutil.rmtree(root, ignore_errors=True)  # of a process that was stopped
            build(make(root), Log())
    return project


@pytest.fixture
def unrendered(monkeypatch):
    """Have the last site taken for what is rendered, and nothing done to it."""
    monkeypatch.setattr(pipeline.publish, "publish", lambda *_: None)
    monkeypatch.setattr(pipeline.finish, "finish", lambda *_: None)
    monkeypatch.setattr(pipeline.assemble, "render", lambda project, _, work: copied(project.html, work / "html"))


@pytest.fixture
def project(built, tmp_path):
    """Return a copy of the finished toy book, to be changed."""
    return Project(copied(built.root, tmp_path / "book"))


@pytest.fixture
def chapters(project):
    """Return the toy book's chapters; the first one's claim is an identity."""
    first, second = load_all(project)
    return replace(first, records=tuple(map(_as_identity, first.records))), second


@pytest.fixture(scope="session")
def published():
    """Return the published records of the repository's book under today's claims."""
    book = find_project(REPOSITORY)
    stated = {claim.id: (claim, paper) for paper in records.papers(book) for claim in paper.claims}
    files = sorted(book.published.glob("records/*.json"))
    found = [record for file in files for record in records.read(file)]
    return tuple(records.today(each, *stated[each.claim.id]) for each in found if each.claim.id in stated)


def _as_identity(record):
    outcomes = tuple(replace(each, test=replace(each.test, identity=True)) for each in record.outcomes)
    return replace(record, claim=replace(record.claim, tests=tuple(o.test for o in outcomes)), outcomes=outcomes)
