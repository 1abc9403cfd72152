"""Which combination of learning rate and batch size decides how sharp a minimum is.

Every arm holds one combination of a base arm and moves the others. All nets train on independent batches for the same
learning rate × steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from itertools import accumulate

import numpy as np

from descent.arrays import Array
from descent.engine import ArmRun, ema, sgd
from descent.experiments.lab import Estimates, Experiment, Lab, Share, Tables, tidy
from descent.experiments.smoothing.arms import task
from descent.experiments.smoothing.minima import Minima, measured
from descent.stats import Estimate, draw_statistic


class Held(IntEnum):
    """The first arms: (η, B); (4η, 4B) of equal η/B; (4η, 16B) of equal η/√B; (η, B) averaged.

    Then come arms of equal η and rising B.
    """

    BASE = 0
    TEMPERATURE = 1
    DEGREE = 2
    AVERAGED = 3


@dataclass(frozen=True)
class Iso:
    """Two-layer nets; the averaged arm has the lab's momentum."""

    data: str = "digits"
    draws: int = 16  # of the training set
    replicas: Share = Share(over=20, most=32)
    lr: float = 0.04
    batch_size: int = 4
    flow: float = 50.0  # learning rate × steps
    factor: int = 4
    larger: tuple[int, ...] = (4, 8, 16)  # times the batch size, at the learning rate of the base
    looks: tuple[float, ...] = (0.9, 0.95, 1.0)  # parts of the run at which the sharpness is taken
    hidden: int = 32
    redrawn: float = 0.2  # of the labels

    @property
    def arms(self) -> tuple[tuple[str, float, int], ...]:
        """Name, learning rate and batch size of every arm."""
        f, lr, size = self.factor, self.lr, self.batch_size
        first = (
            ("base", lr, size),
            ("equal lr / batch size", f * lr, f * size),
            ("equal lr / √(batch size)", f * lr, f * f * size),
            ("averaged", lr, size),
        )
        return first + tuple(("equal lr", lr, size * times) for times in self.larger)


def run(config: Iso, lab: Lab) -> Minima[Iso]:
    """Train every arm, and keep its run as it stood at each look."""
    images, looks = task(lab, config.data, config.redrawn, config.hidden, config.draws), []
    count = lab.per_draw(config.replicas, config.draws)
    for arm, (_, lr, size) in enumerate(config.arms):
        arms = lab.arms(ema(lr, lab.momentum) if arm == Held.AVERAGED else sgd(lr), count)
        first, *later = (round(config.flow / lr * part) for part in config.looks)
        begun = arms.run(images.batches(size), images.model.initial, first)
        looks.append(list(accumulate(later, ArmRun.then, initial=begun)))
    return measured(config, lab, images, looks)


def estimates(result: Minima[Iso]) -> Estimates:
    """Return what digits say about P1-C17, P1-C21 and P1-X6."""
    shifts = result.shifts(result.sharpness, Held.BASE)
    return {
        "P1-C17.matched": middle_gain(result),
        "P1-C21.iso_delta": shifts[Held.DEGREE],
        "P1-X6.iso_temperature": shifts[Held.TEMPERATURE],
        "P1-X6.batch": shifts[-1],
        "P1-X6.nshb": shifts[Held.AVERAGED],
    }


def glyph_estimates(result: Minima[Iso]) -> Estimates:
    """Return what glyphs say about P1-C17."""
    return {"P1-C17.matched_glyphs": middle_gain(result)}


def middle_gain(result: Minima[Iso]) -> Estimate:
    """Return the accuracy of the best batch size between the ends minus the better end, equal learning rate × steps.

    Which is best is found again in every resample of the draws, so that the interval knows that it was picked.
    """
    rising = (Held.BASE, *range(Held.AVERAGED + 1, len(result.accuracy)))

    def gain(*sizes: Array) -> Array:
        first, *middle, last = (np.nanmean(size, axis=(1, 2)) for size in sizes)
        return np.asarray(np.max(middle, axis=0) - np.maximum(first, last))

    return draw_statistic(gain, *(result.sets.by_draw(result.accuracy[arm]) for arm in rising), seed=result.lab.seed)


def tables(result: Minima[Iso]) -> Tables:
    """Return one row per arm; shifts and gains are over the base."""
    names, lr, sizes = zip(*result.config.arms, strict=True)
    name = "iso" if result.config.data == "digits" else f"iso_{result.config.data}"
    return {name: tidy({"arm": names}, lr=lr, batch_size=sizes, **result.over(Held.BASE))}


LARGE = Iso(
    draws=32, replicas=Share(over=4, least=64), larger=(2, 4, 8, 16, 64), looks=(0.9, 0.925, 0.95, 0.975, 1.0)
)  # fmt: skip
ISO = Experiment("iso", small=Iso(), large=LARGE, run=run, estimates=estimates, tables=tables)
GLYPHS = Experiment(  # fresh sets cost nothing: every net has its own
    "iso_glyphs", small=Iso("glyphs", draws=32), large=replace(LARGE, data="glyphs", draws=250),
    run=run, estimates=glyph_estimates, tables=tables,
)  # fmt: skip
