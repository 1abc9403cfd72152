"""A net where plain sign descent has stalled, held still: the mean step of each rule there, and its noise.

Nets are trained by plain sign descent until it makes no more progress. Then gradients are drawn as in training, every
rule is fed with them, and its steps are added up though nothing moves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from descent.arrays import Array
from descent.engine import Arms, Params, Purpose, sign
from descent.engine.probes import Leaves
from descent.engine.rule import over
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Tables, tidy
from descent.experiments.normalised.nets import Net, Task, fading
from descent.measure.step import full_gradient
from descent.stats import draw_mean, draw_ratio

PLACES = ("at the start", "where plain stalls")
RULES = ("plain", "plain, symmetric noise", "averaged before")
PLAIN, FAIR, BEFORE = range(3)
FAR = 1 << 30  # steps of draws that training never comes to


@dataclass(frozen=True)
class Stalled:
    """Nets on few images, so that the full gradient costs little."""

    net: Net = field(default_factory=lambda: Net(examples=256))
    lr: float = 1e-2  # at which nothing more is gained long before the rate has faded
    momentum: float = 0.9
    batch_size: int = 8
    steps: int = 1000
    blocks: int = 60
    block: int = 100  # steps, many memories long: the variance of their sum is power at frequency zero
    burn: int = 60


@dataclass(frozen=True, eq=False)
class StalledResult(Result[Stalled]):
    """What signs do at PLACES by RULES, per unit rate.

    descent (P, 3, D, N/D): mean steps along the gradient, over its sum of magnitudes. power, along (P, 3, D, N/D): of
    the steps at frequency zero, mean over all weights, and of their part along the gradient.
    """

    descent: Array
    power: Array
    along: Array


def run(config: Stalled, lab: Lab) -> StalledResult:
    """Look at the start, train until plain sign descent has stalled, and look again."""
    task = config.net.task(lab)
    arms = config.net.arms(lab, sign(config.lr))
    objective = task.objective(config.batch_size)
    done = arms.run(objective, task.net.initial, config.steps, schedule=fading(config.steps), check=10)
    looks = [_look(config, task, arms, params) for params in (task.net.initial(arms.streams), done.params)]
    return StalledResult(config, lab, *(np.stack(parts) for parts in zip(*looks, strict=True)))


def _look(config: Stalled, task: Task, arms: Arms[Any], params: Params) -> tuple[Array, Array, Array]:
    """Return descent, power and power along the gradient at some parameters, each (3, D, N/D)."""
    slope = full_gradient(task.objective(config.batch_size), params)
    size = _sum(slope, torch.abs)
    sums = _blocks(config, task, arms, params, slope)  # (K, 3, R, p)
    flat = torch.cat([leaf.flatten(1) for leaf in slope.values()], dim=1)
    along = (sums * flat).sum(-1)
    found = (
        -along.mean(0) / (config.block * size),
        sums.var(0).mean(-1) / config.block,
        along.var(0) / (config.block * flat.square().sum(1)),
    )
    descent, power, part = (task.by_draw(values.double().cpu().numpy()) for values in found)
    return descent, power, part


def _blocks(config: Stalled, task: Task, arms: Arms[Any], params: Params, slope: Leaves) -> Tensor:
    """Return the sums of each rule's steps over blocks, (K, 3, R, p)."""
    objective, streams = task.objective(config.batch_size), arms.streams
    held: Leaves = dict(params) if not isinstance(params, Tensor) else {"": params}
    rules = [sign([1.0] * arms.rows, momentum).to(streams.device) for momentum in (0.0, 0.0, config.momentum)]
    states = [rule.init(held) for rule in rules]
    total = torch.zeros(config.blocks, len(rules), arms.rows, _width(held), device=streams.device)
    for step in range(-config.burn, config.blocks * config.block):
        g = objective.gradient(params, streams, FAR + step)
        coin = streams.signs(Purpose.NOISE, FAR + step)
        fair = {name: slope[name] + over(coin, leaf) * (leaf - slope[name]) for name, leaf in g.items()}
        for index, (rule, seen) in enumerate(zip(rules, (g, fair, g), strict=True)):
            delta, states[index] = rule.update(seen, states[index], held, streams.seeds)  # signs do not ask for an age
            if step >= 0:
                total[step // config.block, index] += torch.cat([leaf.flatten(1) for leaf in delta.values()], dim=1)
    return total


def _width(leaves: Leaves) -> int:
    return sum(leaf[0].numel() for leaf in leaves.values())


def _sum(gradient: Leaves, size: Callable[[Tensor], Tensor]) -> Tensor:
    return torch.stack([size(leaf).flatten(1).sum(1) for leaf in gradient.values()]).sum(0)


def estimates(result: StalledResult) -> Estimates:
    """Return what the net says about N-3 and N-6."""
    plain, fair, before = result.descent[1]
    return {
        "N-3.net": draw_ratio(result.power[1, BEFORE], result.power[1, PLAIN]),
        "N-6.stalled": draw_mean(plain),
        "N-6.symmetric": draw_mean(fair),
        "N-6.averaged": draw_mean(before),
    }


def tables(result: StalledResult) -> Tables:
    """Return mean steps, and power over that of the plain sign."""
    axes = {"place": PLACES, "rule": RULES}
    descent, *powers = (
        np.array([[statistic(*x) for x in place] for place in parts], dtype=object)
        for statistic, parts in (
            (draw_mean, result.descent[:, :, None]),
            (draw_ratio, _over_plain(result.power)),
            (draw_ratio, _over_plain(result.along)),
        )
    )
    return {"stalled": tidy(axes, descent=descent, power=powers[0], power_along=powers[1])}


def _over_plain(power: Array) -> Array:
    """Return pairs of every rule's power and the plain sign's, (P, 3, 2, D, N/D)."""
    return np.stack(np.broadcast_arrays(power, power[:, :1]), axis=2)


STALLED = Experiment(
    "stalled", small=Stalled(), run=run, estimates=estimates, tables=tables,
    large=Stalled(net=Net(draws=32, hidden=64, examples=1000), blocks=100),
)  # fmt: skip
