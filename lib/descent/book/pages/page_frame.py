"""What surrounds a chapter: the line below its title, the strip under each figure, the box that ends it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from descent.book.execute.stamps import Stamp, table_files
from descent.book.pages.html import raw
from descent.book.pages.ledger import standing
from descent.book.sources import source, trace
from descent.book.sources.project import Project
from descent.claims import Outcome, Record

Facts = Mapping[str, tuple[Record, Outcome]]
"""By experiment, one outcome that came of it, and the record it belongs to."""

WORDS_PER_MINUTE = 200
SECONDS_PER_FIGURE = 30


@dataclass(frozen=True)
class Boxes:
    """Everything that is put into one chapter: below its title, under its figures by place, at its end."""

    header: str
    strips: Mapping[int, str]
    footer: str


def boxes(project: Project, chapter: str, stamp: Stamp, records: Sequence[Record]) -> Boxes:
    """Return what surrounds a chapter, from its records and tables."""
    text = project.source(chapter).read_text(encoding="utf-8")
    own = [record for record in records if record.chapter == chapter]
    files = table_files(project.results(chapter))
    return Boxes(header(text, stamp, own), strips(project, chapter, own), footer(project, chapter, stamp, files))


def header(text: str, stamp: Stamp, records: Sequence[Record]) -> str:
    """Return the line below a chapter's title: its claims, what it takes to read and to run, where it was run."""
    count = f'<a href="ledger.html?paper={records[0].paper}">{standing(records)}</a> · ' if records else ""
    machine = _machine(records) or f"python {stamp.inputs['environment (python)']}"
    return raw(
        f'<p class="chapter-facts">{count}{minutes(text)} minutes to read · {stamp.seconds:.0f} s to run on one core '
        f'({escape(machine)}), {stamp.finished} · <a href="#run-this-yourself">run this yourself</a></p>'
    )


def minutes(text: str) -> int:
    """Return how long a chapter takes to read: its prose at 200 words a minute, half a minute for a figure."""
    prose = re.sub(r"^---\n.*?\n---\n|^(`{3,})\{code-cell\}.*?^\1\s*$", " ", text, flags=re.S | re.M)
    figures = len(re.findall(r"^ +alt: ", text, re.M))
    return max(1, round(len(prose.split()) / WORDS_PER_MINUTE + figures * SECONDS_PER_FIGURE / 60))


def strips(project: Project, chapter: str, records: Sequence[Record]) -> dict[int, str]:
    """Return the strip under every figure of a chapter, by the place of its cell."""
    tables = trace.tables(project.results(chapter))
    facts = {outcome.experiment: (record, outcome) for record in records for outcome in record.outcomes}
    found = trace.figures(project, chapter)
    made = {place: _strip(project, chapter, figure, tables, facts) for place, figure in found.items()}
    return {place: raw(f'<p class="strip">{strip}</p>') for place, strip in made.items() if strip}


def _strip(
    project: Project, chapter: str, found: trace.Trace, tables: Mapping[str, Sequence[str]], facts: Facts
) -> str:
    parts = [_source(project, chapter, name, tables.get(name, ()), facts.get(name)) for name in found.experiments]
    drawn = f"drawn by {_code(found.drawn)}" if found.drawn else ""
    return "; ".join(part for part in (*parts, drawn) if part)


def _source(
    project: Project, chapter: str, name: str, files: Iterable[str], fact: tuple[Record, Outcome] | None
) -> str:
    """Return where one experiment's part of a figure comes from."""
    links = ", ".join(f'<a href="downloads/{chapter}/{file}" download>{file}</a>' for file in files)
    code = trace.experiment(project, chapter, name)
    pieces = [f"data {links}" if links else f"experiment {name}"]
    if fact:
        record, outcome = fact
        made = record.provenance
        pieces.append(
            f"scale {made.scale}, device {made.device_class}, {outcome.seconds:.1f} s, seed {made.seed}, "
            f"configuration <code>{outcome.config}</code>, library <code>{made.library}</code>"
        )
    if code:
        pieces.append(f"computed by {_code(code)}")
    return ", ".join(pieces)


def footer(project: Project, chapter: str, stamp: Stamp, tables: Iterable[str]) -> str:
    """Return the box that ends a chapter: how to run it again, what to take along, how it was made."""
    files = " · ".join(f'<a href="downloads/{chapter}/{name}" download>{escape(name)}</a>' for name in tables)
    given = ", ".join(f"{name} = {value}" for name, value in stamp.parameters.items()) or "default parameters"
    defaults = source.parameters(project.source(chapter))
    knobs = ", ".join(f"<code>{name}</code> ({value})" for name, value in defaults.items())
    return (
        "## Run this yourself\n\n"
        "In a checkout of the book, this runs the page with other parameters and prints every published interval "
        "beside yours:\n\n"
        f"```\ndescent run {chapter} -p seed=1\n```\n\n"
        + raw(
            f"<p>Parameters and their defaults: {knobs}.</p>\n"
            f'<p>Take along: <a href="downloads/{chapter}.ipynb" download>executed notebook</a> · '
            f'<a href="downloads/{chapter}.plain.ipynb" download>notebook without outputs</a> · '
            f'<a href="downloads/{chapter}.md" download>source</a></p>\n'
            f"<details><summary>data of this page</summary><p>{files}</p></details>\n"
            f'<p class="provenance">Executed on {stamp.finished} in {stamp.seconds:.0f} s ({stamp.peak_mib} MiB) '
            f"with {escape(given)}; digest <code>{stamp.digest}</code>.</p>"
        )
    )


def _machine(records: Sequence[Record]) -> str:
    return records[0].provenance.instructions if records else ""


def _code(code: trace.Code) -> str:
    return f'<a href="{code.address}"><code>{code.name.removeprefix("descent.")}</code></a>'
