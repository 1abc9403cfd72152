"""A two-layer net leaves its initial saddle: growth of its leading mode, and steps until it has learned something.

The unstable curvatures are known from the data alone, so the exact law predicts the growth of every arm without a free
parameter. At equal effective step, is momentum still sooner?
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import sem

from descent.arrays import Array, IntArray
from descent.data import images
from descent.engine import every, heavy_ball
from descent.experiments.lab import Estimates, Experiment, Lab, Share, Tables, each, tidy
from descent.experiments.saddles.arms import Arm, rule
from descent.nets import MLP, CrossEntropy, Supervised
from descent.problems.networks import InitialSaddle
from descent.stats import mean, ratio_of_means

ARMS = (Arm.PLAIN, Arm.HALF, Arm.HEAD, Arm.MATCHED, Arm.SLOWED)


@dataclass(frozen=True)
class Departure:
    """A net near its saddle, whose growth is fitted in steps between `begin` and `end` e-folds of its leading mode."""

    data: str = "digits"
    examples: int | None = None
    hidden: int = 32
    scale: float = 1e-4  # deviation of the initial weights
    batch_size: int = 128
    lr: float = 0.02
    efolds: float = 11.0  # of the leading mode, for which it is followed
    begin: float = 2.0
    end: float = 5.0
    looks: float = 4.0  # at the loss, per e-fold
    level: float = 1.6  # of the training loss, for the arrival
    replicas: Share = Share(most=32)


LARGE = Departure(
    "mnist", 20_000, 256, 1e-5, batch_size=256, lr=0.002, efolds=14.0, end=6.0, looks=8.0, replicas=Share(most=64)
)
"""MNIST at full resolution; a smaller rate for its larger inputs."""


@dataclass(frozen=True, eq=False)
class Track:
    """One arm on its way out: mode amplitudes (N, T, K) at every step, training losses (N, L) at steps (L,).

    growth (N, K): fitted, per step; predicted (K,): log z₊.
    """

    lr: float
    momentum: float
    amplitudes: Array
    losses: Array
    steps: IntArray
    growth: Array
    predicted: Array


@dataclass(frozen=True, eq=False)
class DepartureResult:
    """Tracks of ARMS, with fitted growth per step (A, N), its prediction (A,) and arrival steps (A, N).

    diffusion (A,) is the growth the small-step limit gives, lr·b/(1 − momentum).
    """

    config: Departure
    lab: Lab
    tracks: tuple[Track, ...]
    growth: Array
    predicted: Array
    diffusion: Array
    arrival: Array


def run(config: Departure, lab: Lab) -> DepartureResult:
    """Start every arm at the same small weights, on the same batches."""
    saddle, tracks = follow(config, lab, ARMS)
    return DepartureResult(
        config, lab, tracks,
        growth=np.stack([track.growth[:, 0] for track in tracks]),
        predicted=np.array([track.predicted[0] for track in tracks]),
        diffusion=np.array([track.lr * saddle.instability[0] / (1 - track.momentum) for track in tracks]),
        arrival=np.stack([crossing(track.steps, track.losses, config.level) for track in tracks]),
    )  # fmt: skip


def follow(
    config: Departure, lab: Lab, names: Sequence[Arm], modes: int = 1
) -> tuple[InitialSaddle, tuple[Track, ...]]:
    """Run each arm for as many steps as its predicted growth needs, so one after the other."""
    inputs, labels = lab.bring(*images.examples(config.data, config.examples))
    saddle = InitialSaddle.of(inputs, labels, 10)
    net = MLP((inputs.shape[1], config.hidden, 10), "tanh")
    problem = Supervised(net, CrossEntropy(), inputs, labels, config.batch_size)

    def track(lr: float, momentum: float) -> Track:
        predicted = saddle.growth(lr, momentum, modes)
        steps, pause = math.ceil(config.efolds / predicted[0]), max(1, round(1 / (config.looks * predicted[0])))
        amplitudes = every(1, lambda params: saddle.amplitudes(params, modes))
        done = lab.arms(heavy_ball(lr, momentum), config.replicas).run(
            problem, lambda streams: saddle.start(config.hidden, config.scale, streams), steps,
            probes={"amplitudes": amplitudes, "loss": every(pause, problem.value)},
        )  # fmt: skip
        found, losses = done["amplitudes"][0], done["loss"][0]
        return Track(lr, momentum, found, losses, done.at("loss"), rates(found, config.begin, config.end), predicted)

    arms = rule(names, config.lr, lab.momentum)
    return saddle, tuple(map(track, arms.lr.tolist(), arms.momentum.tolist()))


def rates(amplitudes: Array, begin: float, end: float) -> Array:
    """Fit the growth per step (N, K) of amplitudes (N, T, K) while the leading mode goes from begin to end e-folds.

    Raises: ValueError when a replica never gets that far.
    """
    logs = np.log(amplitudes / amplitudes[:, :1])
    short = int((logs[:, :, 0].max(1) < end).sum())
    if short:
        raise ValueError(f"{short} of {len(logs)} replicas grew less than {end} e-folds; give them more steps")
    first, last = ((logs[:, :, 0] >= level).argmax(1) for level in (begin, end))
    spans = [np.arange(a, b + 1) - (a + b) / 2 for a, b in zip(first, last, strict=True)]  # steps about the middle
    return np.stack([x @ log[a : a + len(x)] / (x @ x) for log, a, x in zip(logs, first, spans, strict=True)])


def crossing(steps: Array | IntArray, values: Array, level: float) -> Array:
    """Return when each row of values (N, T), seen at steps (T,), first falls below a level, interpolated.

    Raises: ValueError when a row never does.
    """
    below = values < level
    if not below.any(1).all():
        raise ValueError(f"{int((~below.any(1)).sum())} of {len(values)} replicas never get below {level}")
    after = np.maximum(below.argmax(1), 1)
    row = np.arange(len(values))
    high, low = values[row, after - 1], values[row, after]
    return np.asarray(steps[after - 1] + (high - level) / (high - low) * (steps[after] - steps[after - 1]))


def estimates(result: DepartureResult) -> Estimates:
    """Return what the net at its initial saddle says about P3-C11, P3-C16 and P3-X1."""
    plain, head, matched = (ARMS.index(arm) for arm in (Arm.PLAIN, Arm.HEAD, Arm.MATCHED))
    arrival, seed = result.arrival, result.lab.seed
    return {
        "P3-C11.network": mean(result.growth[head] / result.predicted[head]),
        "P3-C16.faster": ratio_of_means(arrival[plain], arrival[head], seed),
        "P3-X1.network": ratio_of_means(arrival[head], arrival[matched], seed),
    }


def tables(result: DepartureResult) -> Tables:
    """Return one row per arm."""
    frame = tidy(
        {"lr": [track.lr for track in result.tracks]}, momentum=[track.momentum for track in result.tracks],
        growth=result.growth.mean(1), predicted=result.predicted, diffusion=result.diffusion,
        value=each(mean, result.growth / result.predicted[:, None]),
        arrival=result.arrival.mean(1), arrival_error=sem(result.arrival, axis=1),
    )  # fmt: skip
    return {"initial_saddle": frame.rename(columns={"value": "ratio"})}


INITIAL = Experiment("initial", small=Departure(), large=LARGE, run=run, estimates=estimates, tables=tables)
