"""What other master seeds said of every test, kept to be shown beside a verdict and never used to choose anything.

`descent check CHAPTER --save` writes data/published/agreement/<chapter>.json: per test the verdict at the published
seed and at each of the others, with the rule and the registration under which they were drawn.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from descent.claims.record import Outcome, Record
from descent.claims.registry import form_digest
from descent.claims.verdict import Verdict, combine
from descent.results import MALFORMED, content_hash, read_json, write_json

__all__ = ["Agreement", "Redrawn", "agreed", "load_agreement", "save_agreement"]

SCHEMA = 1
MOST = 2  # tests that are named


@dataclass(frozen=True)
class Redrawn:
    """One test at other seeds: digest of its rule's form, tests judged with it, registration, verdicts by seed.

    registration: of the rules and the configuration of the experiment that measured it.
    """

    rule: str  # digest of the rule's form
    family: int
    registration: str
    published: Verdict
    others: Mapping[int, Verdict]  # verdicts at the other seeds, by seed


@dataclass(frozen=True)
class Agreement:
    """A chapter's tests at other seeds, by key; when that was found, and by which version of the library."""

    chapter: str
    date: str
    version: str
    seed: int
    tests: Mapping[str, Redrawn]

    @property
    def others(self) -> list[int]:
        """The other seeds."""
        return sorted({seed for test in self.tests.values() for seed in test.others})


def agreed(record: Record, found: Agreement, registered: Mapping[str, str]) -> str:
    """Return how many other seeds gave a claim's verdict; "" where none was tried.

    Such as "4 of 5 other seeds agree", and where some do not, which tests gave them another word: "cifar: inconclusive
    at 1".
    record: under today's claims, see `restated`; registered: today's registration by experiment, as far as known. What
    was drawn under other rules is said to be stale.
    """
    made = {f"{record.claim.id}.{each.test.key}": each for each in record.outcomes if each.estimates}
    drawn = {key: found.tests[key] for key in made if key in found.tests}
    if not drawn:
        return ""
    if len(drawn) < len(made) or any(_is_stale(drawn[key], made[key], registered) for key in drawn):
        return f"other seeds: stale, of {found.date} under other rules"
    verdicts = [combine(test.others[seed] for test in drawn.values() if seed in test.others) for seed in found.others]
    tested = [verdict for verdict in verdicts if verdict is not Verdict.NOT_TESTED]
    same = sum(verdict is record.verdict for verdict in tested)
    strayed = _strayed(drawn) if same < len(tested) else ""
    return f"{same} of {len(tested)} other seeds agree{strayed}"


def _strayed(drawn: Mapping[str, Redrawn]) -> str:
    """Return which tests have another verdict at other seeds, most often first, and how often."""
    found = [
        (count, key.partition(".")[2], verdict)
        for key, test in drawn.items()
        for verdict, count in Counter(test.others.values()).items()
        if verdict not in (test.published, Verdict.NOT_TESTED)
    ]
    named = [f"{key}: {verdict} at {count}" for count, key, verdict in sorted(found, key=lambda one: -one[0])]
    more = f"; {len(named) - MOST} more" if len(named) > MOST else ""
    return "; " + "; ".join(named[:MOST]) + more if named else ""


def _is_stale(test: Redrawn, outcome: Outcome, registered: Mapping[str, str]) -> bool:
    """Tell whether a test was drawn under another rule, family or registration, or beside another published verdict."""
    drawn = registered.get(outcome.experiment, test.registration)
    now = (form_digest(outcome.test), outcome.family, drawn, outcome.verdict)
    return now != (test.rule, test.family, test.registration, test.published)


def save_agreement(path: Path, agreement: Agreement) -> None:
    """Write it with its hash, atomically.

    agreement: the tests with their verdicts by seed.
    """
    content = {"schema": SCHEMA, **vars(agreement), "tests": {key: _to(test) for key, test in agreement.tests.items()}}
    write_json(path, content | {"sha256": content_hash(content)})


def load_agreement(path: Path) -> Agreement:
    """Read one; raise ValueError naming file, fault and remedy for one that is damaged, altered or another's."""
    remedy = f"run `descent check {path.stem} --save` again, or remove the file"
    try:
        content = read_json(path)
        if content.get("schema") != SCHEMA:
            raise ValueError(f"schema {content.get('schema')!r}, this library reads {SCHEMA}")
        made = _agreement(content)
        if content.get("sha256") != content_hash(content):
            raise ValueError("it was changed after it was written")
        if made.chapter != path.stem:
            raise ValueError(f"it is of chapter {made.chapter!r}")
    except ValueError as fault:
        raise ValueError(f"{path.name} in {path.parent.name}: {fault}; {remedy}") from None
    except MALFORMED as fault:
        raise ValueError(f"{path.name} in {path.parent.name}: incomplete or malformed ({fault!r}); {remedy}") from None
    return made


def _agreement(content: Mapping[str, Any]) -> Agreement:
    tests = {key: _redrawn(one) for key, one in content["tests"].items()}
    given = {name: content[name] for name in ("chapter", "date", "version", "seed")}
    return Agreement(tests=tests, **given)


def _to(test: Redrawn) -> dict[str, Any]:
    others = {str(seed): str(verdict) for seed, verdict in test.others.items()}
    return {**vars(test), "published": str(test.published), "others": others}


def _redrawn(content: Mapping[str, Any]) -> Redrawn:
    others = {int(seed): Verdict(verdict) for seed, verdict in content["others"].items()}
    return Redrawn(**{**content, "published": Verdict(content["published"]), "others": others})
