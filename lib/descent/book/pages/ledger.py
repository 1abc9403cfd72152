"""The ledger page: a row per claim, which opens to everything its verdict rests on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from descent.book.execute.chapter import Chapter, recorded
from descent.book.pages.html import badge, raw, table
from descent.book.pages.picture import picture
from descent.book.pages.rules_page import PAGE, mark
from descent.book.pages.sources_table import source_table
from descent.book.sources.provenance import Home
from descent.claims import Outcome, Record, Verdict, counted, identities, standing
from descent.claims.tallies import source_of

INSTRUMENTS = "how-we-know.html"
COLUMNS = ("claim", "verdict", "statement", "estimate, 95 % interval", "demanded", "seconds")
KNOWN = {
    "secondary": "from a secondary source",
    "recalled": "recalled, not the paper's words",
    "derived": "derived here",
}


def ledger_table(
    chapters: Sequence[Chapter],
    large: Mapping[str, Record],
    moved: Mapping[str, str],
    agreed: Mapping[str, str],
    nights: Mapping[str, Record] | None = None,
    more: Mapping[str, str] | None = None,
) -> str:
    """Return the ledger: per claim one table body with the id as its permanent anchor.

    large: what was measured at paper scale, by claim; moved: in which way claims moved, which are marked;
    agreed: how many other seeds gave a claim's verdict; nights: what was measured in nights of two cores, by claim;
    more: what else an opened claim says, as pairs of HTML.
    """
    found = recorded(chapters)
    homes = {id: home for chapter in chapters for id, home in chapter.homes.items()}
    bodies = "\n".join(
        _body(
            record,
            homes[record.claim.id],
            large.get(record.claim.id),
            _notes(record.claim.id, moved, agreed),
            (nights or {}).get(record.claim.id),
            (more or {}).get(record.claim.id, ""),
        )
        for record in (*counted(found), *identities(found))
    )
    caption = f"{standing(found)}.{_last(found)}{_moved(moved)}"
    whole = raw(table("ledger sortable", "Ledger of claims", caption, COLUMNS, bodies))
    return f"{whole}\n\n## By whose sentence\n\n{source_table(found)}"


def _last(records: Sequence[Record]) -> str:
    """Return where the identities stand."""
    link = f'<a href="{INSTRUMENTS}#identities">How we know</a>'
    return f" The identities stand last, and on {link}." if identities(records) else ""


def _moved(moved: Mapping[str, str]) -> str:
    """Return how many claims had a rule that moved, and where that is told."""
    link = f'<a href="{PAGE}">How the rules came to be</a>'
    return f" {len(moved)} of them were changed after they could be measured: {link}." if moved else ""


def remarks(record: Record) -> str:
    """Return where a claim stands in its paper, how it is known, and its conditions, as small print."""
    claim = record.claim
    place = "; ".join([claim.place, *([KNOWN[claim.known]] if claim.known in KNOWN else [])])
    return "".join(f"<br><small>{escape(text)}</small>" for text in (place, claim.conditions) if text)


def _body(record: Record, home: Home, large: Record | None, note: str, night: Record | None, facts: str) -> str:
    claim = record.claim
    more = (
        f'<tr class="more"><td colspan="{len(COLUMNS)}"><details><summary>{_count(record)} of {claim.id}, '
        f"with rules, data and code</summary>\n{_opened(record, home, large, night, facts)}\n</details></td></tr>"
    )
    source, verdict = ("identities", "identity") if claim.identity else (source_of(claim).key, str(record.verdict))
    marks = (
        f'data-paper="{record.paper}" data-source="{source}" data-verdict="{verdict}" '
        f'data-scale="{_scales(record, large, night)}" data-sort="{escape(json.dumps(_keys(record)))}"'
    )
    return f'<tbody id="{claim.id}" {marks}>\n{_lead(record, large, note, night)}\n{more}\n</tbody>'


def _lead(record: Record, large: Record | None, note: str, night: Record | None) -> str:
    """Return the row that a claim is told by; its number stands under the name of the quantity."""
    claim, head = record.claim, record.headline
    return (
        f'<tr><th scope="rowgroup"><a href="#{claim.id}">{claim.id}</a></th>'
        f"<td>{badge(record.verdict)}{_identity(record)}{_otherwise(record, large)}{_at_night(night)}{note}</td>"
        f'<td class="statement">{escape(claim.statement)}{remarks(record)}</td>'
        f'<td class="estimate" data-label="estimate"><span class="quantity">{escape(record.quantity(head))}</span><br>'
        f"<strong>{escape(head.text)}</strong><br>{picture(head, _twin(head, large))}</td>"
        f'<td data-label="demanded">{escape(str(head.test.rule))}<br><small>{head.test.rule.kind}</small></td>'
        f'<td data-label="seconds">{record.seconds:.1f}</td></tr>'
    )


def _count(record: Record) -> str:
    count = len(record.outcomes)
    return "the test" if count == 1 else f"all {count} tests"


def _opened(record: Record, home: Home, large: Record | None, night: Record | None, more: str) -> str:
    tests = "\n".join(f"<li>{_test(record, outcome, _twin(outcome, large))}</li>" for outcome in record.outcomes)
    facts = f"{''.join(_facts(record, home))}{_paper_scale(record, large)}{_night(night)}{more}"
    return f'<ul class="tests">\n{tests}\n</ul>\n<dl>{facts}</dl>'


def _notes(claim: str, moved: Mapping[str, str], agreed: Mapping[str, str]) -> str:
    """Return what stands below a verdict: other seeds, and whether the rule moved."""
    seeds = f"<br><small>{escape(agreed[claim])}</small>" if claim in agreed else ""
    return seeds + mark(claim, moved)


def _identity(record: Record) -> str:
    return "<br><small>identity, in no count</small>" if record.claim.identity else ""


def _otherwise(record: Record, large: Record | None) -> str:
    """Return the verdict at paper scale where it is another one, and rests on all that this one rests on."""
    if large is None or large.verdict is record.verdict or not set(record.measured()) <= set(large.measured()):
        return ""
    return f"<br><small>at paper scale<br>{badge(large.verdict)}</small>"


def _twin(outcome: Outcome, large: Record | None) -> Outcome | None:
    """Return the same test at paper scale."""
    return next((each for each in large.outcomes if each.test.key == outcome.test.key), None) if large else None


def _scales(record: Record, *others: Record | None) -> str:
    return ", ".join(each.provenance.scale for each in (record, *others) if each)


def _at_night(night: Record | None) -> str:
    """Return the verdict of a night, which always is about other networks than this page's."""
    return f"<br><small>networks, by night<br>{badge(night.verdict)}</small>" if night else ""


def _night(night: Record | None) -> str:
    """Return what was found in a night, test by test."""
    if night is None:
        return ""
    made, took = night.provenance, f"{night.seconds / 3600:.1f} core-hours"
    lines = [f"{badge(night.verdict)} on {escape(made.device_class)}, {made.date}, {took}"]
    lines += [f"<code>{o.test.key}</code>: {escape(o.text)}" for o in night.outcomes if o.test.stated_for(made.scale)]
    lines.append("stated for paper scale alone, by the same rules; smaller networks and fewer images than there")
    return _fact("night", "<br>".join(lines))


def _paper_scale(record: Record, large: Record | None) -> str:
    """Return what was found at paper scale, test by test, and how it may be compared with this page's."""
    if large is None:
        stated = any("gpu" in outcome.test.scales for outcome in record.outcomes)
        return _fact("paper scale", "not yet measured" if stated else "")
    made = large.provenance
    lines = [f"{badge(large.verdict)} on {escape(made.device_class)}, {made.date}, {large.seconds:.0f} s"]
    lines += [f"{escape(large.quantity(o))}: {escape(o.text)}" for o in large.outcomes if o.estimates]
    later = [o for o in large.outcomes if not o.estimates and "cpu" not in o.test.scales]
    lines += [f"{escape(large.quantity(o))}: not yet measured" for o in later]
    lines.append(
        "drawn above with open circles; another configuration than this page's: verdicts may be compared, "
        "digits may not"
    )
    return _fact("paper scale", "<br>".join(lines))


def _test(record: Record, outcome: Outcome, large: Outcome | None) -> str:
    """Return one test: its quantity and rule, what was measured, and the verdict."""
    joint = f"for all tests of the paper jointly {escape(outcome.family_text)}; " if outcome.estimates else ""
    needed = outcome.replicas_to_settle
    parts = (
        f"{badge(outcome.verdict)} <code>{outcome.test.key}</code>: {escape(record.quantity(outcome))}"
        f"{' <small>(identity)</small>' if outcome.test.identity else ''}",
        f"<strong>{escape(outcome.text)}</strong>; {joint}"
        f"demanded: {outcome.test.rule.kind}, {escape(str(outcome.test.rule))}",
        f"a margin of its own because {escape(outcome.test.because)}" if outcome.test.because else "",
        f"interval: {outcome.estimates[0].method}" if outcome.estimates else "",
        f"{needed} replicas would settle it" if needed else "",
        picture(outcome, large),
    )
    return "<br>".join(part for part in parts if part)


def _facts(record: Record, home: Home) -> Iterator[str]:
    made = record.provenance
    names = dict.fromkeys(outcome.experiment for outcome in record.outcomes if outcome.experiment)
    yield _fact("read", f'<a href="{home.section}">{escape(home.title)}</a>')
    yield _fact("data", ", ".join(_file(file) for name in names for file in home.tables.get(name, ())))
    code = [home.code[name] for name in names if name in home.code]
    yield _fact("computed by", ", ".join(f'<a href="{each.address}"><code>{each.name}</code></a>' for each in code))
    configs = dict.fromkeys(outcome.config for outcome in record.outcomes if outcome.config)
    machine = escape(made.instructions or made.device_class)
    drawn = dict.fromkeys(outcome.registration[:8] for outcome in record.outcomes if outcome.registration)
    seed = f"master seed {made.seed}" + (f" of registration {', '.join(drawn)}" if drawn else "")
    yield _fact("run", f"scale {made.scale}, {machine}, {seed}, {record.seconds:.1f} s, {made.date}")
    yield _fact(
        "digests",
        f"configuration {', '.join(f'<code>{config}</code>' for config in configs) or '–'}, "
        f"library <code>{made.library}</code>, torch {escape(made.torch)}",
    )
    related = [*record.claim.see, *record.claim.paired_with]
    yield _fact("see also", ", ".join(f'<a href="#{id}">{id}</a>' for id in related))
    yield _fact("not made", escape(record.notes))


def _fact(name: str, content: str) -> str:
    return f"<dt>{name}</dt><dd>{content}</dd>" if content else ""


def _file(address: str) -> str:
    return f'<a href="{address}" download>{address.rpartition("/")[2]}</a>'


def _keys(record: Record) -> list[Any]:
    """Return one sorting key per column."""
    claim, head = record.claim, record.headline
    value = head.estimates[0].value if head.estimates else -1e308
    demanded = head.test.rule.region.low if head.test.rule.region.low > -1e308 else -1e308
    return [claim.id, list(Verdict).index(record.verdict), claim.statement, value, demanded, record.seconds]
