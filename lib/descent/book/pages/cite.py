"""How the book, a chapter and a claim are cited: as text, BibTeX and CSL, each naming the version."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from descent.book.execute.chapter import Chapter
from descent.book.pages.html import raw, table
from descent.book.sources.edition import Author, Edition
from descent.claims import Record

FOLDER = "cite"
BOOK = "book"
COLUMNS = ("part", "to take along")
SPECIAL = re.compile(r"([&%$#_{}])")
TYPES = {"book": "book", "chapter": "chapter", "claim": "entry"}
"""What CSL calls them."""


@dataclass(frozen=True)
class Cited:
    """What is cited: name of its files, "book", "chapter" or "claim", title, place on the site, and what is noted."""

    name: str
    kind: str
    title: str
    place: str
    note: str = ""


def book(edition: Edition) -> Cited:
    """Return the book itself."""
    return Cited(
        BOOK, "book", f"{edition.title}: {edition.subtitle}" if edition.subtitle else edition.title, "index.html"
    )


def chapter(one: Chapter) -> Cited:
    """Return a chapter."""
    return Cited(one.name, "chapter", one.title, f"{one.name}.html")


def claim(record: Record) -> Cited:
    """Return a claim with its verdict, which another version may have otherwise."""
    stated, found = record.claim, record.headline
    note = f"Claim {stated.id}, {record.verdict}: {found.text}"
    return Cited(stated.id, "claim", f"{stated.id}: {stated.statement}", f"ledger.html#{stated.id}", note)


def plain(edition: Edition, cited: Cited) -> str:
    """Return a citation as a line of text."""
    within = "" if cited.kind == "book" else f"In: {edition.title}."
    names = ", ".join(author.shown for author in edition.authors) or edition.line
    version = f"Version {edition.version}" + (f", {edition.day}" if edition.day else "") if edition.version else ""
    link = f"https://doi.org/{edition.doi}" if edition.doi else edition.link(cited.place)
    parts = (names, f"{cited.title.rstrip('.')}", within.rstrip("."), version, link)
    return ". ".join(part for part in parts if part) + ("" if link else ".")


def bibtex(edition: Edition, cited: Cited) -> str:
    r"""Return a citation as BibTeX; titles keep their capitals.

    >>> edition = Edition("A & B", number="1.0.0", authors=(Author("Lee", "Ann"),))
    >>> print(bibtex(edition, Cited("x", "book", "A & B", "")))
    @book{a-b-1.0.0,
      author = {Lee, Ann},
      title = {{A \& B}},
      version = {1.0.0}
    }
    <BLANKLINE>
    """
    kind = {"book": "book", "chapter": "incollection", "claim": "misc"}[cited.kind]
    year = str(edition.released.year) if edition.released else ""
    rows = {
        "author": " and ".join(map(_bibtex_author, edition.authors)) or f"{{{_tex(edition.line)}}}",
        "title": f"{{{_tex(cited.title)}}}",
        "booktitle": f"{{{_tex(edition.title)}}}" if cited.kind == "chapter" else "",
        "howpublished": _tex(edition.title) if cited.kind == "claim" else "",
        "year": year,
        "month": f"{edition.released:%b}".lower() if edition.released else "",
        "version": edition.version,
        "doi": edition.doi,
        "url": edition.link(cited.place),
        "note": _tex(". ".join(filter(None, (f"Version {edition.version}" if edition.version else "", cited.note)))),
    }
    if cited.kind == "book":
        del rows["note"]
    lines = ",\n".join(f"  {name} = {{{value}}}" for name, value in rows.items() if value.strip("{}"))
    return f"@{kind}{{{_key(edition, cited)},\n{lines}\n}}\n"


def csl(edition: Edition, cited: Cited) -> dict[str, Any]:
    """Return a citation as CSL-JSON knows it."""
    day = edition.released
    fields = {
        "id": _key(edition, cited),
        "type": TYPES[cited.kind],
        "title": cited.title,
        "container-title": "" if cited.kind == "book" else edition.title,
        "author": [_csl_author(author) for author in edition.authors or (Author(edition.line),)],
        "issued": {"date-parts": [[day.year, day.month, day.day]]} if day else {},
        "version": edition.version,
        "DOI": edition.doi,
        "URL": edition.link(cited.place),
        "note": cited.note,
    }
    return {name: value for name, value in fields.items() if value}


def write(html: Path, edition: Edition, chapters: Sequence[Chapter]) -> None:
    """Write BibTeX and CSL of the book, of every chapter and of every claim, and of all of them together."""
    folder, cited = html / FOLDER, everything(edition, chapters)
    folder.mkdir(parents=True, exist_ok=True)
    for name, several in [*((one.name, [one]) for one in cited), ("all", cited)]:
        (folder / f"{name}.bib").write_text("\n".join(bibtex(edition, one) for one in several), encoding="utf-8")
        fields = json.dumps([csl(edition, one) for one in several], indent=1, ensure_ascii=False)
        (folder / f"{name}.json").write_text(f"{fields}\n", encoding="utf-8")


def everything(edition: Edition, chapters: Sequence[Chapter]) -> list[Cited]:
    """Return all that can be cited: the book, its chapters, its claims."""
    claims = [claim(record) for one in chapters for record in one.records]
    return [book(edition), *map(chapter, chapters), *claims]


def page(edition: Edition, chapters: Sequence[Chapter]) -> str:
    """Return the generated part of the page that says how to cite: text and BibTeX of the book, files of chapters."""
    whole = book(edition)
    head = f"<p>{escape(plain(edition, whole))}</p>\n<p>{links(whole)}</p>"
    rows = "\n".join(_row(chapter(one)) for one in chapters)
    caption = f"{len(chapters)} chapters; a claim is cited from its row of the ledger."
    listed = table("cited", "Chapters to cite", caption, COLUMNS, f"<tbody>\n{rows}\n</tbody>")
    known = "<p>This copy does not know where it lives: its citations carry no link.</p>\n" if edition.homeless else ""
    return f"{raw(head)}\n\n```bibtex\n{bibtex(edition, whole)}```\n\n{raw(known + listed)}"


def links(cited: Cited) -> str:
    """Return address, BibTeX and CSL of something as links, which a script copies and which else are followed."""
    files = f"{FOLDER}/{cited.name}"
    return (
        f'<span class="cite"><a href="{cited.place}">address</a> · <a href="{files}.bib" download>BibTeX</a> · '
        f'<a href="{files}.json" download>CSL</a></span>'
    )


def fact(record: Record) -> str:
    """Return what an opened row of the ledger says of citing its claim."""
    return f"<dt>cite</dt><dd>{links(claim(record))}</dd>"


def _row(cited: Cited) -> str:
    name = f'<a href="{cited.place}">{escape(cited.title)}</a>'
    return f'<tr id="{cited.name}"><th scope="row">{name}</th><td>{links(cited)}</td></tr>'


def _key(edition: Edition, cited: Cited) -> str:
    """Return the name of an entry among those of other books."""
    own = re.sub(r"[^a-z0-9]+", "-", edition.title.lower()).strip("-")
    part = () if cited.kind == "book" else (cited.name,)
    return "-".join((own, *part, edition.version or "undated"))


def _tex(text: str) -> str:
    return SPECIAL.sub(r"\\\1", text)


def _bibtex_author(author: Author) -> str:
    return f"{_tex(author.family)}, {_tex(author.given)}" if author.given else f"{{{_tex(author.family)}}}"


def _csl_author(author: Author) -> dict[str, str]:
    return {"family": author.family, "given": author.given} if author.given else {"literal": author.family}
