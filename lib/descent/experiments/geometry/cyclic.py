"""Cycles of the learning rate: a phase above the edge, where a sharp minimum is left, then a phase that settles.

Arms of one schedule that differ in the noise of the high phase start from the same minima. What does one cycle flatten
beyond the sharpest direction, what does a second one, and which property of the noise does it?
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from pandas import DataFrame
from torch import Tensor

from descent.arrays import Array
from descent.data.draws import Draws
from descent.engine import ArmRun, Objective, Purpose, constant, sgd
from descent.engine.arms import to_numpy
from descent.engine.probes import Leaves, P
from descent.experiments.geometry.minima import find_minimum, linearised, odd_or_even, shifted
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Share, Tables, tidy
from descent.measure.noise import flat
from descent.nets import Supervised
from descent.problems.diagonal import DiagonalNet, Noise, on_manifold
from descent.stats import draw_difference, paired_difference, ratio_of_means

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
    """Diagonal nets started at a minimum of curvatures 4/√i, pushed off it a little; then trained tanh nets."""

    replicas: Share = Share(over=30, least=32, most=64, each=4)  # data sets
    nets: Share | int = Share(over=31, least=32, most=64)
    draws: int = 16  # of the nets' images, disjoint while there are enough digits
    dimension: int = 20
    examples: int = 400
    weight: float = 0.2
    displacement: float = 1e-3
    high: float = 0.5  # learning rate of the high phase of a diagonal net
    below: float = 0.38  # one under the edge of SGD
    low: float = 0.1
    up: int = 200  # steps of the high phase
    down: int = 300
    cycles: int = 2
    tail: int = 5  # coordinates of the sharp part
    sizes: tuple[int, ...] = (64, 24, 1)
    images: int = 40
    batch_size: int = 16
    excess: float = 1.06  # high rate of a tanh net over its own full-batch edge 2/λ₁
    settle: float = 0.25  # its low rate over the high one


@dataclass(frozen=True, eq=False)
class CyclicResult(Result[Cyclic]):
    """Relative drops of curvature by arm, of the data sets that were lost in none of them, and of the nets."""

    tail: dict[str, Array]  # of Σ λ_i beyond the sharp part, after each cycle (C, N)
    sharp: dict[str, Array]  # of λ_1, alike
    network: dict[str, Array]  # of eigenvalues 2 to 5, (N,); not a number for nets that were lost in one of the arms
    sets: Draws  # what the nets are trained on, net i on draw i mod D
    alive: tuple[float, float]  # the shares of data sets and of nets that stayed


def run(config: Cyclic, lab: Lab) -> CyclicResult:
    """Cycle every arm from the same minima."""
    arms = {name: _diagonal(config, lab, *phase, config.high) for name, phase in PHASES.items()}
    arms[BELOW] = _diagonal(config, lab, "batch", 16, config.below)
    (sets, networks), k = _networks(config, lab), config.tail
    kept = np.isfinite(np.array(list(arms.values()))).all(axis=(0, 1, 3))
    whole = np.isfinite(np.array(list(networks.values()))).all(axis=0)
    arms = {name: found[:, kept] for name, found in arms.items()}
    return CyclicResult(
        config, lab,
        tail={name: 1 - found[1:, :, k:].sum(-1) / found[0, :, k:].sum(-1) for name, found in arms.items()},
        sharp={name: 1 - found[1:, :, 0] / found[0, :, 0] for name, found in arms.items()},
        network={name: np.where(whole, drop, np.nan) for name, drop in networks.items()},
        sets=sets,
        alive=(float(kept.mean()), float(whole.mean())),
    )  # fmt: skip


def _diagonal(config: Cyclic, lab: Lab, noise: Noise, batch_size: int, high: float) -> Array:
    """Return the curvatures u² + v² at the start and after every cycle, (1 + C, N, d); not a number once diverged."""
    arms = lab.arms(sgd(1.0), config.replicas, torch.float64)
    inputs = arms.streams.normal(Purpose.DATA, 0, (config.examples, config.dimension))
    index = torch.arange(1, config.dimension + 1, dtype=torch.float64, device=inputs.device)
    solution = torch.full_like(index, config.weight)
    minimum = on_manifold(solution, 4 * index.pow(-0.5))
    start: Tensor = minimum + config.displacement * arms.streams.normal(Purpose.INIT, 0, tuple(minimum.shape))
    quiet = DiagonalNet(inputs, solution)
    noisy = DiagonalNet(inputs, solution, noise, batch_size)
    rates = float(np.float32(high)), float(np.float32(config.low))  # what is published was made with these
    runs = [arms.run(quiet, start, 0, limit=1e3)]
    for _ in range(config.cycles):
        runs.append(_cycle(config, runs[-1], (noisy, quiet), rates))
    return np.array(
        [np.where(done.lost[0, :, None], np.nan, done.end(lambda x: x.square().sum(1))[0]) for done in runs]
    )


def _cycle(
    config: Cyclic, run: ArmRun[P], phases: tuple[Objective[P], Objective[P]], rates: tuple[float, float]
) -> ArmRun[P]:
    """Go on through a high and a low phase; rates are factors on those of the arms."""
    high, low = (constant(rate) for rate in rates)
    top = run.then(run.steps + config.up, objective=phases[0], schedule=high)
    return top.then(top.steps + config.down, objective=phases[1], schedule=low)


def _networks(config: Cyclic, lab: Lab) -> tuple[Draws, dict[str, Array]]:
    """Return draws of images, and the relative drop of eigenvalues 2 to 5 of nets after one cycle, by arm, (N,)."""
    sets, whole = odd_or_even(lab, config.sizes, config.images, config.draws)
    streams = lab.streams(lab.per_draw(config.nets, config.draws), torch.float64)
    minimum = find_minimum(whole, streams)
    start = shifted(minimum, config.displacement * streams.normal(Purpose.INIT, 1, (flat(minimum).shape[1],)))
    before = _eigenvalues(whole, start)
    high = config.excess * 2 / before[:, 0]
    arms = lab.arms(sgd(high.cpu()), 1, torch.float64, shared=False)  # a net is an arm, for each has an edge of its own
    single = replace(whole, batch_size=config.batch_size, sampling="with_replacement")
    found = {}
    for name, phase in ((DESCENT, whole), (SGD, single)):
        done = _cycle(config, arms.run(whole, start, 0, limit=1e3), (phase, whole), (1.0, config.settle))
        after = _eigenvalues(whole, done.params)
        drop = 1 - after[:, 1:5].sum(-1) / before[:, 1:5].sum(-1)
        found[name] = np.where(done.lost[:, 0], np.nan, to_numpy(drop))
    return sets, found


def _eigenvalues(problem: Supervised, params: Leaves) -> Tensor:
    """Return the curvatures of the Gauss–Newton matrix, falling, (N, n)."""
    jacobian, _ = linearised(problem, params)
    values: Tensor = torch.linalg.eigvalsh(jacobian @ jacobian.mT).flip(-1)
    return values / len(problem.data)


def estimates(result: CyclicResult) -> Estimates:
    """Return what one cycle says about P5-C14 and P5-X10."""
    first = {name: drop[0] for name, drop in result.tail.items()}
    shape = ratio_of_means(first[ALIGNED], first[SGD], result.lab.seed)
    return {
        "P5-C14.solvable": paired_difference(first[SGD], first[DESCENT]),
        "P5-C14.network": draw_difference(*(result.sets.by_draw(result.network[arm]) for arm in (SGD, DESCENT))),
        "P5-X10.aligned": shape,
        "P5-X10.aligned_first": shape,
        "P5-X10.isotropic": paired_difference(first[SGD], first[ISOTROPIC]),
    }


def tables(result: CyclicResult) -> Tables:
    """Return mean drops of tail and largest curvature, one row per arm and cycle; those of networks beside them."""
    tail, sharp = ([drop.mean(axis=1) for drop in drops.values()] for drops in (result.tail, result.sharp))
    nets = [(name, np.nanmean(drop), int(np.isfinite(drop).sum())) for name, drop in result.network.items()]
    return {
        "cyclic": tidy({"arm": list(result.tail), "cycle": range(1, len(tail[0]) + 1)}, tail=tail, sharp=sharp),
        "cyclic_networks": DataFrame(nets, columns=["arm", "drop", "nets"]),
    }


CYCLIC = Experiment(
    "cyclic", small=Cyclic(), run=run, estimates=estimates, tables=tables,
    large=Cyclic(Share(), nets=56, draws=14, dimension=50, examples=1000, sizes=(64, 64, 1), images=128),
)  # fmt: skip
