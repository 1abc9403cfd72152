"""What an edit of the real library re-executes: the experiment it is in, and nothing that only stands beside it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from descent.book.sources import source
from descent.experiments import saddles
from descent.results import imported_pieces, library_digest

ROOT = Path(__file__).parents[3]
CHAPTER = "\n".join(source.code(source.read(ROOT / "chapters" / "saddles.md")))
HERE = Path("descent", "experiments", "saddles")


@pytest.fixture
def library(tmp_path):
    """Return a copy of the library to edit."""
    ignore = shutil.ignore_patterns("__pycache__", "book")
    shutil.copytree(ROOT / "lib" / "descent", tmp_path / "descent", ignore=ignore)
    return tmp_path


def edit(path, text="\n\nEDITED = 1\n"):
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


def moved(library, change):
    before = imported_pieces(CHAPTER, library)
    change()
    after = imported_pieces(CHAPTER, library)
    return sorted(key for key in before | after if before.get(key) != after.get(key))


def test_an_experiment_that_no_chapter_runs_leaves_the_chapter_alone(library):
    assert moved(library, lambda: edit(library / HERE / "resnet.py")) == []


def test_an_experiment_that_the_chapter_runs_is_named(library):
    assert moved(library, lambda: edit(library / HERE / "stiff.py")) == ["descent.experiments.saddles.stiff, EDITED"]


def test_a_comment_or_a_docstring_re_executes_nothing(library):
    def say():
        for path in library.rglob("*.py"):
            edit(path, '\n# said\n"""Said."""\n')

    assert moved(library, say) == []


def test_an_edit_of_one_experiment_leaves_the_results_of_another_valid(library):
    modules = {item.name: item.modules for item in saddles.EXPERIMENTS}
    before = {name: library_digest(found, library) for name, found in modules.items()}
    edit(library / HERE / "stiff.py")
    after = {name: library_digest(found, library) for name, found in modules.items()}
    assert [name for name in modules if before[name] != after[name]] == ["stiff"]


def test_what_all_rest_on_voids_all(library):
    modules = {item.name: item.modules for item in saddles.EXPERIMENTS}
    before = {name: library_digest(found, library) for name, found in modules.items()}
    edit(library / "descent" / "engine" / "streams.py")
    assert all(library_digest(found, library) != before[name] for name, found in modules.items())
