"""Accuracy against batch size at a fixed number of epochs, with the control that tells smoothing from step size.

A large batch means few steps. The plain, the averaged and the heavy-ball arm take the learning rate
effective·(1 − momentum); the control is plain descent at the effective one, which is what the heavy ball makes of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from descent.arrays import Array
from descent.data.draws import Draws
from descent.engine import Arms, Hyper, Probe, every, sgd, stack
from descent.experiments.lab import Estimates, Experiment, Lab, Share, Tables, each, tidy
from descent.experiments.smoothing.arms import ENDINGS, NAMES, Arm, Task, over_draws, rules, search_noise, task, whole
from descent.measure.noise import smoothing_degree
from descent.stats import Estimate, draw_difference, draw_mean, draw_statistic


@dataclass(frozen=True)
class Headline:
    """A two-layer net, shuffled epochs, constant learning rate.

    All arms and batch sizes of a net share their initial weights, and arms of a batch size their batches.
    """

    data: str = "digits"
    draws: int = 16  # of the training set
    replicas: Share = Share(over=30, most=32)
    batch_sizes: tuple[int, ...] = (8, 32, 125, 250, 500)
    epochs: int = 24
    effective: float = 0.3
    hidden: int = 32
    redrawn: float = 0.2  # of the labels
    looks: int = 5  # at the noise and the accuracy along a run

    def rule(self, momentum: float) -> Hyper:
        """Return the arms."""
        return stack(rules(self.effective * (1 - momentum), momentum), sgd(self.effective))


@dataclass(frozen=True, eq=False)
class HeadlineResult:
    """Per batch size and arm, (S, A, N): test accuracy at the end and its best along the run, in percent.

    loss: at the end, over the training labels as they are; degree: the measured degree of smoothing lr·√(mean |ω|²).
    Net i is of draw i mod D of the sets. One that diverged somewhere is not a number anywhere.
    """

    config: Headline
    lab: Lab
    title: str
    sets: Draws
    accuracy: Array
    best: Array
    loss: Array
    degree: Array


def run(config: Headline, lab: Lab) -> HeadlineResult:
    """Train all arms at every batch size."""
    images = task(lab, config.data, config.redrawn, config.hidden, config.draws)
    arms = lab.arms(config.rule(lab.momentum), lab.per_draw(config.replicas, config.draws))
    *found, lost = np.stack([_race(config, images, arms, size) for size in config.batch_sizes], axis=1)
    return HeadlineResult(config, lab, images.title, images.sets, *(whole(values, lost) for values in found))


def _race(config: Headline, images: Task, arms: Arms, size: int) -> Array:
    """Train the arms at one batch size; return accuracy, its best, loss, degree and who diverged, (5, A, N)."""
    problem, steps = images.batches(size, "shuffled_epochs"), config.epochs * (len(images.full.data) // size)
    look = max(1, steps // config.looks)
    probes: dict[str, Probe] = {"noise": search_noise(problem, arms, look), "accuracy": every(look, images.accuracy)}
    done = arms.run(problem, images.model.initial, steps, probes=probes)
    power, accuracy = done.whole.records["noise.power"], done["accuracy"]
    degree = arms.split(smoothing_degree(power, arms.hyper.lr, since=look))  # the start is unlike the rest
    return np.stack([accuracy[..., -1], accuracy.max(axis=-1), done.end(images.full.value), degree, done.lost])


def estimates(result: HeadlineResult) -> Estimates:
    """Return what digits, or glyphs, say about P1-C17, P1-C18 and P1-X4."""
    end = ENDINGS[result.config.data]
    return {
        f"P1-C17.fixed_epochs{end}": arch(result),
        f"P1-C18.sgd{end}": gain(result, Arm.PLAIN),
        f"P1-C18.nshb{end}": gain(result, Arm.AVERAGED),
        f"P1-X4.share{end}": missing_share(result),
    }


def mnist_estimates(result: HeadlineResult) -> Estimates:
    """Return what MNIST says about P1-C18 and P1-X4."""
    return {"P1-C18.mnist": gain(result, Arm.PLAIN), "P1-X4.mnist": missing_share(result)}


def arch(result: HeadlineResult) -> Estimate:
    """Return how far the parabola through plain descent's accuracy against log δ rises above its ends, in points."""
    logs = np.log(np.nanmean(result.degree[:, Arm.PLAIN], axis=1))  # of the degree of smoothing as measured
    squared = np.linalg.pinv(np.vander(logs - logs.mean(), 3))[0]  # (log δ)² of the parabola through the accuracy
    rise = -np.square(np.ptp(logs) / 2) * (result.accuracy[:, Arm.PLAIN].T @ squared)
    return over_draws(result.sets, draw_mean)(rise)


def gain(result: HeadlineResult, over: Arm) -> Estimate:
    """Return the accuracy of the heavy ball minus that of another arm, in percentage points, at the largest batch."""
    return over_draws(result.sets, draw_difference)(result.accuracy[-1, Arm.HEAVY], result.accuracy[-1, over])


def missing_share(result: HeadlineResult) -> Estimate:
    """Return the part of the heavy ball's gain over plain descent that the matched step lacks, at the largest batch."""

    def share(*arms: Array) -> Array:
        heavy, matched, plain = (np.nanmean(arm, axis=(1, 2)) for arm in arms)
        gained = heavy - plain
        return np.asarray((heavy - matched) / np.where(gained == 0, 1.0, gained))  # of nothing: nothing

    arms = (result.accuracy[-1, arm] for arm in (Arm.HEAVY, Arm.MATCHED, Arm.PLAIN))
    return draw_statistic(share, *map(result.sets.by_draw, arms))


def tables(result: HeadlineResult) -> Tables:
    """Return one row per batch size and arm."""
    config = result.config
    means = {name: np.nanmean(getattr(result, name), axis=-1) for name in ("best", "loss", "degree")}
    table = tidy(
        {"batch_size": config.batch_sizes, "arm": NAMES}, data=result.title, lr=config.rule(result.lab.momentum).lr,
        value=each(over_draws(result.sets, draw_mean), result.accuracy), **means,
    )  # fmt: skip
    name = "headline" if config.data == "digits" else f"headline_{config.data}"
    return {name: table.rename(columns={"value": "accuracy"})}


LARGE = Headline(
    draws=32, replicas=Share(over=4, least=64), batch_sizes=(8, 16, 32, 64, 125, 250, 500), looks=20
)  # fmt: skip
HEADLINE = Experiment("headline", small=Headline(), large=LARGE, run=run, estimates=estimates, tables=tables)
GLYPHS = Experiment(  # fresh sets cost nothing: every net has its own
    "headline_glyphs", small=Headline("glyphs", draws=32, batch_sizes=(16, 64, 250, 500)),
    large=replace(LARGE, data="glyphs", draws=250), run=run, estimates=estimates, tables=tables,
)  # fmt: skip
MNIST = Experiment(
    "mnist", small=Headline("mnist", batch_sizes=(32, 125, 500), epochs=18, looks=3),
    large=replace(LARGE, data="mnist", epochs=40), run=run, estimates=mnist_estimates, tables=tables,
)  # fmt: skip
