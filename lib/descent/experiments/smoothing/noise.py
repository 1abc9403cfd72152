"""Noise of the search direction of networks, measured directly: its level, what it is made of, the paper's bounds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from pandas import DataFrame
from torch import Tensor

from descent.arrays import Array
from descent.engine.probes import Params
from descent.engine.rules import Hyper, ema, heavy_ball, repeat, sgd, stack
from descent.engine.stack import leaves
from descent.engine.streams import Streams, replica_seeds
from descent.engine.train import Run, train
from descent.experiments.arms import configure, to_numpy
from descent.experiments.common import Estimates, Experiment, Settings
from descent.experiments.smoothing.tasks import Task, survivors, task
from descent.measure.noise import SearchNoise, batch_noise, example_squares, full_gradient
from descent.nets.dense import MLP
from descent.nets.supervised import Supervised
from descent.stats.estimate import Estimate
from descent.stats.intervals import bootstrap, ratio_of_means
from descent.theory.search_noise import Rule, bound, degree, flat_power

NAMES = ("plain", "averaged", "heavy ball")
RULES: tuple[Rule, ...] = ("sgd", "ema", "heavy_ball")
PLAIN, AVERAGED, HEAVY = range(3)
PARTS = ("fresh", "carried", "lag")


@dataclass(frozen=True)
class Noise:
    """A two-layer net on digits, batches drawn with replacement; the last "batch" is all examples.

    A fifth of the labels is redrawn, so that the gradient noise of no arm dies out within the run. Of a seed all arms,
    rates and batch sizes share the initial weights, and all arms and rates of a batch size the batches. Looks are
    taken every few steps between `burn` and `steps`; the first `dissected` seeds of the smallest rate are then taken
    apart, `window` steps later.
    """

    replicas: int
    seed: int
    device: str
    momentum: float
    rates: tuple[float, ...] = (0.01, 0.03)
    batch_sizes: tuple[int, ...] = (4, 16, 64)
    examples: int = 250
    hidden: int = 32
    redrawn: float = 0.2
    burn: int = 100
    steps: int = 300
    every: int = 5
    every_full: int = 20
    dissected: int = 16
    window: int = 50

    @classmethod
    def cpu(cls, settings: Settings) -> Noise:
        """Train a few dozen nets per arm."""
        return cls(max(32, settings.replicas // 25), settings.seed, settings.device, settings.momentum)

    @classmethod
    def paper(cls, settings: Settings) -> Noise:
        """Train some hundred nets per arm on a thousand digits, at more rates, for longer."""
        return cls(
            max(64, settings.replicas // 8),
            settings.seed,
            settings.device,
            settings.momentum,
            rates=(0.003, 0.01, 0.03),
            batch_sizes=(4, 16, 64, 256),
            examples=1000,
            steps=1000,
            every=10,
            dissected=64,
        )

    @property
    def sizes(self) -> tuple[int, ...]:
        """The batch sizes with all examples as the last."""
        return (*self.batch_sizes, self.examples)

    @property
    def hyper(self) -> Hyper:
        """The hyper-parameters of the stack at one batch size, rate-major, then by arm."""
        rules = [rule for lr in self.rates for rule in (sgd(lr), ema(lr, self.momentum), heavy_ball(lr, self.momentum))]
        return repeat(stack(*rules), self.replicas).to(self.device)


@dataclass(frozen=True, eq=False)
class NoiseResult:
    """Means over the looks, (L, S, A, N) over rates, batch sizes, arms and seeds.

    power: |ω|²; noise: C²/B on the path; variance: C²; memory: |E[ω | past]|²; along: ⟨ω, ∇f⟩; squared: |∇f|²;
    peak: the largest mean |∇f|² of all seeds at any look, (L, S, A); parts: |·|² of fresh, carried and lag and |ω|² at
    the smallest rate, (S, A, 4, M). A seed that diverged anywhere is dropped everywhere.
    """

    config: Noise
    power: Array
    noise: Array
    variance: Array
    memory: Array
    along: Array
    squared: Array
    peak: Array
    parts: Array
    seconds: float

    def bound(self, arm: int, rate: int, size: int) -> Array:
        """Return the paper's bound on the power from C²/B and |∇f|² as measured, per seed (N,)."""
        return _bound(RULES[arm], self.config.momentum, self.noise[rate, size, arm], self.peak[rate, size, arm])


def _bound(rule: Rule, momentum: float, noise: Array, squared: float) -> Array:
    return bound(rule, noise, momentum=momentum, gradient=np.sqrt(squared))


@dataclass(frozen=True, eq=False)
class _Look:
    """What the search direction is made of, and the noise of one example and of one batch."""

    noise: SearchNoise
    problem: Supervised

    @property
    def every(self) -> int:
        return self.noise.every

    def __call__(self, step: int, params: Params, velocity: Params) -> dict[str, Tensor]:
        found = self.noise(step, params, velocity)
        variance = (example_squares(self.problem, params).mean(dim=1) - found["gradient"]).clamp_min(0.0)
        return found | {"variance": variance, "noise": batch_noise(self.problem, variance)}


def run(config: Noise) -> NoiseResult:
    """Train all arms at every batch size."""
    clock = time.perf_counter()
    images = task("digits", config.redrawn, config.device, config.examples)
    found = [_cells(config, images, size) for size in config.sizes]
    alive = survivors(np.stack([each["lost"] for each in found]) > 0)
    series = {
        name: np.stack([each[name][..., alive] for each in found], axis=1)
        for name in found[0]
        if name not in ("lost", "parts", "squared")
    }
    squared = [each["squared"][..., alive] for each in found]  # (looks, L, A, N)
    parts = np.stack([each["parts"][..., alive[: each["parts"].shape[-1]]] for each in found])
    return NoiseResult(
        config,
        **series,
        squared=np.stack([each.mean(axis=0) for each in squared], axis=1),
        peak=np.stack([each.mean(axis=-1).max(axis=0) for each in squared], axis=1),
        parts=parts,
        seconds=time.perf_counter() - clock,
    )


def _cells(config: Noise, images: Task, size: int) -> dict[str, Array]:
    """Train all rates and arms at one batch size; return what the result holds, (L, A, N), |∇f|² (T, L, A, N)."""
    model, full = MLP((images.inputs.shape[1], config.hidden, 10)), size == config.examples
    problem = images.problem(model, None if full else size, "full" if full else "with_replacement")
    hyper, arms = config.hyper, (len(config.rates), len(NAMES), config.replicas)
    streams = Streams(replica_seeds(config.seed, config.replicas, config.device).repeat(arms[0] * arms[1]))
    probe = SearchNoise(
        problem, partial(full_gradient, problem), hyper, streams, config.every_full if full else config.every
    )
    early = train(problem, model.initial(streams), hyper, config.burn, streams)
    late = train(
        problem,
        early.params,
        hyper,
        config.steps,
        streams,
        velocity=early.velocity,
        begin=config.burn,
        probes={"look": _Look(probe, problem)},
    )
    looks = {
        name.removeprefix("look."): to_numpy(series.values).reshape(-1, *arms) for name, series in late.records.items()
    }
    means = {name: looks[name].mean(axis=0) for name in ("power", "noise", "variance", "memory", "along")}
    lost = to_numpy((early.diverged_at >= 0) | (late.diverged_at >= 0)).reshape(arms)
    return {**means, "squared": looks["gradient"], "lost": lost, "parts": _dissect(config, problem, streams, late)}


def _dissect(config: Noise, problem: Supervised, streams: Streams, end: Run) -> Array:
    """Return |·|² of the parts of ω and of ω at the smallest rate, (A, 4, M)."""
    count = min(config.dissected, config.replicas)
    smallest = int(np.argmin(config.rates)) * len(NAMES)
    rows = torch.cat([torch.arange(count) + (smallest + arm) * config.replicas for arm in range(len(NAMES))])
    rows = rows.to(config.device)
    some, ahead = config.hyper.subset(rows), Streams(streams.seeds[rows])
    probe = SearchNoise(problem, partial(full_gradient, problem), some, ahead, 1, window=config.window)
    params, velocity = (
        {name: leaf[rows] for name, leaf in leaves(part).items()} for part in (end.params, end.velocity)
    )
    powers = probe(config.steps, params, velocity)
    return np.stack([to_numpy(powers[name]).reshape(len(NAMES), count) for name in (*PARTS, "power")], axis=1)


def estimates(result: NoiseResult) -> Estimates:
    """Return what digits say about P1-C1 to C7, C13 to C15, C23, X1 and X2."""
    found: Estimates = {"P1-C1.power": _furthest([level(result, *cell, PLAIN) for cell in _cells_of(result)])}
    if result.config.momentum == 0:
        return found
    heavy, averaged = ([gain(result, *cell, arm) for cell in _cells_of(result)] for arm in (HEAVY, AVERAGED))
    return {
        **found,
        **_bounds(result),
        **_floors(result),
        **_conditional(result),
        **_direct(result),
        "P1-C4.larger": _smallest(heavy),
        "P1-C15.shb": _smallest(heavy),
        "P1-C6.equal": _largest(averaged),
        "P1-C15.nshb": _largest(averaged),
        "P1-X2.network": _flat(result),
    }


def level(result: NoiseResult, rate: int, size: int, arm: int) -> Estimate:
    """Return the power over C²/B on the arm's own path."""
    return ratio_of_means(result.power[rate, size, arm], result.noise[rate, size, arm], result.config.seed)


def gain(result: NoiseResult, rate: int, size: int, arm: int) -> Estimate:
    """Return the power of an arm over that of plain descent."""
    return ratio_of_means(result.power[rate, size, arm], result.power[rate, size, PLAIN], result.config.seed)


def slack(result: NoiseResult, rate: int, size: int, arm: int) -> Estimate:
    """Return the paper's bound over the measured power."""
    return ratio_of_means(result.bound(arm, rate, size), result.power[rate, size, arm], result.config.seed)


def _cells_of(result: NoiseResult, full: bool = False) -> list[tuple[int, int]]:
    """Return the pairs of rate and batch size, with or without all examples as a batch."""
    sizes = len(result.config.sizes) if full else len(result.config.batch_sizes)
    return list(np.ndindex(len(result.config.rates), sizes))


def _bounds(result: NoiseResult) -> Estimates:
    """Return how far the bounds lie above the measured power, and how far apart two bounds of one path are."""
    heavy, averaged = ([slack(result, *cell, arm) for cell in _cells_of(result)] for arm in (HEAVY, AVERAGED))
    full = [slack(result, rate, -1, HEAVY) for rate in range(len(result.config.rates))]
    return {
        "P1-C2.bound": _smallest([*heavy, *full]),
        "P1-X1.shb": _smallest(heavy),
        "P1-C3.ordinary": _smallest(averaged),
        "P1-X1.nshb": _smallest(averaged),
        "P1-C23.covariant": _furthest([_conventions(result, *cell) for cell in _cells_of(result)]),
    }


def _conventions(result: NoiseResult, rate: int, size: int) -> Estimate:
    """Return the formula's degree of the averaged arm's path, written as a heavy ball, over that as an average.

    The heavy ball at lr·(1 − momentum) takes the very same path.
    """
    config, peak = result.config, float(result.peak[rate, size, AVERAGED])
    lr, beta = config.rates[rate], config.momentum

    def ratio(noise: Array) -> Array:
        s2 = noise.mean(axis=1)
        ball = degree(lr * (1 - beta), _bound("heavy_ball", beta, s2, peak))
        return np.asarray(ball / degree(lr, _bound("ema", beta, s2, peak)))

    return bootstrap(ratio, result.noise[rate, size, AVERAGED], seed=config.seed)


def _floors(result: NoiseResult) -> Estimates:
    """Return what is left at full batch."""
    seed = result.config.seed
    power, squared = (values[:, -1].swapaxes(0, 1) for values in (result.power, result.squared))  # (A, L, N)
    over = [
        [ratio_of_means(p, g, seed) for p, g in zip(power[arm], squared[arm], strict=True)] for arm in (AVERAGED, HEAVY)
    ]
    cosines = [
        bootstrap(
            lambda a, p, g: a.mean(1) / np.sqrt(p.mean(1) * g.mean(1)),
            result.along[rate, -1, HEAVY],
            power[HEAVY, rate],
            squared[HEAVY, rate],
            seed=seed,
        )
        for rate in range(len(squared[HEAVY]))
    ]
    return {
        "P1-C5.nshb_vanishes": _largest(over[0]),
        "P1-C5.shb_floor": _smallest(over[1]),
        "P1-X1.scale": _smallest(cosines),
    }


def _conditional(result: NoiseResult) -> Estimates:
    """Return the mean of the heavy ball's ω given the past, over the root of its power."""
    shares = [
        bootstrap(
            lambda m, p: np.sqrt(m.mean(1) / p.mean(1)),
            result.memory[(*cell, HEAVY)],
            result.power[(*cell, HEAVY)],
            seed=result.config.seed,
        )
        for cell in _cells_of(result)
    ]
    return {"P1-C7.momentum": _smallest(shares)}


def _direct(result: NoiseResult) -> Estimates:
    """Return the variance of one example's gradient along the averaged path, over that along the plain one."""
    found = [
        ratio_of_means(result.variance[(*cell, AVERAGED)], result.variance[(*cell, PLAIN)], result.config.seed)
        for cell in _cells_of(result, full=True)
    ]
    return {"P1-C13.direct": _smallest(found), "P1-C14.direct": _furthest(found)}


def _flat(result: NoiseResult) -> Estimate:
    """Return the power of an average over that of plain descent, over its flat limit, at the smallest rate."""
    rate, seed = int(np.argmin(result.config.rates)), result.config.seed
    flat = float(flat_power(ema(1.0, result.config.momentum))[0])
    return _furthest(
        [
            ratio_of_means(result.power[rate, size, AVERAGED], flat * result.power[rate, size, PLAIN], seed)
            for size in range(len(result.config.batch_sizes))
        ]
    )


def _furthest(found: Sequence[Estimate]) -> Estimate:
    return max(found, key=lambda estimate: abs(estimate.value - 1))


def _smallest(found: Sequence[Estimate]) -> Estimate:
    return min(found, key=lambda estimate: estimate.value)


def _largest(found: Sequence[Estimate]) -> Estimate:
    return max(found, key=lambda estimate: estimate.value)


def tables(result: NoiseResult) -> dict[str, DataFrame]:
    """Return one row per rate, batch size and arm; and the parts of ω at the smallest rate."""
    cells = [(*cell, arm) for cell in _cells_of(result, full=True) for arm in range(len(NAMES))]
    parts = [
        {"batch_size": size, "arm": name, **dict(zip((*PARTS, "power"), powers.mean(axis=1), strict=True))}
        for size, arms in zip(result.config.sizes, result.parts, strict=True)
        for name, powers in zip(NAMES, arms, strict=True)
    ]
    return {"noise": DataFrame([_row(result, *cell) for cell in cells]), "noise_parts": DataFrame(parts)}


def _row(result: NoiseResult, rate: int, size: int, arm: int) -> dict[str, float | str]:
    config, cell = result.config, (rate, size, arm)
    power, noise, memory, squared = (
        float(values[cell].mean()) for values in (result.power, result.noise, result.memory, result.squared)
    )
    return {
        "lr": config.rates[rate],
        "batch_size": config.sizes[size],
        "arm": NAMES[arm],
        "power": power,
        "noise": noise,
        "level": power / noise if noise else np.nan,
        "bound": float(result.bound(arm, rate, size).mean()),
        "variance": float(result.variance[cell].mean()),
        "gradient": squared,
        "peak": float(result.peak[cell]),
        "foreseen": memory / power if power else np.nan,
        "cosine": float(result.along[cell].mean()) / np.sqrt(power * squared) if power else np.nan,
    }


NOISE = Experiment(
    "noise",
    (
        "P1-C1",
        "P1-C2",
        "P1-C3",
        "P1-C4",
        "P1-C5",
        "P1-C6",
        "P1-C7",
        "P1-C13",
        "P1-C14",
        "P1-C15",
        "P1-C23",
        "P1-X1",
        "P1-X2",
    ),
    lambda settings: run(configure(Noise, settings)),
    estimates,
    tables,
)
