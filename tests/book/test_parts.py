"""A chapter that is read on several pages: which cell belongs where, what the pages hold, and what is refused."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from descent.book.execute.chapter import load_all
from descent.book.pages import landing
from descent.book.site import assemble
from descent.book.sources import parts, provenance, source
from descent.book.sources.project import Project, SourceError
from toybook import edit

AWAY = """\
+++ {"page": "more"}

## Apart

The claim T2-C1 is told here, see [](alpha.md) and {glue:text}`T2-C1.verdict`.
"""
BACK = '+++ {"page": "beta"}\n\n## Measured'


@pytest.fixture
def spread(project):
    """Return the toy book with a part of its second chapter on a page of its own."""
    edit(project.source("beta"), "## Measured", f"{AWAY}\n{BACK}")
    edit(project.root / "_toc.yml", "  - file: chapters/beta\n", "  - file: chapters/beta\n  - file: chapters/more\n")
    (project.chapters / "more.md").write_text("(more)=\n# More\n\nWords of its own.\n")
    return Project(project.root)


def staged(project):
    names = re.findall(r"^<!-- ([\w-]+) -->$", "\n".join(project.texts.values()), re.M)
    return assemble.stage(project, load_all(project), dict.fromkeys(names, ""))


def prose(path):
    return "\n".join(cell.source for cell in source.load(path).cells if cell.cell_type == "markdown")


def test_a_part_is_read_below_the_text_of_its_page_and_nowhere_else(spread):
    target = staged(spread)
    own, other = prose(target / "beta.ipynb"), prose(target / "more.ipynb")
    assert not (target / "more.md").exists()
    assert "## Measured" in own
    assert "## Apart" not in own
    assert re.search(r"# More\n.*a part of <a href=\"beta.html\">.*Words of its own\..*## Apart", other, re.S)
    assert "(alpha.ipynb)" in other  # a chapter's staged name
    assert "run-this-yourself" in own


def test_what_a_part_quotes_is_written_out(spread):
    other = prose(staged(spread) / "more.ipynb")
    assert "glue:text" not in other
    assert re.search(r"and \w+[\w ]*\.", other)


def test_the_chapter_still_runs_as_one(spread, built):
    before, after = (source.read(book.source("beta")) for book in (built, spread))
    assert source.executable(before) == source.executable(after)


def test_a_claim_is_at_home_and_a_figure_is_listed_where_they_are_read(spread):
    text = spread.texts["beta"]
    assert provenance.section("beta", text, "T2-C1") == ("more.html#apart", "Apart")
    chapter = load_all(spread)[1]
    assert 'href="beta.html"' in landing.figure_table([chapter])
    chapter.notebook.cells[-1].metadata["page"] = "more"
    assert 'href="more.html"' in landing.figure_table([replace(chapter)])


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('{"page": "more"}', '{"page": "elsewhere"}', "'elsewhere', which _toc.yml does not name"),
        ('{"page": "more"}', '{"page": "alpha"}', "'alpha', which has code of its own"),
        (BACK, "## Measured", r"its end is read elsewhere; lead back with \+\+\+"),
        ("[nbval-check-output]", "[nbval-check-output]\n:page: more", "a cell of code names a page"),
    ],
    ids=["unknown", "chapter", "open end", "code"],
)
def test_a_part_without_a_place_is_refused(spread, old, new, said):
    edit(spread.source("beta"), old, new)
    book = Project(spread.root)
    with pytest.raises(SourceError, match=said):
        parts.require(book, "beta", source.read(book.source("beta")).cells)
