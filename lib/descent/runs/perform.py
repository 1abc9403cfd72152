"""One experiment carried out, for whoever asks: a chapter, a check of other seeds, a campaign here or on a cluster."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from pandas import DataFrame

from descent.claims import DATA_MISSING, Ledger, Paper, Test, load_paper
from descent.claims.registry import config_digest, registration, tests_of
from descent.data.images import DataMissing
from descent.engine.precision import arithmetic
from descent.experiments.lab import PHYSICS, Experiment, Lab
from descent.results import digest, project_root
from descent.stats.estimate import Estimate

__all__ = ["Finding", "enter", "perform", "registration_of", "undefined"]


@dataclass(frozen=True, eq=False)
class Finding:
    """What an experiment gave: its result, the estimates of its tests, tables by name; and what it was run with.

    config: digest of the configuration and of the physics it asked the lab for; seconds: of everything, tables too.
    missing: which data were not there, in which case there is nothing else. partial: by test, how much is measured of
    what is to be. registration: what the random numbers were
    drawn from beside the seed, "" for an experiment of no chapter.
    """

    config: str
    seconds: float
    result: Any = None  # what the run returned
    estimates: Mapping[str, tuple[Estimate, ...]] = field(default_factory=dict)
    tables: Mapping[str, DataFrame] = field(default_factory=dict)  # by name
    missing: str = ""
    registration: str = ""
    partial: Mapping[str, str] = field(default_factory=dict)


def perform(
    experiment: Experiment[Any, Any], lab: Lab, scale: str = "cpu", run: Callable[[Any, Lab], Any] | None = None
) -> Finding:
    """Run an experiment in full precision, measure and tabulate what it gave.

    run: in the place of the experiment's own, such as one under checkpoints.
    Raises: ValueError for a lab the experiment cannot work with.
    """
    clock, config, drawn = time.perf_counter(), experiment.config(scale), registration_of(experiment, scale)
    noting = _Noting.of(lab, drawn)
    if experiment.check is not None:
        experiment.check(config, lab)
    with arithmetic("float32", lab.device):  # of whatever does not ask for less
        try:
            result = (run or experiment.run)(config, noting)
        except DataMissing as fault:
            return Finding(noting.digest(config), time.perf_counter() - clock, missing=str(fault), registration=drawn)
        found = experiment.estimates(result)
        estimates = {key: (one,) if isinstance(one, Estimate) else tuple(one) for key, one in found.items()}
        tables = experiment.tables(result)
    seconds = time.perf_counter() - clock
    return Finding(noting.digest(config), seconds, result, estimates, tables, registration=drawn)


def registration_of(experiment: Experiment[Any, Any], scale: str) -> str:
    """Return the registration under today's claims and configuration; "" for an experiment of no chapter."""
    package = _package(experiment)
    if package is None:
        return ""
    tests = tests_of(_paper(package), experiment.name, scale)
    return registration(tests, config_digest(experiment.config(scale)))


def _package(experiment: Experiment[Any, Any]) -> Any:
    """Return the chapter's package that an experiment is in, None for one of no chapter."""
    module = experiment.estimates.__module__
    return next((found for name in (module, module.rpartition(".")[0]) if (found := _chapter(name))), None)


def _paper(package: Any) -> Paper:
    """Return the claims of a chapter's package, of the book that it is in."""
    around = [folder / "data" / "claims" for folder in Path(str(package.__file__)).resolve().parents]
    folder = next((folder for folder in around if folder.is_dir()), project_root() / "data" / "claims")
    return load_paper(folder / f"{package.PAPER}.yaml")


def _chapter(name: str) -> Any:
    """Return a module that is a chapter's package, None for any other."""
    found = sys.modules.get(name)
    return found if hasattr(found, "PAPER") and hasattr(found, "EXPERIMENTS") else None


def enter(ledger: Ledger, name: str, found: Finding, lab: Lab) -> None:
    """Enter what the experiment `name` found: an estimate for each test it is to measure, or why there is none.

    ledger: where it is entered.

    Raises: ValueError for an estimate of a test that names another experiment.
    """
    due = ledger.due(name)
    reasons = {key: DATA_MISSING if found.missing else undefined(test, lab) for key, test in due.items()}
    for key in filter(reasons.get, due):
        ledger.skip(key, reasons[key])
    if strange := set(found.estimates) - set(ledger.tests(name)):
        raise ValueError(f"{name} measures {', '.join(sorted(strange))}: give these tests `by: {name}` in data/claims")
    measured = {key: several for key, several in found.estimates.items() if key in due and not reasons[key]}
    about = {"experiment": name, "config": found.config, "registration": found.registration}
    for key in set(due) & set(found.partial) - set(measured) - {key for key in due if reasons[key]}:
        ledger.skip(key, f"not yet measured: {found.partial[key]}")
    ledger.add(measured, seconds=found.seconds, partial=found.partial, **about)


def undefined(test: Test, lab: Lab) -> str:
    """Say why a test cannot be made in a lab: it compares with plain descent what is plain descent; "" if it can."""
    return "undefined at headline momentum 0" if "momentum" in test.needs and lab.momentum == 0 else ""


class _Noting(Lab):
    """A lab that notes which of its physics it is asked for: that is part of what was measured."""

    asked: set[str]

    @classmethod
    def of(cls, lab: Lab, registration: str) -> _Noting:
        given = {item.name: getattr(lab, item.name) for item in fields(lab)}
        made = cls(**given | {"registration": registration})
        object.__setattr__(made, "asked", set())
        return made

    def __getattribute__(self, name: str) -> Any:
        if name in PHYSICS and "asked" in vars(self):
            self.asked.add(name)
        return super().__getattribute__(name)

    def digest(self, config: Any) -> str:
        """Return 16 digits that move with the configuration, and with the physics that was asked for."""
        return digest((config, {name: getattr(self, name) for name in sorted(self.asked)}))
