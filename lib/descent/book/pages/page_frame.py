"""What surrounds a chapter: the line below its title, the strip under each figure, the box that ends it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape

from descent.book.execute.chapter import Chapter
from descent.book.pages import cite, convention
from descent.book.pages.html import raw
from descent.book.sources.provenance import Code, Trace
from descent.claims import Outcome, Record, standing
from descent.results import NIGHT

Facts = Mapping[str, tuple[Record, Outcome]]
"""By experiment, one outcome that came of it, and the record it belongs to."""

SCALES = {"gpu": "at paper scale", NIGHT: "by night"}
"""How a reader is told of scales other than a chapter's."""
PRACTICE = "in-practice"
"""Page that says what follows for training, in a book that has one."""
WORDS_PER_MINUTE = 200
SECONDS_PER_FIGURE = 30

STRIP = '<details class="strip"><summary>data · code</summary><p>'
"""What opens the strip under a figure."""


@dataclass(frozen=True)
class Boxes:
    """Everything that is put into one chapter: below its title, under its figures by place, at its end."""

    header: str
    strips: Mapping[int, str]
    footer: str


def boxes(chapter: Chapter) -> Boxes:
    """Return what surrounds a chapter, from its records and tables."""
    return Boxes(header(chapter), strips(chapter), footer(chapter))


def header(chapter: Chapter) -> str:
    """Return the lines below a chapter's title: its claims, what it takes to read and to run; whose rates it writes."""
    records, stamp = chapter.records, chapter.stamp
    count = f'<a href="ledger.html?paper={records[0].paper}">{standing(records)}</a> · ' if records else ""
    instructions = records[0].provenance.instructions if records else ""
    machine = instructions or f"python {stamp.inputs['environment (python)']}"
    return raw(
        f'<p class="chapter-facts">{count}{minutes(chapter.text)} minutes to read · '
        f"{stamp.seconds:.0f} s to run on one core ({escape(machine)}), {stamp.finished} · "
        '<a href="#run-this-yourself">run this yourself</a></p>' + convention.badge(chapter.project, chapter.text)
    )


def part_of(chapter: Chapter) -> str:
    """Return the lines below the title of a page that shows a part of a chapter."""
    name = chapter.name
    return raw(
        f'<p class="chapter-facts">a part of <a href="{name}.html">{escape(chapter.title)}</a>, whose cells its own go '
        "on from · "
        f'<a href="{name}.html#run-this-yourself">run this yourself</a></p>'
        + convention.badge(chapter.project, chapter.text)
    )


def minutes(text: str) -> int:
    """Return how long a chapter takes to read: its prose at 200 words a minute, half a minute for a figure."""
    prose = re.sub(r"^---\n.*?\n---\n|^(`{3,})\{code-cell\}.*?^\1\s*$", " ", text, flags=re.S | re.M)
    figures = len(re.findall(r"^ +alt: ", text, re.M))
    return max(1, round(len(prose.split()) / WORDS_PER_MINUTE + figures * SECONDS_PER_FIGURE / 60))


def strips(chapter: Chapter) -> dict[int, str]:
    """Return the strip under every figure of a chapter, by the place of its cell."""
    facts = {outcome.experiment: (record, outcome) for record in chapter.records for outcome in record.outcomes}
    made = {place: _strip(chapter, figure, facts) for place, figure in chapter.figures.items()}
    return {place: raw(_fold(strip)) for place, strip in made.items() if strip}


def _fold(strip: str) -> str:
    return f"{STRIP}{strip}</p></details>"


def _strip(chapter: Chapter, found: Trace, facts: Facts) -> str:
    parts = [_source(chapter, name, facts.get(name)) for name in found.experiments]
    drawn = f"drawn by {_code(found.drawn)}" if found.drawn else ""
    return "; ".join(part for part in (*parts, _kept(chapter, found), drawn) if part)


def _kept(chapter: Chapter, found: Trace) -> str:
    """Return where the parts of a figure come from that were measured at another scale."""
    by_scale = {scale: [each for each in found.kept if each.scale == scale] for scale in SCALES}
    return "; ".join(
        f'<a href="paper-scale.html">{SCALES[scale]}</a>: '
        + _measured(chapter, [f"{scale}/{each.name}.csv" for each in own], dict.fromkeys(e.experiment for e in own))
        for scale, own in by_scale.items()
        if own
    )


def _measured(chapter: Chapter, files: Iterable[str], names: Iterable[str]) -> str:
    """Return links to tables of a chapter, and to the code of the experiments that left them."""
    code = [_code(chapter.experiments[name]) for name in names if name in chapter.experiments]
    return f"data {', '.join(_links(chapter, files))}" + (f", computed by {', '.join(code)}" if code else "")


def _source(chapter: Chapter, name: str, fact: tuple[Record, Outcome] | None) -> str:
    """Return where one experiment's part of a figure comes from."""
    links = ", ".join(_links(chapter, chapter.tables.get(name, ())))
    pieces = [f"data {links}" if links else f"experiment {name}"]
    if fact:
        record, outcome = fact
        made = record.provenance
        drawn = f" of registration {outcome.registration[:8]}" if outcome.registration else ""
        pieces.append(
            f"scale {made.scale}, device {made.device_class}, {outcome.seconds:.1f} s, seed {made.seed}{drawn}, "
            f"configuration <code>{outcome.config}</code>, library <code>{made.library}</code>"
        )
    if name in chapter.experiments:
        pieces.append(f"computed by {_code(chapter.experiments[name])}")
    return ", ".join(pieces)


def footer(chapter: Chapter) -> str:
    """Return the box that ends a chapter: how to run it again, what to take along, how it was made."""
    name, stamp = chapter.name, chapter.stamp
    files = " · ".join(_links(chapter, chapter.files))
    given = ", ".join(f"{name} = {value}" for name, value in stamp.parameters.items()) or "default parameters"
    knobs = ", ".join(f"<code>{name}</code> ({value})" for name, value in chapter.parameters.items())
    advice = f'<p>What follows for training: <a href="{PRACTICE}.html">In practice</a>.</p>\n'
    return (
        (raw(advice) + "\n\n" if PRACTICE in chapter.project.pages else "") + "## Run this yourself\n\n"
        "In a checkout of the book, this runs the page with other parameters and prints every published interval "
        "beside yours:\n\n"
        f"```\ndescent run {name} -p seed=1\n```\n\n"
        + raw(
            f"<p>Parameters and their defaults: {knobs}.</p>\n"
            f'<p>Take along: <a href="downloads/{name}.ipynb" download>executed notebook</a> · '
            f'<a href="downloads/{name}.plain.ipynb" download>notebook without outputs</a> · '
            f'<a href="downloads/{name}.away.ipynb" download>notebook that installs what it needs</a>, for Colab and '
            "the like · "
            f'<a href="downloads/{name}.md" download>source</a></p>\n'
            f"<p>Cite this chapter, its version named: {cite.links(cite.chapter(chapter))}.</p>\n"
            f"<details><summary>data of this page</summary><p>{files}</p></details>\n"
            f'<p class="provenance">Executed on {stamp.finished} in {stamp.seconds:.0f} s ({stamp.peak_mib} MiB) '
            f"with {escape(given)}; digest <code>{stamp.digest}</code>.</p>"
        )
    )


def _links(chapter: Chapter, files: Iterable[str]) -> list[str]:
    """Return links to tables and records of a chapter."""
    return [f'<a href="downloads/{chapter.name}/{name}" download>{escape(name)}</a>' for name in files]


def _code(code: Code) -> str:
    return f'<a href="{code.address}"><code>{code.name.removeprefix("descent.")}</code></a>'
