"""Citations: what a page tells reference managers, and what a reader takes along, each with the version."""

from __future__ import annotations

import json
import re
import shutil
import xml.etree.ElementTree as ET
from datetime import date
from html.parser import HTMLParser

import pytest
import yaml
from descent.book.pages import cite
from descent.book.site import scholar
from descent.book.sources import edition, records
from descent.book.sources.edition import Author, Edition
from descent.book.sources.project import Project, SourceError, find_project
from toybook import CITATION, REPOSITORY, edit

HOME = Edition(
    "A & B", "on 100 % of it", line="Ann Lee and a group", authors=(Author("Lee", "Ann"), Author("a group")),
    number="1.2.0", released=date(2026, 3, 1), address="https://book.example/", repository="https://code.example/book",
    licence="MIT",
)  # fmt: skip
CHAPTER = cite.Cited("saddles", "chapter", "Saddles: faster {away}", "saddles.html")
ATOM = "{http://www.w3.org/2005/Atom}"


class Meta(HTMLParser):
    """The tags and the linked data in the head of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.data, self.inside = [], [], False
        self.feed(text.partition("</head>")[0])

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag == "meta" and values.get("name", "").startswith("citation_"):
            self.tags.append((values["name"], values["content"]))
        self.inside = tag == "script" and values.get("type") == "application/ld+json"

    def handle_endtag(self, tag):
        self.inside = False

    def handle_data(self, text):
        if self.inside:
            self.data.append(json.loads(text))


def item(text):
    """Return the entry that a reference manager makes of a page's tags, as Zotero maps them."""
    tags = Meta(text).tags
    single = dict(tags)
    kind = "bookSection" if "citation_book_title" in single else "webpage"
    named = {"title": "citation_title", "bookTitle": "citation_book_title", "url": "citation_public_url"}
    found = {field: single[tag] for field, tag in named.items() if tag in single}
    day = re.fullmatch(r"(\d{4})/(\d\d)/(\d\d)", single["citation_publication_date"])
    people = [value.split(", ") if ", " in value else [value] for name, value in tags if name == "citation_author"]
    return {"itemType": kind, "date": "-".join(day.groups()), "creators": people, **found}


def fields(bibtex):
    """Return kind, key and fields of one entry of BibTeX; fail where its braces do not close."""
    assert bibtex.count("{") == bibtex.count("}")
    kind, key = re.match(r"@(\w+)\{([^,\s]+),\n", bibtex).groups()
    return kind, key, dict(re.findall(r"^  (\w+) = \{(.*)\},?$", bibtex, re.M))


@pytest.mark.slow
def test_a_page_of_the_book_makes_an_entry_in_a_reference_manager(built):
    assert item((built.html / "alpha.html").read_text()) == {
        "itemType": "bookSection", "title": "The alpha chapter", "bookTitle": "What Momentum Does",
        "date": "2026-11-21", "creators": [["The authors of What Momentum Does"]],
    }  # fmt: skip
    assert item((built.html / "index.html").read_text())["itemType"] == "webpage"
    assert Meta((built.html / "ledger.html").read_text()).tags == []


@pytest.mark.slow
def test_a_chapter_is_linked_data_and_says_its_edition(built):
    text = (built.html / "alpha.html").read_text()
    (article,) = Meta(text).data
    assert article["@context"] == "https://schema.org"
    assert article["@type"] == "ScholarlyArticle"
    assert article["headline"] == "The alpha chapter"
    assert article["author"] == [{"@type": "Organization", "name": "The authors of What Momentum Does"}]
    assert (article["datePublished"], article["version"]) == ("2026-11-21", "1.2.3")
    assert article["isPartOf"]["name"] == "What Momentum Does"
    assert article["license"] == "https://spdx.org/licenses/MIT"
    assert (
        '<p class="edition">What Momentum Does 1.2.3 · 21 November 2026 · the authors of What Momentum Does</p>' in text
    )
    assert 'class="edition"' in (built.html / "ledger.html").read_text()


@pytest.mark.slow
def test_claims_and_chapters_lie_beside_the_pages_as_bibtex_and_csl(built):
    kind, key, entry = fields((built.html / "cite" / "T1-C1.bib").read_text())
    assert (kind, key, entry["version"]) == ("misc", "what-momentum-does-T1-C1-1.2.3", "1.2.3")
    assert entry["note"] == "Version 1.2.3. Claim T1-C1, holds: 1.000 [0.990, 1.010], 32 replicas"
    (entry,) = json.loads((built.html / "cite" / "alpha.json").read_text())
    assert (entry["type"], entry["container-title"]) == ("chapter", "What Momentum Does")
    assert entry["issued"] == {"date-parts": [[2026, 11, 21]]}
    assert len(json.loads((built.html / "cite" / "all.json").read_text())) == 5
    assert 'href="cite/T1-C1.bib" download' in (built.html / "ledger.html").read_text()
    assert 'href="cite/alpha.bib" download' in (built.html / "alpha.html").read_text()


def test_every_form_names_version_and_address():
    kind, key, entry = fields(cite.bibtex(HOME, CHAPTER))
    assert (kind, key) == ("incollection", "a-b-saddles-1.2.0")
    assert entry["author"] == "Lee, Ann and {a group}"
    assert entry["title"] == r"{Saddles: faster \{away\}}"
    assert entry["booktitle"] == r"{A \& B}"
    assert (entry["version"], entry["url"]) == ("1.2.0", "https://book.example/saddles.html")
    assert cite.csl(HOME, CHAPTER)["author"] == [{"family": "Lee", "given": "Ann"}, {"literal": "a group"}]
    assert cite.csl(HOME, CHAPTER)["URL"] == "https://book.example/saddles.html"
    assert cite.plain(HOME, cite.book(HOME)) == (
        "Ann Lee, a group. A & B: on 100 % of it. Version 1.2.0, 1 March 2026. https://book.example/index.html"
    )
    assert 'href="https://code.example/book">repository' in scholar.line(HOME, "cite.html")


def test_what_no_version_has_is_not_cited_as_if_it_had():
    ahead = Edition("A", number="1.2.0", ahead=True, released=date(2026, 3, 1), line="us")
    assert cite.csl(ahead, CHAPTER)["version"] == "1.2.0+unreleased"
    assert "1 March 2026 and changes since" in scholar.line(ahead)


def test_a_page_cannot_end_the_script_that_describes_it():
    head = scholar.head(HOME, "index", "An </script> in a title", "about")
    assert Meta(f"<head>{head}</head>").data[0]["headline"] == "An </script> in a title"


@pytest.fixture
def stated(tmp_path):
    """Return a book that has nothing but what it says of itself."""
    (tmp_path / "CITATION.cff").write_text(CITATION)
    shutil.copy(REPOSITORY / "_config.yml", tmp_path)
    return Project(tmp_path)


def test_a_book_says_that_it_does_not_know_its_home(stated):
    this = edition.read(stated)
    assert this.homeless.startswith(
        "the book does not know its home, set repository.url and html.baseurl in _config.yml"
    )
    assert HOME.homeless == ""
    assert "url" not in cite.bibtex(this, CHAPTER)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        (
            "What Momentum Does: a toy",
            "Another: a toy",
            "title is 'Another', and _config.yml says 'What Momentum Does'",
        ),
        ("name: The authors", "name: Others", "authors is 'others of what momentum does', and"),
        ("license: MIT", "url: https://other.example", "url is 'https://other.example', and _config.yml says ''"),
    ],
)
def test_two_stories_of_one_book_are_refused(stated, old, new, named):
    edit(stated.root / "CITATION.cff", old, new)
    with pytest.raises(SourceError, match="make them one") as refused:
        edition.read(stated)
    assert named in str(refused.value)


CHANGES = """\
# Changelog

## [Unreleased]

- later

## [1.2.0] — 2026-03-01

- a & b

## [1.0.0] — 2026-01-01

- c
"""


def test_the_feed_has_every_version_once_and_nothing_unreleased():
    text = scholar.feed(HOME, CHANGES)
    assert text == scholar.feed(HOME, CHANGES)
    feed = ET.fromstring(text)
    entries = feed.findall(f"{ATOM}entry")
    assert [entry.findtext(f"{ATOM}title") for entry in entries] == ["A & B 1.2.0", "A & B 1.0.0"]
    assert [entry.findtext(f"{ATOM}content") for entry in entries] == ["- a & b", "- c"]
    assert feed.findtext(f"{ATOM}updated") == entries[0].findtext(f"{ATOM}updated") == "2026-03-01T00:00:00Z"
    ids = {each.findtext(f"{ATOM}id") for each in (feed, *entries)}
    assert len(ids) == 3
    assert all(id.startswith("urn:uuid:") for id in ids)
    assert feed.find(f"{ATOM}author/{ATOM}name").text == "Ann Lee and a group"


def test_the_citation_file_has_what_its_format_demands_and_the_five_papers():
    stated = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(stated)
    assert {"type", "version", "date-released", "license", "abstract", "keywords", "references"} <= set(stated)
    for one in (stated, *stated["references"]):
        assert all({"name"} <= set(author) or {"family-names"} <= set(author) for author in one["authors"])
    cited = {each["title"] for each in stated["references"]}
    assert cited == {paper.title for paper in records.papers(find_project(REPOSITORY)) if paper.authors}
    assert edition.read(find_project(REPOSITORY)).title == "What Momentum Does"
