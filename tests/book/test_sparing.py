"""Intervals in prose: one in a paragraph, the next some way below, the others on hovering; a crowd is refused."""

from __future__ import annotations

import pytest
from descent.book.pages.sparing import WORDS_APART, Sparing, hovering
from descent.book.site import checks
from descent.book.sources.project import Project
from toybook import edit, make

QUOTED = {"a": "14.0 [13.6, 14.5]", "b": "−0.074 [−0.104, −0.044]", "exact": "0.7786", "verdict": "holds"}


def quote(key):
    return f"{{glue:text}}`{key}`"


def test_the_first_of_a_paragraph_is_written_out_and_the_others_hover():
    text = Sparing().text(f"It is {quote('a')} and {quote('b')}, {quote('exact')}: {quote('verdict')}.", QUOTED)
    second = '<abbr title="−0.074 [−0.104, −0.044]">−0.074</abbr>'
    assert text == f"It is {quote('a')} and {second}, {quote('exact')}: {quote('verdict')}."


@pytest.mark.parametrize(("words", "far"), [(WORDS_APART - 1, False), (WORDS_APART, True)])
def test_the_next_interval_keeps_its_distance(words, far):
    between = " ".join(["word"] * words)
    text = Sparing().text(f"{quote('a')} {between}\n\n{quote('b')}", QUOTED)
    assert text.endswith(quote("b") if far else "</abbr>")
    sparing = Sparing()
    sparing.text(quote("a"), QUOTED)
    sparing.past()
    assert sparing.text(quote("b"), QUOTED) == quote("b")  # a figure stands between them


def test_items_of_a_list_are_paragraphs():
    far = " ".join(["word"] * WORDS_APART)
    items = f"- {quote('a')} {far}\n- {quote('b')}"
    assert Sparing().text(items, QUOTED) == items


@pytest.mark.parametrize(
    ("full", "short"),
    [
        ("14.0 [13.6, 14.5]", "14"),
        ("0.9989 [0.9978, 1.0000]", "1.0"),
        ("1.057 [1.046, 1.068]", "1.06"),
        ("−0.917 [−0.943, −0.891]", "−0.92"),
        ("187 [183, 190]", "187"),
        ("0.04 [−0.2, 0.3]", "0.04"),
        ("0.13 [0.12, 0.14], measured with images on 2026-01-31", "0.13, measured with images on 2026-01-31"),
    ],
)
def test_two_digits_or_what_it_takes_to_stay_inside(full, short):
    assert hovering(full) == f'<abbr title="{full}">{short}</abbr>'


def test_a_crowd_in_a_page_that_quotes_is_a_fault(tmp_path):
    project = make(tmp_path)
    edit(project.source("index"), "A toy book", f"A toy book\n\nIt is {quote('T1-C1.size')}.")
    project = Project(project.root)
    html = tmp_path / "html"
    html.mkdir()
    few = "<ul><li>1.0 [0.9, 1.1]</li><li>2.0 [1.9, 2.1]</li></ul><p>3.0 [2.9, 3.1], in (0, 1]</p>"
    (html / "index.html").write_text(f"<h1>A</h1>{few}")
    assert not crowds(project, html)
    (html / "index.html").write_text(f"<h1>A</h1>{few}<p>From 1.0 [0.9, 1.1] to <b>−2.0 [−2.1, −1.9]</b></p>")
    (fault,) = crowds(project, html)
    assert fault.startswith("index.html: more than one interval in a paragraph")
    assert fault.endswith("From 1.0 [0.9, 1.1] to −2.0 [−2.1, −1.9]")


def crowds(project, html):
    return [fault for fault in checks.site_faults(project, html, []) if "interval" in fault]
