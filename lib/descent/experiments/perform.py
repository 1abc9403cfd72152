"""One experiment carried out, for whoever asks: a chapter, a check of other seeds, a campaign here or on a cluster."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pandas import DataFrame

from descent.estimate import Estimate
from descent.experiments.arms import planned
from descent.experiments.common import Experiment, Settings
from descent.precision import arithmetic
from descent.problems.images import DataMissing
from descent.results import digest

__all__ = ["RUN_FIELDS", "Finding", "configuration", "perform"]

RUN_FIELDS = ("seed", "replicas", "device")
"""What a reader sets for a run and the provenance records; no configuration hangs on it."""


@dataclass(frozen=True, eq=False)
class Finding:
    """What an experiment gave: its result, the estimates of its tests, tables by name; and what it was run with.

    config: digest of the configuration; seconds: of everything, tables too. missing: which data were not there, in
    which case there is nothing else.
    """

    config: str
    seconds: float
    result: Any = None
    estimates: Mapping[str, tuple[Estimate, ...]] = field(default_factory=dict)
    tables: Mapping[str, DataFrame] = field(default_factory=dict)
    missing: str = ""


def perform(experiment: Experiment, settings: Settings, run: Callable[[Settings], Any] | None = None) -> Finding:
    """Run an experiment in full precision, measure and tabulate what it gave.

    run: in the place of the experiment's own, such as one under checkpoints.
    """
    clock, config = time.perf_counter(), configuration(experiment, settings)
    with arithmetic("float32", settings.device):  # of whatever does not ask for less
        try:
            result = (run or experiment.run)(settings)
        except DataMissing as fault:
            return Finding(config, time.perf_counter() - clock, missing=str(fault))
        found = experiment.estimates(result)
        estimates = {key: (one,) if isinstance(one, Estimate) else tuple(one) for key, one in found.items()}
        tables = experiment.tables(result)
    return Finding(config, time.perf_counter() - clock, result, estimates, tables)


def configuration(experiment: Experiment, settings: Settings) -> str:
    """Return the digest of an experiment's configuration, as it is under the usual seed, replicas and device.

    So two runs that differ in these alone have one configuration, whatever it derives from them.
    """
    kind: Any = type(settings)
    usual: Settings = dataclasses.replace(settings, **{name: getattr(kind, name) for name in RUN_FIELDS})
    return digest(planned(experiment.run, usual), ignore=RUN_FIELDS)
