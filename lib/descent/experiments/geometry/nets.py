"""Escape from interpolating minima of trained networks, along the eigenvectors of their Gauss–Newton matrix."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from pandas import DataFrame
from torch import Tensor
from torch.func import jacrev, vmap

from descent.arrays import Array
from descent.data.images import centred, load
from descent.engine.probes import Leaves
from descent.engine.rules import repeat, sgd
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.engine.train import train
from descent.experiments.arms import configure, to_numpy
from descent.experiments.common import Estimates, Experiment, Settings
from descent.nets.dense import MLP, SquaredError
from descent.nets.supervised import Supervised
from descent.stats.estimate import Estimate
from descent.stats.intervals import bootstrap, mean
from descent.theory.noise_escape import outside


@dataclass(frozen=True)
class Nets:
    """Tanh nets on odd and even digits: trained to a loss near zero, moved off it a little, and left to escape.

    sgd: learning rate of SGD with batches of one over 1/‖G‖_F; descent: that of full-batch descent over 1/λ₁.
    """

    nets: int
    walkers: int  # per net
    seed: int
    device: str
    sizes: tuple[int, ...] = (64, 24, 1)
    examples: int = 40
    warm: int = 300  # steps of plain descent before Newton's method finishes
    newton: int = 12
    displacement: float = 1e-4
    sgd: float = 1.1
    descent: float = 2.2
    steps: int = 20

    @classmethod
    def cpu(cls, settings: Settings) -> Nets:
        """Train a few dozen nets, with as many walkers each."""
        return cls(
            max(32, min(settings.replicas // 30, 48)), max(64, settings.replicas // 8), settings.seed, settings.device
        )

    @classmethod
    def paper(cls, settings: Settings) -> Nets:
        """Train wider nets on more digits, with no more walkers each: all of them are held at once, many times over."""
        return cls(
            64,
            max(64, settings.replicas // 8),
            settings.seed,
            settings.device,
            sizes=(64, 64, 1),
            examples=128,
            warm=2000,
        )


@dataclass(frozen=True, eq=False)
class NetsResult:
    """Loss per eigendirection, sharpest first, (N, W, q) after the steps of SGD and of descent; curvature (N, q).

    residual (N,): root mean square residual at the minimum found.
    """

    config: Nets
    curvature: Array
    stochastic: Array
    descent: Array
    residual: Array
    seconds: float

    def ratio(self, losses: Array, k: int = 1) -> Array:
        """Return D_k of every net, a ratio of means over its walkers, (N,)."""
        return outside(losses.mean(axis=1), k)


def run(config: Nets) -> NetsResult:
    """Train, displace, escape, and project on the eigenvectors at the minimum."""
    clock = time.perf_counter()
    data = load("digits")
    inputs = centred(data.images)[: config.examples].flatten(1).double().to(config.device)
    targets = (2.0 * (data.labels[: config.examples] % 2) - 1).double().to(config.device).unsqueeze(1)
    model = MLP(config.sizes, "tanh")
    streams = Streams(replica_seeds(config.seed, config.nets, config.device), torch.float64)
    whole = Supervised(model, SquaredError(), inputs, targets, sampling="full")
    minimum = find_minimum(whole, streams, config.warm, config.newton)
    jacobian, residual = linearised(whole, minimum)
    _, sizes, basis = torch.linalg.svd(jacobian, full_matrices=False)
    curvature = sizes.square() / config.examples
    single = Supervised(model, SquaredError(), inputs, targets, 1)
    ends = [
        _escape(config, single, minimum, config.sgd / curvature.square().sum(-1).sqrt()),
        _escape(config, whole, minimum, config.descent / curvature[:, 0]),
    ]
    losses = [to_numpy(curvature[:, None] * (moved @ basis.mT).square()) for moved in ends]
    return NetsResult(
        config,
        to_numpy(curvature),
        losses[0],
        losses[1],
        to_numpy(residual.square().mean(-1).sqrt()),
        time.perf_counter() - clock,
    )


def find_minimum(problem: Supervised, streams: Streams, warm: int, newton: int) -> Leaves:
    """Return parameters with residuals near rounding: full-batch descent first, then Newton steps of least length."""
    hyper = repeat(sgd(0.1), streams.replicas).to(streams.device)
    params = cast(Leaves, train(problem, problem.model.initial(streams), hyper, warm, streams).params)
    for _ in range(newton):
        jacobian, residual = linearised(problem, params)
        gram = jacobian @ jacobian.mT
        step = (jacobian.mT @ torch.linalg.solve(gram, residual.unsqueeze(-1))).squeeze(-1)
        params = shifted(params, -step)
    return params


def linearised(problem: Supervised, params: Leaves) -> tuple[Tensor, Tensor]:
    """Return the Jacobian of the outputs of a tanh net (N, n, p) and its residuals (N, n)."""
    model, inputs = cast(MLP, problem.model), problem.inputs

    def outputs(leaves: Leaves) -> Tensor:
        stack = {name: leaf.unsqueeze(0) for name, leaf in leaves.items()}
        return _forward(model, stack, inputs.unsqueeze(0))[0, :, 0]

    parts = vmap(jacrev(outputs))(params)
    jacobian = torch.cat([part.flatten(2) for part in parts.values()], dim=2)
    residual = _forward(model, params, inputs.expand(len(jacobian), *inputs.shape))[..., 0] - problem.targets[:, 0]
    return jacobian, residual


def _forward(model: MLP, params: Leaves, inputs: Tensor) -> Tensor:
    """Return the outputs (N, n, out) without the fast path's activations in place, which autograd cannot follow."""
    value = inputs
    for layer in range(len(model.sizes) - 1):
        value = torch.tanh(value) if layer else value
        value = value @ params[f"{2 * layer}.weight"].mT + params[f"{2 * layer}.bias"].unsqueeze(1)
    return value


def shifted(params: Leaves, step: Tensor) -> Leaves:
    """Return the parameters moved by a flat step (N, p), leaves in order."""
    sizes = [leaf[0].numel() for leaf in params.values()]
    parts = torch.split(step, sizes, dim=1)
    return {name: leaf + part.view_as(leaf) for (name, leaf), part in zip(params.items(), parts, strict=True)}


def _escape(config: Nets, problem: Supervised, minimum: Leaves, lr: Tensor) -> Tensor:
    """Return the displacement of every walker after the steps, (N, W, p)."""
    count = config.nets * config.walkers
    streams = Streams(replica_seeds(config.seed + 1, count, config.device), torch.float64)
    start = {name: leaf.repeat_interleave(config.walkers, dim=0) for name, leaf in minimum.items()}
    sizes = sum(leaf[0].numel() for leaf in start.values())
    offset = config.displacement * streams.normal(Purpose.INIT, 0, (sizes,))
    hyper = sgd(lr.repeat_interleave(config.walkers).cpu()).to(config.device)
    final = cast(Leaves, train(problem, shifted(start, offset), hyper, config.steps, streams).params)
    moved = torch.cat([(final[name] - start[name]).flatten(1) for name in start], dim=1)
    return moved.view(config.nets, config.walkers, -1)


def estimates(result: NetsResult) -> Estimates:
    """Return what the nets say about P5-C15."""
    return {
        "P5-C15.sgd": mean(result.ratio(result.stochastic)),
        "P5-C15.descent": _of_net(result, result.descent[int(result.ratio(result.descent).argmax())]),
    }


def _of_net(result: NetsResult, losses: Array) -> Estimate:
    """Return D_1 of one net over its walkers (W, q)."""
    both = np.stack([losses[:, 0], losses[:, 1:].sum(axis=1)], axis=1)

    def ratio(drawn: Array) -> Array:
        means = drawn.mean(axis=1)
        return np.asarray(means[:, 1] / means[:, 0])

    return bootstrap(ratio, both, seed=result.config.seed)


def tables(result: NetsResult) -> dict[str, DataFrame]:
    """Return D_k of SGD and of descent, one row per net."""
    frame = {"residual": result.residual, "sharpness": result.curvature[:, 0]}
    frame["stable_rank"] = (result.curvature**2).sum(axis=1) / result.curvature[:, 0] ** 2
    for k in (1, 5):
        frame |= {f"sgd_D{k}": result.ratio(result.stochastic, k), f"descent_D{k}": result.ratio(result.descent, k)}
    return {"nets": DataFrame(frame)}


NETS = Experiment("nets", ("P5-C15",), lambda settings: run(configure(Nets, settings)), estimates, tables)
