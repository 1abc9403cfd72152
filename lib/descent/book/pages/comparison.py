"""A run beside the published one: claim by claim the sentence, both verdicts, both numbers, and why they differ.

As plain text, and as `comparison.md` and `comparison.html` with the figures of the run.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from descent.book.pages.html import badge
from descent.book.pages.picture import picture
from descent.book.sources.source import Value
from descent.claims import Outcome, Record, Verdict, compare_records

CHANCE = ("seed", "replicas", "device")
"""Parameters that change no setting: other random numbers, more or fewer of them, another place to draw them."""
WIDTH = 100
TESTS = ("test", "published interval", "your interval", "compatible?")
STYLE = """body { max-width: 46rem; margin: 2rem auto; padding: 0 1rem; font: 16px/1.5 system-ui, sans-serif; }
dt { font-weight: 600; } dd { margin: 0 0 .3rem 1rem; } img { max-width: 100%; background: #fff; }
section { border-left: 3px solid #8a929a; padding-left: 1rem; margin: 1.5rem 0; } table { border-collapse: collapse; }
th, td { text-align: left; padding: .15rem .8rem .15rem 0; vertical-align: top; }
svg.outcome rect { fill: #8a929a; opacity: .35; } svg.outcome line { stroke: currentColor; }
svg.outcome line.raw { stroke-width: 3; } svg.outcome text { font: 9px sans-serif; }
:root { color-scheme: light dark; } .wide { overflow-x: auto; }"""


@dataclass(frozen=True)
class Pair:
    """One claim in two runs.

    settings: what differs between them beyond chance, such as "momentum 0.5 instead of 0.9".
    """

    published: Record
    yours: Record
    settings: str = ""

    @property
    def outcomes(self) -> tuple[Outcome, Outcome]:
        """The test that tells your verdict, as published and in your run."""
        mine = self.yours.headline
        same = (outcome for outcome in self.published.outcomes if outcome.test.key == mine.test.key)
        return next(same, self.published.headline), mine

    @property
    def moved(self) -> bool:
        """Whether your verdict is another one."""
        return self.yours.verdict is not self.published.verdict

    @property
    def elsewhere(self) -> bool:
        """Whether it was asked in another setting: with another configuration."""
        before, mine = self.outcomes
        return bool(before.estimates and mine.estimates) and before.config != mine.config

    @property
    def why(self) -> str:
        """Why the two differ, or that they do not."""
        before, mine = self.outcomes
        if not mine.estimates or not before.estimates:
            whose, left = ("your", mine) if not mine.estimates else ("the published", before)
            return f"not tested in {whose} run: {left.reason}"
        if self.elsewhere:
            return f"another setting: {self.settings or 'the configurations differ'}; another number was to be expected"
        lines = compare_records([self.published], [self.yours])
        if not all(line.compatible for line in lines if line.key.partition("[")[0].endswith(f".{mine.test.key}")):
            return "one setting, and yet the numbers lie farther apart than chance explains"
        return _agreeing(before, mine) if self.moved else "one setting, and the numbers agree"


def _agreeing(before: Outcome, mine: Outcome) -> str:
    """Return why verdicts differ although the numbers agree."""
    counts = f"{mine.estimates[0].n} replicas where {before.estimates[0].n} were published"
    if mine.verdict is not Verdict.INCONCLUSIVE:
        return f"one setting, and the numbers agree: of {counts} the interval lies on one side of the end of the region"
    needed = f"; {mine.replicas_to_settle} would settle it" if mine.replicas_to_settle else ""
    return f"one setting, and the numbers agree, but of {counts} it is not decided{needed}"


def pairs(
    published: Sequence[Record], yours: Sequence[Record], changed: Mapping[str, tuple[Value, Value]]
) -> list[Pair]:
    """Return the claims of both runs: first those with another verdict, then those asked in another setting.

    changed: by name a parameter's value in the published run and in yours.
    """
    found = {record.claim.id: record for record in yours}
    settings = " and ".join(f"{name} {b} instead of {a}" for name, (a, b) in changed.items() if name not in CHANCE)
    both = [Pair(record, found[record.claim.id], settings) for record in published if record.claim.id in found]
    return sorted(both, key=lambda pair: (not pair.moved, not pair.elsewhere))


def title(name: str, changed: Mapping[str, tuple[Value, Value]]) -> str:
    """Return what was run, such as "saddles with momentum 0.5 (published: 0.9)"."""
    given = ", ".join(f"{key} {b} (published: {a})" for key, (a, b) in changed.items())
    return f"{name} with {given or 'the published parameters'}"


def counts(found: Sequence[Pair]) -> str:
    """Return how many claims keep their verdict."""
    moved, other = sum(pair.moved for pair in found), sum(pair.elsewhere for pair in found)
    setting = f" {other} were asked in another setting." if other else ""
    return f"{len(found)} claims: {len(found) - moved} keep their verdict, {moved} have another one.{setting}"


def moves(found: Sequence[Pair]) -> str:
    """Return which verdicts moved, in one line."""
    said = [f"{p.published.claim.id}: {p.published.verdict} → {p.yours.verdict}" for p in found if p.moved]
    return "verdicts that moved: " + ("; ".join(said) or "none")


def as_text(found: Sequence[Pair], head: str) -> str:
    """Return the comparison for a terminal: what moved or was asked elsewhere in full, the rest in a line each."""
    parts = [head, counts(found)]
    parts += ["\n".join(_block(pair)) for pair in found if pair.moved or pair.elsewhere]
    rest = [pair for pair in found if not (pair.moved or pair.elsewhere)]
    parts.append("\n".join(_line(f"{p.published.claim.id} {p.yours.verdict}, as published:", p) for p in rest))
    return "\n\n".join(part for part in (*parts, moves(found)) if part)


def as_markdown(found: Sequence[Pair], head: str, figures: Mapping[str, str]) -> str:
    """Return the comparison as Markdown; figures: by file what to say of each."""
    parts = [f"# {head}", f"{counts(found)}"]
    for pair in found:
        parts += [f"## {pair.published.claim.id}: {_verdicts(pair)}", f"**{pair.published.claim.statement}**"]
        parts.append("\n".join(f"- {name}: {said}" for name, said in _facts(pair)))
    rows = [" | ".join(row) for row in (TESTS, ["---"] * len(TESTS), *_tests(found))]
    parts += ["## Every test", "\n".join(f"| {row} |" for row in rows)]
    parts += ["## Figures of this run", *(f"![{said}]({file})\n\n{said}" for file, said in figures.items())]
    return "\n\n".join(parts) + "\n"


def as_html(found: Sequence[Pair], head: str, figures: Mapping[str, str]) -> str:
    """Return the comparison as a page that needs nothing but its figures."""
    sections = [f"<h1>{escape(head)}</h1>\n<p>{escape(counts(found))}</p>"]
    for pair in found:
        claim, (_, mine) = pair.published.claim, pair.outcomes
        verdicts = f"{badge(pair.published.verdict)} → {badge(pair.yours.verdict)}"
        facts = "".join(f"<dt>{name}</dt><dd>{escape(said)}</dd>" for name, said in _facts(pair))
        sections.append(
            f'<section id="{claim.id}"><h2>{claim.id}: {verdicts}</h2>'
            f"<p><strong>{escape(claim.statement)}</strong></p><dl>{facts}</dl>{picture(mine)}</section>"
        )
    head_row = "".join(f'<th scope="col">{name}</th>' for name in TESTS)
    rows = "\n".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in _tests(found))
    sections.append(f'<h2>Every test</h2>\n<div class="wide"><table><tr>{head_row}</tr>\n{rows}</table></div>')
    shown = (
        f'<figure><img src="{file}" alt="{escape(said)}"><figcaption>{escape(said)}</figcaption></figure>'
        for file, said in figures.items()
    )
    body = "\n".join([*sections, "<h2>Figures of this run</h2>", *shown])
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(head)}</title>\n'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>\n'
        f"<body>\n{body}\n</body></html>\n"
    )


def _verdicts(pair: Pair) -> str:
    return f"{pair.published.verdict} → {pair.yours.verdict}" if pair.moved else f"{pair.yours.verdict}, as published"


def _facts(pair: Pair) -> Iterator[tuple[str, str]]:
    """Yield what is said of a claim beside its sentence."""
    before, mine = pair.outcomes
    yield "measured", f"{pair.yours.quantity(mine)}; demanded {mine.test.rule}"
    yield "published", f"{before.verdict}, {before.text}" if before.estimates else before.text
    yield "yours", f"{mine.verdict}, {mine.text}" if mine.estimates else mine.text
    yield "why", pair.why


def _tests(found: Sequence[Pair]) -> Iterator[tuple[str, ...]]:
    for pair in found:
        for line in compare_records([pair.published], [pair.yours]):
            yield line.key, line.published, line.yours, line.answer


def _block(pair: Pair) -> Iterator[str]:
    yield _line(f"{pair.published.claim.id} {_verdicts(pair)}:", pair)
    for name, said in _facts(pair):
        yield textwrap.fill(f"{name + ':':<11}{said}", WIDTH, initial_indent="    ", subsequent_indent=" " * 15)


def _line(lead: str, pair: Pair) -> str:
    return textwrap.fill(f"{lead} {pair.published.claim.statement}", WIDTH, subsequent_indent="    ")
