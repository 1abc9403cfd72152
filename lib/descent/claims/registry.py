"""What is registered of every rule, and of the experiments that are judged by it; nothing registered is ever removed.

A test is registered by its form: key, quantity, rule, scales, needs. An experiment is registered, at one scale, by the
forms of all tests that name it and by its configuration: that digest is its registration, and its random numbers are
drawn from it. Whoever changes a rule gets other numbers to judge it by, and the earlier form stays in the file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from descent.claims.paper import Paper
from descent.claims.verdict import Rule, Test
from descent.results import MALFORMED, canonical, content_hash, digest, read_json, short_hash, write_json

__all__ = [
    "BASES", "Configs", "Draw", "EarlierDraw", "EarlierForm", "Entry", "Open", "Place", "Registry", "State",
    "beside", "config_digest", "form", "form_digest", "load_registry", "measured_by", "pending", "registration",
    "registrations", "save_registry", "tests_of", "unregistered",
]  # fmt: skip

SCHEMA = 1
BASES = ("theory", "paper", "margin", "pilot")
"""Where the numbers of a region come from: a theory, the paper as printed, the smallest effect that matters, or runs
that were looked at before (a pilot)."""
DIGITS = 12
"""Of a number in a configuration: the last ones of a root or a power are the machine's."""
RESTORE = "restore the file from the repository's history, and change it with `descent register` alone"

Form = Mapping[str, Any]
T = TypeVar("T")


class Place(NamedTuple):
    """An experiment at one scale."""

    chapter: str
    name: str
    scale: str

    @property
    def key(self) -> str:
        """The experiment without the scale, such as "geometry.width"."""
        return f"{self.chapter}.{self.name}"

    def __str__(self) -> str:
        """Return "geometry.width (cpu)"."""
        return f"{self.key} ({self.scale})"


Configs = Mapping[Place, str]
"""The digests of all configurations."""


@dataclass(frozen=True)
class EarlierForm:
    """A form that was left: since when it stood, what it said last, why it was left."""

    form: Form
    rule: str  # digest of the form
    date: str
    version: str
    basis: str
    why: str
    estimate: str = ""  # what was published of it, "" for nothing
    verdict: str = ""  # likewise


@dataclass(frozen=True)
class Entry:
    """A test as registered: its form and that form's digest, day and version of the library, basis of the numbers.

    withdrawn: no longer stated; form and earlier ones stay.
    """

    form: Form
    rule: str  # digest of the form
    date: str
    version: str
    basis: str
    withdrawn: bool = False
    earlier: tuple[EarlierForm, ...] = ()


@dataclass(frozen=True)
class EarlierDraw:
    """A registration that an experiment had, and why it has another."""

    registration: str
    config: str
    date: str
    why: str


@dataclass(frozen=True)
class Draw:
    """An experiment at one scale as registered; both digests are "" once it is gone."""

    registration: str
    config: str
    date: str
    earlier: tuple[EarlierDraw, ...] = ()


@dataclass(frozen=True)
class Registry:
    """All that is registered: tests by key, such as "P5-C11.bound", and experiments by scale."""

    tests: Mapping[str, Entry] = field(default_factory=dict)  # by key
    draws: Mapping[Place, Draw] = field(default_factory=dict)  # the experiments, by chapter, name and scale


def form(test: Test) -> dict[str, Any]:
    """Return what is registered of a test.

    A field of the rule at its default is left out, so that a kind of rule may gain fields without moving a draw.

    >>> from descent.claims import Direction
    >>> form(Test("faster", "time", Direction(above=1.0), ("gpu", "cpu")))["rule"]
    {'kind': 'direction', 'above': 1.0}
    """
    return {
        "key": test.key,
        "quantity": test.quantity,
        "rule": _rule(test.rule),
        "scales": sorted(test.scales),
        "needs": sorted(test.needs),
    }


def form_digest(test: Test) -> str:
    """Return 16 digits that move exactly when the form does."""
    return digest(form(test))


def config_digest(config: object) -> str:
    """Return 16 digits that move with a configuration, but not with the last digits of a computed number in it."""
    text = re.sub(r'"float":"([^"]*)"', lambda found: f'"float":"{float(found[1]):.{DIGITS}g}"', canonical(config))
    return short_hash(text.encode())


def tests_of(paper: Paper, experiment: str, scale: str) -> dict[str, Test]:
    """Return the tests that an experiment of a paper's chapter measures at a scale, by key."""
    return {key: test for key, test in paper.tests.items() if test.by == experiment and test.stated_for(scale)}


def registration(tests: Mapping[str, Test], config: str) -> str:
    """Return the registration of an experiment: 16 digits of the forms of its tests, by key, and of its configuration.

    config: digest of the configuration, see `config_digest`. Statement, place, conditions and code are no part of it.
    """
    return digest({"tests": {key: form(test) for key, test in tests.items()}, "config": config})


def registrations(papers: Sequence[Paper], experiments: Configs) -> dict[Place, str]:
    """Return the registration that every experiment has under today's claims and configurations."""
    measured = measured_by(papers, experiments)
    return {place: registration(measured[place], config) for place, config in experiments.items()}


def measured_by(papers: Sequence[Paper], experiments: Configs) -> dict[Place, dict[str, Test]]:
    """Return the tests of every experiment, by key."""
    own = {paper.chapter: paper for paper in papers}
    return {
        place: tests_of(own[place.chapter], place.name, place.scale) if place.chapter in own else {}
        for place in experiments
    }


class State(StrEnum):
    """Why something is not as registered."""

    NEW = "has no entry"
    CHANGED = "its rule is not the registered one"
    GONE = "is no longer stated, and its entry does not say so"
    BACK = "is stated again, and its entry says it was withdrawn"
    CONFIGURED = "its configuration is not the registered one"
    REDRAWN = "its registration is not the registered one, for its tests are others"


class Open(NamedTuple):
    """Something that is not as registered: a test's key, or an experiment's with its scales."""

    key: str  # of the test, or of the experiment
    state: State  # why it is not as registered
    scales: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return one line that says what to do."""
        new = "" if self.scales else " --basis …"
        where = f" ({', '.join(self.scales)})" if self.scales else ""
        more = new if self.state is State.NEW else ' --why "…"'
        return f"{self.key}{where}: {self.state}; descent register {self.key}{more}"


def pending(registry: Registry, papers: Sequence[Paper], experiments: Configs) -> list[Open]:
    """Return all that is not as registered, tests first."""
    stated = {key: test for paper in papers for key, test in paper.tests.items()}
    tests = {key: _test_state(registry.tests.get(key), stated.get(key)) for key in {**stated, **registry.tests}}
    found = [Open(key, state) for key, state in tests.items() if state is not None]
    return found + _open_draws(registry, registrations(papers, experiments), experiments)


def unregistered(registry: Registry, papers: Sequence[Paper], experiments: Configs) -> list[str]:
    """Say, one line each, which rules and experiments are not as registered."""
    return [str(item) for item in pending(registry, papers, experiments)]


def _test_state(entry: Entry | None, test: Test | None) -> State | None:
    if entry is None:
        return State.NEW
    if test is None:
        return None if entry.withdrawn else State.GONE
    if entry.withdrawn:
        return State.BACK
    return None if entry.rule == form_digest(test) else State.CHANGED


def _open_draws(registry: Registry, now: Mapping[Place, str], experiments: Configs) -> list[Open]:
    """Return the experiments that are not as registered, their scales together."""
    found: dict[tuple[str, State], list[str]] = {}
    for place in {**experiments, **registry.draws}:
        state = _draw_state(registry.draws.get(place), experiments.get(place, ""), now.get(place, ""))
        if state is not None:
            found.setdefault((place.key, state), []).append(place.scale)
    return [Open(key, state, tuple(scales)) for (key, state), scales in found.items()]


def _draw_state(draw: Draw | None, config: str, registration: str) -> State | None:
    if draw is None or (config and not draw.config):
        return State.NEW
    if draw.config and not config:
        return State.GONE
    if draw.config != config:
        return State.CONFIGURED
    return None if draw.registration == registration else State.REDRAWN


def beside(registry: Registry) -> dict[str, dict[str, Any]]:
    """Return by test what a ledger says of its rule beside the record: basis, and earlier forms."""
    return {
        key: {"basis": entry.basis, "earlier": [asdict(left) for left in entry.earlier]}
        for key, entry in registry.tests.items()
    }


def save_registry(path: Path, registry: Registry) -> None:
    """Write a registry with its hash, atomically."""
    experiments: dict[str, Any] = {}
    for place, draw in registry.draws.items():
        experiments.setdefault(place.chapter, {}).setdefault(place.name, {})[place.scale] = asdict(draw)
    tests = {key: asdict(entry) for key, entry in registry.tests.items()}
    content = {"schema": SCHEMA, "tests": tests, "experiments": experiments}
    write_json(path, content | {"sha256": content_hash(content)})


def load_registry(path: Path) -> Registry:
    """Read a registry.

    Raises: ValueError naming file, entry and remedy for one that is damaged, was edited by hand, or is of a later
    schema; FileNotFoundError where there is none.
    """
    try:
        content = read_json(path)
    except ValueError as fault:
        raise ValueError(f"{path.name} is damaged ({fault.__cause__ or fault}); {RESTORE}") from None
    if content.get("schema") != SCHEMA:
        raise ValueError(
            f"{path.name}: schema {content.get('schema')!r}, this library reads {SCHEMA}; "
            "use the version of the library that wrote it"
        )
    tests = {key: _read(path.name, key, _entry, one) for key, one in _fields(path.name, content, "tests").items()}
    draws = {place: _read(path.name, str(place), _draw, one) for place, one in _places(path.name, content).items()}
    if content.get("sha256") != content_hash(content):
        raise ValueError(f"{path.name} was changed by hand, an entry or its hash; {RESTORE}")
    return Registry(tests, draws)


def _places(name: str, content: Mapping[str, Any]) -> dict[Place, Any]:
    """Return the experiments of a file by place."""
    found = {}
    for chapter, experiments in _fields(name, content, "experiments").items():
        for experiment, scales in _read(name, chapter, dict, experiments).items():
            for scale, one in _read(name, f"{chapter}.{experiment}", dict, scales).items():
                found[Place(chapter, experiment, scale)] = one
    return found


def _fields(name: str, content: Mapping[str, Any], part: str) -> dict[str, Any]:
    return _read(name, part, dict, content.get(part))


def _read(name: str, entry: str, reader: Callable[[Any], T], content: Any) -> T:
    """Read one entry; raise ValueError naming it where it is not what was written."""
    try:
        return reader(content)
    except (ValueError, *MALFORMED) as fault:
        raise ValueError(f"{name}: {entry}: {fault}; {RESTORE}") from None


def _entry(content: Mapping[str, Any]) -> Entry:
    earlier = tuple(_checked(EarlierForm(**left)) for left in content["earlier"])
    return _checked(Entry(**{**content, "earlier": earlier}))


def _checked(made: T) -> T:
    """Return an entry or an earlier form whose fields belong together; raise ValueError for any other."""
    content = {item.name: getattr(made, item.name) for item in fields(made)}  # type: ignore[arg-type]
    if content["rule"] != digest(content["form"]):
        raise ValueError(f"its form is not the one of digest {content['rule']}: it was edited by hand")
    if content["basis"] not in BASES:
        raise ValueError(f"basis {content['basis']!r} is none of {', '.join(BASES)}")
    return made


def _draw(content: Mapping[str, Any]) -> Draw:
    return Draw(**{**content, "earlier": tuple(EarlierDraw(**left) for left in content["earlier"])})


def _rule(rule: Rule) -> dict[str, Any]:
    kept = {item.name: getattr(rule, item.name) for item in fields(rule)}
    given = {item.name: kept[item.name] for item in fields(rule) if kept[item.name] != item.default}
    return {"kind": rule.kind, **given}
