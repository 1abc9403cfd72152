"""What reference managers and search engines read in the head of a page, the line below its title, and the feed."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from html import escape
from typing import Any
from xml.sax.saxutils import escape as escape_xml

from descent.book.sources.edition import Author, Edition
from descent.claims import Paper

FEED = "feed.xml"
SECTION = re.compile(r"^## \[(?P<version>[^\]]+)\] — (?P<day>\d{4}-\d\d-\d\d)\s*$(?P<text>.*?)(?=^## |\Z)", re.M | re.S)
SPACE = uuid.UUID("6f7d1f0e-6b0a-5c1e-9a52-0d3f5f2f7a11")
"""Under which the feed names its entries, wherever the book lives."""


def head(edition: Edition, page: str, title: str, about: str, papers: Sequence[Paper] = ()) -> str:
    """Return the tags of a page that is cited on its own: the first one, or a chapter with the papers it tests."""
    whole = page == "index"
    tags = [*_highwire(edition, f"{page}.html", title, whole)]
    rows = [f'<meta name="{name}" content="{escape(value)}">' for name, value in tags]
    article = json.dumps(_article(edition, f"{page}.html", title, about, papers, whole), ensure_ascii=False)
    linked = f'<link rel="alternate" type="application/atom+xml" title="{escape(edition.title)}" href="{FEED}">'
    safe = article.replace("</", "<\\/")  # a title must not end the script
    return "\n".join([*rows, f'<script type="application/ld+json">{safe}</script>', linked, ""])


def line(edition: Edition, cite: str = "") -> str:
    """Return the line below a title: book, version, day, authors, repository; cite: where it is said how."""
    since = " and changes since" if edition.ahead else ""
    parts = [
        escape(f"{edition.title} {edition.number}".strip()),
        escape(f"{edition.day}{since}"),
        escape(edition.line),
        f'<a href="{escape(edition.repository)}">repository</a>' if edition.repository else "",
        f'<a href="{cite}">cite</a>' if cite else "",
    ]
    return f'<p class="edition">{" · ".join(part for part in parts if part)}</p>' if edition.number else ""


def feed(edition: Edition, changelog: str) -> str:
    """Return the versions of the changelog as an Atom feed, newest first; what no version has yet is not in it."""
    found = [(m["version"], date.fromisoformat(m["day"]), m["text"]) for m in SECTION.finditer(changelog)]
    newest = max((day for _, day, _ in found), default=date(1970, 1, 1))
    rows = [
        '<?xml version="1.0" encoding="utf-8"?>\n<feed xmlns="http://www.w3.org/2005/Atom">',
        f"<title>{escape_xml(edition.title)}</title>\n<id>{_urn(edition.title)}</id>\n<updated>{_moment(newest)}</updated>",
        f"<author><name>{escape_xml(edition.line or edition.title)}</name></author>\n{_link(edition)}",
        f'<link rel="self" href="{escape_xml(edition.link(FEED))}"/>' if edition.address else "",
        *(_entry(edition, *one) for one in found),
        "</feed>\n",
    ]
    return "\n".join(row for row in rows if row)


def _highwire(edition: Edition, place: str, title: str, whole: bool) -> Iterator[tuple[str, str]]:
    """Yield the tags that Zotero and Scholar read."""
    yield "citation_title", title
    for author in edition.authors or (Author(edition.line),):
        yield "citation_author", f"{author.family}, {author.given}" if author.given else author.family
    if edition.released:
        yield "citation_publication_date", f"{edition.released:%Y/%m/%d}"
    if not whole:
        yield "citation_inbook_title", edition.title
        yield "citation_book_title", edition.title  # by which Zotero tells a chapter
    others = {
        "citation_doi": edition.doi,
        "citation_public_url": edition.link(place),
        "citation_language": "en",
        "citation_keywords": "; ".join(edition.keywords),
        "DC.identifier.version": edition.version,
    }
    yield from ((name, value) for name, value in others.items() if value)


def _article(
    edition: Edition, place: str, title: str, about: str, papers: Sequence[Paper], whole: bool
) -> Mapping[str, Any]:
    """Return a page as schema.org describes an article, with the papers it tests as what it cites."""
    book = {"@type": "Book", "name": edition.title, "url": edition.link("index.html"), "version": edition.version}
    fields = {
        "@context": "https://schema.org",
        "@type": "ScholarlyArticle",
        "headline": title,
        "description": about,
        "author": [_author(author) for author in edition.authors or (Author(edition.line),)],
        "datePublished": edition.released.isoformat() if edition.released else "",
        "version": edition.version,
        "inLanguage": "en",
        "isAccessibleForFree": True,
        "license": f"https://spdx.org/licenses/{edition.licence}" if edition.licence else "",
        "keywords": list(edition.keywords),
        "url": edition.link(place),
        "identifier": f"https://doi.org/{edition.doi}" if edition.doi else "",
        "isPartOf": {} if whole else _given(book),
        "citation": [_paper(paper) for paper in papers if paper.authors],
    }
    return _given(fields)


def _paper(paper: Paper) -> Mapping[str, Any]:
    address = (
        f"https://doi.org/{paper.doi}" if paper.doi else f"https://arxiv.org/abs/{paper.arxiv}" if paper.arxiv else ""
    )
    names = [{"@type": "Person", "name": name} for name in paper.authors.split(", ")]
    fields = {"@type": "ScholarlyArticle", "name": paper.title, "author": names, "sameAs": address}
    return _given(fields | {"datePublished": str(paper.year) if paper.year else ""})


def _author(author: Author) -> Mapping[str, str]:
    if not author.given:
        return {"@type": "Organization", "name": author.family}
    return {"@type": "Person", "name": author.shown, "familyName": author.family, "givenName": author.given}


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that say something."""
    return {name: value for name, value in fields.items() if value not in ("", [], {}, None)}


def _entry(edition: Edition, version: str, day: date, text: str) -> str:
    name = f"{edition.title} {version}"
    return (
        f"<entry>\n<title>{escape_xml(name)}</title>\n<id>{_urn(name)}</id>\n<updated>{_moment(day)}</updated>\n"
        f'{_link(edition)}\n<content type="text">{escape_xml(text.strip())}</content>\n</entry>'
    )


def _link(edition: Edition) -> str:
    return f'<link href="{escape_xml(edition.link("index.html") or "index.html")}"/>'


def _urn(name: str) -> str:
    return f"urn:uuid:{uuid.uuid5(SPACE, name)}"


def _moment(day: date) -> str:
    return f"{day.isoformat()}T00:00:00Z"
