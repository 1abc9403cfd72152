"""The floors of the library: imports point down, and CONTRIBUTING shows the house as it is."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import kernels  # tests/kernels.py, what `make test-elsewhere` runs
from descent.book.sources import house

ROOT = Path(__file__).parents[2]


def test_imports_only_point_down():
    assert house.upward(house.rests_on()) == []


def test_an_import_that_points_up_is_named(tmp_path):
    library = tmp_path / "descent"
    shutil.copytree(ROOT / "lib" / "descent", library, ignore=shutil.ignore_patterns("__pycache__"))
    with (library / "engine" / "rules.py").open("a") as file:
        file.write("\n\ndef late():\n    from descent.measure import gram\n")
    assert house.upward(house.rests_on(library)) == ["descent.engine.rules → measure"]


def test_every_package_and_module_has_its_floor():
    known = {room.partition(".")[0] for floor in house.FLOORS for room in floor}
    found = {path.stem for path in (ROOT / "lib" / "descent").iterdir() if not path.stem.startswith(("_", "py"))}
    assert found == known


def test_contributing_shows_the_house_as_it_is():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert house.picture() in text, "python -m descent.book.sources.house draws it: put that into CONTRIBUTING"


def test_no_two_files_of_tests_have_one_name():
    """Pytest imports them by their names alone: of two it collects one, and only if the other was not there first."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, files in names.items() if files > 1] == []


def test_the_tests_that_run_under_other_kernels_are_found():
    tests = [Path(file).relative_to(ROOT / "tests" / "unit").parts[0] for file in kernels.arithmetic()]
    assert {"engine", "theory", "measure", "experiments"} <= set(tests)


def test_a_file_keeps_to_about_four_hundred_lines():
    long = [path for path in sorted((ROOT / "lib").rglob("*.py")) if len(path.read_text().splitlines()) > 440]
    assert [path.name for path in long] == []
