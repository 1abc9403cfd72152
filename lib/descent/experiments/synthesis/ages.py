"""What flattens is the age of the gradients: eight rules below the edge, at equal loss, against gradient flow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from descent.arrays import Array
from descent.engine import Hyper, Objective, every, nesterov, qhm, sgd, stack
from descent.engine.gradients import Uphill, adams_bashforth, stale
from descent.engine.probes import Leaves
from descent.engine.rules import ema
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Share, Tables, tidy
from descent.experiments.synthesis.small_nets import at_level, flow, looks, small_task
from descent.experiments.synthesis.task import DataSet, Task
from descent.problems.products import Products, imbalance
from descent.stats import Estimate, draw_mean, draw_statistic, exact, furthest
from descent.theory.memory import Memory, drift_factor
from descent.theory.valley import drift_ratio

AGED = ("heavy ball", "Nesterov", "QHM", "stale 4", "stale 9")
MEMORIES: Mapping[str, Memory] = {
    "descent": Memory.heavy_ball(0.0),
    "heavy ball .5": Memory.heavy_ball(0.5),
    "heavy ball": Memory.heavy_ball(0.9),
    "Nesterov": Memory.nesterov(0.9),
    "QHM": Memory.qhm(0.9, 0.5),
    "stale 4": Memory.stale(4),
    "stale 9": Memory.stale(9),
    "Adams–Bashforth": Memory.adams_bashforth(),
}
UPHILL = "uphill"


@dataclass(frozen=True)
class Ages:
    """Full batches of clean digits and glyphs; of glyphs, descent and heavy ball alone."""

    draws: int = 10
    replicas: Share | int = 10  # one net of each draw: the draw is what counts in an interval
    effective: float = 0.02
    time: float = 60.0
    look: float = 3.0
    losses: tuple[float, ...] = (0.08, 0.15)  # at which rules are compared, of each kind of data
    flow_step: float = 0.1
    data: tuple[DataSet, ...] = ("digits", "glyphs")
    product: tuple[float, float] = (3.0, 0.05)  # two factors whose drifts have a closed form
    product_effective: float = 0.002
    product_momenta: tuple[float, ...] = (0.5, 0.8, 0.9)


@dataclass(frozen=True, eq=False)
class AgesResult(Result[Ages]):
    """Log λ₁ less that of gradient flow at the same loss, by data and rule, (D, N/D); nan where it is not reached."""

    drift: tuple[Mapping[str, Array], ...]
    closed: Array  # (M,): drift of two factors under heavy ball over descent's, over the formula

    def over(self, name: str, data: int = 0, *, factor: float = 1.0, reference: str = "descent") -> Estimate:
        """Estimate a rule's drift over another's and over a factor: means over draws, some of which drift little."""

        def ratio(own: Array, other: Array) -> Array:
            return np.asarray(np.nanmean(own, (1, 2)) / np.nanmean(other, (1, 2)) / factor)

        return draw_statistic(ratio, self.drift[data][name], self.drift[data][reference])


def run(config: Ages, lab: Lab) -> AgesResult:
    """Train every rule from the same starts, and follow the flow."""
    drifts = tuple(_drifts(config, lab, *one) for one in zip(config.data, config.losses, strict=True))
    return AgesResult(config, lab, drifts, _closed(config, lab))


def _closed(config: Ages, lab: Lab) -> Array:
    """Return the drift of u² − v² over descent's and over the closed form, by momentum, (M,)."""
    arms = lab.arms(ema(config.product_effective, (*config.product_momenta, 0.0)), 2, torch.float64)
    point = torch.tensor([config.product], dtype=torch.float64)
    done = arms.run(Products(), point, 4000, check=500)
    start = float(imbalance(point)[0, 0, 1])
    fell = start - done.end(lambda x: imbalance(x)[:, 0, 1])[:, 0]
    z = config.product_effective * (start**2 + 4) ** 0.5
    return np.asarray(fell[:-1] / fell[-1] / drift_ratio(z, config.product_momenta))


def _drifts(config: Ages, lab: Lab, data: DataSet, loss: float) -> dict[str, Array]:
    task, e = small_task(lab, config.draws, data), config.effective
    full = task.objective()
    together: dict[str, Hyper] = {
        "descent": sgd(e), "heavy ball .5": ema(e, 0.5), "heavy ball": ema(e, 0.9),
        "Nesterov": nesterov(0.1 * e, 0.9), "QHM": qhm(e, 0.9, 0.5),
    }  # fmt: skip
    alone: dict[str, Objective[Leaves]] = {
        "stale 4": stale(full, 4), "stale 9": stale(full, 9), "Adams–Bashforth": adams_bashforth(full),
        UPHILL: Uphill(full, 9 * e),
    }  # fmt: skip
    if data != "digits":
        together, alone = {name: together[name] for name in ("descent", "heavy ball .5", "heavy ball")}, {}
    level = float(np.log(loss))
    found = dict(zip(together, _ends(config, lab, task, full, stack(*together.values()), level), strict=True))
    for name, objective in alone.items():
        found[name] = _ends(config, lab, task, objective, sgd(e), level)[0]
    start = task.start(lab.streams(lab.per_draw(config.replicas, config.draws), torch.float64))
    path = flow(task, start, config.time, config.flow_step, round(config.look / config.flow_step))
    still = at_level(*path, level)
    return {name: task.sets.by_draw(end - still) for name, end in found.items()}


def _ends(config: Ages, lab: Lab, task: Task, objective: Objective[Leaves], rule: Hyper, level: float) -> Array:
    """Return log λ₁ at the loss of comparison, (A, N)."""
    arms = lab.arms(rule, lab.per_draw(config.replicas, config.draws), torch.float64)
    probe = every(round(config.look / config.effective), lambda params: looks(task, params))
    run = arms.run(objective, task.start, round(config.time / config.effective), probes={"": probe}, check=50)
    return at_level(run[".loss"], run[".sharpness"], level)


def estimates(result: AgesResult) -> Estimates:
    """Return drifts over the factor of the rule's age, for S-34 and S-35."""
    age = {name: drift_factor(memory) for name, memory in MEMORIES.items()}
    aged = [result.over(name, factor=age[name]) for name in AGED]
    found = {
        "S-34.half": result.over("heavy ball .5", factor=age["heavy ball .5"]),
        "S-34.strong": result.over("heavy ball", factor=age["heavy ball"]),
        "S-34.closed": exact(np.abs(result.closed - 1).max()),
        "S-35.age": furthest(aged),
        "S-35.none": result.over("Adams–Bashforth"),
        "S-35.uphill": result.over(UPHILL, reference="heavy ball"),
    }
    if len(result.drift) > 1:
        found["S-34.half_glyphs"] = result.over("heavy ball .5", 1, factor=age["heavy ball .5"])
        found["S-34.strong_glyphs"] = result.over("heavy ball", 1, factor=age["heavy ball"])
    return found


def tables(result: AgesResult) -> Tables:
    """Return every rule's drift over descent's beside the factor of its age."""
    names = list(result.drift[0])
    over = [result.over(name) for name in names]
    drift = [draw_mean(result.drift[0][name]) for name in names]
    age = [drift_factor(MEMORIES[name]) if name in MEMORIES else np.nan for name in names]
    return {"ages": tidy({"rule": names}, factor=age, over=np.array(over), drift=np.array(drift))}


AGES = Experiment(
    "ages", small=Ages(), large=Ages(replicas=Share(over=10, least=40)), run=run, estimates=estimates, tables=tables
)
