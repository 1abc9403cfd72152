"""How a trial is run, how its progress is told, and the table that a problem has beside the trial."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from descent.arrays import Array
from descent.measure.step import By
from descent.stats.draws import draw_mean
from descent.stats.estimate import Estimate

__all__ = ["Cell", "Plan", "Progress", "Side", "estimated"]

LEAST_ROWS, LEAST_DRAWS = 32, 8
"""Replicas and draws below which an interval is withheld."""

Cell: TypeAlias = str | float | Estimate | None
"""A label, a number that is known, one that was measured, or nothing."""


@dataclass(frozen=True)
class Plan:
    """How a trial is run. replicas: of every rule in the report, over `draws` draws; tuning has half as many draws."""

    rates: tuple[float, float, int]  # lowest, highest, how many
    replicas: int = 32
    draws: int = 8
    seed: int = 0
    steps: int | None = None
    match: bool = True  # whether a control takes the same step without momentum
    by: By = "reach"  # what of the step is made equal
    symmetric: bool = True  # whether it does so under noise made symmetric, too
    every: int = 50

    def __post_init__(self) -> None:
        low, high, count = self.rates
        if not (0 < low <= high and count >= 1):
            raise ValueError(f"rates are LOW:HIGH:COUNT with 0 < LOW ≤ HIGH and COUNT ≥ 1, got {self.rates}")
        if self.draws < 2 or self.replicas % self.draws:
            raise ValueError(f"{self.replicas} replicas over {self.draws} draws: take at least 2 draws, and a multiple")

    @property
    def grid(self) -> Array:
        """The rates, evenly in their logarithm."""
        return np.geomspace(*self.rates[:2], self.rates[2])

    @property
    def few(self) -> bool:
        """Whether there are too few to give an interval."""
        return self.replicas < LEAST_ROWS or self.draws < LEAST_DRAWS

    def by_draw(self, values: Array) -> Array:
        """Return values (…, replicas) as (…, draws, nets): replica r is of draw r mod D."""
        return np.asarray(values.reshape(*values.shape[:-1], -1, self.draws).swapaxes(-1, -2))


@dataclass
class Progress:
    """Progress of a trial, said once a second with the time that is left, about."""

    say: Callable[[str], None]
    total: int  # steps of the whole trial
    done: int = 0  # steps made
    begun: float = field(default_factory=time.perf_counter)  # when, in seconds of this process's clock
    said: float = 0.0  # when something was last said

    def tick(self, what: str, steps: int) -> None:
        """Count steps that have been made."""
        self.done += steps
        now = time.perf_counter()
        if now - self.said > 1 and self.done:
            self.said = now
            left = (now - self.begun) * max(0, self.total - self.done) / self.done
            self.say(f"{what}: {min(1.0, self.done / self.total):.0%}, about {left:.0f} s left")

    def during(self, what: str) -> Callable[[int, int], None]:
        """Return what a run calls with its step and its last step."""
        last = [0]

        def tick(step: int, _: int) -> None:
            self.tick(what, step - last[0])
            last[0] = step

        return tick


@dataclass(frozen=True)
class Side:
    """What a problem finds of the rules beside their trial: a table, whose first `labels` columns are labels."""

    name: str
    title: str
    head: tuple[str, ...]  # names of the columns
    labels: int
    rows: tuple[tuple[Cell, ...], ...]


def estimated(values: Array) -> Estimate | None:
    """Return the mean of values (draws, nets) over draws; None where one is missing, or where all are alike."""
    if np.isnan(values).any():
        return None
    try:
        return draw_mean(values)
    except ValueError:
        return None
