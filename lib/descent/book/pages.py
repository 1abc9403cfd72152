"""The generated parts of the book: ledger, its summary, status, and the strip that ends a chapter."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from descent.book.digest import ABSENT
from descent.book.stamps import Stamp
from descent.claims import Outcome, Record, Verdict, spell, tally
from descent.claims.verdict import replicas_needed

SIGNS = {Verdict.HOLDS: "✓", Verdict.FAILS: "✗", Verdict.INCONCLUSIVE: "?", Verdict.NOT_TESTED: "–"}
LEDGER = (
    "claim",
    "statement",
    "verdict",
    "estimate, 95 % interval",
    "predicted",
    "seed",
    "seconds",
    "digest",
)
STATUS = (
    "chapter",
    "executed",
    "seconds",
    "peak memory",
    "python",
    "torch",
    "parameters",
    "missing inputs",
    "digest",
)
KNOWN = {
    "secondary": "from a secondary source",
    "recalled": "recalled, not the paper's words",
    "derived": "derived here",
}


def badge(verdict: Verdict) -> str:
    """Return a verdict as sign and words; colour only repeats them."""
    kind = verdict.replace(" ", "-")
    return f'<span class="verdict {kind}"><span aria-hidden="true">{SIGNS[verdict]}</span> {verdict}</span>'


def ledger_table(records: Sequence[Record]) -> str:
    """Return the ledger: per claim one table body with the id as its permanent anchor, per test one row."""
    bodies = "\n".join(_body(record) for record in records)
    return _raw(
        _table(
            "ledger sortable",
            "Ledger of claims",
            f"{standing(records)}.",
            LEDGER,
            bodies,
        )
    )


def summary(records: Sequence[Record], titles: Mapping[str, str]) -> str:
    """Return the verdict counts per chapter and the claims by verdict, for the landing page."""
    lines = [
        "| chapter | " + " | ".join(f"{SIGNS[v]} {v}" for v in Verdict) + " |",
        "|---|" + "---|" * len(Verdict),
    ]
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
    return _raw(_table("status", "Executions", caption, STATUS, f"<tbody>\n{rows}\n</tbody>"))


def footer(chapter: str, stamp: Stamp, tables: Iterable[str]) -> str:
    """Return the strip below a chapter: how it was made, and what to take along."""
    files = "".join(f' · <a href="downloads/{chapter}/{name}" download>{escape(name)}</a>' for name in tables)
    return _raw(
        f'<p class="provenance">Executed on {stamp.finished} in {stamp.seconds:.0f} s ({stamp.peak_mib} MiB) '
        f"with {escape(_given(stamp))}; digest <code>{stamp.digest}</code>.<br>"
        f'Take along: <a href="downloads/{chapter}.ipynb" download>executed notebook</a>{files}</p>'
    )


def _table(kind: str, label: str, caption: str, columns: Sequence[str], bodies: str) -> str:
    head = "".join(f'<th scope="col">{name}</th>' for name in columns)
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{label}">\n<table class="{kind}">\n'
        f"<caption>{caption}</caption>\n<thead><tr>{head}</tr></thead>\n{bodies}\n</table>\n</div>"
    )


def _body(record: Record) -> str:
    claim, span = record.claim, len(record.outcomes)
    notes = [claim.place, *([KNOWN[claim.known]] if claim.known in KNOWN else [])]
    remarks = "".join(f"<br><small>{escape(text)}</small>" for text in ("; ".join(notes), claim.conditions) if text)
    lead = (
        f'<th scope="rowgroup" rowspan="{span}"><a href="#{claim.id}">{claim.id}</a></th>'
        f'<td rowspan="{span}" class="statement">{escape(claim.statement)}{remarks}</td>'
        f'<td rowspan="{span}">{badge(record.verdict)}</td>'
    )
    rows = [_cells(record, outcome) for outcome in record.outcomes]
    lines = "\n".join(f"<tr>{lead if i == 0 else ''}{row}</tr>" for i, row in enumerate(rows))
    return f'<tbody id="{claim.id}" data-sort="{escape(json.dumps(_keys(record)))}">\n{lines}\n</tbody>'


def _cells(record: Record, outcome: Outcome) -> str:
    needed = replicas_needed(outcome.test, outcome.estimates, outcome.family) if outcome.estimates else None
    own = f"{badge(outcome.verdict)}<br>" if len(record.outcomes) > 1 else ""
    family = f"for all tests jointly {outcome.family_text}" if outcome.estimates else ""
    settle = f"{needed} replicas would settle it" if needed else ""
    remarks = "".join(f"<br><small>{escape(text)}</small>" for text in (outcome.test.quantity, family, settle) if text)
    seconds = f"{outcome.seconds:.1f}" if outcome.estimates else "–"
    cells = (
        ("estimate", f"{own}<strong>{escape(outcome.text)}</strong>{remarks}"),
        ("predicted", f"{escape(str(outcome.test.rule))}<br><small>{outcome.test.rule.kind}</small>"),
        ("seed", str(record.provenance.seed)),
        ("seconds", seconds),
        ("digest", f"<code>{escape(outcome.config or '–')}</code>"),
    )
    return "".join(f'<td class="{name}" data-label="{name}">{content}</td>' for name, content in cells)


def _keys(record: Record) -> list[Any]:
    """Return one sorting key per column of the ledger."""
    claim, head = record.claim, record.headline
    value = head.estimates[0].value if head.estimates else -1e308
    verdict = list(Verdict).index(record.verdict)
    predicted = head.test.rule.region.low if head.test.rule.region.low > -1e308 else -1e308
    return [
        claim.id,
        claim.statement,
        verdict,
        value,
        predicted,
        record.provenance.seed,
        record.seconds,
        head.config,
    ]


def _status_row(name: str, stamp: Stamp, title: str) -> str:
    missing = [key for key, value in stamp.inputs.items() if value == ABSENT]
    cells = (
        stamp.finished, f"{stamp.seconds:.0f}", f"{stamp.peak_mib} MiB", stamp.inputs["environment (python)"],
        stamp.inputs["environment (torch)"], _given(stamp), ", ".join(missing) or "none",
    )  # fmt: skip
    return (
        f'<tr><th scope="row"><a href="{name}.html">{escape(title)}</a></th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        + f"<td><code>{stamp.digest}</code></td></tr>"
    )


def _given(stamp: Stamp) -> str:
    return ", ".join(f"{name} = {value}" for name, value in stamp.parameters.items()) or "default parameters"


def standing(records: Sequence[Record]) -> str:
    """Return how the claims stand, such as "23 claims: 20 hold, 3 fail"."""
    return f"{len(records)} claims: {spell({verdict: n for verdict, n in tally(records).items() if n})}"


def _listed(verdict: Verdict, records: Sequence[Record]) -> str:
    links = ", ".join(f"[{record.claim.id}](claim:{record.claim.id})" for record in records)
    return f"{badge(verdict)}: {links}" if records else ""


def _raw(html: str) -> str:
    return f"```{{raw}} html\n{html}\n```"
