"""The edge of stability of SGD: what bounds it, and how momentum moves it and the directions that escape there."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from pandas import DataFrame
from torch import Tensor

from descent.arrays import Array
from descent.engine.rules import heavy_ball, repeat
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.experiments.arms import configure, to_numpy
from descent.experiments.common import Estimates, Experiment, Settings
from descent.measure.alignment import loss_alignment, reachable_extremes
from descent.measure.growth import Descent, resampled_growth
from descent.measure.stability import threshold
from descent.problems.quadratics import Ensemble
from descent.stats.estimate import Estimate
from descent.stats.intervals import exact, mean, ratio_of_means
from descent.theory.linear import aligned_edge, critical_batch, mean_square_edge
from descent.theory.noise_escape import edge_covariance, eigen_rows, outside, second_moment_step


@dataclass(frozen=True)
class Edge:
    """Small random problems for the bounds; linear regressions with a decaying spectrum for momentum at the edge."""

    problems: int
    draws: int  # data sets at the edge
    walkers: int
    seed: int
    device: str
    momentum: float
    shape: tuple[int, int] = (8, 4)  # examples × inputs of a small problem
    examples: int = 40
    dimension: int = 80
    decay: float = 0.5
    batch_sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 64)
    momenta: tuple[float, ...] = (0.0, 0.5, 0.9)
    simulated: int = 8  # the batch size at which growth at the edge is measured
    steps: int = 400

    @classmethod
    def cpu(cls, settings: Settings) -> Edge:
        """Take some hundred small problems and a few dozen data sets."""
        few = max(32, min(settings.replicas // 30, 64))
        return cls(
            max(32, settings.replicas // 4),
            few,
            2 * settings.replicas,
            settings.seed,
            settings.device,
            settings.momentum,
        )

    @classmethod
    def paper(cls, settings: Settings) -> Edge:
        """Take more problems and walkers, five hundred examples in a thousand dimensions.

        Not many more data sets: the plain SGD of the same diagonal takes a quarter of a minute for each, on the host.
        """
        return cls(
            10 * settings.replicas,
            max(32, settings.replicas // 30),
            10 * settings.replicas,
            settings.seed,
            settings.device,
            settings.momentum,
            examples=500,
            dimension=1000,
        )


@dataclass(frozen=True, eq=False)
class EdgeResult:
    """Bounds on small problems, and edges on data sets.

    frobenius (P,): lr·‖G‖_F·√(worst A_c) at the exact edge; growth_bound (P,): exact growth of the loss in one step
    over its lower bound; beyond (N,): exact growth per step at 1.1/‖G‖_F. edges (J, B, N) and outside (J, B, N): edge
    and D_1 there per momentum and batch; critical (J, N): batch between noise-led and curvature-led escape. For
    momentum at the simulated batch, equivalent and closure (N,): the edge of the equivalent plain SGD times 1 + μ,
    exactly and under aligned noise; growth: mean-square growth per step simulated at the exact edge.
    """

    config: Edge
    frobenius: Array
    growth_bound: Array
    beyond: Array
    edges: Array
    outside: Array
    critical: Array
    equivalent: Array
    closure: Array
    growth: Estimate
    seconds: float

    @property
    def momenta(self) -> tuple[float, ...]:
        """The momenta of the arms."""
        return tuple(sorted({*self.config.momenta, self.config.momentum}))


def run(config: Edge) -> EdgeResult:
    """Check the bounds on small problems, and find the edge of every arm."""
    clock = time.perf_counter()
    small = Streams(replica_seeds(config.seed, config.problems, config.device), torch.float64)
    inputs = small.normal(Purpose.DATA, 0, config.shape)
    streams = Streams(replica_seeds(config.seed + 1, config.draws, config.device), torch.float64)
    scale = torch.arange(1, config.dimension + 1, dtype=torch.float64, device=config.device).pow(-config.decay / 2)
    curvature, rows = eigen_rows(streams.normal(Purpose.DATA, 1, (config.examples, config.dimension)) * scale)
    momenta = tuple(sorted({*config.momenta, config.momentum}))
    edges = [[threshold(rows @ rows.mT, b, m) for b in config.batch_sizes] for m in momenta]
    flat = [
        [_outside(rows, curvature, edges[j][i], m, b) for i, b in enumerate(config.batch_sizes)]
        for j, m in enumerate(momenta)
    ]
    return EdgeResult(
        config=config,
        frobenius=_frobenius(inputs),
        growth_bound=_growth_bound(inputs, small),
        beyond=_beyond(curvature, rows),
        edges=np.array([[to_numpy(edge) for edge in arm] for arm in edges]),
        outside=np.array(flat),
        critical=np.array([[critical_batch(h, m) for h in to_numpy(curvature)] for m in momenta]),
        equivalent=_equivalent(config, rows),
        closure=np.array([aligned_edge(h, config.momentum, 1 / config.simulated) for h in to_numpy(curvature)]),
        growth=_simulate(
            config, rows[0], float(edges[momenta.index(config.momentum)][config.batch_sizes.index(config.simulated)][0])
        ),
        seconds=time.perf_counter() - clock,
    )


def _frobenius(inputs: Tensor) -> Array:
    """Return lr·‖G‖_F·√(inf A_c) at the exact edge of batches of one, (P,)."""
    gram = inputs @ inputs.mT
    size = gram.square().mean((-2, -1)).sqrt()
    worst = reachable_extremes(gram, centred=True).low.clamp_min(0)
    return to_numpy(threshold(gram, 1) * size * worst.sqrt())


def _growth_bound(inputs: Tensor, streams: Streams) -> Array:
    """Return the loss after one step over before, over lr²·A_c·‖G‖²_F, from random places and at random lr, (P,)."""
    curvature, rows = eigen_rows(inputs)
    place = streams.normal(Purpose.INIT, 0, (rows.shape[-1],))
    gram = rows @ rows.mT
    lr = 10 * streams.uniform(Purpose.PROBE, 0) / curvature.sum(-1)
    moved = second_moment_step(rows, place.unsqueeze(-1) * place.unsqueeze(-2), lr, 1.0)
    growth = (curvature * moved.diagonal(dim1=-2, dim2=-1)).sum(-1) / (curvature * place.square()).sum(-1)
    alignment = loss_alignment(gram, (rows @ place.unsqueeze(-1)).squeeze(-1)).centred
    return to_numpy(growth / (lr.square() * alignment * gram.square().mean((-2, -1))))


def _beyond(curvature: Tensor, rows: Tensor, steps: int = 60) -> Array:
    """Return the exact growth of the loss per step at lr = 1.1/‖G‖_F with batches of one, (N,)."""
    lr = 1.1 / curvature.square().sum(-1).sqrt()
    moment, growth = torch.diag_embed(torch.ones_like(curvature)), torch.ones_like(lr)
    for _ in range(steps):
        moved = second_moment_step(rows, moment, lr, 1.0)
        before, after = ((curvature * m.diagonal(dim1=-2, dim2=-1)).sum(-1) for m in (moment, moved))
        growth, moment = after / before, moved / after[:, None, None]
    return to_numpy(growth)


def _outside(rows: Tensor, curvature: Tensor, edge: Tensor, momentum: float, batch: int) -> Array:
    """Return the exact D_1 at the edge, (N,)."""
    shape = edge_covariance(rows, edge, momentum, 1 / batch)
    return outside(to_numpy(curvature * shape.diagonal(dim1=-2, dim2=-1)), 1)


def _equivalent(config: Edge, rows: Tensor) -> Array:
    """Return (1 + μ) times the exact edge of plain SGD with a batch of B(1 − μ)/(1 + μ), (N,)."""
    share = (1 + config.momentum) / ((1 - config.momentum) * config.simulated)
    return np.array([(1 + config.momentum) * mean_square_edge(to_numpy(part), 0.0, share) for part in rows])


def _simulate(config: Edge, rows: Tensor, edge: float) -> Estimate:
    """Return the mean-square growth per step of runs at the edge with momentum on the first data set, resampled."""
    streams = Streams(replica_seeds(config.seed + 2, config.walkers, config.device), torch.float64)
    problem = Ensemble(rows, batch_size=config.simulated)
    step = Descent(problem, repeat(heavy_ball(edge, config.momentum), config.walkers), streams)
    start = streams.normal(Purpose.INIT, 0, (rows.shape[1],))
    return resampled_growth(step, step.state(start), config.steps, streams, burn=config.steps // 4)[0].mean_square


def estimates(result: EdgeResult) -> Estimates:
    """Return what the edges say about P5-W1, P5-W2 and P5-X1."""
    config, momentum = result.config, result.config.momentum
    found: dict[str, Estimate] = {
        "P5-W1.edge": exact(float(result.frobenius.max())),
        "P5-W2.bound": exact(float(result.growth_bound.min())),
        "P5-W2.grows": mean(result.beyond),
    }
    if momentum == 0:
        return found
    arm, plain = result.momenta.index(momentum), result.momenta.index(0.0)
    large, edges = config.batch_sizes.index(64), result.edges[arm, config.batch_sizes.index(config.simulated)]
    return found | {
        "P5-X1.edge": mean(edges / result.closure),
        "P5-X1.dephasing": mean(edges / result.equivalent),
        "P5-X1.flatter": ratio_of_means(result.outside[arm, large], result.outside[plain, large], config.seed),
        "P5-X1.simulated": result.growth,
    }


def tables(result: EdgeResult) -> dict[str, DataFrame]:
    """Return mean edge and D_1 per momentum and batch size, with the batch over its critical value."""
    rows = [
        {
            "momentum": m,
            "batch_size": b,
            "edge": result.edges[j, i].mean(),
            "D1": result.outside[j, i].mean(),
            "over_critical": float((b / result.critical[j]).mean()),
        }
        for j, m in enumerate(result.momenta)
        for i, b in enumerate(result.config.batch_sizes)
    ]
    return {"edge": DataFrame(rows)}


EDGE = Experiment(
    "edge", ("P5-W1", "P5-W2", "P5-X1"), lambda settings: run(configure(Edge, settings)), estimates, tables
)
