"""One whole chapter under the kernels of this environment, against its reference: asked for by `tests/kernels.py`.

The name keeps pytest from collecting it unasked: it executes the chapter named by DESCENT_CHAPTER, into a folder of its
own.
"""

from __future__ import annotations

import os
from pathlib import Path

from descent.book.commands import compare, reference
from descent.book.execute.chapter import load
from descent.book.execute.execute import execute
from descent.book.execute.process import Job
from descent.book.execute.progress import Progress
from descent.book.execute.stamps import Place
from descent.book.sources import records
from descent.book.sources.project import find_project
from descent.claims import disagreements
from test_chapters import as_numerics
from test_reference import nbval

BOOK = find_project(Path(__file__).parent)


def test_chapter_agrees_with_its_reference(tmp_path):
    chapter = BOOK.notebook(os.environ["DESCENT_CHAPTER"])
    place = Place(tmp_path / f"{chapter}.ipynb", tmp_path / "results", tmp_path / "stamp.json")
    execute(Job(BOOK, chapter, {}, place), Progress())
    replay = reference.replay(load(BOOK, chapter, place), tmp_path / "replay")
    result = nbval(replay.notebook)
    assert result.returncode == 0, result.stdout
    assert not disagreements(as_numerics(compare.published(BOOK, chapter)), records.read(place.results))
