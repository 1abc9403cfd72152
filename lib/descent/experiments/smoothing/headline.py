"""Accuracy against batch size at a fixed number of epochs, with the control that tells smoothing from step size.

A large batch means few steps. The plain, the averaged and the heavy-ball arm take the learning rate
effective·(1 − momentum); the control is plain descent at the effective one, which is what the heavy ball makes of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from descent.arrays import Array
from descent.engine import Arms, Hyper, Probe, every, sgd, stack
from descent.engine.arms import survivors
from descent.experiments.lab import Estimates, Experiment, Lab, Share, Tables, each, tidy
from descent.experiments.smoothing.arms import NAMES, Arm, Task, rules, search_noise, task
from descent.measure.noise import smoothing_degree
from descent.stats import Estimate, bootstrap, mean, paired_difference


@dataclass(frozen=True)
class Headline:
    """A two-layer net, shuffled epochs, constant learning rate.

    All arms and batch sizes of a seed share their initial weights, and arms of a batch size their batches.
    """

    data: str = "digits"
    replicas: Share = Share(over=30, least=32)
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
    A seed that diverged anywhere is dropped everywhere.
    """

    config: Headline
    lab: Lab
    title: str
    accuracy: Array
    best: Array
    loss: Array
    degree: Array


def run(config: Headline, lab: Lab) -> HeadlineResult:
    """Train all arms at every batch size."""
    images = task(lab, config.data, config.redrawn, config.hidden)
    arms = lab.arms(config.rule(lab.momentum), config.replicas)
    *found, lost = np.stack([_race(config, images, arms, size) for size in config.batch_sizes], axis=1)
    alive = survivors(lost)
    return HeadlineResult(config, lab, images.title, *(values[..., alive] for values in found))


def _race(config: Headline, images: Task, arms: Arms, size: int) -> Array:
    """Train the arms at one batch size; return accuracy, its best, loss, degree and who diverged, (5, A, N)."""
    problem, steps = images.batches(size, "shuffled_epochs"), config.epochs * (len(images.full.inputs) // size)
    look = max(1, steps // config.looks)
    probes: dict[str, Probe] = {"noise": search_noise(problem, arms, look), "accuracy": every(look, images.accuracy)}
    done = arms.run(problem, images.model.initial, steps, probes=probes)
    power, accuracy = done.whole.records["noise.power"], done["accuracy"]
    degree = arms.split(smoothing_degree(power, arms.hyper.lr, since=look))  # the start is unlike the rest
    return np.stack([accuracy[..., -1], accuracy.max(axis=-1), done.end(images.full.value), degree, done.lost])


def estimates(result: HeadlineResult) -> Estimates:
    """Return what digits say about P1-C17, P1-C18 and P1-X4."""
    logs = np.log(result.degree[:, Arm.PLAIN].mean(axis=1))  # of the degree of smoothing as measured
    squared = np.linalg.pinv(np.vander(logs - logs.mean(), 3))[0]  # (log δ)² of the parabola through the accuracy
    return {
        "P1-C17.fixed_epochs": mean(result.accuracy[:, Arm.PLAIN].T @ squared),
        "P1-C18.sgd": gain(result, Arm.PLAIN),
        "P1-C18.nshb": gain(result, Arm.AVERAGED),
        "P1-X4.share": missing_share(result),
    }


def mnist_estimates(result: HeadlineResult) -> Estimates:
    """Return what MNIST says about P1-C18 and P1-X4."""
    return {"P1-C18.mnist": gain(result, Arm.PLAIN), "P1-X4.mnist": missing_share(result)}


def gain(result: HeadlineResult, over: Arm) -> Estimate:
    """Return the accuracy of the heavy ball minus that of another arm, in percentage points, at the largest batch."""
    return paired_difference(result.accuracy[-1, Arm.HEAVY], result.accuracy[-1, over])


def missing_share(result: HeadlineResult) -> Estimate:
    """Return the part of the heavy ball's gain over plain descent that the matched step lacks, at the largest batch."""

    def share(heavy: Array, matched: Array, plain: Array) -> Array:
        gained = heavy.mean(1) - plain.mean(1)
        return np.asarray((heavy.mean(1) - matched.mean(1)) / np.where(gained == 0, 1.0, gained))  # of nothing: nothing

    arms = (result.accuracy[-1, arm] for arm in (Arm.HEAVY, Arm.MATCHED, Arm.PLAIN))
    return bootstrap(share, *arms, seed=result.lab.seed)


def tables(result: HeadlineResult) -> Tables:
    """Return one row per batch size and arm."""
    config, means = result.config, {name: getattr(result, name).mean(axis=-1) for name in ("best", "loss", "degree")}
    table = tidy(
        {"batch_size": config.batch_sizes, "arm": NAMES},
        data=result.title, lr=config.rule(result.lab.momentum).lr, value=each(mean, result.accuracy), **means,
    )  # fmt: skip
    name = "headline" if config.data == "digits" else f"headline_{config.data}"
    return {name: table.rename(columns={"value": "accuracy"})}


LARGE = Headline(replicas=Share(over=4, least=64), batch_sizes=(8, 16, 32, 64, 125, 250, 500), looks=20)
HEADLINE = Experiment("headline", small=Headline(), large=LARGE, run=run, estimates=estimates, tables=tables)
MNIST = Experiment(
    "mnist", small=Headline("mnist", batch_sizes=(32, 125, 500), epochs=18, looks=3),
    large=replace(LARGE, data="mnist", epochs=40), run=run, estimates=mnist_estimates, tables=tables,
)  # fmt: skip
