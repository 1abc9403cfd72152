"""The generated parts of the landing and status pages."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from descent.book.execute import digest
from descent.book.execute.chapter import Chapter, recorded
from descent.book.execute.stamps import Stamp
from descent.book.pages.html import badge, raw, table
from descent.book.pages.sources_table import source_table
from descent.book.sources.provenance import Trace
from descent.claims import Record, Verdict, counted, identities

STATUS = ("chapter", "executed", "seconds", "peak memory", "python", "torch", "parameters", "missing inputs", "digest")
FIGURES = ("figure", "drawn from", "claims")


def summary(chapters: Sequence[Chapter]) -> str:
    """Return how the claims stand by whose sentences they are, and the claims by verdict, for the landing page."""
    records = recorded(chapters)
    own = counted(records)
    lists = [_listed(badge(verdict), [record for record in own if record.verdict is verdict]) for verdict in Verdict]
    lists.append(_listed("Identities", identities(records)))
    return "\n\n".join(filter(None, [source_table(records), *lists]))


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


def figure_table(chapters: Sequence[Chapter]) -> str:
    """Return every figure with what it rests on, by chapter: when that was executed, and whether it still stands."""
    bodies = [_figures(chapter) for chapter in chapters if chapter.figures]
    count = sum(len(chapter.figures) for chapter in chapters)
    caption = (
        f"{count} figures. Those of a chapter are fresh as long as none of its inputs has moved since it was executed."
    )
    return raw(table("figures", "Figures", caption, FIGURES, "\n".join(bodies)))


def _figures(chapter: Chapter) -> str:
    rows = "\n".join(_figure(chapter.name, figure, chapter.records) for figure in chapter.figures.values())
    state = f"executed {chapter.stamp.finished}, {_state(chapter.moved)}"
    head = f'<a href="{chapter.name}.html">{escape(chapter.title)}</a>, {state}'
    return f'<tbody>\n<tr><th colspan="{len(FIGURES)}" scope="rowgroup">{head}</th></tr>\n{rows}\n</tbody>'


def _figure(chapter: str, figure: Trace, records: Sequence[Record]) -> str:
    claims = [
        record.claim.id
        for record in records
        if any(outcome.experiment in figure.experiments for outcome in record.outcomes)
    ]
    links = ", ".join(f'<a href="ledger.html#{claim}">{claim}</a>' for claim in claims)
    place = f"{chapter}.html#{figure.anchor}" if figure.anchor else f"{chapter}.html"
    return (
        f'<tr><th scope="row"><a href="{place}">{escape(figure.title)}</a></th>'
        f"<td>{escape(', '.join(figure.experiments)) or 'formulas alone'}</td><td>{links or 'none'}</td></tr>"
    )


def _state(moved: Sequence[str]) -> str:
    more = f" and {len(moved) - 1} more" if len(moved) > 1 else ""
    return f"stale: {escape(moved[0])}{more}" if moved else "fresh"


def _given(stamp: Stamp) -> str:
    return ", ".join(f"{name} = {value}" for name, value in stamp.parameters.items()) or "default parameters"


def _listed(name: str, records: Sequence[Record]) -> str:
    links = ", ".join(f"[{record.claim.id}](claim:{record.claim.id})" for record in records)
    return f"{name}: {links}" if records else ""
