"""Prose that needs images quotes the record, dated; a number that nobody has measured is refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
from descent.book.commands import build
from descent.book.execute.chapter import load_all, recorded
from descent.book.pages.quoting import GLUED, quotable, requote, unmeasured
from descent.book.sources import records, source
from descent.book.sources.project import BookError, find_project
from descent.claims import DATA_MISSING, Verdict
from descent.claims.record import save_records
from toybook import REPOSITORY, edit


def without_images(record, reason=DATA_MISSING):
    return replace(record, outcomes=tuple(replace(each, estimates=(), reason=reason) for each in record.outcomes))


@pytest.fixture
def blind(project):
    """Return the toy book's records with the first claim not tested for want of images."""
    first, *others = recorded(load_all(project))
    return [without_images(first), *others]


def publish(project):
    for chapter in project.notebooks:
        kept = project.published / "records" / f"{chapter}.json"
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(project.results(chapter) / "records.json", kept)


def test_what_lacks_its_images_is_quoted_of_the_record_with_its_date(project, blind):
    publish(project)
    (before, _) = records.load(project)
    quoted = quotable(project, blind)
    dated = f", measured with images on {before.provenance.date}"
    assert quoted["T1-C1.size"] == before.outcomes[0].quote + dated
    assert quoted["T1-C1.verdict"] == f"holds{dated}"
    assert "measured with" not in quoted["T2-C1.size"]
    assert not unmeasured(project, blind, quoted)


def test_another_reason_is_no_reason_to_quote_the_record(project, blind):
    publish(project)
    undefined = [without_images(blind[0], "undefined at headline momentum 0"), *blind[1:]]
    quoted = quotable(project, undefined)
    assert quoted["T1-C1.size"] == quoted["T1-C1.verdict"] == Verdict.NOT_TESTED
    edit(project.source("alpha"), "# The alpha chapter", "# The alpha chapter\n\nIt is {glue:text}`T1-C1.size`.\n")
    assert not unmeasured(project, undefined, quoted)  # whoever asks for momentum 0 sees why


def test_a_number_that_nobody_has_measured_is_refused_where_it_is_asserted(project, blind, monkeypatch):
    shutil.rmtree(project.published, ignore_errors=True)
    edit(project.source("alpha"), "# The alpha chapter", "# The alpha chapter\n\nIt is {glue:text}`T1-C1.size`.\n")
    project = type(project)(project.root)
    quoted = quotable(project, blind)
    (fault, *_) = unmeasured(project, blind, quoted)
    assert fault.startswith("alpha.md:")
    assert "quotes T1-C1.size, which was not tested here (data missing) and is in no record; leave" in fault
    monkeypatch.setattr(build, "recorded", lambda chapters: blind)
    with pytest.raises(BookError, match=r"quotes T1-C1\.size, which was not tested here"):
        build._site(project, {})


@pytest.mark.parametrize("where", ["night", "paper_scale"])
def test_what_no_chapter_measures_is_quoted_of_the_scale_it_is_stated_for(project, where):
    (measured, *others) = recorded(load_all(project))
    edit(project.claims / "T1.yaml", "scales: [cpu]", "scales: [gpu]")
    project = type(project)(project.root)
    claim = records.papers(project)[0].claims[0]
    pairs = zip(measured.outcomes, claim.tests, strict=True)
    made = replace(measured.provenance, scale="gpu")
    there = replace(
        measured, claim=claim, provenance=made, outcomes=tuple(replace(each, test=test) for each, test in pairs)
    )
    here = without_images(there, "at paper scale alone")
    nowhere = quotable(project, [here, *others])
    assert nowhere["T1-C1.size"] == nowhere["T1-C1.verdict"] == Verdict.NOT_TESTED
    kept = getattr(project, where)("alpha") / "records.json"
    kept.parent.mkdir(parents=True, exist_ok=True)
    save_records(kept, [there])
    quoted = quotable(project, [here, *others])
    assert quoted["T1-C1.size"] == measured.outcomes[0].quote
    assert quoted["T1-C1.verdict"] == "holds"
    assert not unmeasured(project, [here, *others], quoted)


def test_a_night_does_not_speak_for_tests_that_lack_their_images(project, blind, monkeypatch):
    publish(project)
    (first, *others) = blind
    (test,) = first.claim.tests
    large = replace(first.outcomes[0], test=replace(test, key="large", scales=("gpu",)), reason="not yet measured")
    here = replace(first, outcomes=(*first.outcomes, large))
    made = recorded(load_all(project))[0]
    night = replace(made, outcomes=(replace(made.outcomes[0], test=large.test),))
    monkeypatch.setattr(records, "nights", lambda _: {"T1-C1": night})
    quoted = quotable(project, [here, *others])
    assert quoted["T1-C1.large"] == made.outcomes[0].quote
    assert quoted["T1-C1.verdict"].startswith("holds, measured with images on")


def test_the_prose_of_an_executed_chapter_takes_the_quotes_over():
    output = {"data": {GLUED: "'not tested here'"}, "metadata": {"scrapbook": {"name": "T1-C1.size"}}}
    other = {"data": {GLUED: "'own words'"}, "metadata": {"scrapbook": {"name": "mine"}}}
    notebook = source.parse(
        REPOSITORY / "chapters" / "saddles.md", (REPOSITORY / "chapters" / "saddles.md").read_text()
    )
    notebook.cells = [notebook.cells[0] | {"outputs": [output, other, {"text": "plain"}]}]
    requote(notebook, {"T1-C1.size": "0.13 [0.12, 0.14]"})
    assert [output["data"][GLUED], other["data"][GLUED]] == ["'0.13 [0.12, 0.14]'", "'own words'"]


def test_every_number_of_the_book_that_needs_images_is_in_the_record():
    book = find_project(REPOSITORY)
    kept = records.of_record(book)
    blind = [
        replace(record, outcomes=tuple(
            replace(each, estimates=(), reason=DATA_MISSING) if set(test.needs) - {"momentum"} else each
            for each, test in zip(record.outcomes, record.claim.tests, strict=True)
        ))
        for record in kept.values()
    ]  # fmt: skip
    quoted = quotable(book, blind)
    assert "measured with images on" in quoted["P3-C3.cifar"]
    assert not unmeasured(book, blind, quoted)
    sources = json.dumps(build.sources(book))
    assert "data/published/records/saddles.json" in sources
