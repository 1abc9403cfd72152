"""How a registry moves: the new is entered, what has changed leaves its earlier form, what is gone is marked."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from descent.claims.paper import Paper
from descent.claims.registry import (
    BASES,
    Configs,
    Draw,
    EarlierDraw,
    EarlierForm,
    Entry,
    Form,
    Open,
    Registry,
    State,
    form,
    form_digest,
    measured_by,
    pending,
    registrations,
)
from descent.claims.verdict import Test

__all__ = ["Step", "chosen", "registered"]

Said = Callable[[str, Form], tuple[str, str]]
"""Estimate and verdict that a test had under a form, both "" where none was published."""


@dataclass(frozen=True)
class Step:
    """One act of registering: day, version of the library, the reason, and the basis of the regions' numbers."""

    date: str
    version: str
    why: str = ""
    basis: str = ""

    def __post_init__(self) -> None:
        if self.basis and self.basis not in BASES:
            raise ValueError(f"basis must be one of {', '.join(BASES)}, got {self.basis!r}")


def chosen(keys: Sequence[str], registry: Registry, papers: Sequence[Paper], experiments: Configs) -> set[str]:
    """Return the tests and experiments that keys name: one test, a claim, a paper, an experiment or a chapter.

    keys: what is named: tests, claims, papers, experiments or chapters.

    Raises: ValueError for a key that names nothing.
    """
    stated = {key for paper in papers for key in paper.tests}
    known = stated | set(registry.tests) | {place.key for place in (*experiments, *registry.draws)}
    found = set()
    for key in keys:
        named = {name for name in known if name == key or name.startswith((f"{key}.", f"{key}-"))}
        if not named:
            raise ValueError(
                f"{key!r} is neither a test, a claim or a paper, such as P5-C11.bound, nor an experiment or a chapter, "
                "such as geometry.width"
            )
        found |= named
    return found


def registered(
    registry: Registry,
    papers: Sequence[Paper],
    experiments: Configs,
    keys: Collection[str],
    step: Step,
    said: Said = lambda key, form: ("", ""),
) -> Registry:
    """Return the registry with what the keys name as it is today; what is as registered stays.

    A named test whose basis alone is another is entered anew, too. An experiment follows as soon as all its tests are
    registered. said: what was published of a test under the form that it leaves. keys: the tests and experiments that
    are named; step: day, version, reason and basis of what is entered.
    Raises: ValueError naming all that lacks a reason or a basis; nothing is registered then.
    """
    open_ = {item.key: item for item in pending(registry, papers, experiments) if item.key in keys}
    rebased = {key for key in keys if step.basis and _rests_elsewhere(registry.tests.get(key), step.basis)}
    _require(open_.values(), rebased - set(open_), step)
    stated = {key: test for paper in papers for key, test in paper.tests.items()}
    tests = dict(registry.tests)
    for key in sorted((set(open_) & (set(stated) | set(tests))) | rebased):
        tests[key] = _moved(key, tests.get(key), stated.get(key), step, said)
    named = {key for key, item in open_.items() if item.scales}
    touched = {paper.chapter for paper in papers if paper.paper in {key.partition("-")[0] for key in open_}}
    return _follow(replace(registry, tests=tests), papers, experiments, named, touched, step)


def _rests_elsewhere(entry: Entry | None, basis: str) -> bool:
    return entry is not None and not entry.withdrawn and entry.basis != basis


def _require(found: Collection[Open], rebased: Collection[str], step: Step) -> None:
    """Raise ValueError naming what cannot be registered for want of a reason or of a basis."""
    new = [item.key for item in found if item.state is State.NEW and not item.scales]
    others = [item.key for item in found if item.state is not State.NEW] + sorted(rebased)
    if new and not step.basis:
        raise ValueError(f"{_some(new)}: new; say where the numbers come from with --basis {'|'.join(BASES)}")
    if others and not step.why.strip():
        raise ValueError(f'{_some(others)}: registered before; say what has moved with --why "…"')


def _some(keys: Sequence[str]) -> str:
    return ", ".join(keys[:5]) + (f" and {len(keys) - 5} more" if len(keys) > 5 else "")


def _moved(key: str, entry: Entry | None, test: Test | None, step: Step, said: Said) -> Entry:
    """Return the entry of a test after a step: new, changed, stated again, or withdrawn (test is None)."""
    earlier = entry.earlier if entry else ()
    if entry is not None:
        estimate, verdict = said(key, entry.form)
        since = (entry.form, entry.rule, entry.date, entry.version, entry.basis)
        earlier = (*earlier, EarlierForm(*since, step.why.strip(), estimate, verdict))
    if entry is not None and test is None:
        return replace(entry, date=step.date, version=step.version, withdrawn=True, earlier=earlier)
    if test is None:
        raise KeyError(key)
    basis = step.basis or (entry.basis if entry else "")
    return Entry(form(test), form_digest(test), step.date, step.version, basis, earlier=earlier)


def _follow(
    registry: Registry,
    papers: Sequence[Paper],
    experiments: Configs,
    named: Collection[str],
    touched: Collection[str],
    step: Step,
) -> Registry:
    """Enter the experiments that are named, and in the chapters touched those whose tests are all registered by now.

    An experiment that has another configuration must be named.
    Raises: ValueError for a named one with a test that is not registered.
    """
    draws, now, measured = dict(registry.draws), registrations(papers, experiments), measured_by(papers, experiments)
    for place in sorted({*experiments, *draws}):
        draw, config = draws.get(place), experiments.get(place, "")
        lacking = _lacking(registry, measured.get(place, {}))
        if place.key in named and lacking:
            raise ValueError(f"{place}: its tests come first: {_some(lacking)}; name them as well, or use --all")
        follows = place.chapter in touched and not lacking and (draw is None or draw.config == config)
        if place.key in named or follows:
            draws[place] = _drawn(draw, now.get(place, ""), config, step)
    return replace(registry, draws=draws)


def _lacking(registry: Registry, tests: Mapping[str, Test]) -> list[str]:
    """Return the tests of an experiment that are not registered as they are."""
    return [
        key
        for key, test in tests.items()
        if (entry := registry.tests.get(key)) is None or entry.withdrawn or entry.rule != form_digest(test)
    ]


def _drawn(draw: Draw | None, registration: str, config: str, step: Step) -> Draw:
    """Return an experiment with this registration; the one it had stays behind."""
    if draw is None:
        return Draw(registration, config, step.date)
    if (draw.registration, draw.config) == (registration, config):
        return draw
    left = EarlierDraw(draw.registration, draw.config, draw.date, step.why.strip() or "its tests are others")
    return Draw(registration, config, step.date, (*draw.earlier, left))
