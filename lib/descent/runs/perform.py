"""One experiment carried out, for whoever asks: a chapter, a check of other seeds, a campaign here or on a cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from pandas import DataFrame

from descent.claims import DATA_MISSING, Ledger, Test
from descent.data.images import DataMissing
from descent.engine.precision import arithmetic
from descent.experiments.lab import PHYSICS, Experiment, Lab
from descent.results import digest
from descent.stats.estimate import Estimate

__all__ = ["Finding", "enter", "perform", "undefined"]


@dataclass(frozen=True, eq=False)
class Finding:
    """What an experiment gave: its result, the estimates of its tests, tables by name; and what it was run with.

    config: digest of the configuration and of the physics it asked the lab for; seconds: of everything, tables too.
    missing: which data were not there, in which case there is nothing else.
    """

    config: str
    seconds: float
    result: Any = None
    estimates: Mapping[str, tuple[Estimate, ...]] = field(default_factory=dict)
    tables: Mapping[str, DataFrame] = field(default_factory=dict)
    missing: str = ""


def perform(
    experiment: Experiment[Any, Any], lab: Lab, scale: str = "cpu", run: Callable[[Any, Lab], Any] | None = None
) -> Finding:
    """Run an experiment in full precision, measure and tabulate what it gave.

    run: in the place of the experiment's own, such as one under checkpoints.
    Raises: ValueError for a lab the experiment cannot work with.
    """
    clock, config, noting = time.perf_counter(), experiment.config(scale), _Noting.of(lab)
    if experiment.check is not None:
        experiment.check(config, lab)
    with arithmetic("float32", lab.device):  # of whatever does not ask for less
        try:
            result = (run or experiment.run)(config, noting)
        except DataMissing as fault:
            return Finding(noting.digest(config), time.perf_counter() - clock, missing=str(fault))
        found = experiment.estimates(result)
        estimates = {key: (one,) if isinstance(one, Estimate) else tuple(one) for key, one in found.items()}
        tables = experiment.tables(result)
    return Finding(noting.digest(config), time.perf_counter() - clock, result, estimates, tables)


def enter(ledger: Ledger, name: str, found: Finding, lab: Lab) -> None:
    """Enter what the experiment `name` found: an estimate for each test it is to measure, or why there is none.

    Raises: ValueError for an estimate of a test that names another experiment.
    """
    due = ledger.due(name)
    reasons = {key: DATA_MISSING if found.missing else undefined(test, lab) for key, test in due.items()}
    for key in filter(reasons.get, due):
        ledger.skip(key, reasons[key])
    if strange := set(found.estimates) - set(ledger.tests(name)):
        raise ValueError(f"{name} measures {', '.join(sorted(strange))}: give these tests `by: {name}` in data/claims")
    measured = {key: several for key, several in found.estimates.items() if key in due and not reasons[key]}
    ledger.add(measured, experiment=name, config=found.config, seconds=found.seconds)


def undefined(test: Test, lab: Lab) -> str:
    """Say why a test cannot be made in a lab: it compares with plain descent what is plain descent; "" if it can."""
    return "undefined at headline momentum 0" if "momentum" in test.needs and lab.momentum == 0 else ""


class _Noting(Lab):
    """A lab that notes which of its physics it is asked for: that is part of what was measured."""

    asked: set[str]

    @classmethod
    def of(cls, lab: Lab) -> _Noting:
        made = cls(**{item.name: getattr(lab, item.name) for item in fields(lab)})
        object.__setattr__(made, "asked", set())
        return made

    def __getattribute__(self, name: str) -> Any:
        if name in PHYSICS and "asked" in vars(self):
            self.asked.add(name)
        return super().__getattribute__(name)

    def digest(self, config: Any) -> str:
        """Return 16 digits that move with the configuration, and with the physics that was asked for."""
        return digest((config, {name: getattr(self, name) for name in sorted(self.asked)}))
