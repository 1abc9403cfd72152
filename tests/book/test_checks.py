"""The checks of prose and HTML see their fault and nothing else."""

from __future__ import annotations

import pytest
from descent.book.site import checks
from descent.book.sources.project import find_project
from toybook import REPOSITORY, edit, make


@pytest.fixture
def project(tmp_path):
    return make(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "P3-C1: 13.1",
        "P3-C1.size is 13.1 times",
        "13.1 (P3-C1)",
        "P3-C1 = 2",
        "about 80 % [P3-X2]",
        "P3-C1 gives about 5",
    ],
)
def test_numbers_next_to_claims_are_seen(project, text):
    edit(project.source("index"), "A toy book", f"A toy book\n\nIt says {text} here.")
    assert len(checks.prose_faults(project)) == 1


@pytest.mark.parametrize(
    "text",
    [
        "claims P3-C1, P3-C2 and P3-X1",
        "{glue:text}`P3-C1.size` at momentum 0.9",
        "`P3-C1` 5",
        "momentum 0.9 in P3-C1",
        "a tenth (P3-C1); in section 2 more",
        "the ratio ([P3-X1](claim:P3-X1)); at 0.005 it is",
        "[P3-C1](claim:P3-C1) holds at $\\eta=0.1$",
    ],
)
def test_other_numbers_are_left_alone(project, text):
    edit(project.source("index"), "A toy book", f"A toy book\n\nIt says {text} here.")
    assert checks.prose_faults(project) == []


def test_code_is_no_prose(project):
    edit(project.source("alpha"), "value = law.value(lr)", "value = law.value(lr)  # T1-C1 5")
    assert checks.prose_faults(project) == []


ENTRY = "@article{%s,\n  title = {A toy},\n}\n"


def test_an_entry_that_nobody_cites_is_named(project):
    project.chapters.joinpath("references.bib").write_text(ENTRY % "one2001" + ENTRY % "two2002", encoding="utf-8")
    edit(project.source("index"), "A toy book", "A toy book {cite}`one2001`")
    why = "chapters/references.bib: no page cites two2002; cite it where its result is used, or drop it"
    assert checks.citation_faults(project) == [why]


@pytest.mark.parametrize("role", ["cite", "cite:t", "cite:p"])
def test_a_citation_of_no_entry_is_named(project, role):
    project.chapters.joinpath("references.bib").write_text(ENTRY % "one2001", encoding="utf-8")
    edit(project.source("index"), "A toy book", f"A toy book {{{role}}}`one2001, two2002`")
    why = "cites two2002, which is no entry of the bibliography; add it or correct the key"
    (fault,) = checks.citation_faults(project)
    assert fault.startswith("index.md:")
    assert fault.endswith(why)


def test_the_books_own_bibliography_is_cited_whole():
    assert checks.citation_faults(find_project(REPOSITORY)) == []


def page(tmp_path, body):
    path = tmp_path / "page.html"
    path.write_text(f"<html><body>{body}</body></html>")
    return checks.parse(path)


@pytest.mark.parametrize("alt", ["", "  ", "_images/abc.png", "abc.png"])
def test_empty_and_automatic_alt_texts_are_none(tmp_path, alt):
    assert list(checks._alt_faults(page(tmp_path, f'<img src="_images/abc.png" alt="{alt}">')))


def test_spoken_alt_text_is_enough(tmp_path):
    assert not list(checks._alt_faults(page(tmp_path, '<img src="a.png" alt="Momentum is faster.">')))


def test_figure_shown_as_text_is_seen(tmp_path):
    assert list(checks._figure_faults(page(tmp_path, "<pre>&lt;Figure size 432x288 with 1 Axes&gt;</pre>")))
    assert not list(checks._figure_faults(page(tmp_path, "<p>Figure size</p>")))


def test_headings(tmp_path):
    assert not list(checks._heading_faults(page(tmp_path, "<h1>a</h1><h2>b</h2><h3>c</h3><h2>d</h2>")))
    assert list(checks._heading_faults(page(tmp_path, "<h1>a</h1><h3>c</h3>")))
    assert list(checks._heading_faults(page(tmp_path, "<h1>a</h1><h1>b</h1>")))
