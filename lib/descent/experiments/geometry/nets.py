"""Escape from interpolating minima of trained networks, along the eigenvectors of their Gauss–Newton matrix.

Walkers are put a little off the minimum of every net, with a step too large for it: which share of the loss do they
gain outside the sharpest direction by SGD, and by full-batch descent?
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pandas import DataFrame

from descent.arrays import Array
from descent.engine import Purpose, sgd
from descent.engine.arms import to_numpy
from descent.experiments.geometry.escape import parted, walked_ratio
from descent.experiments.geometry.minima import find_minimum, linearised, odd_or_even, shifted
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Share, Tables
from descent.measure.noise import flat
from descent.nets import Supervised
from descent.stats import mean
from descent.theory.noise_escape import outside


@dataclass(frozen=True)
class Nets:
    """Tanh nets on odd and even digits: trained to a loss near zero, moved off it a little, and left to escape."""

    nets: Share | int = Share(over=30, least=32, most=48)
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

    curvature: Array  # (N, q)
    stochastic: Array  # (N, W, q)
    descent: Array  # (N, W, q)
    residual: Array  # (N,): root mean square at the minimum found

    def ratio(self, losses: Array, k: int = 1) -> Array:
        """Return D_k of every net, a ratio of means over its walkers, (N,)."""
        return outside(losses.mean(axis=1), k)


def run(config: Nets, lab: Lab) -> NetsResult:
    """Train, displace, escape by SGD and by descent, and project on the eigenvectors at the minimum."""
    whole = odd_or_even(lab, config.sizes, config.examples)
    minimum = find_minimum(whole, lab.streams(config.nets, torch.float64), config.warm, config.newton)
    jacobian, residual = linearised(whole, minimum)
    _, sizes, basis = torch.linalg.svd(jacobian, full_matrices=False)
    curvature = sizes.square() / config.examples
    single = Supervised(whole.model, whole.loss, whole.inputs, whole.targets, 1)
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
    return NetsResult(config, lab, to_numpy(curvature), stochastic, descent, to_numpy(size))


def estimates(result: NetsResult) -> Estimates:
    """Return what the nets say about P5-C15: SGD over nets, descent of the net that leaves its direction most."""
    most = int(result.ratio(result.descent).argmax())
    return {
        "P5-C15.sgd": mean(result.ratio(result.stochastic)),
        "P5-C15.descent": walked_ratio(parted(result.descent[most]), result.lab.seed),
    }


def tables(result: NetsResult) -> Tables:
    """Return D_k of SGD and of descent, one row per net."""
    sharpness, ways = result.curvature[:, 0], {"sgd": result.stochastic, "descent": result.descent}
    about = {"residual": result.residual, "sharpness": sharpness}
    about["stable_rank"] = (result.curvature**2).sum(axis=1) / sharpness**2
    ratios = {f"{name}_D{k}": result.ratio(losses, k) for k in (1, 5) for name, losses in ways.items()}
    return {"nets": DataFrame(about | ratios)}


NETS = Experiment(
    "nets", small=Nets(), large=Nets(nets=64, sizes=(64, 64, 1), examples=128, warm=2000),
    run=run, estimates=estimates, tables=tables,
)  # fmt: skip
