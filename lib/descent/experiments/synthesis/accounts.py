"""The balance law, and what it counts: steps of signal c times, steps of noise once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from descent.arrays import Array
from descent.engine import Arms, Objective, Params, Purpose, Streams, every, stack
from descent.engine.probes import Leaves
from descent.engine.rules import ema, heavy_ball, sgd
from descent.engine.stack import leaves
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Share, Tables, tidy
from descent.experiments.synthesis.small_nets import small_task
from descent.experiments.synthesis.task import DataSet
from descent.nets import MLP, SquaredError, Supervised
from descent.problems import relu_pairs
from descent.problems.linear_layers import LinearLayers
from descent.problems.normalised import NormalisedRegression
from descent.problems.products import Products
from descent.stats import Estimate, draw_mean, draw_statistic, exact, furthest
from descent.theory.balance import squared_change
from descent.theory.memory import momentum_factor
from descent.theory.valley import noisy_drift_factor

HEAD = 0.9
Start = Callable[[Streams], Any]


@dataclass(frozen=True)
class Accounts:
    """Small problems for the law; ReLU nets 64–32–1 and normalised regressions for what it counts."""

    law_momenta: tuple[float, ...] = (0.3, 0.5, 0.9, 0.98)
    law_steps: int = 300
    draws: int = 10
    replicas: Share | int = 40  # nets, four of each draw
    hidden: int = 32
    effective: float = 0.02
    time: float = 20.0
    batches: tuple[int, ...] = (32, 8)
    data: tuple[DataSet, ...] = ("digits", "glyphs")
    norm_batches: tuple[int, ...] = (64, 16, 4, 1)
    norm_examples: int = 256
    norm_inputs: int = 10
    norm_replicas: int = 100  # ten of each draw


@dataclass(frozen=True, eq=False)
class AccountsResult(Result[Accounts]):
    """Errors of the law by problem, and changes of both rules, descent first, by batch, full first."""

    law: dict[str, float]
    nets: tuple[Array, ...]  # by data, (1 + B, 2, D, N/D)
    norm: Array  # the same of normalised weights

    def additive(self, data: int = 0) -> list[Estimate]:
        """Return (heavy ball − descent) at every batch over that at the full one, ratio of means."""

        def ratio(gap: Array, full: Array) -> Array:
            return np.asarray(gap.mean((1, 2)) / full.mean((1, 2)))

        gaps = self.nets[data][:, 1] - self.nets[data][:, 0]
        return [draw_statistic(ratio, gap, gaps[0]) for gap in gaps[1:]]

    def ratio(self, changes: Array) -> list[Estimate]:
        """Return heavy ball over descent at every batch over (c + b)/(1 + b), b from descent at both batches alone."""

        def ratio(heavy: Array, plain: Array, full: Array) -> Array:
            own = plain.mean((1, 2))
            spread = np.maximum(own / full.mean((1, 2)) - 1, 0.0)
            return np.asarray(heavy.mean((1, 2)) / own / noisy_drift_factor(HEAD, spread))

        return [draw_statistic(ratio, heavy, plain, changes[0, 0]) for plain, heavy in changes[1:]]


def run(config: Accounts, lab: Lab) -> AccountsResult:
    """Check the law, then keep the accounts of nets and of normalised weights."""
    nets = tuple(_nets(config, lab, data) for data in config.data)
    return AccountsResult(config, lab, _law(config, lab), nets, _norm(config, lab))


def _law(config: Accounts, lab: Lab) -> dict[str, float]:
    """Return the error of the account over cΣ|Δ|² by problem, the largest over momenta."""
    arms = lab.arms(
        heavy_ball((0.02 * (1 - np.array(config.law_momenta))).tolist(), config.law_momenta), 2, torch.float64
    )
    luck = lab.streams(1, torch.float64)
    x, y = luck.normal(Purpose.DATA, 0, (14, 5))[0], luck.normal(Purpose.DATA, 1, (14, 2))[0]
    net = MLP((5, 7, 2), "relu", bias=False)
    layered = LinearLayers(x, y, 3)
    return {
        "uv": _error(config, arms, Products(batch_size=2, label_noise=0.3), _scalars(2)),
        "depth 4": _error(config, arms, Products(label_noise=0.5), _scalars(4)),
        "ReLU net": _error(config, arms, Supervised(net, SquaredError(), x, y, 3), net.initial),
        "matrices": _error(config, arms, layered, _layers),
        "normalised": _error(config, arms, NormalisedRegression(x, y[:, 0], 2), _scalars(5), alone=True),
    }  # fmt: skip


def _scalars(count: int) -> Start:
    return lambda streams: 1 + 0.3 * streams.normal(Purpose.INIT, 0, (count,))


def _layers(streams: Streams) -> Leaves:
    return {"first": streams.normal(Purpose.INIT, 0, (4, 5)), "second": streams.normal(Purpose.INIT, 1, (2, 4))}


def _error(config: Accounts, arms: Arms, objective: Objective[Any], start: Start, *, alone: bool = False) -> float:
    """Return the largest error of the account of two groups of weights, or of one alone, over momenta."""
    probes = {"": every(1, lambda params: _groups(params, alone))}
    run = arms.run(objective, start, config.law_steps, probes=probes)
    worst = 0.0
    for arm, momentum in enumerate(config.law_momenta):
        paths = [np.moveaxis(run[f".{name}"][arm], 1, 0) for name in ("u", "v")[: 1 if alone else 2]]
        change, law, turnover = (
            [f(path) for path in paths]
            for f in (
                _change,
                lambda p, m=momentum: squared_change(p, m),
                lambda p: (np.diff(p, axis=0) ** 2).sum((0, -1)),
            )
        )
        gap = change[0] - law[0] - (0 if alone else change[1] - law[1])
        worst = max(worst, float(np.abs(gap / sum(turnover) / momentum_factor(momentum)).max()))
    return worst


def _change(path: Array) -> Array:
    return np.asarray((path[-1] ** 2).sum(-1) - (path[0] ** 2).sum(-1))


def _groups(params: Params, alone: bool) -> dict[str, Tensor]:
    """Return the two groups of weights whose forces balance, (R, n) each: the first two factors, or both layers."""
    parts = list(leaves(params).values())
    if alone:
        return {"u": parts[0]}
    if len(parts) == 1:
        return {"u": parts[0][:, :1], "v": parts[0][:, 1:2]}
    return {"u": parts[0].flatten(1), "v": parts[1].flatten(1)}


def _nets(config: Accounts, lab: Lab, data: DataSet) -> Array:
    """Return the change of ΣW² − Σa² of ReLU nets, (1 + B, 2, D, N/D)."""
    task = small_task(lab, config.draws, data)
    net = MLP((task.inputs.shape[2], config.hidden, 1), "relu", bias=False)
    e, rows = config.effective, torch.arange(task.targets.numel()).view(task.targets.shape)
    given = (net, SquaredError(), task.inputs.flatten(0, 1), task.targets.flatten().unsqueeze(-1))
    full = Supervised(*given, sampling="full", rows=rows)
    arms = lab.arms(stack(sgd(e), ema(e, HEAD)), lab.per_draw(config.replicas, config.draws), torch.float64)
    found = []
    for objective in (full, *(Supervised(*given, batch, rows=rows) for batch in config.batches)):
        run = arms.run(objective, net.initial, round(config.time / e), probes={"": every(10**9, _imbalance)}, check=50)
        found.append(task.sets.by_draw(run[""][..., -1] - run[""][..., 0]))
    return np.array(found)


def _imbalance(params: Params) -> Tensor:
    return relu_pairs.imbalance(leaves(params)).sum(-1)


def _norm(config: Accounts, lab: Lab) -> Array:
    """Return the growth of |w|² of normalised regressions on normal inputs, (1 + B, 2, D, N/D)."""
    luck = lab.streams(config.draws, torch.float64, apart=1)
    x = luck.normal(Purpose.DATA, 0, (config.norm_examples, config.norm_inputs))
    teacher = luck.normal(Purpose.DATA, 1, (config.norm_inputs, 1))
    y = (x @ (teacher / teacher.square().sum(1, keepdim=True).sqrt())).squeeze(-1)
    e = config.effective
    arms = lab.arms(stack(sgd(e), ema(e, HEAD)), config.norm_replicas, torch.float64, apart=1)
    found = []
    for batch in (None, *config.norm_batches):
        probes = {"": every(10**9, _square)}
        problem = NormalisedRegression(x, y, batch)
        run = arms.run(problem, _unit(config.norm_inputs), round(config.time / e), probes=probes, check=50)
        grown = run[""][..., -1] - run[""][..., 0]
        found.append(grown.reshape(2, -1, config.draws).swapaxes(-1, -2))
    return np.array(found)


def _square(params: Tensor) -> Tensor:
    return params.square().sum(-1)


def _unit(count: int) -> Start:
    def start(streams: Streams) -> Tensor:
        w = streams.normal(Purpose.INIT, 0, (count,))
        return w / w.square().sum(-1, keepdim=True).sqrt()

    return start


def estimates(result: AccountsResult) -> Estimates:
    """Return the error of the law, and how drifts of signal and noise add, for S-33 and S-36."""
    found: dict[str, Estimate | Sequence[Estimate]] = {
        "S-33.law": exact(max(result.law.values())),
        "S-36.additive": furthest(result.additive()),
        "S-36.ratio": furthest(result.ratio(result.nets[0])),
        "S-36.norm": furthest(result.ratio(result.norm)),
    }
    if len(result.nets) > 1:
        found["S-36.additive_glyphs"] = furthest(result.additive(1))
        found["S-36.ratio_glyphs"] = furthest(result.ratio(result.nets[1]))
    return found


def tables(result: AccountsResult) -> Tables:
    """Return changes of the balance by batch and rule."""
    config = result.config
    rules = ("descent", "heavy ball")
    nets = tidy(
        {"data": config.data, "batch": ["all", *map(str, config.batches)], "rule": rules},
        change=np.array([[[draw_mean(one) for one in pair] for pair in cells] for cells in result.nets]),
    )
    norm = tidy(
        {"batch": ["all", *map(str, config.norm_batches)], "rule": rules},
        change=np.array([[draw_mean(one) for one in pair] for pair in result.norm]),
    )
    return {"accounts": nets, "accounts_norm": norm}


ACCOUNTS = Experiment(
    "accounts", small=Accounts(), large=Accounts(replicas=Share(over=10, least=80)), run=run, estimates=estimates,
    tables=tables,
)  # fmt: skip
