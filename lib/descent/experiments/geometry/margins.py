"""Examples of small margin, the logistic loss, and what is left of alignment once the others are learnt.

Three arms: equal margins, a tenth of the examples with small ones, and these with momentum at equal effective step.
Small margins keep their residuals when the others have none: is alignment then their score over the mean score?
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import cast

import numpy as np
import torch
from torch import Tensor

from descent.arrays import Array, IntArray
from descent.data.draws import fresh
from descent.engine import ArmRun, Purpose, every, heavy_ball
from descent.engine.arms import to_numpy
from descent.engine.probes import Leaves, Params
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Share, Tables, tidy
from descent.measure.alignment import Alignment, loss_alignment
from descent.measure.gram import gram
from descent.nets import MLP, LogisticError, Supervised
from descent.stats import draw_mean

NAMES = ("equal margins", "small margins", "small margins, momentum")
SEEN = ("alignment", "carried", "relative")


class Arm(IntEnum):
    """The arms, in the order of NAMES."""

    EVEN = 0
    SMALL = 1
    MOMENTUM = 2


@dataclass(frozen=True)
class Margins:
    """Inputs y·s·e + noise orthogonal to e, s = 1 but `signal` for a `share` of the examples; a two-layer tanh net."""

    replicas: Share = Share(over=30, least=32, most=48)
    examples: int = 256
    dimension: int = 40
    hidden: int = 32
    share: float = 0.1
    signal: float = 0.3
    scale: float = 8.0  # of the signal, against noise of unit variance in every coordinate
    lr: float = 0.2  # the effective one: with momentum the rate is lr·(1 − momentum)
    batch_size: int = 32
    steps: int = 400
    looks: int = 20


@dataclass(frozen=True, eq=False)
class MarginsResult(Result[Margins]):
    """What is seen per arm and look, (A, T, N); every net has a data set of its own, the same in all arms."""

    steps: IntArray  # (T,)
    alignment: Array
    carried: Array  # the share of Σ r² of the small-margin examples
    relative: Array  # their relative score
    points: tuple[Array, Array, Array]  # squared residuals, scores and which are small, (n,), of one net at the end


def run(config: Margins, lab: Lab) -> MarginsResult:
    """Train every arm, each net on a data set of its own."""
    arms = (1.0, 0.0), (config.signal, 0.0), (config.signal, lab.momentum)
    runs = [_arm(config, lab, signal, momentum) for signal, momentum in arms]
    seen = {name: np.stack([done[f".{name}"][0].T for done in runs]) for name in SEEN}
    last, power = _aligned(cast(Supervised, runs[Arm.SMALL].objective), runs[Arm.SMALL].params)
    points = to_numpy(power[0]), to_numpy(last.scores[0]), to_numpy(_small(config, lab))
    return MarginsResult(config, lab, runs[Arm.EVEN].at(".alignment"), **seen, points=points)


def _arm(config: Margins, lab: Lab, signal: float, momentum: float) -> ArmRun:
    """Train the nets of an arm and look at them."""
    inputs, targets, small = *margin_data(config, lab, signal), _small(config, lab)
    model = MLP((config.dimension, config.hidden, 1), "tanh")
    sets = fresh(len(inputs), config.examples).to(lab.device)
    flat = inputs.flatten(0, 1), targets.flatten(0, 1)
    problem = Supervised(model, LogisticError(), *flat, config.batch_size, rows=sets.rows)

    def seen(params: Params) -> Mapping[str, Tensor]:
        found, power = _aligned(problem, params)
        carried = power[:, small].sum(-1) / power.sum(-1)
        relative = found.scores[:, small].mean(-1) / found.scores.mean(-1)
        return dict(zip(SEEN, (found.uncentred, carried, relative), strict=True))

    arms = lab.arms(heavy_ball(config.lr * (1 - momentum), momentum), config.replicas)
    return arms.run(problem, model.initial, config.steps, probes={"": every(config.steps // config.looks, seen)})


def margin_data(config: Margins, lab: Lab, signal: float) -> tuple[Tensor, Tensor]:
    """Return inputs (N, n, d) and targets ±1 (N, n, 1), a data set for every net."""
    inputs = lab.streams(config.replicas, apart=1).normal(Purpose.DATA, 0, (config.examples, config.dimension))
    targets = 2.0 * (torch.arange(config.examples, device=inputs.device) % 2) - 1
    inputs[..., 0] = targets * config.scale * torch.where(_small(config, lab), signal, 1.0)
    return inputs, targets.unsqueeze(1).expand(len(inputs), -1, 1)


def _small(config: Margins, lab: Lab) -> Tensor:
    """Return which examples have the small margin, (n,), the same in every data set."""
    return torch.arange(config.examples, device=lab.device) < config.share * config.examples


def _aligned(problem: Supervised, params: Params) -> tuple[Alignment, Tensor]:
    """Return the alignment with G = mean ∇f∇fᵀ, and the squared slopes of the loss in the output, (R, n)."""
    leaves = cast(Leaves, params)
    kernel = gram(problem.model, leaves, problem.inputs, rows=problem.rows).double()
    inputs, targets = problem.data.seen(slice(0, len(kernel)))
    signs = targets[..., 0]
    slopes = signs * torch.sigmoid(-signs * problem.model.forward(leaves, inputs)[..., 0]).double()
    return loss_alignment(kernel, slopes), slopes.square()


def estimates(result: MarginsResult) -> Estimates:
    """Return what the arms say about P5-X2."""
    even, small, momentum = result.alignment[:, -1, :, None]  # (N, 1): every net is a draw of the data
    return {
        "P5-X2.broken": draw_mean(small),
        "P5-X2.control": draw_mean(even),
        "P5-X2.predicted": draw_mean(small / result.relative[Arm.SMALL, -1, :, None]),
        "P5-X2.momentum": draw_mean(momentum - small),
    }


def tables(result: MarginsResult) -> Tables:
    """Return means over the nets, one row per arm and look."""
    means = {name: getattr(result, name).mean(axis=-1) for name in SEEN}
    return {"margins": tidy({"arm": NAMES, "step": result.steps}, **means)}


MARGINS = Experiment("margins", Margins(), Margins(Share(over=10, least=64), steps=4000), run, estimates, tables)
