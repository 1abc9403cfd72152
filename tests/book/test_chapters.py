"""The book's own chapters: what they print today, compared by nbval with their reference notebooks."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import pytest
from descent.book.commands import compare, reference
from descent.book.commands.build import cores
from descent.book.execute.chapter import load
from descent.book.execute.digest import ABSENT, data_set
from descent.book.execute.execute import execute_all
from descent.book.execute.progress import Progress
from descent.book.sources import records, source
from descent.book.sources.project import find_project
from descent.claims import Record, disagreements
from test_reference import nbval

pytestmark = pytest.mark.slow
BOOK = find_project(Path(__file__).parent)


@functools.cache
def executed() -> None:
    """Execute the chapters whose inputs moved since the book was last built; reuse the others."""
    execute_all(BOOK, BOOK.notebooks, {}, Progress(), jobs=cores())


@pytest.mark.parametrize("chapter", BOOK.notebooks)
def test_chapter_prints_what_its_reference_says(chapter, tmp_path):
    executed()
    replay = reference.replay(load(BOOK, chapter), tmp_path)
    result = nbval(replay.notebook)
    assert result.returncode == 0, result.stdout
    assert f"{replay.compared} passed" in result.stdout


@pytest.mark.parametrize("chapter", BOOK.notebooks)
def test_chapter_measures_what_was_published(chapter):
    """Every digit the records hold, not only what is printed of it: verdicts as words, numbers as numerics."""
    executed()
    assert not disagreements(as_numerics(compare.published(BOOK, chapter)), records.read(BOOK.results(chapter)))


def as_numerics(found: tuple[Record, ...]) -> list[Record]:
    """Return records as if another library had made them: which one made the published ones does not matter here."""
    return [replace(record, provenance=replace(record.provenance, library="published")) for record in found]


def needs() -> list[tuple[str, str]]:
    return [(name, data) for name in BOOK.notebooks for data in source.data_sets(source.read(BOOK.source(name)))]


@pytest.mark.parametrize(("chapter", "data"), needs())
def test_cells_that_need_images_are_compared_where_the_images_are(chapter, data, tmp_path):
    executed()
    left_out = reference.replay(load(BOOK, chapter), tmp_path).left_out
    if data_set(BOOK, data) == ABSENT:
        pytest.skip(f"{chapter}: {left_out[data]} cells need {data}, which is not here; set DESCENT_DATA")
    assert data not in left_out
