"""Escape from interpolating minima of trained networks, along the eigenvectors of their Gauss–Newton matrix.

Walkers are put a little off the minimum of every net, with a step too large for it: which share of the loss do they
gain outside the sharpest direction by SGD, and by full-batch descent?
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from pandas import DataFrame

from descent.arrays import Array
from descent.data.draws import Draws
from descent.engine import Purpose, sgd
from descent.engine.arms import to_numpy
from descent.experiments.geometry.kept import largest_of
from descent.experiments.geometry.minima import find_minimum, linearised, odd_or_even, shifted
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Share, Tables
from descent.measure.noise import flat
from descent.stats import draw_mean
from descent.theory.noise_escape import outside


@dataclass(frozen=True)
class Nets:
    """Tanh nets on odd and even digits: trained to a loss near zero, moved off it a little, and left to escape."""

    nets: Share | int = Share(over=31, least=32, most=64)
    draws: int = 16  # of so many examples, disjoint while there are enough digits
    walkers: Share = Share(over=8, least=64)  # per net; all of them are held at once, many times over
    sizes: tuple[int, ...] = (64, 24, 1)
    examples: int = 40
    warm: int = 300  # steps of plain descent before Newton's method finishes
    newton: int = 12
    displacement: float = 1e-4
    sgd: float = 1.1  # learning rate with batches of one, over 1/‖G‖_F
    descent: float = 2.2  # that of the full batch, over 1/λ₁
    steps: int = 20


@dataclass(frozen=True, eq=False)
class NetsResult(Result[Nets]):
    """Loss per eigendirection, sharpest first, after the steps of SGD and of descent."""

    sets: Draws  # net i is trained on draw i mod D
    curvature: Array  # (N, q)
    stochastic: Array  # (N, W, q)
    descent: Array  # (N, W, q)
    residual: Array  # (N,): root mean square at the minimum found

    def ratio(self, losses: Array, k: int = 1) -> Array:
        """Return D_k of every net, a ratio of means over its walkers, (N,)."""
        return outside(losses.mean(axis=1), k)


def run(config: Nets, lab: Lab) -> NetsResult:
    """Train, displace, escape by SGD and by descent, and project on the eigenvectors at the minimum."""
    sets, whole = odd_or_even(lab, config.sizes, config.examples, config.draws)
    nets = lab.per_draw(config.nets, config.draws)
    minimum = find_minimum(whole, lab.streams(nets, torch.float64), config.warm, config.newton)
    jacobian, residual = linearised(whole, minimum)
    _, sizes, basis = torch.linalg.svd(jacobian, full_matrices=False)
    curvature = sizes.square() / config.examples
    walkers = torch.arange(nets, device=lab.device).repeat_interleave(lab.count(config.walkers)) % config.draws
    whole = replace(whole, rows=sets.rows[walkers])  # every walker sees what its net was trained on
    single = replace(whole, batch_size=1, sampling="with_replacement")
    rates = config.sgd / curvature.square().sum(-1).sqrt(), config.descent / curvature[:, 0]
    losses = []
    for problem, lr in zip((single, whole), rates, strict=True):
        arms = lab.arms(sgd(lr.cpu()), config.walkers, torch.float64, shared=False, apart=1)  # each net is an arm
        start = {name: arms.spread(leaf) for name, leaf in minimum.items()}
        offset = config.displacement * arms.streams.normal(Purpose.INIT, 0, (jacobian.shape[-1],))
        final = arms.run(problem, shifted(start, offset), config.steps).params
        moved = flat({name: final[name] - start[name] for name in start}).view(len(arms), arms.replicas, -1)
        losses.append(to_numpy(curvature[:, None] * (moved @ basis.mT).square()))
    (stochastic, descent), size = losses, residual.square().mean(-1).sqrt()
    return NetsResult(config, lab, sets, to_numpy(curvature), stochastic, descent, to_numpy(size))


def estimates(result: NetsResult) -> Estimates:
    """Return what the nets say about P5-C15: means over draws of the data, of extremes of a draw's nets too."""
    sets, stochastic = result.sets, result.ratio(result.stochastic)
    return {
        "P5-C15.sgd": draw_mean(sets.by_draw(stochastic)),
        "P5-C15.descent": largest_of(sets, result.ratio(result.descent)),
        "P5-C15.sgd_first": draw_mean(sets.by_draw(stochastic).min(axis=1, keepdims=True)),
    }


def tables(result: NetsResult) -> Tables:
    """Return D_k of SGD and of descent, one row per net."""
    sharpness, ways = result.curvature[:, 0], {"sgd": result.stochastic, "descent": result.descent}
    about = {"residual": result.residual, "sharpness": sharpness}
    about["stable_rank"] = (result.curvature**2).sum(axis=1) / sharpness**2
    ratios = {f"{name}_D{k}": result.ratio(losses, k) for k in (1, 5) for name, losses in ways.items()}
    return {"nets": DataFrame(about | ratios)}


NETS = Experiment(
    "nets", small=Nets(), large=Nets(nets=56, draws=14, sizes=(64, 64, 1), examples=128, warm=2000),
    run=run, estimates=estimates, tables=tables,
)  # fmt: skip
