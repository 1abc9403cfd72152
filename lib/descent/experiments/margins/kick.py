"""One push in place of momentum: how far must the feature be carried once large margins are fitted."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from pandas import DataFrame

from descent.arrays import Array
from descent.engine.probes import Leaves
from descent.engine.surgery import Kick, Operation, Surgery
from descent.experiments.arms import configure
from descent.experiments.common import Estimates, Experiment, Settings
from descent.experiments.margins.arms import Task, arms_hyper, compete
from descent.experiments.margins.race import EQUAL
from descent.problems.patches import Patches
from descent.stats.intervals import bootstrap, paired_difference
from descent.theory.inertia import coasting_distance


@dataclass(frozen=True)
class KickSettings:
    """Plain descent; when large margins are fitted, the leading neuron's s is set to a multiple of a distance.

    The distance is that to which the feature coasts at λ = half, where momentum has half of its benefit.
    """

    task: Task
    half: float = 3.2
    multiples: tuple[float, ...] = (0.5, 0.7, 0.85, 1.0, 1.2, 1.5, 2.0)
    lr: float = 1.0
    fitted: float = 0.1
    steps: int = 800

    @classmethod
    def cpu(cls, settings: Settings) -> KickSettings:
        """Take a few dozen seeds."""
        return cls(Task.cpu(settings, 32))

    @classmethod
    def paper(cls, settings: Settings) -> KickSettings:
        """Take the large task."""
        return cls(Task.paper(settings), steps=4000)

    @property
    def distance(self) -> float:
        """The coasting distance at the half-value."""
        return coasting_distance(self.half, self.task.large_margin, self.task.share)


@dataclass(frozen=True, eq=False)
class KickResult:
    """Small-margin errors at equal loss of plain descent (S,) and of every kick (K, S)."""

    config: KickSettings
    plain: Array
    kicked: Array
    seconds: float


def run(config: KickSettings) -> KickResult:
    """Kick every arm but the first."""
    clock = time.perf_counter()
    task, arms = config.task, 1 + len(config.multiples)
    data = task.data()
    one = Patches(data, 1)
    operations: list[Operation] = [
        Kick(
            slice(arm * task.seeds, (arm + 1) * task.seeds),
            _to(multiple * config.distance),
            lambda params: one.unfitted(params)[0] < config.fitted,
        )
        for arm, multiple in enumerate(config.multiples, start=1)
    ]
    (stand,), _ = compete(
        task,
        Patches(data, arms),
        arms_hyper([config.lr] * arms, [0.0] * arms, task),
        config.steps,
        (EQUAL,),
        objective=Surgery(Patches(data, arms), operations),
    )
    return KickResult(config, stand.err2[0], stand.err2[1:], time.perf_counter() - clock)


def _to(feature: float) -> Callable[[Leaves], Leaves]:
    def change(params: Leaves) -> Leaves:
        s = params["s"]
        leading = torch.nn.functional.one_hot(s.argmax(-1), s.shape[-1]).to(s)
        return {"s": leading * (feature - s.amax(-1, keepdim=True)).clamp_min(0)}

    return change


def half_way(multiples: tuple[float, ...], drawn: Array) -> Array:
    """Return the multiple at which the mean error first falls to half of plain descent's, log-interpolated, (B,).

    drawn (B, S, 1 + K): plain descent first.
    """
    means = drawn.mean(axis=1)
    share = means[:, 1:] / means[:, :1]
    places = np.log(np.array(multiples))
    below = share <= 0.5
    index = np.where(below.any(axis=1), below.argmax(axis=1), len(places) - 1).clip(1)
    rows = np.arange(len(share))
    high, low = share[rows, index - 1], share[rows, index]
    part = ((high - 0.5) / np.maximum(high - low, 1e-12)).clip(0, 1)
    return np.asarray(np.exp(places[index - 1] + part * (places[index] - places[index - 1])))


def estimates(result: KickResult) -> Estimates:
    """Return what the kicks say about P4-N4."""
    config = result.config
    both = np.column_stack([result.plain, result.kicked.T])
    twice = result.kicked[int(np.argmin(np.abs(np.array(config.multiples) - 2)))]
    return {
        "P4-N4.works": paired_difference(result.plain, twice),
        "P4-N4.critical": bootstrap(lambda drawn: half_way(config.multiples, drawn), both, seed=config.task.seed),
    }


def tables(result: KickResult) -> dict[str, DataFrame]:
    """Return mean errors, one row per kick."""
    config = result.config
    return {
        "kick": DataFrame(
            {
                "multiple": (0.0, *config.multiples),
                "feature": (np.nan, *(m * config.distance for m in config.multiples)),
                "err2": (result.plain.mean(), *result.kicked.mean(axis=1)),
            }
        )
    }


KICK = Experiment("kick", ("P4-N4",), lambda settings: run(configure(KickSettings, settings)), estimates, tables)
