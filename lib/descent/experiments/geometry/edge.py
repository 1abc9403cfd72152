"""The edge of stability of SGD: what bounds it, and how momentum moves it and the directions that escape there.

Bounds are checked on small random problems. On regressions with a decaying spectrum the exact edge of every momentum
and batch size is compared with that of the plain SGD that momentum is equivalent to.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from descent.arrays import Array, BoolArray
from descent.engine import Purpose, Streams, heavy_ball
from descent.engine.arms import to_numpy
from descent.experiments.geometry.samples import gaussian
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Share, Tables, tidy
from descent.measure.alignment import loss_alignment, reachable_extremes
from descent.measure.growth import Descent, resampled_growth
from descent.measure.stability import threshold
from descent.problems.quadratics import Ensemble
from descent.stats import Estimate, mean, proportion, ratio_of_means
from descent.theory.linear import aligned_edge, critical_batch, mean_square_edge
from descent.theory.noise_escape import edge_covariance, eigen_rows, outside, second_moment_step

ROUND_OFF = 1e-9  # what a number may pass its bound by


@dataclass(frozen=True)
class Edge:
    """Small random problems for the bounds; linear regressions with a decaying spectrum for momentum at the edge."""

    problems: Share = Share(over=4, least=32)
    draws: Share = Share(over=30, least=32, most=64)  # data sets at the edge
    walkers: Share = Share(times=2)
    shape: tuple[int, int] = (8, 4)  # examples × inputs of a small problem
    examples: int = 40
    dimension: int = 80
    decay: float = 0.5
    batch_sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 64)
    momenta: tuple[float, ...] = (0.0, 0.5, 0.9)  # and the headline
    simulated: int = 8  # the batch size at which growth at the edge is measured
    steps: int = 400


@dataclass(frozen=True, eq=False)
class EdgeResult(Result[Edge]):
    """Bounds on small problems, and edges on data sets per momentum and batch size."""

    momenta: tuple[float, ...]
    frobenius: Array  # (P,): lr·‖G‖_F·√(worst A_c) at the exact edge
    growth_bound: Array  # (P,): exact growth of the loss in one step over its lower bound
    beyond: Array  # (N,): exact growth per step at 1.1/‖G‖_F
    edges: Array  # (J, B, N)
    outside: Array  # (J, B, N): D_1 at the edge
    critical: Array  # (J, N): batch between noise-led and curvature-led escape
    equivalent: Array  # (N,): edge of the plain SGD equivalent to the headline at the simulated batch, times 1 + μ
    closure: Array  # (N,): the same under aligned noise
    growth: Estimate  # of the mean square per step, simulated at the exact edge of the headline


def run(config: Edge, lab: Lab) -> EdgeResult:
    """Check the bounds on small problems, and find the edge of every arm."""
    small, streams = lab.streams(config.problems, torch.float64), lab.streams(config.draws, torch.float64, apart=1)
    inputs, sizes = small.normal(Purpose.DATA, 0, config.shape), config.batch_sizes
    curvature, rows = eigen_rows(gaussian(streams, config.examples, config.dimension, config.decay, step=1))
    momenta, head, batch, values = lab.momenta(config.momenta), lab.momentum, config.simulated, to_numpy(curvature)
    edges = [[threshold(rows @ rows.mT, b, m) for b in sizes] for m in momenta]
    settings = [(edges[j][i], m, 1 / b) for j, m in enumerate(momenta) for i, b in enumerate(sizes)]
    shapes = [edge_covariance(rows, *setting).diagonal(dim1=-2, dim2=-1) for setting in settings]
    outer = np.array([outside(to_numpy(curvature * shape), 1) for shape in shapes])
    share = (1 + head) / ((1 - head) * batch)
    at_edge = edges[momenta.index(head)][sizes.index(batch)]
    frobenius, growth_bound = _bounds(inputs, small)
    return EdgeResult(
        config, lab, momenta, frobenius, growth_bound,
        beyond=_beyond(curvature, rows),
        edges=np.array([[to_numpy(edge) for edge in arm] for arm in edges]),
        outside=outer.reshape(len(momenta), len(sizes), -1),
        critical=np.array([[critical_batch(h, m) for h in values] for m in momenta]),
        equivalent=np.array([(1 + head) * mean_square_edge(to_numpy(part), 0.0, share) for part in rows]),
        closure=np.array([aligned_edge(h, head, 1 / batch) for h in values]),
        growth=_simulate(config, lab, rows[0], float(at_edge[0])),
    )  # fmt: skip


def _bounds(inputs: Tensor, streams: Streams) -> tuple[Array, Array]:
    """Return lr·‖G‖_F·√(inf A_c) at the exact edge of batches of one, and a growth of the loss over its bound, (P,).

    The growth is that of one step from random places at random lr, the bound lr²·A_c·‖G‖²_F.
    """
    whole = inputs @ inputs.mT
    worst = reachable_extremes(whole, centred=True).low.clamp_min(0)
    frobenius = threshold(whole, 1) * whole.square().mean((-2, -1)).sqrt() * worst.sqrt()
    curvature, rows = eigen_rows(inputs)
    place = streams.normal(Purpose.INIT, 0, (rows.shape[-1],))
    gram = rows @ rows.mT
    lr = 10 * streams.uniform(Purpose.PROBE, 0) / curvature.sum(-1)
    moved = second_moment_step(rows, place.unsqueeze(-1) * place.unsqueeze(-2), lr, 1.0)
    growth = (curvature * moved.diagonal(dim1=-2, dim2=-1)).sum(-1) / (curvature * place.square()).sum(-1)
    alignment = loss_alignment(gram, (rows @ place.unsqueeze(-1)).squeeze(-1)).centred
    bound = lr.square() * alignment * gram.square().mean((-2, -1))
    return to_numpy(frobenius), to_numpy(growth / bound)


def _beyond(curvature: Tensor, rows: Tensor, steps: int = 60) -> Array:
    """Return the exact growth of the loss per step at lr = 1.1/‖G‖_F with batches of one, (N,)."""
    lr = 1.1 / curvature.square().sum(-1).sqrt()
    moment, growth = torch.diag_embed(torch.ones_like(curvature)), torch.ones_like(lr)
    for _ in range(steps):
        moved = second_moment_step(rows, moment, lr, 1.0)
        before, after = ((curvature * m.diagonal(dim1=-2, dim2=-1)).sum(-1) for m in (moment, moved))
        growth, moment = after / before, moved / after[:, None, None]
    return to_numpy(growth)


def _simulate(config: Edge, lab: Lab, rows: Tensor, edge: float) -> Estimate:
    """Return the mean-square growth per step of runs at the edge with momentum on the first data set, resampled."""
    arms = lab.arms(heavy_ball(edge, lab.momentum), config.walkers, torch.float64, apart=2)
    step = Descent(Ensemble(rows, batch_size=config.simulated), arms.hyper, arms.streams)
    start = step.state(arms.streams.normal(Purpose.INIT, 0, (rows.shape[1],)))
    return resampled_growth(step, start, config.steps, arms.streams, burn=config.steps // 4)[0].mean_square


def estimates(result: EdgeResult) -> Estimates:
    """Return what the edges say about P5-W1, P5-W2, P5-X1 and P5-X8."""
    sizes, arm, plain = result.config.batch_sizes, result.momenta.index(result.lab.momentum), result.momenta.index(0.0)
    large, edges = sizes.index(64), result.edges[arm, sizes.index(result.config.simulated)]
    return {
        "P5-W1.edge": _share(result.frobenius > 1 + ROUND_OFF),
        "P5-W2.bound": _share(result.growth_bound < 1 - ROUND_OFF),
        "P5-W2.grows": mean(result.beyond),
        "P5-X1.edge": mean(edges / result.closure),
        "P5-X1.edge_first": mean(edges / result.equivalent),
        "P5-X1.flatter": ratio_of_means(result.outside[arm, large], result.outside[plain, large], result.lab.seed),
        "P5-X1.simulated": result.growth,
        "P5-X8.dephasing": mean(edges / result.equivalent),
    }


def _share(broken: BoolArray) -> Estimate:
    """Return the share of problems (P,) on which a bound is broken."""
    return proportion(int(broken.sum()), len(broken))


def tables(result: EdgeResult) -> Tables:
    """Return mean edge and D_1 per momentum and batch size, with the batch over its critical value."""
    over = np.array(result.config.batch_sizes)[:, None] / result.critical[:, None]
    means = {"edge": result.edges, "D1": result.outside, "over_critical": over}
    axes = {"momentum": result.momenta, "batch_size": result.config.batch_sizes}
    return {"edge": tidy(axes, **{name: values.mean(axis=-1) for name, values in means.items()})}


EDGE = Experiment(
    "edge", small=Edge(), run=run, estimates=estimates, tables=tables,
    # not many more data sets: on the host the equivalent plain SGD takes a quarter of a minute for each
    large=Edge(Share(times=10), Share(over=30, least=32), Share(times=10), examples=500, dimension=1000),
)  # fmt: skip
