"""Cycles of the learning rate: a phase above the edge, where a sharp minimum is left, then a phase that settles."""

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
from descent.data.images import centred, load
from descent.engine.probes import Leaves
from descent.engine.rules import repeat, sgd
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.engine.train import Objective, train
from descent.experiments.arms import configure, to_numpy
from descent.experiments.common import Estimates, Experiment, Settings
from descent.experiments.geometry.nets import find_minimum, linearised, shifted
from descent.nets.dense import MLP, SquaredError
from descent.nets.supervised import Supervised
from descent.problems.diagonal import DiagonalNet, Noise, on_manifold
from descent.stats.intervals import paired_difference, ratio_of_means

PHASES: Mapping[str, tuple[Noise, int]] = {
    "full batch": ("none", 1),
    "batch 16": ("batch", 16),
    "batch 64": ("batch", 64),
    "Gaussian, same covariance": ("aligned", 16),
    "isotropic, same trace": ("isotropic", 16),
}
"""The noise of the high phase of every arm, and the batch size it stands for."""
DESCENT, SGD, LARGE, ALIGNED, ISOTROPIC = PHASES
BELOW = "batch 16, below its edge"


@dataclass(frozen=True)
class Cyclic:
    """Diagonal nets started at a minimum of curvatures 4/√i, pushed off it a little; then trained tanh nets.

    high, low: the learning rates of the two phases of the diagonal net; below: a high one under the edge of SGD.
    excess: the high one of a tanh net over its own full-batch edge 2/λ₁; settle: its low one over the high one.
    """

    replicas: int
    nets: int
    seed: int
    device: str
    dimension: int = 20
    examples: int = 400
    weight: float = 0.2
    displacement: float = 1e-3
    high: float = 0.5
    below: float = 0.38
    low: float = 0.1
    up: int = 200  # steps of the high phase
    down: int = 300
    cycles: int = 2
    tail: int = 5  # coordinates of the sharp part
    sizes: tuple[int, ...] = (64, 24, 1)
    images: int = 40
    batch_size: int = 16
    excess: float = 1.06
    settle: float = 0.25

    @classmethod
    def cpu(cls, settings: Settings) -> Cyclic:
        """Take a hundred-odd data sets and a few dozen nets."""
        few = max(32, min(settings.replicas // 30, 64))
        return cls(4 * few, few, settings.seed, settings.device)

    @classmethod
    def paper(cls, settings: Settings) -> Cyclic:
        """Take hundreds of data sets, fifty dimensions, wider nets."""
        return cls(
            settings.replicas,
            64,
            settings.seed,
            settings.device,
            dimension=50,
            examples=1000,
            sizes=(64, 64, 1),
            images=128,
        )


@dataclass(frozen=True, eq=False)
class CyclicResult:
    """Relative drops of curvature per data set or net, by arm.

    tail, sharp: of Σ λ_i beyond the sharp part and of λ_1, after each cycle (C, N). parts: curvature at the start
    and after the first cycle (2, d), means over data sets. network: of eigenvalues 2 to 5 (N,). alive: the shares of
    data sets and of nets that stayed.
    """

    config: Cyclic
    tail: dict[str, Array]
    sharp: dict[str, Array]
    parts: dict[str, Array]
    network: dict[str, Array]
    alive: tuple[float, float]
    seconds: float


def run(config: Cyclic) -> CyclicResult:
    """Cycle every arm from the same minima; data sets lost in any arm are left out of all."""
    clock = time.perf_counter()
    arms = {name: _diagonal(config, *phase, config.high) for name, phase in PHASES.items()}
    arms[BELOW] = _diagonal(config, "batch", 16, config.below)
    kept = np.isfinite(np.array(list(arms.values()))).all(axis=(0, 1, 3))
    arms = {name: found[:, kept] for name, found in arms.items()}
    networks = _networks(config)
    whole = np.isfinite(np.array(list(networks.values()))).all(axis=0)
    k = config.tail
    return CyclicResult(
        config=config,
        tail={name: 1 - found[1:, :, k:].sum(-1) / found[0, :, k:].sum(-1) for name, found in arms.items()},
        sharp={name: 1 - found[1:, :, 0] / found[0, :, 0] for name, found in arms.items()},
        parts={name: found[:2].mean(axis=1) for name, found in arms.items()},
        network={name: drop[whole] for name, drop in networks.items()},
        alive=(float(kept.mean()), float(whole.mean())),
        seconds=time.perf_counter() - clock,
    )


def _diagonal(config: Cyclic, noise: Noise, batch_size: int, high: float) -> Array:
    """Return the curvatures u² + v² at the start and after every cycle, (1 + C, N, d); not a number once diverged."""
    streams = Streams(replica_seeds(config.seed, config.replicas, config.device), torch.float64)
    inputs = streams.normal(Purpose.DATA, 0, (config.examples, config.dimension))
    index = torch.arange(1, config.dimension + 1, dtype=torch.float64, device=config.device)
    solution = torch.full_like(index, config.weight)
    start = on_manifold(solution, 4 * index.pow(-0.5))
    params: Tensor = start + config.displacement * streams.normal(Purpose.INIT, 0, tuple(start.shape))
    found = [params.square().sum(1)]
    arms = DiagonalNet(inputs, solution, noise, batch_size), DiagonalNet(inputs, solution)
    for cycle in range(config.cycles):
        begin = cycle * (config.up + config.down)
        params = _cycle(config, arms, params, (torch.tensor(high), torch.tensor(config.low)), streams, begin)
        found.append(params.square().sum(1))
    return to_numpy(torch.stack(found))


def _cycle(
    config: Cyclic,
    phases: tuple[Objective, Objective],
    params: Tensor,
    lrs: tuple[Tensor, Tensor],
    streams: Streams,
    begin: int,
) -> Tensor:
    """Return the parameters after a high and a low phase, not a number where a replica was lost."""
    for objective, lr, end in zip(phases, lrs, (begin + config.up, begin + config.up + config.down), strict=True):
        hyper = repeat(sgd(float(lr)), config.replicas).to(config.device)
        done = train(objective, params, hyper, end, streams, begin=begin, limit=1e3)
        params = cast(Tensor, done.params).masked_fill((done.diverged_at >= 0)[:, None, None], torch.nan)
        begin = end
    return params


def _networks(config: Cyclic) -> dict[str, Array]:
    """Return the relative drop of eigenvalues 2 to 5 of trained tanh nets after one cycle, by arm, (N,)."""
    data = load("digits")
    inputs = centred(data.images)[: config.images].flatten(1).double().to(config.device)
    targets = (2.0 * (data.labels[: config.images] % 2) - 1).double().to(config.device).unsqueeze(1)
    whole = Supervised(MLP(config.sizes, "tanh"), SquaredError(), inputs, targets, sampling="full")
    streams = Streams(replica_seeds(config.seed, config.nets, config.device), torch.float64)
    start = find_minimum(whole, streams, warm=300, newton=12)
    count = sum(leaf[0].numel() for leaf in start.values())
    start = shifted(start, config.displacement * streams.normal(Purpose.INIT, 1, (count,)))
    before = _eigenvalues(whole, start)
    high = config.excess * 2 / before[:, 0]
    single = Supervised(whole.model, SquaredError(), inputs, targets, config.batch_size)
    return {
        name: _drop(config, (phase, whole), start, high, streams, before)
        for name, phase in ((DESCENT, whole), (SGD, single))
    }


def _drop(
    config: Cyclic, phases: tuple[Objective, Objective], start: Leaves, high: Tensor, streams: Streams, before: Tensor
) -> Array:
    params, lost = start, torch.zeros_like(high, dtype=torch.bool)
    for phase, lr, (begin, end) in zip(
        phases, (high, config.settle * high), ((0, config.up), (config.up, config.up + config.down)), strict=True
    ):
        done = train(phase, params, sgd(lr.cpu()).to(config.device), end, streams, begin=begin, limit=1e3)
        params, lost = cast(Leaves, done.params), lost | (done.diverged_at >= 0)
    after = _eigenvalues(cast(Supervised, phases[1]), params)
    drop = 1 - after[:, 1:5].sum(-1) / before[:, 1:5].sum(-1)
    return to_numpy(drop.masked_fill(lost, torch.nan))


def _eigenvalues(problem: Supervised, params: Leaves) -> Tensor:
    """Return the curvatures of the Gauss–Newton matrix, falling, (N, n)."""
    jacobian, _ = linearised(problem, params)
    values: Tensor = torch.linalg.eigvalsh(jacobian @ jacobian.mT).flip(-1)
    return values / len(problem.inputs)


def estimates(result: CyclicResult) -> Estimates:
    """Return what one cycle says about P5-C14."""
    first = {name: drop[0] for name, drop in result.tail.items()}
    return {
        "P5-C14.solvable": paired_difference(first[SGD], first[DESCENT]),
        "P5-C14.aligned": ratio_of_means(first[ALIGNED], first[SGD], result.config.seed),
        "P5-C14.isotropic": paired_difference(first[SGD], first[ISOTROPIC]),
        "P5-C14.network": paired_difference(result.network[SGD], result.network[DESCENT]),
    }


def tables(result: CyclicResult) -> dict[str, DataFrame]:
    """Return mean drops of tail and largest curvature, one row per arm and cycle; those of networks beside them."""
    rows = [
        DataFrame(
            {
                "arm": name,
                "cycle": np.arange(1, len(tail) + 1),
                "tail": tail.mean(axis=1),
                "sharp": result.sharp[name].mean(axis=1),
            }
        )
        for name, tail in result.tail.items()
    ]
    nets = DataFrame([{"arm": name, "drop": drop.mean(), "nets": len(drop)} for name, drop in result.network.items()])
    return {"cyclic": concat(rows, ignore_index=True), "cyclic_networks": nets}


CYCLIC = Experiment("cyclic", ("P5-C14",), lambda settings: run(configure(Cyclic, settings)), estimates, tables)
