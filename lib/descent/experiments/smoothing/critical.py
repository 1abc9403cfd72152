"""The critical batch size as a meter of gradient noise: a network under the authors' stopping rule, and a recursion."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from pandas import DataFrame
from torch import Tensor

from descent.arrays import Array
from descent.data.images import centred, load, redrawn
from descent.engine.rules import ema, heavy_ball, sgd, stack
from descent.engine.streams import Streams, replica_seeds
from descent.experiments.arms import configure, to_numpy
from descent.experiments.common import Estimates, Experiment, Settings
from descent.measure.critical_batch import Valley, critical_exponent, valley
from descent.measure.noise import gradient_noise
from descent.nets.dense import MLP, CrossEntropy
from descent.nets.supervised import Leaves, Supervised
from descent.stats.estimate import Estimate
from descent.stats.intervals import bootstrap, exact, mean, paired_difference
from descent.theory.search_noise import recipe_factor, recipe_variance, virtual_steps


@dataclass(frozen=True)
class Critical:
    """Plain SGD on digits with redrawn labels until the running mean of mini-batch gradient norms is at most ε.

    The rule is that of the authors' public code: the mean is over all steps since the first. A run goes on until the
    smallest ε is reached, or `limit` steps. The recursion is exact: a parabola, the inner-product rule of the analysis.
    """

    replicas: int
    seed: int
    device: str
    momentum: float
    sizes: tuple[int, ...] = (64, 32, 10)
    examples: int = 1000
    redrawn: float = 0.2
    rates: tuple[float, ...] = (0.05, 0.2)
    precisions: tuple[float, ...] = (0.45, 0.36)  # falling, below the norm at the start; rates compare at the first
    batch_sizes: tuple[int, ...] = (150, 180, 215, 256, 305, 360, 430, 512, 724)
    limit: int = 450
    virtual_rate: float = 0.1
    virtual_variance: float = 10.0
    virtual_precision: float = 0.5
    virtual_batches: tuple[int, ...] = tuple(range(1, 101))

    @classmethod
    def cpu(cls, settings: Settings) -> Critical:
        """Run a few dozen networks per batch size."""
        return cls(max(32, min(settings.replicas // 30, 64)), settings.seed, settings.device, settings.momentum)

    @classmethod
    def paper(cls, settings: Settings) -> Critical:
        """Run more of them over four learning rates, three precisions and more batch sizes."""
        return cls(
            max(64, settings.replicas // 10),
            settings.seed,
            settings.device,
            settings.momentum,
            rates=(0.0125, 0.025, 0.05, 0.1, 0.2),
            precisions=(0.45, 0.4, 0.36),
            limit=4000,
        )


@dataclass(frozen=True, eq=False)
class CriticalResult:
    """Steps (H, E, N, B) per rate and precision, infinite where never reached; variance (N,) at the start.

    virtual (3, V): exact steps of plain, averaged and heavy-ball descent on the parabola.
    """

    config: Critical
    steps: Array
    variance: Array
    virtual: Array
    seconds: float

    def valley(self, rate: int, precision: int = 0) -> Valley:
        """Return the valley of gradients used at one rate and precision."""
        return valley(self.config.batch_sizes, self.steps[rate, precision], self.config.seed)

    @property
    def recipe(self) -> Array:
        """The gradient variance that the recipe reads off each valley, (H,)."""
        config = self.config
        found = [self.valley(h).centre.value for h in range(len(config.rates))]
        return recipe_variance(found, config.rates, config.precisions[0], recipe_factor("sgd"))

    @property
    def virtual_recipe(self) -> tuple[float, ...]:
        """The variance that the recipe reads off the parabola for plain, averaged and heavy-ball descent."""
        config, momentum = self.config, self.config.momentum
        sizes = np.array(config.virtual_batches)
        factors = [recipe_factor("sgd")]
        factors += [recipe_factor("ema", momentum), recipe_factor("heavy_ball", momentum)] if momentum > 0 else []
        best = [sizes[np.argmin(sizes * steps)] for steps in self.virtual]
        goal = config.virtual_precision
        pairs = zip(best, factors, strict=False)
        return tuple(float(recipe_variance(size, config.virtual_rate, goal, factor)) for size, factor in pairs)


def run(config: Critical) -> CriticalResult:
    """Run the networks of every batch size, and the recursion."""
    clock = time.perf_counter()
    data = redrawn(load("digits"), config.redrawn)
    inputs = centred(data.images)[: config.examples].flatten(1).to(config.device)
    targets = data.labels[: config.examples].to(config.device)
    model = MLP(config.sizes)
    steps = np.empty((len(config.rates), len(config.precisions), config.replicas, len(config.batch_sizes)))
    for column, size in enumerate(config.batch_sizes):
        problem = Supervised(model, CrossEntropy(), inputs, targets, size)
        steps[..., column] = _until_quiet(config, model, problem)
    streams = Streams(replica_seeds(config.seed, config.replicas, config.device))
    full = Supervised(model, CrossEntropy(), inputs, targets, 1)
    variance = to_numpy(gradient_noise(full, model.initial(streams)))
    return CriticalResult(config, steps, variance, _virtual(config), time.perf_counter() - clock)


def _until_quiet(config: Critical, model: MLP, problem: Supervised) -> Array:
    """Return the steps until the running mean of gradient norms is small, (H, E, N).

    A loop of its own, since the rule watches the gradient that the step uses, which no probe of `train` sees.
    """
    arms, count = len(config.rates), config.replicas
    seeds = replica_seeds(config.seed, count, config.device)
    streams = Streams(seeds.repeat(arms))
    rates = torch.tensor(config.rates, device=config.device).repeat_interleave(count)
    params = model.initial(streams)
    gradient = {name: torch.empty_like(leaf) for name, leaf in params.items()}
    found = torch.full((len(config.precisions), arms * count), float("inf"), device=config.device)
    goals = torch.tensor(config.precisions, device=config.device).unsqueeze(1)
    total = torch.zeros(arms * count, device=config.device)
    for step in range(config.limit):
        problem.gradient_into(params, streams, step, gradient)
        total += _norm(gradient)
        found = torch.where(found.isinf() & (total / (step + 1) <= goals), float(step + 1), found)
        if not found[-1].isinf().any():
            break
        for name, leaf in params.items():
            leaf.sub_(gradient[name] * rates.view(-1, *[1] * (leaf.ndim - 1)))
    return to_numpy(found).reshape(len(config.precisions), arms, count).swapaxes(0, 1)


def _norm(gradient: Leaves) -> Tensor:
    return torch.stack([leaf.flatten(1).square().sum(1) for leaf in gradient.values()]).sum(0).sqrt()


def _virtual(config: Critical) -> Array:
    """Return exact steps on the parabola for three rules whose gradient noise is the same, (3, V)."""
    momentum = config.momentum
    rules = stack(
        sgd(config.virtual_rate), ema(config.virtual_rate, momentum), heavy_ball(config.virtual_rate, momentum)
    )
    goal = config.virtual_precision
    return virtual_steps(rules, config.virtual_batches, variance=config.virtual_variance, start=3.0, precision=goal)


def estimates(result: CriticalResult) -> Estimates:
    """Return what the valleys say about P1-C10 to P1-C12 and P1-X8."""
    config, seed = result.config, result.config.seed
    first = result.steps[:, 0].swapaxes(0, 1)  # (N, H, B)
    finest = result.steps[-1].swapaxes(0, 1)  # (N, E, B)
    found: Estimates = {
        "P1-C10.fewer_steps": _falls(result.steps[-1, 0]),
        "P1-C10.interior": _interior(result.steps[-1, 0], np.array(config.batch_sizes), seed),
        "P1-C11.exponent": critical_exponent(config.precisions, config.batch_sizes, finest, seed),
        "P1-C12.exponent": critical_exponent(config.rates, config.batch_sizes, first, seed),
    }
    return {**found, **_artefact(result)}


def _falls(steps: Array) -> list[Estimate]:
    """Return the drops in mean log steps between successive sizes that every run reaches, of (N, B)."""
    reached = np.log(steps[:, np.isfinite(steps).all(axis=0)])
    return [paired_difference(a, b) for a, b in zip(reached.T[:-1], reached.T[1:], strict=True)]


def _interior(steps: Array, sizes: Array, seed: int) -> Estimate:
    """Return the cost at the cheaper end of the range over the least cost inside; ends never reached cost most."""
    cost = np.where(np.isfinite(steps), steps, 1e9) * sizes

    def ratio(drawn: Array) -> Array:
        means = drawn.mean(axis=1)
        return np.asarray(np.minimum(means[:, 0], means[:, -1]) / means[:, 1:-1].min(axis=1))

    return bootstrap(ratio, cost, seed=seed)


def _artefact(result: CriticalResult) -> dict[str, Estimate]:
    """Return the recipe's variance for the averaged rule over that for plain descent, over 1 − momentum."""
    momentum = result.config.momentum
    if momentum == 0:
        return {}
    plain, averaged, _ = result.virtual_recipe
    return {"P1-X8.artefact": exact(averaged / plain / (1 - momentum))}


def tables(result: CriticalResult) -> dict[str, DataFrame]:
    """Return mean gradients used, one row per rate, precision and batch size, and the variance read off."""
    config = result.config
    rows = [
        {"lr": rate, "precision": goal, "batch_size": size, "gradients": size * result.steps[h, e, :, b].mean()}
        for h, rate in enumerate(config.rates)
        for e, goal in enumerate(config.precisions)
        for b, size in enumerate(config.batch_sizes)
    ]
    direct = mean(result.variance)
    read = [
        {"lr": rate, "recipe": value, "direct": direct.value, "direct_low": direct.low, "direct_high": direct.high}
        for rate, value in zip(config.rates, result.recipe, strict=True)
    ]
    return {"critical": DataFrame(rows), "critical_recipe": DataFrame(read)}


CRITICAL = Experiment(
    "critical",
    ("P1-C10", "P1-C11", "P1-C12", "P1-X8"),
    lambda settings: run(configure(Critical, settings)),
    estimates,
    tables,
)
