"""The critical batch size as a meter of gradient noise: a network under the authors' stopping rule, and a recursion.

The rule is that of the authors' public code: plain SGD until the running mean of all mini-batch gradient norms so far
is at most ε. The recursion is exact: a parabola, the inner-product rule of the analysis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from descent.arrays import Array
from descent.data.draws import Draws
from descent.engine import Arms, sgd
from descent.engine.arms import to_numpy
from descent.engine.stack import leaves
from descent.experiments.lab import Estimates, Experiment, Lab, Share, Tables, each, tidy
from descent.experiments.smoothing.arms import RULES, listed, over_draws, rules, task
from descent.measure.critical_batch import critical_exponent, valley
from descent.measure.noise import gradient_noise
from descent.nets import Supervised
from descent.stats import Estimate, draw_difference, draw_mean, draw_statistic, exact
from descent.theory.search_noise import Rule, recipe_factor, recipe_variance, virtual_steps


@dataclass(frozen=True)
class Critical:
    """Digits with redrawn labels; and a parabola, in the fields that begin with "virtual"."""

    draws: int = 16  # of the training set
    replicas: Share = Share(over=30, most=32)  # networks per batch size
    hidden: int = 32
    examples: int = 1000
    redrawn: float = 0.2  # of the labels
    rates: tuple[float, ...] = (0.05, 0.2)
    precisions: tuple[float, ...] = (0.45, 0.36)  # falling, below the norm at the start; rates compare at the first
    batch_sizes: tuple[int, ...] = (150, 180, 215, 256, 305, 360, 430, 512, 724)
    limit: int = 450  # steps
    virtual_rate: float = 0.1
    virtual_variance: float = 10.0
    virtual_precision: float = 0.5
    virtual_batches: tuple[int, ...] = tuple(range(1, 101))


@dataclass(frozen=True, eq=False)
class CriticalResult:
    """Steps (H, E, N, B) per rate and precision, infinite where never reached; variance (N,) at the start.

    Net i is of draw i mod D of the sets. virtual (3, V): exact steps of plain, averaged and heavy-ball descent on the
    parabola.
    """

    config: Critical
    lab: Lab
    sets: Draws
    steps: Array
    variance: Array
    virtual: Array

    @property
    def recipe(self) -> Array:
        """The gradient variance that the recipe reads off the valley of gradients used at each rate, (H,)."""
        config = self.config
        found = [valley(config.batch_sizes, steps, self.lab.seed).centre.value for steps in self.steps[:, 0]]
        return recipe_variance(found, config.rates, config.precisions[0], recipe_factor("sgd"))

    def virtual_recipe(self, rule: Rule) -> float:
        """Return the variance that the recipe reads off the parabola; of heavy ball it asks for a momentum."""
        config, sizes = self.config, np.array(self.config.virtual_batches)
        best = sizes[np.argmin(sizes * self.virtual[RULES.index(rule)])]
        factor = recipe_factor(rule, self.lab.momentum)
        return float(recipe_variance(best, config.virtual_rate, config.virtual_precision, factor))


def run(config: Critical, lab: Lab) -> CriticalResult:
    """Run the networks of every batch size, and the recursion."""
    images = task(lab, "digits", config.redrawn, config.hidden, config.draws, config.examples)
    arms = lab.arms(sgd(config.rates), lab.per_draw(config.replicas, config.draws))
    steps = [_until_quiet(config, arms, images.batches(size)) for size in config.batch_sizes]
    variance = to_numpy(gradient_noise(images.full, images.model.initial(lab.streams(arms.replicas))))
    virtual = virtual_steps(
        rules(config.virtual_rate, lab.momentum), config.virtual_batches,
        variance=config.virtual_variance, start=3.0, precision=config.virtual_precision,
    )  # fmt: skip
    return CriticalResult(config, lab, images.sets, np.stack(steps, axis=-1), variance, virtual)


def _until_quiet(config: Critical, arms: Arms, problem: Supervised) -> Array:
    """Return the steps until the running mean of gradient norms is small, (H, E, N).

    A loop of its own, since the rule watches the gradient that the step uses, which no probe of `train` sees.
    """
    rates, params = arms.spread(config.rates), leaves(arms.stack(problem.model.initial))
    gradient = {name: torch.empty_like(leaf) for name, leaf in params.items()}
    total = torch.zeros_like(rates)
    goals = total.new_tensor(config.precisions)
    found = torch.full((len(rates), len(goals)), torch.inf, device=total.device)
    for step in range(config.limit):
        problem.gradient_into(params, arms.streams, step, gradient)
        total += torch.stack([leaf.flatten(1).square().sum(1) for leaf in gradient.values()]).sum(0).sqrt()
        quiet = total.unsqueeze(1) / (step + 1) <= goals
        found = torch.where(found.isinf() & quiet, float(step + 1), found)
        if not found[:, -1].isinf().any():
            break
        for name, leaf in params.items():
            leaf.sub_(gradient[name] * rates.view(-1, *[1] * (leaf.ndim - 1)))
    return arms.split(found).swapaxes(1, 2)


def estimates(result: CriticalResult) -> Estimates:
    """Return what the valleys say about P1-C10 to P1-C12 and P1-X8."""
    config, steps = result.config, result.steps[-1, 0]  # (N, B)
    reached = np.log(steps[:, np.isfinite(steps).all(axis=0)]).T  # at the batch sizes at which every run arrives
    plain, averaged = (result.virtual_recipe(rule) for rule in ("sgd", "ema"))
    return {
        "P1-C10.fewer_steps": listed(each(over_draws(result.sets, draw_difference), reached[:-1], reached[1:])),
        "P1-C10.interior": _interior(result, steps),
        "P1-C11.exponent": _exponent(result, config.precisions, result.steps[-1]),
        "P1-C12.exponent": _exponent(result, config.rates, result.steps[:, 0]),
        "P1-X8.artefact": exact(averaged / plain / (1 - result.lab.momentum)),
    }


def _interior(result: CriticalResult, steps: Array) -> Estimate:
    """Return the cost at the cheaper end of the range over the least cost inside, from steps (N, B)."""
    cost = np.where(np.isfinite(steps), steps, 1e9) * np.array(result.config.batch_sizes)  # never to arrive costs most

    def ends(*sizes: Array) -> Array:
        first, *middle, last = (size.mean(axis=(1, 2)) for size in sizes)
        return np.asarray(np.minimum(first, last) / np.min(middle, axis=0))

    return draw_statistic(ends, *(result.sets.by_draw(row) for row in cost.T), seed=result.lab.seed)


def _exponent(result: CriticalResult, x: Sequence[float], steps: Array) -> Estimate:
    """Return the exponent in x of the critical batch size from steps (A, N, B); draws are resampled whole."""
    means = result.sets.by_draw(np.moveaxis(steps, 1, 2)).mean(axis=-1)  # (A, B, D), infinite where one never arrives
    found = critical_exponent(x, result.config.batch_sizes, np.moveaxis(means, 2, 0), result.lab.seed)
    return replace(found, n=steps.shape[1], draws=len(result.sets))


def tables(result: CriticalResult) -> Tables:
    """Return mean gradients used, one row per rate, precision and batch size, and the variance read off."""
    config, sizes = result.config, np.array(result.config.batch_sizes)
    direct = over_draws(result.sets, draw_mean)(result.variance)
    return {
        "critical": tidy(
            {"lr": config.rates, "precision": config.precisions, "batch_size": sizes},
            gradients=sizes * result.steps.mean(axis=2),
        ),
        "critical_recipe": tidy({"lr": config.rates}, recipe=result.recipe, direct=direct),
    }


LARGE = Critical(
    draws=32, replicas=Share(over=10, least=64), rates=(0.0125, 0.025, 0.05, 0.1, 0.2), precisions=(0.45, 0.4, 0.36),
    limit=4000,
)  # fmt: skip
CRITICAL = Experiment("critical", small=Critical(), large=LARGE, run=run, estimates=estimates, tables=tables)
