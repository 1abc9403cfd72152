"""A two-layer net leaves its initial saddle: growth of its leading mode, and steps until it has learned something."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from pandas import DataFrame
from scipy.stats import sem

from descent.data import images
from descent.engine.train import every, train
from descent.experiments.arms import Arms, Array, configure, to_numpy
from descent.experiments.common import Estimates, Experiment, Settings
from descent.nets.dense import MLP, CrossEntropy
from descent.nets.supervised import Supervised
from descent.problems.networks import InitialSaddle
from descent.stats.estimate import Estimate
from descent.stats.intervals import mean, ratio_of_means

PLAIN, HALF, HEAD, MATCHED, SLOWED = range(5)


@dataclass(frozen=True)
class Departure:
    """A net near its saddle: weights of deviation `scale`, followed for `efolds` e-folds of its leading mode.

    Growth is fitted in steps between `begin` and `end` e-folds of the leading mode; `looks` losses per e-fold.
    """

    data: str
    examples: int | None
    hidden: int
    scale: float
    batch_size: int
    lr: float
    momentum: float
    efolds: float
    begin: float
    end: float
    looks: float
    level: float  # of the training loss, for the arrival
    replicas: int
    seed: int
    device: str

    @classmethod
    def cpu(cls, settings: Settings) -> Departure:
        """Return the digits and 32 hidden units."""
        return cls(
            "digits",
            None,
            32,
            1e-4,
            128,
            0.02,
            settings.momentum,
            11.0,
            2.0,
            5.0,
            4.0,
            1.6,
            min(settings.replicas, 32),
            settings.seed,
            settings.device,
        )

    @classmethod
    def paper(cls, settings: Settings) -> Departure:
        """Return MNIST at full resolution, 256 hidden units; a smaller rate for its larger inputs."""
        return cls(
            "mnist",
            20_000,
            256,
            1e-5,
            256,
            0.002,
            settings.momentum,
            14.0,
            2.0,
            6.0,
            8.0,
            1.6,
            min(settings.replicas, 64),
            settings.seed,
            settings.device,
        )

    @property
    def arms(self) -> tuple[tuple[float, float], ...]:
        """(lr, momentum): plain, one half, the headline; plain matched to it; headline matched to plain."""
        lr, momentum = self.lr, self.momentum
        matched = ((lr / (1 - momentum), 0.0), (lr * (1 - momentum), momentum))
        return ((lr, 0.0), (lr, 0.5), (lr, momentum), *matched)


@dataclass(frozen=True, eq=False)
class Track:
    """One arm on its way out: mode amplitudes (N, T, K) at every step, training losses (N, L) at steps (L,)."""

    lr: float
    momentum: float
    amplitudes: Array
    losses: Array
    loss_steps: Array
    seconds: float


@dataclass(frozen=True, eq=False)
class DepartureResult:
    """Tracks, one per arm, with fitted growth per step (A, N), its prediction (A,) and arrival steps (A, N).

    diffusion (A,) is the growth the small-step limit gives, lr·b/(1 − momentum).
    """

    config: Departure
    tracks: tuple[Track, ...]
    growth: Array
    predicted: Array
    diffusion: Array
    arrival: Array
    seconds: float


def run(config: Departure) -> DepartureResult:
    """Start every arm at the same small weights, on the same batches."""
    inputs, labels = images.examples(config.data, config.examples, config.device)
    saddle = InitialSaddle.of(inputs, labels, 10)
    net = MLP((inputs.shape[1], config.hidden, 10), "tanh")
    problem = Supervised(net, CrossEntropy(), inputs, labels, config.batch_size)
    tracks = tuple(follow(problem, saddle, config, lr, momentum) for lr, momentum in config.arms)
    lr, momentum = np.array(config.arms).T
    return DepartureResult(
        config=config,
        tracks=tracks,
        growth=np.stack([rates(track.amplitudes, config.begin, config.end)[:, 0] for track in tracks]),
        predicted=saddle.growth(lr, momentum)[:, 0],
        diffusion=lr * saddle.instability[0] / (1 - momentum),
        arrival=np.stack([crossing(track.loss_steps, track.losses, config.level) for track in tracks]),
        seconds=sum(track.seconds for track in tracks),
    )


def follow(
    problem: Supervised, saddle: InitialSaddle, config: Departure, lr: float, momentum: float, modes: int = 1
) -> Track:
    """Run one arm for as many steps as its predicted growth needs."""
    arm = Arms((lr,), (momentum,), config.replicas, config.seed, config.device)
    rate = float(saddle.growth(lr, momentum)[0])
    steps, pause = math.ceil(config.efolds / rate), max(1, round(1 / (config.looks * rate)))
    amplitudes = every(1, lambda net: saddle.amplitudes(net, modes))
    probes = {"amplitudes": amplitudes, "loss": every(pause, problem.value)}
    streams = arm.streams()
    start = saddle.start(config.hidden, config.scale, streams)
    done = train(problem, start, arm.hyper, steps, streams, probes=probes)
    loss = done.records["loss"]
    return Track(
        lr,
        momentum,
        arm.split_series(done.records["amplitudes"])[0],
        arm.split_series(loss)[0],
        to_numpy(loss.steps),
        done.seconds,
    )


def rates(amplitudes: Array, begin: float, end: float) -> Array:
    """Fit the growth per step (N, K) of amplitudes (N, T, K) while the leading mode goes from begin to end e-folds.

    Raises: ValueError when a replica never gets that far.
    """
    logs = np.log(amplitudes / amplitudes[:, :1])
    short = int((logs[:, :, 0].max(1) < end).sum())
    if short:
        raise ValueError(f"{short} of {len(logs)} replicas grew less than {end} e-folds; give them more steps")
    first, last = ((logs[:, :, 0] >= level).argmax(1) for level in (begin, end))
    return np.stack([_slopes(log[a : b + 1]) for log, a, b in zip(logs, first, last, strict=True)])


def _slopes(logs: Array) -> Array:
    """Return the least-squares slope per step of each column of logs (T, K)."""
    steps = np.arange(len(logs)) - (len(logs) - 1) / 2
    return np.asarray(steps @ logs / (steps @ steps))


def crossing(steps: Array, values: Array, level: float) -> Array:
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
    arrival, seed = result.arrival, result.config.seed
    found: dict[str, Estimate | list[Estimate]] = {"P3-C11.network": growth_ratios(result)[HEAD]}
    if result.config.momentum > 0:
        found["P3-C16.faster"] = ratio_of_means(arrival[PLAIN], arrival[HEAD], seed)
        found["P3-X1.network"] = ratio_of_means(arrival[HEAD], arrival[MATCHED], seed)
    return found


def growth_ratios(result: DepartureResult) -> list[Estimate]:
    """Return each arm's fitted growth over its prediction."""
    return [mean(ratio) for ratio in result.growth / result.predicted[:, None]]


def tables(result: DepartureResult) -> dict[str, DataFrame]:
    """Return one row per arm."""
    ratios = growth_ratios(result)
    lr, momentum = np.array(result.config.arms).T
    frame = DataFrame(
        {
            "lr": lr,
            "momentum": momentum,
            "growth": result.growth.mean(1),
            "predicted": result.predicted,
            "diffusion": result.diffusion,
            "ratio": [e.value for e in ratios],
            "low": [e.low for e in ratios],
            "high": [e.high for e in ratios],
            "arrival": result.arrival.mean(1),
            "arrival_error": sem(result.arrival, axis=1),
        }
    )
    return {"initial_saddle": frame}


INITIAL = Experiment(
    "initial", ("P3-C11", "P3-C16", "P3-X1"), lambda settings: run(configure(Departure, settings)), estimates, tables
)
