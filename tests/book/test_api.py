"""The page of the library's public names is made from the source, and leads to it."""

from __future__ import annotations

import ast
import re
from importlib import import_module

import pytest
from descent.book.commands import build
from descent.book.pages import api
from descent.book.sources import provenance
from descent.book.sources.project import find_project
from toybook import REPOSITORY, edit

SOURCE = '''"""What it is for. More about it.

A second paragraph.
"""
from dataclasses import dataclass
from elsewhere.place import borrowed, hidden
__all__ = ["LEVEL", "Pair", "borrowed", "share"]
LEVEL = 0.95
"""How sure an interval is."""
PRIVATE = 1

@dataclass(frozen=True)
class Pair:
    """Two numbers, a*b | c."""

    kind: ClassVar[str] = "x"
    first: float
    second: float = 2.0

    @property
    def sum(self) -> float:
        """Add."""

def share(batch: int, *sizes: int, population: int | None = None, **rest: int) -> float:
    """Return p = 1/B, e.g. `0.25` at four. Nothing else."""

def unlisted(): ...
'''


@pytest.fixture(scope="module")
def book():
    return find_project(REPOSITORY)


def test_names_come_with_arguments_sentence_and_line():
    found = {entry.code.name: entry for entry in api.entries("toy.m", ast.parse(SOURCE))}
    assert list(found) == ["toy.m.LEVEL", "toy.m.Pair", "toy.m.share"]
    assert [entry.takes for entry in found.values()] == [
        " = 0.95",
        "(first, second=2.0)",
        "(batch, *sizes, population=None, **rest)",
    ]
    assert [entry.sentence for entry in found.values()] == [
        "How sure an interval is.",
        "Two numbers, a*b | c. With `sum`.",
        "Return p = 1/B, e.g. `0.25` at four.",
    ]
    for entry in found.values():
        line = SOURCE.splitlines()[entry.code.line - 1]
        assert re.match(rf"(class |def )?{entry.code.name.rpartition('.')[2]}\b", line)


def test_without_a_list_the_public_functions_and_classes_are_shown():
    text = SOURCE.replace("__all__", "names")
    assert [entry.code.name for entry in api.entries("m", ast.parse(text))] == ["m.Pair", "m.share", "m.unlisted"]


def test_signs_stand_for_themselves_and_code_stays_code():
    assert api.prose("a*b_c | $x$ <y> `z*` [1]") == r"a\*b\_c \| \$x\$ \<y\> `z*` \[1\]"


def test_the_page_shows_every_public_name_of_the_library(book):
    page = api.library(book)
    assert f"## {api.REST}" not in page, "a new module: say in FLOORS where it stands, or in ABOVE that it is private"
    for module in ("descent.engine.rules", "descent.theory.linear", "descent.measure.gram", "descent.measure.report"):
        section = page.partition(f"### `{module}`\n")[2].partition("\n### ")[0]
        for name in import_module(module).__all__:
            assert f"`{name}`" in section, f"{module}.{name}"
    assert "descent.book" not in page
    assert "descent.experiments" not in page
    headings = re.findall(r"^## (.+)$", page, re.M)
    assert headings == list(api.FLOORS)


def test_every_line_leads_to_a_definition(book):
    sources = {module: path.read_text().splitlines() for module, path in provenance.modules(book).items()}
    found = re.findall(r'<a href="code/([\w.]+)\.html#L(\d+)">`(\w+)`</a>', api.library(book))
    assert len(found) > 300
    for module, line, name in found:
        assert re.match(rf"(class |def )?{name}\b", sources[module][int(line) - 1]), f"{module}.{name}"


def test_a_site_that_asks_for_it_carries_it(project, log):
    edit(project.source("index"), "A toy book\n", "A toy book\n\n<!-- api -->\n")
    build.build(project, log)
    page = (project.html / "index.html").read_text()
    assert re.search(r'<dt><a href="code/toy.law.html#L1"><code.*?value', page)
    assert "Without further words." in page
    assert 'id="L1"' in (project.html / "code" / "toy.law.html").read_text()
