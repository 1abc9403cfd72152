"""Runs that others made and sent as one file, and how many of them agree with what is published.

`descent run CHAPTER --bundle` writes the file: the records of the run, the comparison as it was told, and a note with
registrations, seed, versions and digests. The note follows from the records, and every record from its estimates, so
that nothing can be edited alone. What lies under data/reruns is read with the book, and counted per claim.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from descent.claims.record import Outcome, Record, compare_records
from descent.claims.registry import Place, Registry
from descent.claims.verdict import Verdict
from descent.results import MALFORMED, content_hash

__all__ = ["Bundle", "Rerun", "bundle_name", "counts", "load_bundle", "pack_bundle", "require_registered", "reruns"]

SCHEMA = 1
NOTE, RECORDS, COMPARISON = "bundle.json", "records.json", "comparison.md"
MOST = 20_000_000
"""Bytes that one file of a bundle may have."""
AGAIN = "ask for one that `descent run CHAPTER --bundle` wrote and nobody opened since, or remove the file"


@dataclass(frozen=True)
class Bundle:
    """One run of a chapter: the name of its file, what it was told to do, and its records."""

    name: str
    chapter: str
    version: str
    parameters: Mapping[str, Any]  # what the run was told: scale, seed and the like
    records: tuple[Record, ...]


@dataclass(frozen=True)
class Rerun:
    """What one bundle says of one claim: its record, judged by today's rules, and how many numbers suit the published.

    same: the verdict is the published one; suit, of: numbers that lie as close as chance allows, of those compared.
    """

    bundle: str  # the name of its file
    record: Record
    same: bool
    suit: int
    of: int


def pack_bundle(chapter: str, version: str, parameters: Mapping[str, Any], records: bytes, comparison: str) -> bytes:
    """Return a run as a zip file whose bytes depend on its content alone.

    parameters: what the run was told, scale, seed and the like; records: the file of records that the run wrote;
    comparison: the run's comparison with the published one, as Markdown.
    Raises: ValueError where the records are damaged.
    """
    files = {RECORDS: records, COMPARISON: comparison.encode()}
    note = _note(chapter, version, parameters, _records(records), files)
    files[NOTE] = (json.dumps(note, indent=1, sort_keys=True) + "\n").encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name)  # of 1980, and of nobody's
            entry.compress_type, entry.create_system, entry.external_attr = zipfile.ZIP_DEFLATED, 3, 0o644 << 16
            archive.writestr(entry, files[name])
    return packed.getvalue()


def bundle_name(chapter: str, packed: bytes) -> str:
    """Return what the file of a bundle is called, such as "saddles-1a2b3c4d.zip".

    packed: the bytes of the file.
    """
    return f"{chapter}-{hashlib.sha256(packed).hexdigest()[:8]}.zip"


def load_bundle(path: Path) -> Bundle:
    """Read a bundle; raise ValueError naming file, fault and remedy for one that is damaged or was edited."""
    try:
        files = _unpacked(path)
        said = json.loads(files.pop(NOTE))
        given = (said["chapter"], said["version"], said["parameters"])
        found = _records(files[RECORDS])
        _require_follows(said, _note(*given, found, files))
    except (ValueError, *MALFORMED) as fault:
        raise ValueError(f"{path.name} in {path.parent.name}: {fault}; {AGAIN}") from None
    return Bundle(path.name, *given, found)


def require_registered(bundle: Bundle, registry: Registry) -> None:
    """Raise ValueError unless a bundle was drawn under rules that this book registered, some of them today's.

    bundle: the run with its records.
    """
    drawn = {(record, outcome.experiment): outcome for record in bundle.records for outcome in _measured(record)}
    current = False
    for (record, experiment), outcome in drawn.items():
        place = Place(record.chapter, experiment, record.provenance.scale)
        today, *earlier = _had(registry, place)
        if outcome.registration not in {today, *earlier} - {""}:
            raise ValueError(
                f"{bundle.name}: {record.claim.id}.{outcome.test.key} was drawn under registration "
                f"{outcome.registration[:8] or 'none'}, which this book never had for {place} (today "
                f"{today[:8] or 'none'}): other rules or another configuration; run `descent run {bundle.chapter} "
                "--bundle` in a checkout without changes to them"
            )
        current |= outcome.registration == today
    if not current:
        raise ValueError(
            f"{bundle.name}: every rule that it was drawn under has changed since, so that it judges nothing; keep "
            "it under data/reruns/earlier"
        )


def reruns(record: Record, bundles: Iterable[Bundle]) -> tuple[Rerun, ...]:
    """Return the independent runs of a published claim: of another seed, number of replicas or arithmetic each.

    A bundle counts where it has every test that was published, under the same registration and configuration.

    record: the published one; bundles: the runs of others.
    """
    seen, found = {_conditions(record)}, list[Rerun]()
    for bundle in bundles:
        again = _again(record, bundle)
        if again is not None and _conditions(again) not in seen:
            seen.add(_conditions(again))
            answers = [line.compatible for line in compare_records([record], [again]) if line.compatible is not None]
            found.append(Rerun(bundle.name, again, again.verdict is record.verdict, sum(answers), len(answers)))
    return tuple(found)


def counts(found: Sequence[Rerun]) -> str:
    """Return how many runs agree, such as "2 of 3 independent re-runs agree, 1 inconclusive"; "" for none."""
    if not found:
        return ""
    same = sum(one.same for one in found)
    open = sum(not one.same and one.record.verdict is Verdict.INCONCLUSIVE for one in found)
    said = "re-run agrees" if len(found) == 1 else "re-runs agree"
    return f"{same} of {len(found)} independent {said}" + (f", {open} inconclusive" if open else "")


def _had(registry: Registry, place: Place) -> list[str]:
    """Return the registrations of an experiment, today's first; "" where it is not registered."""
    draw = registry.draws.get(place)
    return [draw.registration, *(left.registration for left in draw.earlier)] if draw else [""]


def _again(record: Record, bundle: Bundle) -> Record | None:
    """Return a claim with the estimates of a bundle in the place of the published ones; None where one is missing."""
    theirs = {each.claim.id: each for each in bundle.records}.get(record.claim.id)
    if theirs is None or theirs.provenance.scale != record.provenance.scale:
        return None
    own = {(each.test.key, each.registration, each.config): each for each in _measured(theirs)}
    made = {key: own.get((key, each.registration, each.config)) for key, each in _tests(record).items()}
    if not made or not all(made.values()):
        return None
    outcomes = tuple(_replaced(outcome, made.get(outcome.test.key)) for outcome in record.outcomes)
    return replace(record, outcomes=outcomes, provenance=theirs.provenance)


def _tests(record: Record) -> dict[str, Outcome]:
    return {outcome.test.key: outcome for outcome in _measured(record)}


def _replaced(outcome: Outcome, made: Outcome | None) -> Outcome:
    return outcome if made is None else replace(outcome, estimates=made.estimates, reason=made.reason)


def _conditions(record: Record) -> tuple[Any, ...]:
    made = record.provenance
    return made.seed, made.replicas, made.arithmetic


def _measured(record: Record) -> list[Outcome]:
    return [outcome for outcome in record.outcomes if outcome.estimates]


def _note(
    chapter: str, version: str, parameters: Mapping[str, Any], found: Sequence[Record], files: Mapping[str, bytes]
) -> dict[str, Any]:
    """Return what a bundle says of itself; all but version and parameters follows from the other files."""
    if not found or {record.chapter for record in found} != {chapter}:
        raise ValueError(f"its records are not those of chapter {chapter!r}")
    made = [outcome for record in found for outcome in _measured(record)]
    conditions = {name: value for name, value in found[0].provenance.to_json().items() if name != "date"}
    note = {
        "schema": SCHEMA, "chapter": chapter, "version": version, "parameters": dict(parameters),
        "registrations": {outcome.experiment: outcome.registration for outcome in made},
        "configurations": {outcome.experiment: outcome.config for outcome in made},
        "conditions": conditions,
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
    }  # fmt: skip
    return note | {"sha256": content_hash(note)}


def _require_follows(said: Mapping[str, Any], follows: Mapping[str, Any]) -> None:
    """Raise ValueError naming the first thing in a note that does not follow from the files beside it."""
    if said.get("schema") != SCHEMA:
        raise ValueError(f"schema {said.get('schema')!r}, this library reads {SCHEMA}")
    for name, value in follows["files"].items():
        if said["files"].get(name) != value:
            raise ValueError(f"{name} in it was edited after it was written")
    for field in sorted(set(said) | set(follows)):
        if said.get(field) != follows.get(field):
            raise ValueError(f"{field} in its {NOTE} was edited after it was written")


def _records(content: bytes) -> tuple[Record, ...]:
    return tuple(Record.from_json(record) for record in json.loads(content)["records"])


def _unpacked(path: Path) -> dict[str, bytes]:
    """Return the files of a bundle, which must be these three, and small."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = sorted(archive.namelist())
            if names != sorted((NOTE, RECORDS, COMPARISON)):
                raise ValueError(
                    f"it holds {', '.join(map(ascii, names)) or 'nothing'}, not {NOTE}, {RECORDS} and {COMPARISON}"
                )
            files = {}
            for name in names:
                with archive.open(name) as file:
                    files[name] = file.read(MOST + 1)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, RuntimeError) as fault:
        raise ValueError(f"it is no whole zip file ({fault})") from None
    if large := [name for name, content in files.items() if len(content) > MOST]:
        raise ValueError(f"{large[0]} in it has more than {MOST} bytes")
    return files
