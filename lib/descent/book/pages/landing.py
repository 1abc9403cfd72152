"""The generated parts of the landing and status pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from descent.book.execute import digest
from descent.book.execute.chapter import Chapter, recorded
from descent.book.execute.stamps import Stamp
from descent.book.pages.html import SIGNS, kind, raw, table
from descent.book.pages.page_frame import SCALES
from descent.book.sources import parts
from descent.book.sources.provenance import Trace
from descent.claims import Record, Verdict, by_source, identities, spell, tally

STATUS = ("chapter", "executed", "seconds", "peak memory", "python", "torch", "parameters", "missing inputs", "digest")
FIGURES = ("figure", "drawn from", "claims")

Count = Mapping[Verdict, int]


def summary(chapters: Sequence[Chapter]) -> str:
    """Return how the claims stand: a stacked bar per paper, and one per whose sentences they are.

    Every bar says below in numbers what it draws, and every number leads to its claims in the ledger.
    """
    found = recorded(chapters)
    papers = [_paper(chapter) for chapter in chapters if chapter.records]
    sources = [(f"source={source.key}", escape(source.name), count) for source, count in by_source(found).items()]
    between = "<p>The same claims by whose sentence they are:</p>"
    parts = (_bars("by paper", papers), between, _bars("by whose sentence", sources), _apart(len(identities(found))))
    return raw("\n".join(filter(None, parts)))


def status_table(chapters: Sequence[Chapter]) -> str:
    """Return when, with what and at what cost each chapter was executed."""
    rows = "\n".join(_status_row(chapter.name, chapter.stamp, chapter.title) for chapter in chapters)
    caption = "One process per chapter, one thread each."
    return raw(table("status", "Executions", caption, STATUS, f"<tbody>\n{rows}\n</tbody>"))


def _status_row(name: str, stamp: Stamp, title: str) -> str:
    missing = [key for key, value in stamp.inputs.items() if value == digest.ABSENT]
    cells = (
        stamp.finished, f"{stamp.seconds:.0f}", f"{stamp.peak_mib} MiB", stamp.inputs["environment (python)"],
        stamp.inputs["environment (torch)"], _given(stamp), ", ".join(missing) or "none",
    )  # fmt: skip
    return (
        f'<tr><th scope="row"><a href="{name}.html">{escape(title)}</a></th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        + f"<td><code>{stamp.digest}</code></td></tr>"
    )


def figure_table(chapters: Sequence[Chapter], elsewhere: Sequence[Record] = ()) -> str:
    """Return every figure with what it rests on, by chapter: when that was executed, and whether it still stands.

    elsewhere: what was measured at other scales.
    """
    bodies = [_figures(chapter, elsewhere) for chapter in chapters if chapter.figures]
    count = sum(len(chapter.figures) for chapter in chapters)
    caption = (
        f"{count} figures. Those of a chapter are fresh as long as none of its inputs has moved since it was executed."
    )
    return raw(table("figures", "Figures", caption, FIGURES, "\n".join(bodies)))


def _figures(chapter: Chapter, elsewhere: Sequence[Record]) -> str:
    read_on = parts.pages(chapter.notebook.cells, chapter.name)
    found = [*chapter.records, *(record for record in elsewhere if record.chapter == chapter.name)]
    rows = "\n".join(_figure(read_on[place], figure, found) for place, figure in chapter.figures.items())
    state = f"executed {chapter.stamp.finished}, {_state(chapter.moved)}"
    head = f'<a href="{chapter.name}.html">{escape(chapter.title)}</a>, {state}'
    return f'<tbody>\n<tr><th colspan="{len(FIGURES)}" scope="rowgroup">{head}</th></tr>\n{rows}\n</tbody>'


def _figure(page: str, figure: Trace, records: Sequence[Record]) -> str:
    kept = {(each.scale, each.experiment): SCALES[each.scale] for each in figure.kept}
    sources = [*figure.experiments, *(f"{name} {scale}" for (_, name), scale in kept.items())]
    claims = dict.fromkeys(
        record.claim.id
        for record in records
        for outcome in record.outcomes
        if outcome.experiment in figure.experiments or (record.provenance.scale, outcome.experiment) in kept
    )
    links = ", ".join(f'<a href="ledger.html#{claim}">{claim}</a>' for claim in claims)
    place = f"{page}.html#{figure.anchor}" if figure.anchor else f"{page}.html"
    return (
        f'<tr><th scope="row"><a href="{place}">{escape(figure.title)}</a></th>'
        f"<td>{escape(', '.join(sources)) or 'formulas alone'}</td><td>{links or 'none'}</td></tr>"
    )


def _state(moved: Sequence[str]) -> str:
    more = f" and {len(moved) - 1} more" if len(moved) > 1 else ""
    return f"stale: {escape(moved[0])}{more}" if moved else "fresh"


def _given(stamp: Stamp) -> str:
    return ", ".join(f"{name} = {value}" for name, value in stamp.parameters.items()) or "default parameters"


def _paper(chapter: Chapter) -> tuple[str, str, Count]:
    """Return the selection of the ledger, the name and the verdicts of a chapter's paper."""
    paper = chapter.records[0].paper
    name = f'{paper} · <a href="{chapter.name}.html">{escape(chapter.title)}</a>'
    return f"paper={paper}", name, tally(chapter.records)


def _apart(count: int) -> str:
    """Return how many identities there are, "" for none."""
    words = "identity, which is" if count == 1 else "identities, which are"
    return f'<p><a href="ledger.html?source=identities">{count} {words} in no count</a></p>' if count else ""


def _bars(label: str, rows: Sequence[tuple[str, str, Count]]) -> str:
    longest = max((sum(count.values()) for _, _, count in rows), default=1) or 1
    items = "\n".join(_bar(query, name, count, longest) for query, name, count in rows)
    return f'<ul class="bars" aria-label="Verdicts {label}">\n{items}\n</ul>'


def _bar(query: str, name: str, count: Count, longest: int) -> str:
    """Return a bar as long as there are claims, and below it the number of each verdict."""
    some = {verdict: n for verdict, n in count.items() if n}
    parts = "".join(f'<span class="{kind(verdict)}" style="flex: {n}"></span>' for verdict, n in some.items())
    width = 100 * sum(some.values()) / longest
    numbers = "\n".join(
        f'<a class="verdict {kind(verdict)}" href="ledger.html?{query}&amp;verdict={verdict.replace(" ", "+")}">'
        f'<span aria-hidden="true">{SIGNS[verdict]}</span> {spell({verdict: n})}</a>'
        for verdict, n in some.items()
    )
    return (
        f'<li><span class="name">{name}</span>\n'
        f'<span class="bar" aria-hidden="true" style="width: {width:.1f}%">{parts}</span>\n{numbers}</li>'
    )
