"""The generated parts of the landing and status pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from descent.book.execute import digest
from descent.book.execute.stamps import Stamp
from descent.book.pages.html import SIGNS, badge, raw, table
from descent.book.sources import trace
from descent.book.sources.project import Project
from descent.claims import Record, Verdict, tally

STATUS = ("chapter", "executed", "seconds", "peak memory", "python", "torch", "parameters", "missing inputs", "digest")
FIGURES = ("figure", "drawn from", "claims")


def summary(records: Sequence[Record], titles: Mapping[str, str]) -> str:
    """Return the verdict counts per chapter and the claims by verdict, for the landing page."""
    lines = ["| chapter | " + " | ".join(f"{SIGNS[v]} {v}" for v in Verdict) + " |", "|---|" + "---|" * len(Verdict)]
    for chapter, title in titles.items():
        count = tally(record for record in records if record.chapter == chapter)
        if any(count.values()):
            lines.append(f"| [{title}]({chapter}.md) | " + " | ".join(str(count[v]) for v in Verdict) + " |")
    lists = [_listed(verdict, [record for record in records if record.verdict is verdict]) for verdict in Verdict]
    return "\n".join(lines) + "\n\n" + "\n\n".join(filter(None, lists))


def status_table(stamps: Mapping[str, Stamp], titles: Mapping[str, str]) -> str:
    """Return when, with what and at what cost each chapter was executed."""
    rows = "\n".join(_status_row(name, stamp, titles[name]) for name, stamp in stamps.items())
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


def figure_table(
    project: Project, stamps: Mapping[str, Stamp], titles: Mapping[str, str], records: Sequence[Record]
) -> str:
    """Return every figure with what it rests on, by chapter: when that was executed, and whether it still stands."""
    found = {chapter: list(trace.figures(project, chapter).values()) for chapter in stamps}
    bodies = [
        _figures(
            chapter,
            titles[chapter],
            f"executed {stamp.finished}, {_state(project, chapter, stamp)}",
            found[chapter],
            records,
        )
        for chapter, stamp in stamps.items()
        if found[chapter]
    ]
    caption = (
        f"{sum(map(len, found.values()))} figures. Those of a chapter are fresh as long as none of its inputs "
        "has moved since it was executed."
    )
    return raw(table("figures", "Figures", caption, FIGURES, "\n".join(bodies)))


def _figures(chapter: str, title: str, state: str, found: Sequence[trace.Trace], records: Sequence[Record]) -> str:
    own = [record for record in records if record.chapter == chapter]
    rows = "\n".join(_figure(chapter, figure, own) for figure in found)
    head = f'<a href="{chapter}.html">{escape(title)}</a>, {state}'
    return f'<tbody>\n<tr><th colspan="{len(FIGURES)}" scope="rowgroup">{head}</th></tr>\n{rows}\n</tbody>'


def _figure(chapter: str, figure: trace.Trace, records: Sequence[Record]) -> str:
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


def _state(project: Project, chapter: str, stamp: Stamp) -> str:
    moved = digest.moved(stamp.inputs, digest.inputs(project, chapter, stamp.parameters))
    more = f" and {len(moved) - 1} more" if len(moved) > 1 else ""
    return f"stale: {escape(moved[0])}{more}" if moved else "fresh"


def _given(stamp: Stamp) -> str:
    return ", ".join(f"{name} = {value}" for name, value in stamp.parameters.items()) or "default parameters"


def _listed(verdict: Verdict, records: Sequence[Record]) -> str:
    links = ", ".join(f"[{record.claim.id}](claim:{record.claim.id})" for record in records)
    return f"{badge(verdict)}: {links}" if records else ""
