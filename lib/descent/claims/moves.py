"""What rules said before: the forms a test had, when it left each and why, read from the files that keep them.

data/claims/edition1.json is edition 1 as git remembers it (see `reconstruct`), edition1_notes.yaml says by hand what
each change meant, and registry.json holds what registered rules were before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from descent.claims.record import Outcome
from descent.claims.verdict import Rule, Test, Verdict, judge, rule_from
from descent.results import MALFORMED, read_json, read_yaml

__all__ = ["KINDS", "Earlier", "Moves", "Past", "Reworded", "load_moves"]

Note = Mapping[str, Any]
Notes = Mapping[tuple[str, str], Note]
"""Notes by test, or claim, and commit."""

HISTORY, NOTES, REGISTRY = "edition1.json", "edition1_notes.yaml", "registry.json"
KINDS = {
    "dropped": "no longer asked",
    "easier": "asks for less",
    "other": "asks another question",
    "harder": "asks for more",
    "named": "says which cells or steps",
    "symbols": "the same in other symbols",
    "registered": "registered anew",
}
"""What a change can mean, the gravest first."""


@dataclass(frozen=True)
class Earlier:
    """A form that a test had from `date` until `left`.

    kind: what the change that ended it meant, one of KINDS; "" where it came before the test could be measured.
    same: the next form asks for the same quantity. why: in a person's words; subject: in the commit's.
    published: a number of it had been published by then. estimate, verdict: what it had, "" where none was published.
    """

    quantity: str
    rule: Rule  # the rule it had
    scales: tuple[str, ...]
    date: str
    left: str  # the day on which it was left
    kind: str
    same: bool
    why: str
    subject: str = ""
    commit: str = ""  # hash of the commit that ended it
    published: bool = False
    estimate: str = ""
    verdict: str = ""

    @property
    def moved(self) -> bool:
        """Whether it was left, for more than its symbols, after it could be measured, with no new draw for the next."""
        return self.kind not in ("", "symbols", "registered")


@dataclass(frozen=True)
class Past:
    """The earlier forms of one test, the first one first.

    dropped: the last of them was not replaced; after_code: when the first one was written down, the claim could be
    measured already.
    """

    key: str
    earlier: tuple[Earlier, ...]
    dropped: bool
    after_code: bool

    @property
    def claim(self) -> str:
        """The id of the claim it belongs to."""
        return self.key.partition(".")[0]

    @property
    def moved(self) -> bool:
        """Whether it changed, in more than its symbols, after it could be measured, and was not drawn anew for that."""
        return any(form.moved for form in self.earlier)

    @property
    def anew(self) -> bool:
        """Whether it was registered in another form, and so judged by other numbers since."""
        return any(form.kind == "registered" for form in self.earlier)

    def judged(self, index: int, outcome: Outcome | None) -> Verdict | None:
        """Return what an earlier form makes of the number the test has now; None where that number is another one."""
        form = self.earlier[index]
        if outcome is None or not outcome.estimates or form.rule == outcome.test.rule:
            return None
        if outcome.test.rule.each and not form.rule.each:  # a number for every cell, where it asked for one
            return None
        if form.quantity != outcome.test.quantity and not all(later.same for later in self.earlier[index:]):
            return None
        return judge(Test(outcome.test.key, form.quantity, form.rule, form.scales), outcome.estimates, outcome.family)


@dataclass(frozen=True)
class Reworded:
    """A claim's sentence as it stood from `date` until `left`, although its tests could be measured by then."""

    statement: str
    date: str
    left: str  # the day on which it was left
    kind: str
    why: str


@dataclass(frozen=True)
class Moves:
    """The past of every test by its key, and the reworded sentences of claims by id."""

    past: Mapping[str, Past]  # by the key of the test
    rewordings: Mapping[str, Sequence[Reworded]]  # by the id of the claim


def load_moves(folder: Path) -> Moves:
    """Return what moved, from a folder of claims; nothing where it holds no history.

    Raises: ValueError naming a change without a note, and files of another shape.
    """
    if not (folder / HISTORY).is_file():
        return Moves({}, {})
    try:
        found, notes = read_json(folder / HISTORY), read_yaml(folder / NOTES)
        moves, wordings = _by_name(notes["moves"], "tests"), _by_name(notes["wordings"], "claims")
        past = {key: _past(key, stands, moves) for key, stands in found["tests"].items()}
        later = _registered(folder)
        sentences = {id: tuple(_reworded(id, entries, wordings)) for id, entries in found["wordings"].items()}
    except MALFORMED as fault:
        raise ValueError(f"{HISTORY}, {NOTES} or {REGISTRY} has another shape: {fault!r}; restore it") from fault
    past |= {key: _joined(past.get(key), key, *added) for key, added in later.items()}
    return Moves(past, {id: found for id, found in sentences.items() if found})


def _by_name(notes: Sequence[Note], names: str) -> Notes:
    """Return the notes by test, or claim, and commit."""
    return {(name, note["commit"]): note for note in notes for name in note[names]}


def _noted(name: str, commit: str, notes: Notes) -> Note:
    if (name, commit) not in notes:
        raise ValueError(f"{NOTES} does not say why {name} moved in {commit}; add a note")
    return notes[name, commit]


def _past(key: str, stands: Sequence[Mapping[str, Any]], notes: Notes) -> Past:
    later = [*[stand["form"]["quantity"] for stand in stands[1:]], ""]
    pairs = [(stand, after) for stand, after in zip(stands, later, strict=True) if stand["end"]]
    earlier = tuple(_earlier(key, stand, after, notes) for stand, after in pairs)
    return Past(key, earlier, stands[-1]["end"] == "dropped", stands[0]["after_code"])


def _earlier(key: str, stand: Mapping[str, Any], after: str, notes: Notes) -> Earlier:
    """Return one form; after: the quantity of the next one. What came before any measurement needs no note."""
    form = stand["form"]
    silent: Note = {"moved": "", "why": ""}
    note = _noted(key, stand["end_commit"], notes) if stand["after_measurement"] else silent
    same = after == form["quantity"] or note["moved"] == "symbols" or bool(note.get("same"))
    return Earlier(
        form["quantity"], rule_from(form["rule"]), tuple(form["scales"]), stand["date"], stand["end_date"],
        note["moved"], same, note["why"], stand["why"], stand["end_commit"], stand["evidence"] == "published",
        stand["estimate"], stand["verdict"],
    )  # fmt: skip


def _reworded(id: str, entries: Sequence[Mapping[str, Any]], notes: Notes) -> Iterator[Reworded]:
    """Yield the sentences of a claim that were reworded after its tests could be measured."""
    for before, after in pairwise(entries):
        if after["after_measurement"] and before["statement"] != after["statement"]:
            note = _noted(id, after["commit"], notes)
            yield Reworded(before["statement"], before["date"], after["date"], note["moved"], note["why"])


def _registered(folder: Path) -> dict[str, tuple[tuple[Earlier, ...], bool]]:
    """Return by test the forms that were registered before, and whether it is withdrawn; none without a registry."""
    if not (folder / REGISTRY).is_file():
        return {}
    found = {}
    for key, entry in read_json(folder / REGISTRY)["tests"].items():
        earlier = entry.get("earlier", [])
        found[key] = (tuple(map(_before, earlier, [*earlier[1:], entry])), bool(entry.get("withdrawn")))
    return {key: (forms, withdrawn) for key, (forms, withdrawn) in found.items() if forms or withdrawn}


def _before(entry: Mapping[str, Any], after: Mapping[str, Any]) -> Earlier:
    """Return a form that was registered until the day the next one was."""
    form, left = entry["form"], after["date"]
    same = form["quantity"] == after["form"]["quantity"]
    return Earlier(
        form["quantity"], rule_from(form["rule"]), tuple(form["scales"]), entry["date"], left, "registered", same,
        entry["why"], published=bool(entry["estimate"]), estimate=entry["estimate"], verdict=entry["verdict"],
    )  # fmt: skip


def _joined(past: Past | None, key: str, forms: tuple[Earlier, ...], withdrawn: bool) -> Past:
    """Return the past of a test with what the registry adds."""
    known = past or Past(key, (), False, False)
    return Past(key, known.earlier + forms, withdrawn, known.after_code)
