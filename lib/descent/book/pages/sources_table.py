"""How the claims stand by whose sentences they are: one small table, after what its words mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from descent.book.pages.html import SIGNS, raw, table
from descent.claims import SOURCES, Record, Source, Verdict, by_source, standing, tally

COLUMNS = ("whose sentence", "known", "claims", *(f"{SIGNS[verdict]} {verdict}" for verdict in Verdict))


def source_table(records: Sequence[Record]) -> str:
    """Return the table for a page, every number a link to its claims in the ledger."""
    meant = "\n".join(
        f"<dt>{word}</dt><dd>{escape(meaning)}</dd>" for source in SOURCES for word, meaning in source.known.items()
    )
    rows = "\n".join(_row(source, count) for source, count in by_source(records).items())
    total = "".join(f"<td>{n}</td>" for n in tally(records).values())
    last = f'<tr><th scope="row">together</th><td></td><td>{sum(tally(records).values())}</td>{total}</tr>'
    caption = f"{escape(standing(records))}. Identities are algebra checked against algebra: they are in no count."
    box = table("sources", "Claims by whose sentence", caption, COLUMNS, f"<tbody>\n{rows}\n{last}\n</tbody>")
    return raw(f"<p>How a sentence is known:</p>\n<dl>\n{meant}\n</dl>\n{box}")


def place(source: str, verdict: str = "") -> str:
    """Return the address of a selection of the ledger, such as "ledger.html?source=papers&amp;verdict=fails"."""
    return f"ledger.html?source={source}" + (f"&amp;verdict={verdict.replace(' ', '+')}" if verdict else "")


def _row(source: Source, count: Mapping[Verdict, int]) -> str:
    cells = [", ".join(source.known), _linked(sum(count.values()), place(source.key))]
    cells += [_linked(n, place(source.key, verdict)) for verdict, n in count.items()]
    return f'<tr><th scope="row">{source.name}</th>' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _linked(number: int, address: str) -> str:
    return f'<a href="{address}">{number}</a>' if number else "0"
