"""The race: which of the two algorithms learns the feature of the small margins, and which memorises them.

All arms begin at the same weights on the same data and differ in momentum alone. They are compared at equal training
loss, where plain descent has fitted the small margins by their noise and strong momentum by the feature.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from descent.arrays import Array
from descent.engine import Params, ema, every
from descent.engine.stack import leaves
from descent.experiments.lab import Estimates, Experiment, Lab, Tables, tidy
from descent.experiments.margins.arms import EQUAL, LARGE, MANY, Race, Task, compete, of_sets
from descent.problems.patches import Patches
from descent.stats import bounded_difference, bounded_mean, draw_share, geometric_ratio, mean

COURSE = ("feature", "signal", "noise", "unfitted")
MEANS = ("err2", "err1", "feature", "signal", "noise")


@dataclass(frozen=True)
class RaceSettings:
    """Arms of one EMA learning rate on common data and initial weights."""

    task: Task = Task(MANY)
    lr: float = 1.0
    momentum: tuple[float, ...] = (0.0,)  # beside the headline and the strong one
    strong: float = 0.99  # the momentum of the lemma
    targets: tuple[float, ...] = (0.05, EQUAL)
    steps: int = 600
    fitted: float = 0.1  # mean of 1/(1 + e^(yf)) over large margins below which they count as fitted
    looks: int = 100


@dataclass(frozen=True, eq=False)
class RaceResult:
    """Where the arms stand at each target, and their course: COURSE by name (A, S, T) at steps (T,).

    neurons (A, S, T, m): s of every neuron. crossed (A,): share of neurons that started with s < 0 and ended above 0.1;
    blind: seeds in which all of them started so, and no feature can be learnt without crossing.
    """

    config: RaceSettings
    lab: Lab
    momentum: tuple[float, ...]
    stands: tuple[Race, ...]
    steps: NDArray[np.int64]
    course: dict[str, Array]
    neurons: Array

    @property
    def crossed(self) -> Array:
        """The share of neurons that crossed, (A,)."""
        before, after = self.neurons[:, :, 0] < 0, self.neurons[:, :, -1] > 0.1
        return np.asarray((before & after).sum(axis=(1, 2)) / np.maximum(before.sum(axis=(1, 2)), 1))

    @property
    def blind(self) -> int:
        """The number of seeds without a neuron that starts with s > 0."""
        return int((self.neurons[0, :, 0] < 0).all(axis=-1).sum())

    @property
    def equal(self) -> Race:
        """Where the arms stand at equal loss."""
        return self.stands[self.config.targets.index(EQUAL)]

    def arm(self, momentum: float) -> int:
        """Return the index of an arm."""
        return self.momentum.index(momentum)


def run(config: RaceSettings, lab: Lab) -> RaceResult:
    """Race the arms to the last target, and look at what they have learnt on the way."""
    momentum = lab.momenta((*config.momentum, config.strong))
    problem = Patches(config.task.data(lab), len(momentum))

    def course(params: Params) -> Mapping[str, Tensor]:
        logits, s = problem.logits(params), leaves(params)["s"]
        signal, noise = (problem.halves(part)[1] for part in logits)
        large, _ = problem.halves((-logits.total).sigmoid())
        return {"feature": s.amax(-1), "signal": signal, "noise": noise, "unfitted": large, "neurons": s}

    looks, rule = every(max(2, config.steps // config.looks), course), ema(config.lr, momentum)
    stands, done = compete(config.task, lab, problem, rule, config.steps, config.targets, probes={"": looks})
    seen = {name: done[f".{name}"] for name in COURSE}
    return RaceResult(config, lab, momentum, tuple(stands), done.at(".signal"), seen, done[".neurons"])


def grown(result: RaceResult, arm: int) -> tuple[Array, Array]:
    """Return the feature at equal loss and when large margins were fitted, of the seeds that have both, (S',)."""
    fitted = result.course["unfitted"][arm] < result.config.fitted
    then = np.take_along_axis(result.course["feature"][arm], fitted.argmax(axis=1)[:, None], axis=1)[:, 0]
    now = result.equal.feature[arm]
    met = fitted.any(axis=1) & np.isfinite(now) & (then > 0)
    return now[met], then[met]


def estimates(result: RaceResult) -> Estimates:
    """Return what the race says about P4-C5, C6, C9, C13 and C15."""
    equal, plain = result.equal, 0
    headline, strong = result.arm(result.lab.momentum), result.arm(result.config.strong)
    by_noise, by_noise_strong = (equal.noise[arm] / (equal.noise[arm] + equal.signal[arm]) for arm in (plain, strong))
    fits = [draw_share((equal.accuracy[arm] == 1)[:, None]) for arm in (plain, headline)]
    found: Estimates = {
        "P4-C5.fits": fits[0],
        "P4-C5.errs": bounded_mean(equal.err2[plain], 0, 1),
        "P4-C6.fits": fits[1],
        "P4-C6.gap": bounded_difference(equal.err2[plain], equal.err2[headline]),
        "P4-C6.small": bounded_mean(equal.err2[headline], 0, 1),
        "P4-C9.plain": mean(by_noise),
        "P4-C9.momentum": mean(by_noise_strong),
        "P4-C13.error": fits,
        "P4-C15.frozen": geometric_ratio(*grown(result, plain)),
        "P4-C15.grows": geometric_ratio(*grown(result, strong)),
    }
    return of_sets(found)


def tables(result: RaceResult) -> Tables:
    """Return means at each target, and the median course of every arm."""
    stood = {name: np.stack([getattr(stand, name) for stand in result.stands], axis=1) for name in ("step", *MEANS)}
    means = {name: np.nanmean(stood[name], axis=-1) for name in MEANS}
    courses = {name: np.median(values, axis=1) for name, values in result.course.items()}
    return {
        "race": tidy(
            {"momentum": result.momentum, "loss": result.config.targets},
            step=np.median(stood["step"], axis=-1), **means, crossed=result.crossed[:, None], blind=result.blind,
        ),
        "race_course": tidy({"momentum": result.momentum, "step": result.steps}, **courses),
    }  # fmt: skip


RACE = Experiment(
    "race", small=RaceSettings(), run=run, estimates=estimates, tables=tables,
    large=RaceSettings(replace(LARGE, seeds=MANY), momentum=(0.0, 0.5, 0.9, 0.95, 0.99), steps=3000),
)  # fmt: skip
