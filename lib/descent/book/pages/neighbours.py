"""What a claim rests on, and what would have to be read again if it fell, for its row of the ledger.

The lists say all of it; a script draws the same lists as a graph, one claim's neighbourhood at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from descent.book.sources.graph import Graph, Ground


def fact(graph: Graph, claim: str) -> str:
    """Return both facts of a claim as pairs of HTML; "" for one that the graph does not know."""
    ground = graph.grounds.get(claim)
    if ground is None:
        return ""
    rows = "".join(f'<li data-kind="{kind}">{text}</li>' for kind, text in _rows(graph, claim, ground))
    listed = f'<ul class="around" data-claim="{claim}">{rows}</ul>' if rows else ""
    shaken = graph.shaken(claim)
    first = (
        f"{_many(len(shaken))} would have to be read again first" if shaken else "no other claim names it or its runs"
    )
    return f"<dt>rests on</dt><dd>{_rests(ground)}</dd><dt>if it fell</dt><dd>{first}{listed}</dd>"


def _rests(ground: Ground) -> str:
    """Return the runs that measure a claim, the laws they name, and the claims it points to."""
    parts = {
        "measured by": _codes(ground.experiments),
        "its code names": _codes(ground.theory),
        "points to": _links(ground.named),
    }
    return "; ".join(f"{name} {said}" for name, said in parts.items() if said)


def _rows(graph: Graph, claim: str, ground: Ground) -> Iterator[tuple[str, str]]:
    """Yield one row per thing that a claim shares with others: what names it, its runs, its laws."""
    if naming := graph.naming(claim):
        yield "name", f"<b>point to it</b>: {_links(naming)}"
    for experiment in ground.experiments:
        if others := graph.measured_by(claim, experiment):
            yield "run", f"same run, <b>{escape(experiment)}</b>: {_links(others)}"
    for law in ground.theory:
        if others := graph.built_on(claim, law):
            yield "law", f"same theory, <b>{escape(law)}</b>: {', '.join(others)}"  # many, and linked by the drawing


def _many(count: int) -> str:
    return "1 claim" if count == 1 else f"{count} claims"


def _codes(names: Sequence[str]) -> str:
    return ", ".join(f"<code>{escape(name)}</code>" for name in names)


def _links(claims: Sequence[str]) -> str:
    return ", ".join(f'<a href="#{id}">{id}</a>' for id in claims)
