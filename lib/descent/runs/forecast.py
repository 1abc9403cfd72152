"""What a campaign would take: what grows against the run at CPU scale, and how long each task is expected to last."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from descent.experiments.lab import Lab, Share
from descent.runs.budget import CORE, kind, rates, scaled
from descent.runs.campaign import BUDGET, Task

__all__ = ["expected", "kinds", "plan"]

CROWDS = {
    "replicas",
    "seeds",
    "data_sets",
    "draws",
    "trials",
    "nets",
    "walkers",
    "walks",
    "problems",
    "climbers",
    "starts",
    "leaving",
    "populations",
    "ensembles",
    "runs",
    "samplers",
}
"""Fields of configurations that count who takes part: each part of an experiment has its own, so the largest growth
counts."""
LENGTHS = {
    "steps",
    "horizon",
    "epochs",
    "looks",
    "climb",
    "watch",
    "rates",
    "examples",
    "dimension",
    "neurons",
    "hidden",
}
"""Fields that say how much each does: the work grows in proportion to every one of them, or nearly so."""


def plan(
    todo: Sequence[Task], known_seconds: Mapping[str, float], calibration: Mapping[str, Any] | None = None
) -> pd.DataFrame:
    """Return per task what differs from the run at CPU scale, and how long it would take, see `expected`.

    known_seconds: what each experiment took at CPU scale on one core, by name.
    """
    seconds = expected(todo, known_seconds, calibration)
    rows = []
    for task in todo:
        grown = _grown(task)
        changes = ", ".join(f"{name} {old} → {new}" for name, (old, new) in grown.items()) or "nothing"
        minutes = "unknown" if math.isnan(seconds[task.name]) else f"{seconds[task.name] / 60:.1f}"
        rows.append((task.name, minutes, f"{BUDGET >> 20} MiB + data", changes))
    column = "minutes on one core" if calibration is None else "minutes as calibrated"
    return pd.DataFrame(rows, columns=["experiment", column, "memory", "against the CPU run"])


def expected(
    todo: Sequence[Task], known_seconds: Mapping[str, float], calibration: Mapping[str, Any] | None = None
) -> dict[str, float]:
    """Return how long each task would take on one core, or on the device of a calibration; NaN where that is unknown.

    known_seconds: what each experiment took at CPU scale on one core. The rest follows from the counts of its
    configuration, see CROWDS and LENGTHS, or from the images that residual networks go through: good to a factor of
    about five.
    """
    found = {}
    for task in todo:
        factor = _factor(_grown(task))
        known = CORE if calibration is None else rates(calibration, getattr(task.config, "precision", "float32"))
        found[task.name] = scaled(task.config, task.lab, factor * known_seconds.get(task.name, math.nan), known)
    return found


def kinds(todo: Sequence[Task]) -> dict[str, str]:
    """Return the kind of work that each task is, by name, see `budget.kind`."""
    return {task.name: kind(task.config, task.lab) for task in todo}


def _factor(grown: Mapping[str, tuple[int, int]]) -> float:
    """Return by how much the work grows with the counts of a configuration."""
    ratios = [(name.rpartition(".")[2], new / old) for name, (old, new) in grown.items() if old]
    crowd = max((ratio for name, ratio in ratios if name in CROWDS), default=1.0)
    return crowd * math.prod(ratio for name, ratio in ratios if name in LENGTHS)


def _grown(task: Task) -> dict[str, tuple[int, int]]:
    """Return the counts of a task's configuration that differ from those at CPU scale."""
    before, after = (_counts(config, task.lab) for config in (task.experiment.config("cpu"), task.config))
    return {name: (before.get(name, 0), after[name]) for name in after if after[name] != before.get(name)}


def _counts(config: Any, lab: Lab) -> dict[str, int]:
    """Return the whole numbers of a configuration and of its parts, and how long its lists are.

    Numbers within lists are added up.
    """
    found: dict[str, int] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, Share):
            found[field.name] = lab.count(value)
        elif dataclasses.is_dataclass(value):
            found |= {f"{field.name}.{name}": count for name, count in _counts(value, lab).items()}
        elif isinstance(value, (tuple, list)):
            found[field.name] = len(value)
            inner = [_counts(item, lab) for item in value if dataclasses.is_dataclass(item)]
            for name in {name for counts in inner for name in counts}:
                found[f"{field.name}.{name}"] = sum(counts.get(name, 0) for counts in inner)
        elif isinstance(value, int) and not isinstance(value, bool) and field.name != "seed":
            found[field.name] = value
    return found
