"""Pages made from records alone: what did not hold, and how the instruments were checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from descent.book.execute.chapter import Chapter
from descent.book.pages.html import badge, raw, table
from descent.book.pages.ledger import remarks
from descent.book.pages.picture import picture
from descent.book.sources.provenance import Home
from descent.claims import Outcome, Record, Verdict, counted, spell

ORACLES = ("instrument", "what is measured", "compared with", "deviation", "allowed", "reached", "verdict")


def not_held(chapters: Sequence[Chapter], nights: Mapping[str, Record] | None = None) -> str:
    """Return every claim without the verdict "holds", folded per chapter: what was found, and the conditions.

    nights: what was found on larger networks by night, by claim, which is told apart.
    """
    parts = [_folded(chapter, nights or {}) for chapter in chapters]
    return "\n\n".join(filter(None, parts)) or "Every claim holds."


def _folded(chapter: Chapter, nights: Mapping[str, Record]) -> str:
    here = chapter.records
    dark = [nights[record.claim.id] for record in here if record.claim.id in nights]
    asked = "claims asked of larger networks by night"
    folds = (_fold(here, chapter, "claims"), _fold(dark, chapter, asked, ' class="by-night"'))
    opens = "\n".join(filter(None, folds))
    return f"## {chapter.title}\n\n{raw(opens)}" if opens else ""


def _fold(records: Sequence[Record], chapter: Chapter, of: str, mark: str = "") -> str:
    """Return those of some claims that do not hold, folded below their number; "" where all hold."""
    own = [record for record in records if record.verdict is not Verdict.HOLDS]
    claims = "\n".join(_claim(record, chapter.homes[record.claim.id]) for record in own)
    told = counted(own)
    count = f"{len(told)} of {len(counted(records))} {of}: {spell(_some(told))}"
    return f"<details{mark}><summary>{count}</summary>\n{claims}\n</details>" if own else ""


def _some(records: Sequence[Record]) -> dict[Verdict, int]:
    return dict(Counter(record.verdict for record in records))


def oracle_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the table of instruments: what each was compared with, the deviation allowed and the one reached."""
    bodies = "\n".join(_oracle(row) for row in rows)
    good = sum(row["reached"] <= row["asked"] for row in rows)
    caption = f"{good} of {len(rows)} comparisons within what was asked of them, measured when this page was made."
    return raw(table("oracles", "Instruments and their oracles", caption, ORACLES, f"<tbody>\n{bodies}\n</tbody>"))


def _claim(record: Record, home: Home) -> str:
    failed = [outcome for outcome in record.outcomes if outcome.verdict is record.verdict]
    held = [outcome for outcome in record.outcomes if outcome.verdict is Verdict.HOLDS]
    lines = [_outcome(record, outcome) for outcome in failed]
    lines += [f"<li>{badge(outcome.verdict)} {escape(record.quantity(outcome))}</li>" for outcome in held]
    claim = record.claim
    apart = " (an identity, in no count)" if claim.identity else ""
    return (
        f'<div class="not-held"><p>{badge(record.verdict)} <a href="ledger.html#{claim.id}">{claim.id}</a>: '
        f'<strong class="statement">{escape(claim.statement)}</strong>{remarks(record)}{apart}</p>\n'
        f"<ul>\n{chr(10).join(lines)}\n</ul>\n"
        f'<p>Read on: <a href="{home.section}">{escape(home.title)}</a></p></div>'
    )


def _outcome(record: Record, outcome: Outcome) -> str:
    quantity = escape(record.quantity(outcome))
    if not outcome.estimates:
        return f"<li>{quantity}: {escape(outcome.reason)}</li>"
    return (
        f"<li>{badge(outcome.verdict)} {quantity}: <strong>{escape(outcome.text)}</strong>, "
        f"demanded {escape(str(outcome.test.rule))}<br>{picture(outcome)}</li>"
    )


def _oracle(row: Mapping[str, Any]) -> str:
    module = row["instrument"].rpartition(".")[0]
    good = row["reached"] <= row["asked"]
    texts = [escape(row[key]) for key in ("quantity", "truth", "kind")]
    cells = (*texts, f"{row['asked']:.1g}", f"{row['reached']:.2g}", badge(Verdict.HOLDS if good else Verdict.FAILS))
    name = row["instrument"].removeprefix("descent.")
    link = f'<a href="code/{module}.html"><code>{escape(name)}</code></a>'
    return f'<tr><th scope="row">{link}</th>' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
