"""What the runs of others say of a claim, for its row of the ledger."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

from descent.book.pages.html import badge
from descent.claims import Record
from descent.claims.reruns import Bundle, Rerun, counts, reruns


def by_claim(records: Iterable[Record], bundles: Sequence[Bundle]) -> dict[str, tuple[Rerun, ...]]:
    """Return the independent re-runs of every claim that has some."""
    found = {record.claim.id: reruns(record, bundles) for record in records}
    return {id: several for id, several in found.items() if several}


def beside(agreed: Mapping[str, str], again: Mapping[str, Sequence[Rerun]]) -> dict[str, str]:
    """Return what stands below a verdict: how many other seeds agree, then how many runs of others."""
    parts = {id: (agreed.get(id, ""), counts(again.get(id, ()))) for id in {**agreed, **again}}
    return {id: "; ".join(filter(None, said)) for id, said in parts.items()}


def fact(found: Sequence[Rerun]) -> str:
    """Return what each of them said, by seed, replicas and machine, with its file; "" where there is none."""
    return f"<dt>re-runs</dt><dd>{'<br>'.join(map(_told, found))}</dd>" if found else ""


def _told(one: Rerun) -> str:
    made = one.record.provenance
    return (
        f"{badge(one.record.verdict)} master seed {made.seed}, {made.replicas} replicas, "
        f"{escape(made.instructions or made.device_class)}, {made.date}: {one.suit} of {one.of} numbers suit the "
        f'published ones; <a href="downloads/reruns/{one.bundle}" download>{one.bundle}</a>'
    )
