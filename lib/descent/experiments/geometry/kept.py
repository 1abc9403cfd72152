"""Where SGD stays: the minima that trained networks end at, against the bound on ‖G‖_F and the exact edge.

Tanh nets begin sharp, on odd and even digits. If noise is what stops them, they end at the edge of SGD, whatever the
edge of full-batch descent.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from descent.arrays import Array
from descent.data.draws import Draws
from descent.data.images import centred, load, signs
from descent.engine import Factors, Schedule, sgd
from descent.engine.arms import to_numpy
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Share, Tables, tidy
from descent.measure.gram import gram
from descent.measure.stability import threshold
from descent.nets import MLP, SquaredError, Supervised
from descent.stats import Estimate, draw_mean


@dataclass(frozen=True)
class Kept:
    """Tanh nets from sharp initial weights on odd and even digits; the rate rises over `warm` steps."""

    replicas: Share = Share(over=31, least=32, most=64)
    sizes: tuple[int, ...] = (64, 32, 1)
    images: int = 64
    draws: int = 16  # of so many images, disjoint while there are enough digits
    arms: tuple[tuple[float, int], ...] = ((0.05, 1), (0.1, 4), (0.2, 4), (0.2, 16), (0.4, 16))  # lr, batch size
    spread: float = 1.5  # initial weights, as a multiple of the usual ones
    warm: int = 500
    steps: int = 4000
    fitted: float = 1e-4  # the loss above which a net has found no minimum and says nothing


@dataclass(frozen=True, eq=False)
class KeptResult(Result[Kept]):
    """Per arm and net (A, N): lr·‖G‖_F·√p, lr over its exact edge, lr·λ₁/2; not a number where no minimum was found.

    sets: the images of every draw, net i is of draw i mod D.
    """

    sets: Draws
    frobenius: Array
    edge: Array
    descent: Array


def run(config: Kept, lab: Lab) -> KeptResult:
    """Train every arm and measure where it ends."""
    data = load("digits")
    sets = lab.draws(len(data), config.images, config.draws)
    inputs, targets = lab.bring(centred(data.images), signs(data.labels % 2).unsqueeze(1))
    whole = Supervised(MLP(config.sizes, "tanh"), SquaredError(), inputs, targets, sampling="full", rows=sets.rows)
    found = np.array([_arm(config, lab, whole, *arm) for arm in config.arms])
    return KeptResult(config, lab, sets, *found.swapaxes(0, 1))


def _arm(config: Kept, lab: Lab, whole: Supervised, lr: float, batch_size: int) -> list[Array]:
    """Return what is measured where the nets of an arm end, three times (N,)."""
    problem = replace(whole, batch_size=batch_size, sampling="with_replacement")
    arms = lab.arms(sgd(lr), lab.per_draw(config.replicas, config.draws))
    start = {name: config.spread * leaf for name, leaf in problem.model.initial(arms.streams).items()}
    done = arms.run(problem, start, config.steps, schedule=warmed(config.warm), limit=1e3)
    params = done.params
    fitted = (problem.value(params) < config.fitted) & (done.whole.diverged_at < 0)
    kernel = gram(problem.model, params, problem.inputs, rows=problem.rows).double()
    kernel = torch.where(fitted[:, None, None], kernel, torch.eye(config.images).to(kernel))
    size, largest = kernel.square().mean((-2, -1)).sqrt(), torch.linalg.eigvalsh(kernel)[:, -1] / config.images
    values = lr * size / batch_size**0.5, lr / threshold(kernel, batch_size), lr * largest / 2
    return [to_numpy(value.masked_fill(~fitted, torch.nan)) for value in values]


def warmed(steps: int) -> Schedule:
    """Return the schedule that rises in ten equal stages: the engine prepares a rate once and keeps it."""
    stages = [Factors(lr=(stage + 1) / 10) for stage in range(10)]
    return lambda step: stages[min(9, 10 * step // steps)]


def estimates(result: KeptResult) -> Estimates:
    """Return what the minima say about P5-W1 and P5-X6."""
    descent = result.descent[result.config.arms.index((0.2, 4))]
    means = {"P5-X6.edge": result.edge[-1], "P5-X6.descent": descent, "P5-X6.descent_first": result.descent[-1]}
    found = {key: draw_mean(result.sets.by_draw(values)) for key, values in means.items() if _told(result, values)}
    bound = [largest_of(result.sets, values) for values in result.frobenius if _told(result, values)]
    return {**found, "P5-W1.networks": bound} if bound else found


def _told(result: KeptResult, values: Array) -> bool:
    """Tell whether minima were found on two draws of the data at least: fewer say nothing of others."""
    return bool(np.isfinite(result.sets.by_draw(values)).any(axis=1).sum() > 1)


def largest_of(sets: Draws, values: Array) -> Estimate:
    """Return the largest of values (N,) over the nets of one draw of the data, a mean over draws; nan is no value."""
    each = sets.by_draw(values)
    return draw_mean(np.where(np.isnan(each).all(1), np.nan, np.nanmax(each, axis=1, initial=-np.inf))[:, None])


def tables(result: KeptResult) -> Tables:
    """Return largest and mean values, one row per arm; none of an arm that has found no minimum."""
    found = np.isfinite(result.frobenius).any(axis=1)
    lr, batch_size = np.array(result.config.arms)[found].T
    frobenius, edge, descent = (v[found] for v in (result.frobenius, result.edge, result.descent))
    kept = tidy(
        {"lr": lr}, batch_size=batch_size.astype(int), minima=np.isfinite(frobenius).sum(axis=1),
        of=frobenius.shape[1], frobenius=np.nanmean(frobenius, axis=1), largest=np.nanmax(frobenius, axis=1),
        edge=np.nanmean(edge, axis=1), largest_edge=np.nanmax(edge, axis=1), descent=np.nanmean(descent, axis=1),
    )  # fmt: skip
    return {"kept": kept}


KEPT = Experiment(
    "kept", small=Kept(), run=run, estimates=estimates, tables=tables,
    # of 1797 digits ten draws of 170 are disjoint
    large=Kept(Share(over=10, least=60), sizes=(64, 64, 1), images=170, draws=10, steps=40_000),
)  # fmt: skip
