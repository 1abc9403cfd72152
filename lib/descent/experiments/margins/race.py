"""The race: which of the two algorithms learns the feature of the small margins, and which memorises them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
from pandas import DataFrame, concat
from torch import Tensor

from descent.arrays import Array
from descent.engine.probes import Leaves, Params
from descent.engine.train import every
from descent.experiments.arms import configure, momenta, to_numpy
from descent.experiments.common import Estimates, Experiment, Settings
from descent.experiments.margins.arms import Race, Task, arms_hyper, compete
from descent.problems.patches import Patches
from descent.stats.intervals import geometric_ratio, mean, paired_difference

EQUAL = 0.01
"""The training loss at which arms are compared."""


@dataclass(frozen=True)
class RaceSettings:
    """Arms of one EMA learning rate on common data and initial weights; strong is the momentum of the lemma."""

    task: Task
    momentum: float
    lr: float = 1.0
    momenta: tuple[float, ...] = (0.0, 0.5, 0.9, 0.95, 0.99)
    strong: float = 0.99
    targets: tuple[float, ...] = (0.05, EQUAL)
    steps: int = 600
    fitted: float = 0.1  # mean of 1/(1 + e^(yf)) over large margins below which they count as fitted
    looks: int = 100

    @classmethod
    def cpu(cls, settings: Settings) -> RaceSettings:
        """Take forty seeds."""
        return cls(Task.cpu(settings), settings.momentum)

    @classmethod
    def paper(cls, settings: Settings) -> RaceSettings:
        """Take the large task for longer."""
        return cls(Task.paper(settings), settings.momentum, steps=3000)

    @property
    def arms(self) -> tuple[float, ...]:
        """The momenta of the arms, rising; the headline one and the strong one are among them."""
        return momenta((*self.momenta, self.strong), self.momentum)


@dataclass(frozen=True, eq=False)
class RaceResult:
    """Where the arms stand at each target, and their course: feature, signal, noise and unfitted (T, A, S).

    steps (T,); neurons (T, A, S, m): s of every neuron. crossed (A,): share of neurons that started with s < 0 and
    ended above 0.1; blind: seeds in which all of them started so, and no feature can be learnt without crossing.
    """

    config: RaceSettings
    stands: tuple[Race, ...]
    steps: Array
    course: dict[str, Array]
    neurons: Array
    seconds: float

    @property
    def crossed(self) -> Array:
        """The share of neurons that crossed, (A,)."""
        before, after = self.neurons[0] < 0, self.neurons[-1] > 0.1
        return np.asarray((before & after).sum(axis=(1, 2)) / np.maximum(before.sum(axis=(1, 2)), 1))

    @property
    def blind(self) -> int:
        """The number of seeds without a neuron that starts with s > 0."""
        return int((self.neurons[0, 0] < 0).all(axis=-1).sum())

    @property
    def equal(self) -> Race:
        """Where the arms stand at equal loss."""
        return self.stands[self.config.targets.index(EQUAL)]

    def arm(self, momentum: float) -> int:
        """Return the index of an arm."""
        return self.config.arms.index(momentum)


def run(config: RaceSettings) -> RaceResult:
    """Race the arms to the last target."""
    clock = time.perf_counter()
    task, arms = config.task, config.arms
    problem = Patches(task.data(), len(arms))

    def course(params: Params) -> Mapping[str, Tensor]:
        logits = problem.logits(params)
        signal, noise = (problem.halves(part)[1] for part in logits)
        large, _ = problem.halves((-logits.total).sigmoid())
        s = cast(Leaves, params)["s"]
        return {"feature": s.amax(-1), "signal": signal, "noise": noise, "unfitted": large, "neurons": s}

    hyper = arms_hyper([config.lr] * len(arms), arms, task)
    probe = every(max(2, config.steps // config.looks), course)
    stands, done = compete(task, problem, hyper, config.steps, config.targets, probes={"": probe})
    records = {name.removeprefix("."): series for name, series in done.records.items() if name.startswith(".")}
    course_of = {
        name: to_numpy(series.values).reshape(-1, len(arms), task.seeds, *series.values.shape[2:])
        for name, series in records.items()
    }
    neurons = course_of.pop("neurons")
    return RaceResult(
        config, tuple(stands), to_numpy(records["signal"].steps), course_of, neurons, time.perf_counter() - clock
    )


def grown(result: RaceResult, arm: int) -> tuple[Array, Array]:
    """Return the feature at equal loss and when large margins were fitted, of the seeds that have both, (S',)."""
    fitted = result.course["unfitted"][:, arm] < result.config.fitted
    first = fitted.argmax(axis=0)
    then = np.take_along_axis(result.course["feature"][:, arm], first[None], axis=0)[0]
    now = result.equal.feature[arm]
    met = fitted.any(axis=0) & np.isfinite(now) & (then > 0)
    return now[met], then[met]


def estimates(result: RaceResult) -> Estimates:
    """Return what the race says about P4-C5, C6, C9, C13 and C15."""
    equal, plain, strong = result.equal, 0, result.arm(result.config.strong)
    headline = result.arm(result.config.momentum)
    noisy = [equal.noise[arm] / (equal.noise[arm] + equal.signal[arm]) for arm in (plain, strong)]
    found = {
        "P4-C5.fits": mean(equal.accuracy[plain]),
        "P4-C5.errs": mean(equal.err2[plain]),
        "P4-C9.plain": mean(noisy[0]),
        "P4-C9.momentum": mean(noisy[1]),
        "P4-C15.frozen": geometric_ratio(*grown(result, plain)),
        "P4-C15.grows": geometric_ratio(*grown(result, strong)),
    }
    if headline == plain:
        return found
    worst = max((1 - equal.accuracy[arm] for arm in (plain, headline)), key=lambda error: float(error.mean()))
    return found | {
        "P4-C6.fits": mean(equal.accuracy[headline]),
        "P4-C6.gap": paired_difference(equal.err2[plain], equal.err2[headline]),
        "P4-C6.small": mean(equal.err2[headline]),
        "P4-C13.error": mean(worst),
    }


def tables(result: RaceResult) -> dict[str, DataFrame]:
    """Return means at each target, and the median course of the small-margin logit."""
    stands = [
        {
            "momentum": momentum,
            "loss": target,
            "step": float(np.median(stand.step[i])),
            "err2": stand.err2[i].mean(),
            "err1": stand.err1[i].mean(),
            "feature": np.nanmean(stand.feature[i]),
            "signal": np.nanmean(stand.signal[i]),
            "noise": np.nanmean(stand.noise[i]),
            "crossed": result.crossed[i],
            "blind": result.blind,
        }
        for i, momentum in enumerate(result.config.arms)
        for target, stand in zip(result.config.targets, result.stands, strict=True)
    ]
    course = [
        DataFrame(
            {"momentum": momentum, "step": result.steps.astype(int)}
            | {name: np.median(values[:, i], axis=1) for name, values in result.course.items()}
        )
        for i, momentum in enumerate(result.config.arms)
    ]
    return {"race": DataFrame(stands), "race_course": concat(course, ignore_index=True)}


RACE = Experiment(
    "race",
    ("P4-C5", "P4-C6", "P4-C9", "P4-C13", "P4-C15"),
    lambda settings: run(configure(RaceSettings, settings)),
    estimates,
    tables,
)
