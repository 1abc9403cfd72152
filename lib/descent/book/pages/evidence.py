"""What the page How we know says of the rules: which are identities, and with which chance the others could fail."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape

from descent.book.execute.chapter import Chapter, recorded
from descent.book.pages.html import badge, raw, table
from descent.claims import Outcome, Record, counted, identities
from descent.claims.margins import Unit
from descent.claims.power import Power, has_ends, measured, powers

IDENTITIES = ("test", "what is compared", "asked", "found", "verdict")
POWER = ("test", "rule", "found ± standard error", "holds without effect", "fails at half", "fails at most")


def identity_table(records: Sequence[Record]) -> str:
    """Return every test that is an identity with its number: those of claims that are nothing else, then the others."""
    groups = {"claims that are identities": identities(records), "among the tests of other claims": counted(records)}
    found = {name: [row for record in group for row in _identities(record)] for name, group in groups.items()}
    tests = sum(map(len, found.values()))
    if not tests:
        return "There are none."
    bodies = "\n".join(_group(name, rows) for name, rows in found.items() if rows)
    caption = f"{len(identities(records))} claims and {tests} tests in all are identities; no count of claims has them."
    return raw(table("identities", "Identities", caption, IDENTITIES, bodies))


def only_hold_list(records: Sequence[Record], units: Mapping[str, Unit]) -> str:
    """Return the tests whose rule could not have failed, whatever the effect, and of how many that can be said."""
    found = powers(records, units)
    ended = sum(has_ends(outcome, units) for _, outcome in measured(records))
    known = (
        f"Between which ends the quantity can lie is known of {ended} of these {len(found)} tests; of the others "
        "anything is taken to be possible, so that more of them may be unable to fail than are listed."
    )
    keys = [_key(power.key) + f": {escape(power.rule)}" for power in found if power.only_holds]
    if not keys:
        return raw(f"<p>None of {len(found)} tests is known to be one that can only hold. {known}</p>")
    items = "\n".join(f"<li>{key}</li>" for key in keys)
    return raw(f"<p>{len(keys)} of {len(found)} tests can only hold. {known}</p>\n<ul>\n{items}\n</ul>")


def power_tables(chapters: Sequence[Chapter], units: Mapping[str, Unit]) -> str:
    """Return what every measured test could have said, one folded table per paper, after what all of them come to."""
    parts = [_folded(chapter, found) for chapter in chapters if (found := powers(chapter.records, units))]
    return raw("\n".join([_summary(powers(recorded(chapters), units)), *parts]))


def _group(name: str, rows: Sequence[str]) -> str:
    head = f'<tr><th colspan="{len(IDENTITIES)}" scope="rowgroup">{name}</th></tr>'
    return "\n".join(["<tbody>", head, *rows, "</tbody>"])


def _identities(record: Record) -> Iterator[str]:
    for outcome in record.outcomes:
        if outcome.test.identity:
            yield _identity(f"{record.claim.id}.{outcome.test.key}", record.quantity(outcome), outcome)


def _identity(key: str, quantity: str, outcome: Outcome) -> str:
    cells = (
        escape(quantity), escape(str(outcome.test.rule)), escape(outcome.text), badge(outcome.verdict),
    )  # fmt: skip
    return f'<tr><th scope="row">{_key(key)}</th>' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _summary(found: Sequence[Power]) -> str:
    """Return in words how often tests would have said the wrong thing, and how often they would have failed."""
    lenient = sum(power.holds_without > 0.05 for power in found)
    strict = sum(power.fails_at_half > 0.5 for power in found)
    return (
        f"<p>Of {len(found)} measured tests {lenient} would say <em>holds</em> without any effect in more than one of "
        f"twenty runs; {strict} would rather fail than not if the effect were half of what was found.</p>"
    )


def _folded(chapter: Chapter, found: Sequence[Power]) -> str:
    paper, rows = chapter.records[0].paper, "\n".join(map(_row, found))
    lenient = sum(power.only_holds for power in found)
    more = f", {lenient} of which can only hold" if lenient else ""
    caption = f"{_tests(found)} of {paper}{more}. Chances per run, at the spread that was published."
    whole = table("power", f"Can the rules of {paper} fail?", caption, POWER, f"<tbody>\n{rows}\n</tbody>")
    return f"<details><summary>{paper}, {escape(chapter.title)}: {_tests(found)}</summary>\n{whole}\n</details>"


def _tests(found: Sequence[Power]) -> str:
    return "1 test" if len(found) == 1 else f"{len(found)} tests"


def _row(power: Power) -> str:
    chances = (power.holds_without, power.fails_at_half, power.fails_most)
    cells = [escape(power.rule), f"{power.found:.4g} ± {power.error:.2g}".replace("-", "−"), *map(_percent, chances)]
    return f'<tr><th scope="row">{_key(power.key)}</th>' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _percent(chance: float) -> str:
    """Return a chance in per cent, without a zero or a hundred that are none."""
    percent = 100 * chance
    if 0 < percent < 0.1:
        return "&lt; 0.1 %"
    return "&gt; 99.9 %" if 99.9 < percent < 100 else f"{percent:.3g} %"


def _key(key: str) -> str:
    """Return a test's name as a link to its claim."""
    return f'<a href="ledger.html#{key.partition(".")[0]}">{key}</a>'
