"""The plateaus of batch sharpness are one law; at a matched step the lower one is plain descent's own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from descent.arrays import Array
from descent.engine import Params, Purpose, Streams, every, stack
from descent.engine.rules import ema, sgd
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Share, Tables, tidy
from descent.experiments.synthesis.small_nets import small_task
from descent.experiments.synthesis.task import Task
from descent.stats import draw_difference, draw_mean, exact
from descent.theory.linear import mean_hessian, mean_square_edge, multiplicative_covariance, stationary_covariance
from descent.theory.plateau import energy, own_edge, plateau


@dataclass(frozen=True)
class Plateaus:
    """Random stationary states and edges of examples that do not commute; nets on digits, a tenth of them flipped."""

    states: int = 60
    edges: int = 20
    draws: int = 10
    replicas: Share | int = 10  # one net of each draw
    flips: float = 0.1
    time: float = 1500.0
    small: tuple[float, float, int] = (0.2, 0.9, 2)  # step, momentum, batch
    large: tuple[float, float, int] = (0.8, 0.5, 32)
    since: float = 1000.0
    looks: int = 25
    batches: int = 100  # that a look is averaged over


@dataclass(frozen=True, eq=False)
class PlateausResult(Result[Plateaus]):
    """Deviations from the law, and log batch sharpness of both rules, descent first, (2, D, N/D)."""

    law: Array
    small: Array
    large: Array


def run(config: Plateaus, lab: Lab) -> PlateausResult:
    """Check the law, then train the nets."""
    task = small_task(lab, config.draws, flips=config.flips)
    small, large = (_sharpness(config, lab, task, *setting) for setting in (config.small, config.large))
    return PlateausResult(config, lab, _law(config, lab), small, large)


def _law(config: Plateaus, lab: Lab) -> Array:
    """Return (eS/2)(1 − φ(1 − 1/c)) − 1 of stationary states with both noises, and of states at their edges."""
    rng, found = np.random.Generator(np.random.Philox(key=lab.key())), []
    for k in range(config.states + config.edges):
        rows, momentum, share = rng.normal(size=(6, 3)), rng.uniform(0, 0.95), 1 / rng.integers(1, 30)
        if k >= config.states:
            edge = own_edge(rows, momentum, share)
            found.append(edge.plateau / float(plateau(edge.signal, momentum)) - 1)
            continue
        root = rng.normal(size=(3, 3))
        lr = rng.uniform(0.05, 0.8) * mean_square_edge(rows, momentum, share)
        h, m = mean_hessian(rows), stationary_covariance(mean_hessian(rows), root @ root.T, lr, momentum, rows, share)
        state = energy(h, m, share * (root @ root.T + multiplicative_covariance(rows, m)))
        found.append(lr / (1 - momentum) * state.sharpness / 2 / float(plateau(state.signal, momentum)) - 1)
    return np.array(found)


def _sharpness(config: Plateaus, lab: Lab, task: Task, effective: float, momentum: float, batch: int) -> Array:
    """Return log batch sharpness, averaged over late looks, (2, D, N/D)."""
    arms = lab.arms(
        stack(sgd(effective), ema(effective, momentum)), lab.per_draw(config.replicas, config.draws), torch.float64
    )
    since, steps = round(config.since / effective), round(config.time / effective)
    before = arms.run(task.objective(batch), task.start, since, check=10, limit=1e3)
    look = max(1, (steps - since) // config.looks)
    probe = every(look, lambda params: batch_sharpness(task, params, arms.streams, batch, config.batches))
    run = before.then(steps, probes={"": probe})
    late = np.log(run[""].mean(-1))
    return np.asarray(task.sets.by_draw(np.where(run.lost, np.nan, late)))


def batch_sharpness(task: Task, params: Params, streams: Streams, size: int, count: int) -> Tensor:
    """Return the mean over batches of gᵀHg/|g|², both of one batch and H its Gauss–Newton matrix, (R,).

    With K = JJᵀ of the batch and r its residuals: |Kr|²/(size·rᵀKr).
    """
    gram, residual = task.gram(params), task.residuals(params)
    rows = streams.integers(Purpose.PROBE, 0, gram.shape[1], (count, size))
    r = torch.take_along_dim(residual.unsqueeze(1), rows, dim=2)
    replica = torch.arange(len(gram), device=gram.device)[:, None, None, None]
    k = gram[replica, rows.unsqueeze(-1), rows.unsqueeze(-2)]
    pulled = (k @ r.unsqueeze(-1)).squeeze(-1)
    found: Tensor = (pulled.square().sum(-1) / (size * (pulled * r).sum(-1))).mean(-1)
    return found


def estimates(result: PlateausResult) -> Estimates:
    """Return the largest deviation, and log batch sharpness of heavy ball less descent's, for S-43."""
    return {
        "S-43.law": exact(np.abs(result.law).max()),
        "S-43.small": draw_difference(*result.small[::-1]),
        "S-43.large": draw_difference(*result.large[::-1]),
    }


def tables(result: PlateausResult) -> Tables:
    """Return e·BS/2 of both rules."""
    config, rows = result.config, {"small": result.small, "large": result.large}
    half = np.array([config.small[0], config.large[0]]) / 2
    means = np.array(
        [[draw_mean(np.exp(one) * h) for one in logs] for logs, h in zip(rows.values(), half, strict=True)]
    )
    return {"plateaus": tidy({"batch": list(rows), "rule": ["descent", "heavy ball"]}, plateau=means)}


PLATEAUS = Experiment(
    "plateaus", small=Plateaus(), large=Plateaus(replicas=Share(over=25, least=40)), run=run, estimates=estimates,
    tables=tables,
)  # fmt: skip
