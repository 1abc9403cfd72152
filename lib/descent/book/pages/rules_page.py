"""The page of rules: every form a test had, when it was left, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from string import ascii_uppercase

from descent.book.pages.html import badge, raw, table
from descent.book.sources.project import Project, sound
from descent.claims import Outcome, Record, Verdict, spell
from descent.claims.moves import KINDS, Earlier, Moves, Past, Reworded, load_moves

COLUMNS = ("test", "from", "what it asked", "why it was left")
PAGE = "rules.html"


@dataclass(frozen=True)
class Rules:
    """What moved, and what the tests are today, by key."""

    moves: Moves
    outcomes: Mapping[str, Outcome]

    @property
    def tests(self) -> list[Past]:
        """The tests that changed, in more than their symbols, after they could be measured; in the ledger's order."""
        return sorted((past for past in self.moves.past.values() if past.moved), key=lambda past: _order(past.claim))

    @property
    def anew(self) -> list[Past]:
        """The tests that did not move in that way, and were registered in another form since; in the ledger's order."""
        found = (past for past in self.moves.past.values() if past.anew and not past.moved)
        return sorted(found, key=lambda past: _order(past.claim))

    @property
    def sentences(self) -> dict[str, list[Reworded]]:
        """The sentences that were reworded, in more than their symbols, after that, by claim."""
        kept = {id: [each for each in found if each.kind != "symbols"] for id, found in self.moves.rewordings.items()}
        return {id: found for id, found in kept.items() if found}

    @property
    def claims(self) -> dict[str, str]:
        """The claims with such a test or sentence, in the ledger's order, and the gravest of their changes."""
        found = [(past.claim, form.kind) for past in self.tests for form in past.earlier if form.moved]
        found += [(id, each.kind) for id, sentences in self.sentences.items() for each in sentences]
        ids = sorted({id for id, _ in found}, key=_order)
        return {id: min((kind for claim, kind in found if claim == id and kind), key=list(KINDS).index) for id in ids}


def read(project: Project, records: Sequence[Record]) -> Rules:
    """Return the history of the project's rules; raise BookError where it cannot be read."""
    outcomes = {f"{record.claim.id}.{outcome.test.key}": outcome for record in records for outcome in record.outcomes}
    return Rules(sound(load_moves, project.claims), outcomes)


def anchor(claim: str) -> str:
    """Return a claim's place on this page, such as "p5-c11"."""
    return claim.lower()


def mark(claim: str, moved: Mapping[str, str]) -> str:
    """Return the mark that the ledger gives a claim with a rule that moved, a link to its history; "" for any other."""
    if claim not in moved:
        return ""
    title = f"After it could be measured {claim} was changed: what it said before, and why"
    return (
        f'<br><a class="moved" href="{PAGE}#{anchor(claim)}" title="{title}">'
        f"<small>rule moved: {KINDS[moved[claim]]}</small></a>"
    )


def tally(rules: Rules) -> str:
    """Return how many tests were stated, moved and dropped, how, and what the earlier forms would say today."""
    past = rules.moves.past.values()
    counts = Counter(form.kind for each in past for form in each.earlier)
    late = [form for each in past for form in each.earlier if form.moved]
    published = sum(form.published for form in late)
    gone = sum(each.dropped and each.key not in rules.outcomes for each in past)
    kinds = "; ".join(f"{KINDS[kind]}: {counts[kind]}" for kind in KINDS if counts[kind] and kind != "registered")
    lines = (
        f"{len(past)} tests have earlier forms or were stated in edition 1; {gone} of them are no longer asked.",
        f"{len(rules.tests)} tests were changed in more than their symbols after they could be measured: {len(late)} "
        f"changes. {published} of them came after a number of the test had been published, {len(late) - published} "
        "with the experiment or after it, but before that.",
        f"By what a change meant, those in symbols alone among them: {kinds}; before the test could be measured: "
        f"{counts['']}.",
        f"The sentences of {len(rules.sentences)} claims were changed in more than their symbols, too.",
        _born([each.key for each in past if each.after_code]),
        _judged(rules),
        f"{counts['registered']} forms were left when rules were registered anew, with other numbers for the next.",
    )
    items = "\n".join(f"<li>{escape(line)}</li>" for line in lines if line)
    return raw(f"<ul>\n{items}\n</ul>")


def history_table(rules: Rules) -> str:
    """Return the forms of every test that moved, per claim, each until it was left."""
    bodies = []
    for claim in rules.claims:
        sentences = map(_sentence, rules.sentences.get(claim, ()))
        rows = [*sentences, *_forms(rules, claim, rules.tests)]
        bodies.append(_body(rules, claim, rows, f' id="{anchor(claim)}"'))
    caption = f"{len(bodies)} claims, {len(rules.tests)} tests; the last row of a test is what stands today."
    return raw(table("rules", "Rules that moved", caption, COLUMNS, "\n".join(bodies)) + _registered_anew(rules))


def _registered_anew(rules: Rules) -> str:
    """Return all other tests that were registered in another form, folded away; "" where there is none."""
    claims = dict.fromkeys(past.claim for past in rules.anew)
    bodies = [_body(rules, claim, _forms(rules, claim, rules.anew)) for claim in claims]
    if not bodies:
        return ""
    caption = f"{len(rules.anew)} tests that edition 1 did not move, with the form that was registered before."
    whole = table("anew", "Rules registered anew", caption, COLUMNS, "\n".join(bodies))
    return f"\n<details><summary>Registered anew: {len(rules.anew)} more tests</summary>\n{whole}\n</details>"


def _born(keys: Sequence[str]) -> str:
    """Return which tests were first written down when they could be measured already."""
    by = ", ".join(f"{count} of {paper}" for paper, count in Counter(key.partition("-")[0] for key in keys).items())
    said = f"{len(keys)} tests ({by}) were first written down when the experiments could measure their claim already"
    return f"{said}: no history can show that the rule came first." if keys else ""


def _judged(rules: Rules) -> str:
    """Return what the earlier forms would say of today's numbers, where these are numbers of the same quantity."""
    places = [(past, index) for past in rules.tests for index in range(len(past.earlier))]
    verdicts = [past.judged(index, rules.outcomes.get(past.key)) for past, index in places]
    found = Counter(verdict for verdict in verdicts if verdict)
    said = f"{found.total()} earlier forms, with another region, ask for a quantity that is measured today"
    return f"{said}. Held against today's numbers: {spell(found)}." if found else ""


def _body(rules: Rules, claim: str, rows: Iterable[str], attribute: str = "") -> str:
    """Return a claim's rows below its name, a link to the ledger where the claim is still stated."""
    stated = any(key.startswith(f"{claim}.") for key in rules.outcomes)
    name = f'<a href="ledger.html#{claim}">{claim}</a>' if stated else claim
    head = f'<tr><th colspan="{len(COLUMNS)}" scope="rowgroup">{name}</th></tr>'
    return f"<tbody{attribute}>\n" + "\n".join([head, *rows]) + "\n</tbody>"


def _forms(rules: Rules, claim: str, tests: Iterable[Past]) -> Iterator[str]:
    """Yield the rows of those tests that are a claim's."""
    for past in tests:
        if past.claim == claim:
            yield from _rows(past, rules.outcomes.get(past.key))


def _sentence(form: Reworded) -> str:
    why = f"<strong>{KINDS[form.kind]}</strong>: {escape(form.why)}<br><small>{form.left}</small>"
    return _row("the claim's sentence", form.date, escape(form.statement), why)


def _rows(past: Past, outcome: Outcome | None) -> Iterator[str]:
    """Yield a row per form: the earlier ones, then what stands."""
    name = f"<code>{past.key.partition('.')[2]}</code>"
    for index, form in enumerate(past.earlier):
        asked = _asked(form.quantity, str(form.rule)) + _then(form) + _today(past.judged(index, outcome))
        yield _row(name, form.date, asked, _left(form))
    since = past.earlier[-1].left
    if outcome:
        found = f"<br>{badge(outcome.verdict)} {escape(outcome.text)}" if outcome.estimates else ""
        asked = _asked(outcome.test.quantity, str(outcome.test.rule)) + found
        yield _row(name, "" if past.dropped else since, asked, "asked again" if past.dropped else "stands")
    elif past.dropped:
        yield _row(name, since, "no longer asked", "–")


def _row(name: str, date: str, asked: str, why: str) -> str:
    return f'<tr><th scope="row">{name}</th><td>{date}</td><td>{asked}</td><td>{why}</td></tr>'


def _asked(quantity: str, rule: str) -> str:
    return f"{escape(quantity)}: <strong>{escape(rule)}</strong>"


def _then(form: Earlier) -> str:
    """Return what the form had when it was left, if that was published."""
    return f"<br>then {badge(Verdict(form.verdict))} {escape(form.estimate)}" if form.verdict else ""


def _today(verdict: Verdict | None) -> str:
    return f"<br><small>held against today's number: {badge(verdict)}</small>" if verdict else ""


def _left(form: Earlier) -> str:
    """Return why a form was left: in which way it changed, the note, and the day and the commit that say so."""
    why = f"<strong>{KINDS[form.kind]}</strong>: {escape(form.why)}" if form.kind else "before it could be measured"
    source = f", “{escape(form.subject)}” ({form.commit})" if form.subject else ""
    return f"{why}<br><small>{form.left}{source}</small>"


def _order(claim: str) -> tuple[str, str, int]:
    """Return the order of claims: by paper, its own before ours, by number."""
    paper, _, number = claim.partition("-")
    digits = number.lstrip(ascii_uppercase)
    return paper, number.removesuffix(digits), int(digits)
