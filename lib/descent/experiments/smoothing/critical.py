"""The critical batch size as a meter of gradient noise: a network under the authors' stopping rule, and a recursion.

The rule is that of the authors' public code: plain SGD until the running mean of all mini-batch gradient norms so far
is at most ε. The recursion is exact: a parabola, the inner-product rule of the analysis.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from descent.arrays import Array
from descent.data.images import centred, load, redrawn
from descent.engine import Arms, sgd
from descent.engine.arms import to_numpy
from descent.engine.stack import leaves
from descent.experiments.lab import Estimates, Experiment, Lab, Share, Tables, each, tidy
from descent.experiments.smoothing.arms import RULES, rules
from descent.measure.critical_batch import critical_exponent, valley
from descent.measure.noise import gradient_noise
from descent.nets import MLP, CrossEntropy, Supervised
from descent.stats import bootstrap, exact, mean, paired_difference
from descent.theory.search_noise import Rule, recipe_factor, recipe_variance, virtual_steps


@dataclass(frozen=True)
class Critical:
    """Digits with redrawn labels; and a parabola, in the fields that begin with "virtual"."""

    replicas: Share = Share(over=30, least=32, most=64)  # networks per batch size
    sizes: tuple[int, ...] = (64, 32, 10)
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

    virtual (3, V): exact steps of plain, averaged and heavy-ball descent on the parabola.
    """

    config: Critical
    lab: Lab
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
    data = redrawn(load("digits"), config.redrawn)
    inputs, labels = lab.bring(centred(data.images)[: config.examples].flatten(1), data.labels[: config.examples])
    model, arms = MLP(config.sizes), lab.arms(sgd(config.rates), config.replicas)
    problems = [Supervised(model, CrossEntropy(), inputs, labels, size) for size in config.batch_sizes]
    steps = [_until_quiet(config, arms, problem) for problem in problems]
    variance = to_numpy(gradient_noise(problems[0], model.initial(lab.streams(config.replicas))))
    virtual = virtual_steps(
        rules(config.virtual_rate, lab.momentum), config.virtual_batches,
        variance=config.virtual_variance, start=3.0, precision=config.virtual_precision,
    )  # fmt: skip
    return CriticalResult(config, lab, np.stack(steps, axis=-1), variance, virtual)


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
    config, sizes, seed = result.config, result.config.batch_sizes, result.lab.seed
    first, finest = result.steps[:, 0].swapaxes(0, 1), result.steps[-1].swapaxes(0, 1)  # (N, H, B), (N, E, B)
    steps = result.steps[-1, 0]  # (N, B)
    reached = np.log(steps[:, np.isfinite(steps).all(axis=0)]).T  # at the batch sizes at which every run arrives
    cost = np.where(np.isfinite(steps), steps, 1e9) * np.array(sizes)  # never to arrive costs most

    def interior(drawn: Array) -> Array:
        """Return the cost at the cheaper end of the range over the least cost inside."""
        means = drawn.mean(axis=1)
        return np.asarray(np.minimum(means[:, 0], means[:, -1]) / means[:, 1:-1].min(axis=1))

    plain, averaged = (result.virtual_recipe(rule) for rule in ("sgd", "ema"))
    return {
        "P1-C10.fewer_steps": list(each(paired_difference, reached[:-1], reached[1:])),
        "P1-C10.interior": bootstrap(interior, cost, seed=seed),
        "P1-C11.exponent": critical_exponent(config.precisions, sizes, finest, seed),
        "P1-C12.exponent": critical_exponent(config.rates, sizes, first, seed),
        "P1-X8.artefact": exact(averaged / plain / (1 - result.lab.momentum)),
    }


def tables(result: CriticalResult) -> Tables:
    """Return mean gradients used, one row per rate, precision and batch size, and the variance read off."""
    config, sizes = result.config, np.array(result.config.batch_sizes)
    return {
        "critical": tidy(
            {"lr": config.rates, "precision": config.precisions, "batch_size": sizes},
            gradients=sizes * result.steps.mean(axis=2),
        ),
        "critical_recipe": tidy({"lr": config.rates}, recipe=result.recipe, direct=mean(result.variance)),
    }


LARGE = Critical(
    Share(over=10, least=64), rates=(0.0125, 0.025, 0.05, 0.1, 0.2), precisions=(0.45, 0.4, 0.36), limit=4000
)
CRITICAL = Experiment("critical", small=Critical(), large=LARGE, run=run, estimates=estimates, tables=tables)
