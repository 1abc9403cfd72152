"""One whole chapter under the kernels of this environment, against its reference: asked for by `tests/kernels.py`.

The name keeps pytest from collecting it unasked: it executes the chapter named by DESCENT_CHAPTER, into a folder of its
own.
"""

from __future__ import annotations

import os
from pathlib import Path

from descent.book import records, reference, rerun
from descent.book.execute import execute
from descent.book.process import Job
from descent.book.progress import Progress
from descent.book.project import find_project
from descent.book.stamps import Place
from descent.claims import disagreements
from test_chapters import as_numerics
from test_reference import nbval

BOOK = find_project(Path(__file__).parent)


def test_chapter_agrees_with_its_reference(tmp_path):
    chapter = BOOK.notebook(os.environ["DESCENT_CHAPTER"])
    place = Place(tmp_path / f"{chapter}.ipynb", tmp_path / "results", tmp_path / "stamp.json")
    execute(Job(BOOK, chapter, {}, place), Progress())
    replay = reference.replay(BOOK, chapter, tmp_path / "replay", place)
    result = nbval(replay.notebook)
    assert result.returncode == 0, result.stdout
    assert not disagreements(as_numerics(rerun.published(BOOK, chapter)), records.read(place.results))
