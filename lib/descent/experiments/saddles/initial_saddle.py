"""A two-layer net leaves its initial saddle: growth of its leading mode, and steps until it has learned something.

The unstable curvatures are known from the data alone, so the exact law predicts the growth of every arm without a free
parameter, for every draw of the data. At equal effective step, is momentum still sooner?
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from descent.arrays import Array, IntArray
from descent.data import images
from descent.data.draws import Draws, fresh
from descent.engine import Params, Streams, every, heavy_ball
from descent.engine.probes import Leaves
from descent.engine.stack import leaves
from descent.experiments.lab import Estimates, Experiment, Lab, Share, Tables, tidy
from descent.experiments.saddles.arms import Arm, rule
from descent.nets import MLP, CrossEntropy, Supervised
from descent.problems.networks import InitialSaddle
from descent.stats import draw_mean, draw_ratio

ARMS = (Arm.PLAIN, Arm.HALF, Arm.HEAD, Arm.MATCHED, Arm.SLOWED)


@dataclass(frozen=True)
class Departure:
    """A net near its saddle, whose growth is fitted in steps between `begin` and `end` e-folds of its leading mode."""

    data: str = "digits"
    images: int = 170
    draws: int = 10  # of so many images: disjoint where there are enough of them, else random splits, which overlap
    hidden: int = 32
    scale: float = 1e-4  # deviation of the initial weights
    batch_size: int = 128
    lr: float = 0.02
    efolds: float = 11.0  # of the leading mode, for which it is followed
    begin: float = 2.0
    end: float = 5.0
    looks: float = 4.0  # at the loss, per e-fold
    level: float = 1.6  # of the training loss, for the arrival
    replicas: Share = Share(most=30)  # nets of every arm, as many for each draw


LARGE = Departure(
    "mnist", 6000, 10, 256, 1e-5, batch_size=256, lr=0.002, efolds=14.0, end=6.0, looks=8.0, replicas=Share(most=60)
)
"""MNIST at full resolution; a smaller rate for its larger inputs."""


@dataclass(frozen=True, eq=False)
class Saddles:
    """The initial saddles of D draws of the data; row r of a stack is a net at the saddle of draw r mod D."""

    of_draw: tuple[InitialSaddle, ...]

    @classmethod
    def of(cls, inputs: Tensor, labels: Tensor, classes: int) -> Saddles:
        """Find the saddle of every draw, of inputs (D, n, d) and labels (D, n)."""
        return cls(tuple(InitialSaddle.of(x, y, classes) for x, y in zip(inputs, labels, strict=True)))

    def instability(self, modes: int = 1) -> Array:
        """Return the leading unstable curvatures, (D, modes)."""
        return np.stack([saddle.instability[:modes] for saddle in self.of_draw])

    def growth(self, lr: ArrayLike, momentum: ArrayLike, modes: int = 1) -> Array:
        """Return log z₊ per step of the leading modes, (D, modes)."""
        return np.stack([saddle.growth(lr, momentum, modes) for saddle in self.of_draw])

    def start(self, hidden: int, scale: float, streams: Streams) -> Leaves:
        """Draw small weights around the saddles, the output bias at the class frequencies of each draw."""
        net = self.of_draw[0].start(hidden, scale, streams)
        bias = torch.from_numpy(np.stack([saddle.bias for saddle in self.of_draw])).to(net["2.bias"])
        return {**net, "2.bias": self.over(bias, streams.replicas)}

    def amplitudes(self, params: Params, modes: int = 1) -> Tensor:
        """Return |W₁u_k + W₂ᵀv_k| of the leading modes of every net's own saddle, (R, modes)."""
        net = leaves(params)
        first, second = net["0.weight"], net["2.weight"]
        sides = [[side[:, :modes] for side in (saddle.left, saddle.right)] for saddle in self.of_draw]
        u, v = (self.over(torch.from_numpy(np.stack(side)).to(first), len(first)) for side in zip(*sides, strict=True))
        norms: Tensor = torch.linalg.vector_norm(first @ u + second.transpose(1, 2) @ v, dim=1)
        return norms

    def over(self, values: Tensor, replicas: int) -> Tensor:
        """Give values (D, …) to replicas (R, …), which belong to the draws in turn."""
        return values.repeat(replicas // len(self.of_draw), *[1] * (values.ndim - 1))


@dataclass(frozen=True, eq=False)
class Track:
    """One arm on its way out: mode amplitudes (N, T, K) at every step, training losses (N, L) at steps (L,).

    growth (N, K): fitted, per step; predicted (N, K): log z₊ of each net's draw.
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
    """Tracks of ARMS, with fitted growth per step (A, N), its prediction (A, N) and arrival steps (A, N).

    sets: the images of every draw. diffusion (A,) is the growth the small-step limit gives, lr·b/(1 − momentum), mean
    over the draws.
    """

    config: Departure
    lab: Lab
    sets: Draws
    tracks: tuple[Track, ...]
    growth: Array
    predicted: Array
    diffusion: Array
    arrival: Array


def run(config: Departure, lab: Lab) -> DepartureResult:
    """Start every arm at the same small weights, on the same batches."""
    sets, saddles, tracks = follow(config, lab, ARMS)
    instability = saddles.instability().mean()
    return DepartureResult(
        config, lab, sets, tracks,
        growth=np.stack([track.growth[:, 0] for track in tracks]),
        predicted=np.stack([track.predicted[:, 0] for track in tracks]),
        diffusion=np.array([track.lr * instability / (1 - track.momentum) for track in tracks]),
        arrival=np.stack([crossing(track.steps, track.losses, config.level) for track in tracks]),
    )  # fmt: skip


def drawn(config: Departure, lab: Lab) -> tuple[Draws, Tensor, Tensor]:
    """Return the draws with their images (D, n, d), centred draw by draw as the theory asks, and labels (D, n)."""
    data = images.load(config.data)
    sets = lab.draws(len(data), config.images, config.draws)
    rows = sets.rows.cpu()
    inputs, labels = lab.bring(torch.stack([images.centred(data.images[draw]) for draw in rows]), data.labels[rows])
    return sets, inputs, labels


def follow(
    config: Departure, lab: Lab, names: Sequence[Arm], modes: int = 1
) -> tuple[Draws, Saddles, tuple[Track, ...]]:
    """Run each arm for as many steps as the slowest draw's predicted growth needs, so one after the other."""
    sets, inputs, labels = drawn(config, lab)
    saddles, own = Saddles.of(inputs, labels, 10), fresh(*labels.shape).to(lab.device).rows
    net = MLP((inputs.shape[2], config.hidden, 10), "tanh")
    given = inputs.flatten(0, 1), labels.flatten()
    problem = Supervised(net, CrossEntropy(), *given, config.batch_size, rows=own)

    def track(lr: float, momentum: float) -> Track:
        growth = saddles.growth(lr, momentum, modes)
        steps = math.ceil(config.efolds / growth[:, 0].min())
        pause = max(1, round(1 / (config.looks * growth[:, 0].max())))
        amplitudes = every(1, lambda params: saddles.amplitudes(params, modes))
        done = lab.arms(heavy_ball(lr, momentum), lab.per_draw(config.replicas, config.draws)).run(
            problem, lambda streams: saddles.start(config.hidden, config.scale, streams), steps,
            probes={"amplitudes": amplitudes, "loss": every(pause, problem.value)},
        )  # fmt: skip
        found, losses = done["amplitudes"][0], done["loss"][0]
        predicted = np.tile(growth, (len(found) // config.draws, 1))
        return Track(lr, momentum, found, losses, done.at("loss"), rates(found, config.begin, config.end), predicted)

    arms = rule(names, config.lr, lab.momentum)
    return sets, saddles, tuple(map(track, arms.lr.tolist(), arms.momentum.tolist()))


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
    """Return what the net at its initial saddle says about P3-C11, P3-C16, P3-X1 and P3-X9."""
    plain, head, matched = (ARMS.index(arm) for arm in (Arm.PLAIN, Arm.HEAD, Arm.MATCHED))
    growth, predicted, arrival = map(result.sets.by_draw, (result.growth, result.predicted, result.arrival))
    return {
        "P3-C11.network": draw_ratio(growth[head], growth[plain]),
        "P3-C16.faster": draw_ratio(arrival[plain], arrival[head]),
        "P3-X1.network": draw_ratio(arrival[head], arrival[matched]),
        "P3-X9.network": draw_mean(growth[head] / predicted[head]),
    }


def tables(result: DepartureResult) -> Tables:
    """Return one row per arm."""
    ratio, arrival = (result.sets.by_draw(values) for values in (result.growth / result.predicted, result.arrival))
    arrivals = [draw_mean(steps) for steps in arrival]
    frame = tidy(
        {"lr": [track.lr for track in result.tracks]}, momentum=[track.momentum for track in result.tracks],
        growth=result.growth.mean(1), predicted=result.predicted.mean(1), diffusion=result.diffusion,
        value=np.array([draw_mean(nets) for nets in ratio], dtype=object),
        arrival=np.array(arrivals, dtype=object),
    )  # fmt: skip
    return {"initial_saddle": frame.rename(columns={"value": "ratio"})}


INITIAL = Experiment("initial", small=Departure(), large=LARGE, run=run, estimates=estimates, tables=tables)
