"""What a book says of itself when it is cited: title, authors, version, date, home.

Home and line of authors stand in `_config.yml`, version and date in `CITATION.cff`, what came since in `CHANGELOG.md`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from descent.book.sources.project import Project, SourceError, sound
from descent.results import read_text, read_yaml

CITATION, CHANGELOG = "CITATION.cff", "CHANGELOG.md"
UNRELEASED = re.compile(r"^## \[Unreleased\]\s*\n+(?!## )\S", re.M)


@dataclass(frozen=True)
class Author:
    """A person by family and given names, or a group by its name alone."""

    family: str
    given: str = ""

    @property
    def shown(self) -> str:
        """The name as it is read."""
        return f"{self.given} {self.family}".strip()


@dataclass(frozen=True)
class Edition:
    """A version of the book; repository, address (of the site, with a slash at its end) and doi may be unknown, "".

    ahead: the changelog has what no version has yet, so that the numbers are not those of the version alone.
    """

    title: str
    subtitle: str = ""
    line: str = ""
    authors: tuple[Author, ...] = ()
    number: str = ""
    released: date | None = None
    ahead: bool = False
    repository: str = ""
    address: str = ""
    doi: str = ""
    licence: str = ""
    keywords: tuple[str, ...] = ()
    abstract: str = ""

    @property
    def version(self) -> str:
        """The version as it is cited, such as "1.0.0", or "1.0.0+unreleased" where changes came since."""
        return f"{self.number}+unreleased" if self.ahead and self.number else self.number

    @property
    def day(self) -> str:
        """The day of the release, such as "21 November 2026"."""
        return f"{self.released.day} {self.released:%B %Y}" if self.released else ""

    def link(self, place: str = "") -> str:
        """Return the whole address of a place on the site; "" while the book does not know where it lives."""
        return f"{self.address}{place}" if self.address else ""

    @property
    def homeless(self) -> str:
        """What of its home a book does not know, and what to do; "" for one that knows it all."""
        wanted = {"repository.url": self.repository, "html.baseurl": self.address}
        missing = " and ".join(name for name, value in wanted.items() if not value)
        return (
            f"the book does not know its home, set {missing} in _config.yml: citations carry no link" if missing else ""
        )


def read(project: Project) -> Edition:
    """Return the edition; without CITATION.cff it has no version, date or authors.

    Raises: SourceError for what is malformed, and where CITATION.cff and _config.yml tell different things.
    """
    config, stated = project.config, _stated(project)
    own: dict[str, Any] = {
        "repository": str((config.get("repository") or {}).get("url") or ""),
        "address": str((config.get("html") or {}).get("baseurl") or ""),
        "line": str(config.get("author") or ""),
    }
    title, _, subtitle = str(stated.get("title") or config["title"]).partition(": ")
    edition = Edition(
        title=title, subtitle=subtitle, **own,
        authors=tuple(_author(one) for one in stated.get("authors") or ()),
        number=str(stated.get("version") or ""), released=_day(stated.get("date-released")), ahead=_is_ahead(project),
        doi=str(stated.get("doi") or ""), licence=str(stated.get("license") or ""),
        keywords=tuple(map(str, stated.get("keywords") or ())), abstract=str(stated.get("abstract") or "").strip(),
    )  # fmt: skip
    if stated:
        _require_one_story(edition, config, stated)
    return edition


def _stated(project: Project) -> Mapping[str, Any]:
    """Return the fields of CITATION.cff; none where there is no such file."""
    path = project.root / CITATION
    found = sound(read_yaml, path) if path.is_file() else {}
    if not isinstance(found, dict):
        raise SourceError(f"{CITATION} holds no fields with values; write it as the Citation File Format has it")
    return found


def _require_one_story(edition: Edition, config: Mapping[str, Any], stated: Mapping[str, Any]) -> None:
    """Raise SourceError where CITATION.cff says another thing than the settings."""
    line = " and ".join(author.shown for author in edition.authors)
    pairs = {
        "title": (edition.title, str(config["title"])),
        "authors": (line.casefold() or edition.line.casefold(), edition.line.casefold()),
        "repository-code": (str(stated.get("repository-code") or ""), edition.repository),
        "url": (str(stated.get("url") or ""), edition.address),
    }
    for field, (there, here) in pairs.items():
        if there != here:
            raise SourceError(f"{CITATION}: {field} is {there!r}, and _config.yml says {here!r}; make them one")


def _author(fields: Mapping[str, Any]) -> Author:
    if "name" in fields:
        return Author(str(fields["name"]))
    return Author(str(fields.get("family-names", "")), str(fields.get("given-names", "")))


def _day(text: object) -> date | None:
    try:
        return date.fromisoformat(str(text)) if text else None
    except ValueError:
        return None  # which `descent release` refuses


def _is_ahead(project: Project) -> bool:
    path = project.root / CHANGELOG
    return path.is_file() and UNRELEASED.search(sound(read_text, path)) is not None
