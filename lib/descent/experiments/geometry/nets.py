"""Escape from interpolating minima of trained networks, along the eigenvectors of their Gauss–Newton matrix.

Walkers are put a little off the minimum of every net, with a step too large for it: which share of the loss do they
gain outside the sharpest direction by SGD, and by full-batch descent?
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from pandas import DataFrame
from torch import Tensor

from descent.arrays import Array
from descent.engine import Purpose, sgd
from descent.engine.arms import to_numpy
from descent.engine.probes import Leaves
from descent.experiments.geometry.escape import parted, walked_ratio
from descent.experiments.geometry.minima import find_minimum, linearised, odd_or_even, shifted
from descent.experiments.lab import Estimates, Experiment, Lab, Share, Tables
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
class NetsResult:
    """Loss per eigendirection, sharpest first, (N, W, q) after the steps of SGD and of descent; curvature (N, q).

    residual (N,): root mean square residual at the minimum found.
    """

    config: Nets
    lab: Lab
    curvature: Array
    stochastic: Array
    descent: Array
    residual: Array

    def ratio(self, losses: Array, k: int = 1) -> Array:
        """Return D_k of every net, a ratio of means over its walkers, (N,)."""
        return outside(losses.mean(axis=1), k)


def run(config: Nets, lab: Lab) -> NetsResult:
    """Train, displace, escape, and project on the eigenvectors at the minimum."""
    whole = odd_or_even(lab, config.sizes, config.examples)
    minimum = find_minimum(whole, lab.streams(config.nets, torch.float64), config.warm, config.newton)
    jacobian, residual = linearised(whole, minimum)
    _, sizes, basis = torch.linalg.svd(jacobian, full_matrices=False)
    curvature = sizes.square() / config.examples
    single = Supervised(whole.model, whole.loss, whole.inputs, whole.targets, 1)
    ends = (
        _escape(config, lab, single, minimum, config.sgd / curvature.square().sum(-1).sqrt()),
        _escape(config, lab, whole, minimum, config.descent / curvature[:, 0]),
    )
    stochastic, descent = (to_numpy(curvature[:, None] * (moved @ basis.mT).square()) for moved in ends)
    size = residual.square().mean(-1).sqrt()
    return NetsResult(config, lab, to_numpy(curvature), stochastic, descent, to_numpy(size))


def _escape(config: Nets, lab: Lab, problem: Supervised, minimum: Leaves, lr: Tensor) -> Tensor:
    """Return the displacement of every walker after the steps, (N, W, p); each net is an arm, lr (N,)."""
    arms = lab.arms(sgd(lr.cpu()), config.walkers, torch.float64, shared=False, apart=1)
    start = {name: arms.spread(leaf) for name, leaf in minimum.items()}
    count = flat(start).shape[1]
    offset = config.displacement * arms.streams.normal(Purpose.INIT, 0, (count,))
    final = cast(Leaves, arms.run(problem, shifted(start, offset), config.steps).params)
    return flat({name: final[name] - start[name] for name in start}).view(len(arms), arms.replicas, count)


def estimates(result: NetsResult) -> Estimates:
    """Return what the nets say about P5-C15: SGD over nets, descent of the net that leaves its direction most."""
    most = int(result.ratio(result.descent).argmax())
    return {
        "P5-C15.sgd": mean(result.ratio(result.stochastic)),
        "P5-C15.descent": walked_ratio(parted(result.descent[most]), result.lab.seed),
    }


def tables(result: NetsResult) -> Tables:
    """Return D_k of SGD and of descent, one row per net."""
    sharpness = result.curvature[:, 0]
    frame = {"residual": result.residual, "sharpness": sharpness}
    frame["stable_rank"] = (result.curvature**2).sum(axis=1) / sharpness**2
    for k in (1, 5):
        frame |= {f"sgd_D{k}": result.ratio(result.stochastic, k), f"descent_D{k}": result.ratio(result.descent, k)}
    return {"nets": DataFrame(frame)}


NETS = Experiment(
    "nets", small=Nets(), large=Nets(nets=64, sizes=(64, 64, 1), examples=128, warm=2000),
    run=run, estimates=estimates, tables=tables,
)  # fmt: skip
