"""The record of a claim: its verdict with everything the verdict was computed from, as JSON and back."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from descent.claims.outcome import Outcome
from descent.claims.paper import Claim, Paper
from descent.claims.verdict import Verdict, combine
from descent.results import MALFORMED, Comparison, Kind, Measured, Provenance, compare, read_json, write_json

__all__ = [
    "DATA_MISSING",
    "Outcome",
    "Record",
    "compare_records",
    "disagreements",
    "faults",
    "load_records",
    "parted_tests",
    "quotes",
    "restated",
    "save_records",
]

SCHEMA = 1
RECORD, EARLIER = 2, 1
"""Schema of a record; an earlier one knows no draws of data and was judged without the least numbers of replicas."""
CLAIM_TEXTS = ("id", "place", "known", "statement", "conditions", "paper_shape")
CLAIM_LISTS = ("scales", "see", "paired_with")
DATA_MISSING = "data missing"
"""Why a test was not made where its image set is absent."""
BESIDE = ("basis", "earlier")
"""What a published ledger says of a test's rule beside the record, from the registry."""
VOLATILE = ("seconds", "date", "sha256", *BESIDE)
"""Fields outside the hash: two runs that agree in every digit have one hash."""


@dataclass(frozen=True)
class Record:
    """A claim as tested in one run of its chapter."""

    claim: Claim
    paper: str
    chapter: str
    outcomes: tuple[Outcome, ...]  # one per test
    provenance: Provenance = field(repr=False)

    @property
    def verdict(self) -> Verdict:
        """The verdict: fails if a test fails, holds if every test that was made holds, else inconclusive."""
        return combine(outcome.verdict for outcome in self.outcomes)

    @property
    def headline(self) -> Outcome:
        """The test that a claim is told by: its headline test if that has the claim's verdict, else the first that has.

        A verdict is never told by a number that says something else.
        """
        own = [outcome for outcome in self.outcomes if outcome.verdict == self.verdict]
        return next((outcome for outcome in own if outcome.test.key == self.claim.headline), own[0])

    def quantity(self, outcome: Outcome) -> str:
        """Return what one of its tests measures, in words that stand alone."""
        return self.claim.quantity(outcome.test.key)

    @property
    def notes(self) -> str:
        """Which tests were not made, and why."""
        missing = [outcome for outcome in self.outcomes if not outcome.estimates]
        return "; ".join(f"{outcome.test.key} not tested here: {outcome.reason}" for outcome in missing)

    @property
    def seconds(self) -> float:
        """Seconds of the experiments behind the claim, each counted once."""
        return float(sum({outcome.experiment: outcome.seconds for outcome in self.outcomes}.values()))

    def measured(self) -> dict[str, Measured]:
        """Return every estimate by key, "P3-C1.faster" or, of several, "P3-C1.monotone[2]"."""
        found = {}
        for outcome in self.outcomes:
            for index, estimate in enumerate(outcome.estimates):
                member = f"[{index}]" if len(outcome.estimates) > 1 else ""
                key = f"{self.claim.id}.{outcome.test.key}{member}"
                found[key] = Measured(
                    key, estimate, outcome.config, self.provenance, outcome.registration, outcome.test.chaotic
                )
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON values, with its hash; an infinite number is written as null."""
        claim, made = self.claim, self.provenance
        content = {
            "schema": RECORD, "paper": self.paper, "chapter": self.chapter, **_claim_to(claim),
            "verdict": str(self.verdict), "notes": self.notes,
            "headline": self.headline.test.key, **self.headline.summary(),
            "scale": made.scale, "device_class": made.device_class, "seed": made.seed,
            "library": made.library, "torch": made.torch, "seconds": self.seconds,
            "provenance": made.to_json(),
            "tests": [outcome.to_json() for outcome in self.outcomes],
        }  # fmt: skip
        return content | {"sha256": _hash(content)}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Record:
        """Read a record and recompute everything that follows from its estimates, verdicts first.

        One of an earlier schema is vouched for by its hash alone, and judged anew as today's are.
        Raises: ValueError naming the claim and the field that does not follow.
        """
        name = content.get("id", "a record without id")
        if content.get("schema") not in (RECORD, EARLIER):
            raise ValueError(f"{name}: schema {content.get('schema')!r}, this library reads {EARLIER} and {RECORD}")
        try:
            record = cls._rebuilt(content)
        except (KeyError, TypeError) as error:
            raise ValueError(f"{name}: incomplete or malformed ({error}); run its chapter again") from error
        if content["schema"] == RECORD:
            _check_follows(name, content, record.to_json())
        if _hash(content) != content.get("sha256"):
            raise ValueError(f"{name}: the record was changed after it was written; run its chapter again")
        return record

    @classmethod
    def _rebuilt(cls, content: Mapping[str, Any]) -> Record:
        outcomes = tuple(Outcome.from_json(test) for test in content["tests"])
        stated: dict[str, Any] = {name: content[name] for name in CLAIM_TEXTS}
        stated |= {name: tuple(content[name]) for name in CLAIM_LISTS}
        tests = tuple(outcome.test for outcome in outcomes)
        claim = Claim(tests=tests, headline=content.get("headline", ""), **stated)
        made = Provenance.from_json(content["provenance"])
        return cls(claim, content["paper"], content["chapter"], outcomes, made)


def save_records(path: Path, records: Iterable[Record], beside: Mapping[str, Mapping[str, Any]] | None = None) -> None:
    """Write records as {"schema": 1, "records": […]}, atomically.

    beside: what else is said of a test, by its key: `basis` and `earlier`, outside the hash of the record.
    """
    content = [record.to_json() for record in records]
    for test, key in ((test, f"{record['id']}.{test['key']}") for record in content for test in record["tests"]):
        test |= (beside or {}).get(key, {})
    write_json(path, {"schema": SCHEMA, "records": content})


def load_records(path: Path) -> tuple[Record, ...]:
    """Read records; raise ValueError when a stored verdict is not the one that follows from its numbers."""
    content = read_json(path)
    if content.get("schema") != SCHEMA:
        raise ValueError(f"{path.name}: schema {content.get('schema')!r}, this library reads {SCHEMA}")
    try:
        return tuple(Record.from_json(record) for record in content["records"])
    except ValueError as fault:
        raise ValueError(f"{path.name}: {fault}") from fault
    except MALFORMED as fault:
        raise ValueError(f"{path.name}: incomplete or malformed ({fault!r}); run its chapter again") from fault


def faults(records: Sequence[Record], papers: Sequence[Paper]) -> list[str]:
    """Say where records and claims do not match: one without the other, or another wording or rule."""
    claims = {claim.id: (claim, paper) for paper in papers for claim in paper.claims}
    recorded = {record.claim.id for record in records}
    found = [f"{id}: a claim without a record" for id in claims if id not in recorded]
    for record in records:
        current = claims.get(record.claim.id)
        if current is None:
            found.append(f"{record.claim.id}: a record without a claim")
        elif (record.claim, record.outcomes[0].family) != (current[0], current[1].family_at(record.provenance.scale)):
            found.append(f"{record.claim.id}: recorded under another wording, rule or number of tests")
    return found


def restated(record: Record, claim: Claim, family: int) -> Record:
    """Return a record under today's `claim`: its estimates judged anew, tests added since then as not yet measured.

    family: the number of tests judged together at the record's scale today. Where wording or rule of what it measured
    are others today, it comes back as it is, for `faults` to find.
    """
    made = {outcome.test: outcome for outcome in record.outcomes if outcome.estimates}
    if replace(record.claim, tests=claim.tests) != claim or not set(made) <= set(claim.tests):
        return record
    reasons = {outcome.test: outcome.reason for outcome in record.outcomes}
    outcomes = [
        replace(made[test], test=test, family=family)
        if test in made
        else Outcome(test, family, reason=reasons.get(test, "not yet measured"))
        for test in claim.tests
    ]
    return replace(record, claim=claim, outcomes=tuple(outcomes))


def quotes(records: Iterable[Record]) -> dict[str, str]:
    """Return what prose may quote: estimates under the keys of their tests, each verdict under "<claim>.verdict"."""
    quoted = {}
    for record in records:
        quoted[f"{record.claim.id}.verdict"] = str(record.verdict)
        for outcome in record.outcomes:
            quoted |= {f"{record.claim.id}.{key}": text for key, text in outcome.quoted.items()}
    return quoted


def compare_records(published: Iterable[Record], yours: Iterable[Record]) -> tuple[Comparison, ...]:
    """Compare every estimate of two runs, in the published order; what only one run has is incompatible."""
    first, second = _all_measured(published), _all_measured(yours)
    return tuple(_compared(key, first, second) for key in first | second)


def disagreements(published: Sequence[Record], yours: Sequence[Record]) -> list[str]:
    """Return what keeps two runs of one seed from being one but for arithmetic: numbers or verdicts, one line each.

    Tests that either run has left out for want of data are not compared, nor are the verdicts of chaotic ones between
    two kinds of arithmetic.
    """
    absent = {
        key
        for records in (published, yours)
        for key, outcome in _outcomes(records).items()
        if outcome.reason == DATA_MISSING
    }
    before, after = (
        {key: outcome.verdict for key, outcome in _outcomes(records).items() if key not in absent}
        for records in (published, yours)
    )
    compared = compare_records(published, yours)
    lines = [
        f"{line.key}: {line.published} was published, here {line.yours} ({line.kind})"
        for line in compared
        if not line.compatible and line.key.partition("[")[0] not in absent
    ]
    drawn_anew = parted_tests(compared)
    return lines + [
        f"{key}: the verdict was {before.get(key, 'none')}, here {after.get(key, 'none')}"
        for key in before | after
        if before.get(key) != after.get(key) and key not in drawn_anew
    ]


def parted_tests(compared: Iterable[Comparison]) -> set[str]:
    """Return the tests whose chaotic runs other arithmetic has driven apart: draws of one law, not one number.

    compared: the lines of `compare_records`.
    """
    return {line.key.partition("[")[0] for line in compared if line.parted}


def _compared(key: str, first: Mapping[str, Measured], second: Mapping[str, Measured]) -> Comparison:
    if key in first and key in second:
        return compare(first[key], second[key])
    shown = (_shown(first, key), _shown(second, key))
    return Comparison(key, Kind.INCOMPATIBLE, *shown, None, "measured in one run only")


def _all_measured(records: Iterable[Record]) -> dict[str, Measured]:
    return {key: item for record in records for key, item in record.measured().items()}


def _outcomes(records: Iterable[Record]) -> dict[str, Outcome]:
    return {f"{record.claim.id}.{outcome.test.key}": outcome for record in records for outcome in record.outcomes}


def _shown(measured: Mapping[str, Measured], key: str) -> str:
    return str(measured[key].estimate) if key in measured else "—"


def _claim_to(claim: Claim) -> dict[str, Any]:
    texts = {name: getattr(claim, name) for name in CLAIM_TEXTS}
    return texts | {name: list(getattr(claim, name)) for name in CLAIM_LISTS}


def _hash(content: Mapping[str, Any]) -> str:
    text = json.dumps(_lasting(content), sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _lasting(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {name: _lasting(value) for name, value in content.items() if name not in VOLATILE}
    return [_lasting(item) for item in content] if isinstance(content, list) else content


def _check_follows(name: str, stored: Mapping[str, Any], computed: Mapping[str, Any], at: str = "") -> None:
    """Compare a record with the one recomputed; last digits of floats may differ between machines."""
    for key in sorted(set(stored) | set(computed), key=lambda key: (key != "verdict", key)):
        if key in VOLATILE:
            continue
        a, b, place = stored.get(key), computed.get(key), f"{at}{key}"
        if key == "tests" and isinstance(a, list):
            for before, after in zip(a, computed[key], strict=True):
                _check_follows(name, before, after, f"{before['key']}: ")
        elif not _same(a, b):
            raise ValueError(
                f"{name}: {place}: stored {a!r}, but the estimates give {b!r}; the file was "
                "changed or written under other rules, run its chapter again"
            )


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-300)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    return bool(a == b)
