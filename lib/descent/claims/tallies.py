"""How the claims stand, by how it is known what was said; what algebra says of itself is counted with none of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from descent.claims.paper import Claim
from descent.claims.record import Record
from descent.claims.verdict import Verdict

__all__ = ["SOURCES", "Source", "by_source", "counted", "identities", "source_of", "spell", "standing", "tally"]


@dataclass(frozen=True, eq=False)
class Source:
    """Whose sentence a claim is: in a word for addresses, in words, and each word of `known` with what it means."""

    key: str  # one word, for addresses
    name: str
    known: Mapping[str, str]  # what each word of `known` means


SOURCES = (
    Source(
        "papers",
        "what papers say",
        {
            "read": "the sentence was read in the paper's own text",
            "secondary": "it was read in another text that tells what the paper says",
        },
    ),
    Source(
        "reconstructed",
        "what we reconstruct",
        {"recalled": "it was written down from memory, without the paper at hand, and its words may be others"},
    ),
    Source("ours", "what we add", {"derived": "the paper does not say it; it was derived for this book"}),
)
"""Where claims come from, in the order in which they are counted."""


def source_of(claim: Claim) -> Source:
    """Return whose sentence a claim is."""
    return next(source for source in SOURCES if claim.known in source.known)


def counted(records: Iterable[Record]) -> tuple[Record, ...]:
    """Return the claims that are counted: those with at least one test that is no identity."""
    return tuple(record for record in records if not record.claim.identity)


def identities(records: Iterable[Record]) -> tuple[Record, ...]:
    """Return the claims all of whose tests are identities."""
    return tuple(record for record in records if record.claim.identity)


def tally(records: Iterable[Record]) -> dict[Verdict, int]:
    """Count the verdicts of the claims that are counted, all four words always present."""
    return dict.fromkeys(Verdict, 0) | Counter(record.verdict for record in counted(records))


def by_source(records: Iterable[Record]) -> dict[Source, dict[Verdict, int]]:
    """Count them by whose sentence each claim is, all sources always present."""
    found = tuple(records)
    return {source: tally(each for each in found if source_of(each.claim) is source) for source in SOURCES}


def spell(count: Mapping[Verdict, int]) -> str:
    """Return counts as a sentence part, such as "17 hold, 3 fail, 1 inconclusive"."""
    words = {Verdict.HOLDS: "hold", Verdict.FAILS: "fail"}
    return ", ".join(f"{n} {words.get(verdict, verdict)}" for verdict, n in count.items())


def standing(records: Iterable[Record], *, sources: bool = False) -> str:
    """Return how the claims stand, such as "23 claims: 20 hold, 3 fail; and 2 identities".

    sources: by whose sentences they are, such as "23 claims; what papers say: 20 hold, 1 fail; what we add: 2 fail".
    """
    found = tuple(records)
    own, apart = len(counted(found)), len(identities(found))
    parts = [f"{own} claim" if own == 1 else f"{own} claims"]
    if sources:
        parts += [f"{source.name}: {text}" for source, n in by_source(found).items() if (text := _some(n))]
    elif own:
        parts = [f"{parts[0]}: {_some(tally(found))}"]
    parts += [f"and {apart} identit{'y' if apart == 1 else 'ies'}"] if apart else []
    return "; ".join(parts)


def _some(count: Mapping[Verdict, int]) -> str:
    """Return the counts that are not zero."""
    return spell({verdict: n for verdict, n in count.items() if n})
