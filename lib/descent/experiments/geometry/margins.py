"""Examples of small margin, the logistic loss, and what is left of alignment once the others are learnt."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from pandas import DataFrame, concat
from torch import Tensor

from descent.arrays import Array
from descent.engine.probes import Leaves, Params
from descent.engine.rules import heavy_ball, repeat
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.engine.train import every, train
from descent.experiments.arms import configure, to_numpy
from descent.experiments.common import Estimates, Experiment, Settings
from descent.measure.alignment import Alignment, loss_alignment
from descent.measure.gram import gram
from descent.nets.dense import MLP, LogisticError
from descent.nets.supervised import Supervised
from descent.stats.intervals import mean, paired_difference

Points = tuple[Array, Array, Array]
EVEN, SMALL, MOMENTUM = "equal margins", "small margins", "small margins, momentum"


@dataclass(frozen=True)
class Margins:
    """Inputs y·s·e + noise orthogonal to e, s = 1 but `signal` for a `share` of the examples; a two-layer tanh net.

    lr is the effective one: with momentum the rate is lr·(1 − momentum).
    """

    replicas: int
    seed: int
    device: str
    momentum: float
    examples: int = 256
    dimension: int = 40
    hidden: int = 32
    share: float = 0.1
    signal: float = 0.3
    scale: float = 8.0  # of the signal, against noise of unit variance in every coordinate
    lr: float = 0.2
    batch_size: int = 32
    steps: int = 400
    looks: int = 20

    @classmethod
    def cpu(cls, settings: Settings) -> Margins:
        """Train a few dozen nets per arm."""
        return cls(max(32, min(settings.replicas // 30, 48)), settings.seed, settings.device, settings.momentum)

    @classmethod
    def paper(cls, settings: Settings) -> Margins:
        """Train a hundred nets for longer."""
        return cls(max(64, settings.replicas // 10), settings.seed, settings.device, settings.momentum, steps=4000)

    @property
    def arms(self) -> tuple[tuple[str, float, float], ...]:
        """Name, signal of the small-margin examples, momentum."""
        return (EVEN, 1.0, 0.0), (SMALL, self.signal, 0.0), (MOMENTUM, self.signal, self.momentum)


@dataclass(frozen=True, eq=False)
class MarginsResult:
    """Per arm and look (A, T, N): alignment, the share of Σ r² and the relative score of the small-margin examples."""

    config: Margins
    steps: Array
    alignment: Array
    carried: Array
    relative: Array
    points: Points  # squared residuals, scores, and which are small, of one net at the end
    seconds: float


def run(config: Margins) -> MarginsResult:
    """Train every arm, each net on a data set of its own."""
    clock = time.perf_counter()
    parts = [_arm(config, signal, momentum) for _, signal, momentum in config.arms]
    steps = parts[0][0]
    alignment, carried, relative = (np.array([part[1][i] for part in parts]) for i in range(3))
    return MarginsResult(config, steps, alignment, carried, relative, parts[1][2], time.perf_counter() - clock)


def _arm(config: Margins, signal: float, momentum: float) -> tuple[Array, tuple[Array, ...], Points]:
    """Return the looks (T,), what was seen at them (T, N) each, and the points of the first net at the end."""
    streams = Streams(replica_seeds(config.seed, config.replicas, config.device))
    model = MLP((config.dimension, config.hidden, 1), "tanh")
    inputs, targets, small = margin_data(config, signal)
    problem = Supervised(model, LogisticError(), inputs, targets, config.batch_size)
    hyper = repeat(heavy_ball(config.lr * (1 - momentum), momentum), config.replicas).to(config.device)

    def seen(params: Params) -> Mapping[str, Tensor]:
        found, power = _aligned(problem, cast(Leaves, params))
        scores = found.scores
        return {
            "alignment": found.uncentred,
            "carried": power[:, small].sum(-1) / power.sum(-1),
            "relative": scores[:, small].mean(-1) / scores.mean(-1),
        }

    probe = every(config.steps // config.looks, seen)
    done = train(problem, model.initial(streams), hyper, config.steps, streams, probes={"": probe})
    last, power = _aligned(problem, cast(Leaves, done.params))
    values = tuple(to_numpy(done.records[f".{name}"].values) for name in ("alignment", "carried", "relative"))
    points = to_numpy(power[0]), to_numpy(last.scores[0]), to_numpy(small)
    return to_numpy(done.records[".alignment"].steps), values, points


def margin_data(config: Margins, signal: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return inputs (n, d), targets ±1 (n, 1), and which examples are small (n,); one data set for all nets."""
    streams = Streams(replica_seeds(config.seed + 1, 1, config.device))
    inputs = streams.normal(Purpose.DATA, 0, (config.examples, config.dimension))[0]
    targets = 2.0 * (torch.arange(config.examples, device=inputs.device) % 2) - 1
    small = torch.arange(config.examples, device=inputs.device) < config.share * config.examples
    inputs[:, 0] = targets * config.scale * torch.where(small, signal, 1.0)
    return inputs, targets.unsqueeze(1), small


def _aligned(problem: Supervised, params: Leaves) -> tuple[Alignment, Tensor]:
    """Return the alignment with G = mean ∇f∇fᵀ, and the squared slopes of the loss in the output, (R, n)."""
    kernel = gram(problem.model, params, problem.inputs).double()
    outputs = problem.model.forward(params, problem.inputs.expand(len(kernel), *problem.inputs.shape))
    slopes = problem.targets[:, 0] * torch.sigmoid(-problem.targets[:, 0] * outputs[..., 0]).double()
    return loss_alignment(kernel, slopes), slopes.square()


def estimates(result: MarginsResult) -> Estimates:
    """Return what the arms say about P5-X2; without momentum the last test is left out."""
    names = [name for name, _, _ in result.config.arms]
    end = dict(zip(names, result.alignment[:, -1], strict=True))
    found = {
        "P5-X2.broken": mean(end[SMALL]),
        "P5-X2.control": mean(end[EVEN]),
        "P5-X2.predicted": mean(end[SMALL] / result.relative[names.index(SMALL), -1]),
    }
    if result.config.momentum:
        found["P5-X2.momentum"] = paired_difference(end[MOMENTUM], end[SMALL])
    return found


def tables(result: MarginsResult) -> dict[str, DataFrame]:
    """Return means over the nets, one row per arm and look."""
    rows = [
        DataFrame(
            {
                "arm": name,
                "step": result.steps.astype(int),
                "alignment": result.alignment[i].mean(axis=1),
                "carried": result.carried[i].mean(axis=1),
                "relative": result.relative[i].mean(axis=1),
            }
        )
        for i, (name, _, _) in enumerate(result.config.arms)
    ]
    return {"margins": concat(rows, ignore_index=True)}


MARGINS = Experiment("margins", ("P5-X2",), lambda settings: run(configure(Margins, settings)), estimates, tables)
