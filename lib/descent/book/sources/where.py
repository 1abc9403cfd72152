"""Where a claim is at home: the section that discusses it, the tables behind it, the code that computed it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from docutils.nodes import make_id

from descent.book.sources import trace
from descent.book.sources.project import Project
from descent.claims import Record


@dataclass(frozen=True)
class Home:
    """Addresses on the site: section by claim, tables by experiment, code by experiment."""

    section: str
    title: str
    tables: Mapping[str, Sequence[str]] = field(default_factory=dict)
    code: Mapping[str, trace.Code] = field(default_factory=dict)


def homes(project: Project, records: Sequence[Record]) -> dict[str, Home]:
    """Return the home of every claim."""
    found: dict[str, Home] = {}
    for chapter in dict.fromkeys(record.chapter for record in records):
        own = [record for record in records if record.chapter == chapter]
        tables = {
            name: [f"downloads/{chapter}/{file}" for file in files]
            for name, files in trace.tables(project.results(chapter)).items()
        }
        names = dict.fromkeys(outcome.experiment for record in own for outcome in record.outcomes if outcome.experiment)
        code = {name: place for name in names if (place := trace.experiment(project, chapter, name))}
        text = project.source(chapter).read_text(encoding="utf-8")
        found |= {r.claim.id: Home(*_section(chapter, text, r.claim.id), tables, code) for r in own}
    return found


def _section(chapter: str, text: str, claim: str) -> tuple[str, str]:
    """Return address and title of the section that quotes a claim, else the first that names it, else the page."""
    sections = re.split(r"^(#{1,4} .+)$", text, flags=re.M)
    titled = list(zip(sections[1::2], sections[2::2], strict=True))
    for sign in (rf"glue:text\}}`{claim}\.", rf"\b{claim}\b"):
        for heading, body in titled:
            title = heading.lstrip("# ")
            if re.search(sign, body) and not heading.startswith("# ") and "$" not in title:
                return f"{chapter}.html#{make_id(title)}", title
    return f"{chapter}.html", titled[0][0].lstrip("# ") if titled else chapter
