"""Less curvature at the same noise: SVAG takes momentum's difference away, its sign first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import torch

from descent.arrays import Array
from descent.engine import stack
from descent.engine.gradients import Svag
from descent.engine.rules import ema, sgd
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Share, Tables, tidy
from descent.experiments.synthesis.small_nets import SCALES, log_sharpness, small_task
from descent.experiments.synthesis.task import DataSet
from descent.stats import Estimate, draw_difference, draw_mean

HEAD = 0.9


@dataclass(frozen=True)
class Refined:
    """Nets on clean digits and glyphs (steps scaled); one of e is cut into ℓ, with ℓ times the noise power."""

    draws: int = 10
    replicas: Share | int = 10  # one net of each draw
    effective: float = 1.0
    batch: int = 128
    time: float = 120.0
    fineness: tuple[int, ...] = (1, 2, 4, 8)
    data: tuple[DataSet, ...] = ("digits", "glyphs")


@dataclass(frozen=True, eq=False)
class RefinedResult(Result[Refined]):
    """Log λ₁ at the end, heavy ball less descent, by data and ℓ, (2, L, D, N/D)."""

    gap: Array


def run(config: Refined, lab: Lab) -> RefinedResult:
    """Train both rules on the same mixtures of batches."""
    found = []
    for data in config.data:
        task = small_task(lab, config.draws, data)
        for fine in config.fineness:
            e = config.effective * SCALES[data] / fine
            arms = lab.arms(stack(sgd(e), ema(e, HEAD)), lab.per_draw(config.replicas, config.draws), torch.float64)
            objective = Svag(task.objective(config.batch), fine)
            done = arms.run(objective, task.start, round(config.time / e), check=10, limit=1e3)
            ends = np.where(done.lost, np.nan, done.end(partial(log_sharpness, task)))
            found.append(task.sets.by_draw(ends[1] - ends[0]))
    return RefinedResult(config, lab, np.array(found).reshape(len(config.data), len(config.fineness), *found[0].shape))


def estimates(result: RefinedResult) -> Estimates:
    """Return the difference at one and two steps, and how its size falls, for S-42."""
    digits = result.gap[0]
    found: dict[str, Estimate | Sequence[Estimate]] = {
        "S-42.one": draw_mean(digits[0]),
        "S-42.two": draw_mean(digits[1]),
        "S-42.falls": _falls(digits),
    }
    if len(result.gap) > 1:
        glyphs = result.gap[1]
        found["S-42.one_glyphs"] = draw_mean(glyphs[0])
        found["S-42.two_glyphs"] = draw_mean(glyphs[1])
        found["S-42.falls_glyphs"] = _falls(glyphs)
    return found


def _falls(gap: Array) -> list[Estimate]:
    """Return the falls of the size from two steps on, where heavy ball is the flatter one."""
    return [draw_difference(a, b) for a, b in pairwise(-gap[1:])]


def tables(result: RefinedResult) -> Tables:
    """Return the difference by data and ℓ."""
    shift = np.array([[draw_mean(one) for one in gaps] for gaps in result.gap])
    return {"svag": tidy({"data": result.config.data, "fineness": result.config.fineness}, sharpness=shift)}


SVAG = Experiment(
    "svag", small=Refined(), large=Refined(replicas=Share(over=25, least=40)), run=run, estimates=estimates,
    tables=tables,
)  # fmt: skip
