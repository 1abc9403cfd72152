"""A noise floor on real data: logistic regression started at its exact minimum, with no free parameter left.

The loss rises from the minimum to a floor that the noise of one example predicts. Momentum lifts it as far as the
matched step of plain descent does. Every draw of the data has a minimum, a noise and a prediction of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from descent.arrays import Array, IntArray
from descent.data import images
from descent.data.draws import Draws
from descent.engine import Every, every
from descent.experiments.lab import Estimates, Experiment, Lab, Share, Tables, tidy
from descent.experiments.saddles.arms import Arm, rule
from descent.problems.networks import Logistic, Logistics
from descent.stats import draw_mean, draw_ratio

ARMS = (Arm.PLAIN, Arm.HALF, Arm.HEAD, Arm.MATCHED)


@dataclass(frozen=True)
class LogisticFloor:
    """ARMS around each draw's minimum; the slowest mode of the slowest arm forgets its start in a thousand steps."""

    data: str = "digits"
    images: int = 170
    draws: int = 10  # of so many images, none in two of them
    decay: float = 0.1
    batch_size: int = 32
    lr: float = 0.005
    steps: int = 7000
    discard: int = 3000  # steps before losses count
    every: int = 25  # steps between two looks
    replicas: Share = Share(most=30)  # of every arm, as many for each draw


@dataclass(frozen=True, eq=False)
class LogisticResult:
    """Stationary excess losses (A, D, N/D) by draw, their prediction (A, D), and mean losses (A, T) at steps (T,).

    lr, momentum (A,) of ARMS. A replica that diverged in any arm is not a number in all. sets: the images of each draw.
    """

    config: LogisticFloor
    lab: Lab
    sets: Draws
    lr: Array
    momentum: Array
    excess: Array
    predicted: Array
    path: Array
    steps: IntArray


def run(config: LogisticFloor, lab: Lab) -> LogisticResult:
    """Release every arm at the minimum of every draw and watch the loss rise to its floor."""
    inputs, labels = lab.bring(*images.examples(config.data))
    sets, arms = lab.draws(len(labels), config.images, config.draws), rule(ARMS, config.lr, lab.momentum)
    each = [Logistic(inputs[rows], labels[rows], 10, config.decay, config.batch_size) for rows in sets.rows]
    problem, minima = Logistics(tuple(each)), [one.minimum for one in each]
    floor = torch.tensor([minimum.loss for minimum in minima], device=inputs.device, dtype=torch.float64)
    probe: Every[Tensor] = every(
        config.every, lambda weights: problem.loss(weights) - floor.repeat(len(weights) // len(floor))
    )
    count = lab.per_draw(config.replicas, config.draws)
    start = torch.stack([minimum.params for minimum in minima]).to(inputs).repeat(count // config.draws, 1, 1)
    done = lab.arms(arms, count).run(problem, start, config.steps, probes={"excess": probe})
    steps, lr, momentum = done.at("excess"), arms.lr.numpy(), arms.momentum.numpy()
    paths = np.where(done.alive[:, None], done["excess"], np.nan)
    return LogisticResult(
        config, lab, sets, lr, momentum,
        excess=sets.by_draw(paths[..., steps >= config.discard].mean(-1)),
        predicted=np.stack([one.excess_loss(lr, momentum, config.batch_size) for one in minima], axis=1),
        path=np.nanmean(paths, axis=1), steps=steps,
    )  # fmt: skip


def estimates(result: LogisticResult) -> Estimates:
    """Return what logistic regression says about P3-C2 and P3-C11."""
    plain, head = (ARMS.index(arm) for arm in (Arm.PLAIN, Arm.HEAD))
    return {
        "P3-C2.logistic": draw_ratio(result.excess[head], result.excess[plain]),
        "P3-C11.logistic": draw_mean(result.excess[head] / result.predicted[head, :, None]),
    }


def tables(result: LogisticResult) -> Tables:
    """Return one row per arm, with intervals over the draws."""
    excess, ratio = result.excess, result.excess / result.predicted[..., None]
    means = np.nanmean(excess, axis=(1, 2))
    frame = tidy(
        {"lr": result.lr}, momentum=result.momentum, excess_loss=np.array([draw_mean(arm) for arm in excess], object),
        replicas=np.isfinite(excess).sum((1, 2)), predicted=result.predicted.mean(1),
        value=np.array([draw_mean(arm) for arm in ratio], object), over_plain=means / means[ARMS.index(Arm.PLAIN)],
    )  # fmt: skip
    return {"logistic": frame.rename(columns={"value": "ratio"})}


LARGE = LogisticFloor(  # a smaller rate for the larger inputs
    "mnist", 6000, lr=0.0005, steps=70_000, discard=30_000, every=250, replicas=Share(most=60)
)
LOGISTIC = Experiment("logistic", small=LogisticFloor(), large=LARGE, run=run, estimates=estimates, tables=tables)
