"""One network, five instruments, and interventions that move one of them at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, cast

import numpy as np
import torch
from pandas import DataFrame
from torch import Tensor

from descent.arrays import Array
from descent.engine.probes import Params
from descent.engine.rules import Hyper
from descent.engine.streams import Streams, replica_seeds
from descent.engine.train import Objective, train
from descent.experiments.arms import configure, to_numpy
from descent.experiments.common import Estimates, Experiment, Settings
from descent.experiments.isotropic import Isotropic
from descent.experiments.synthesis.lineup import rules_of
from descent.experiments.synthesis.task import DataSet, Leaves, Task, sharpness
from descent.measure.alignment import loss_alignment, trace_of_noise
from descent.measure.stability import load
from descent.nets.supervised import Supervised
from descent.stats.estimate import Estimate
from descent.stats.intervals import bootstrap, mean, paired_difference, spearman

Kind = Literal["minibatch", "blue", "isotropic"]

INSTRUMENTS = ("direction", "gradient_noise", "sharpness", "alignment")
"""What could predict accuracy: power of the direction's noise, C², λ₁ of G, loss alignment."""

RECORDS = ("loss", "accuracy", "faint", *INSTRUMENTS)


class Arm(NamedTuple):
    """A heavy-ball rule at its raw rate; batch None: all examples. blue: size c of what is added and taken back.

    longer: factor on the steps of a run, and on the steps between two looks: small steps need more of them.
    """

    name: str
    lr: float
    momentum: float
    batch: int | None
    kind: Kind = "minibatch"
    blue: float = 0.0
    longer: float = 1.0


FEW = (
    Arm("SGD", 0.04, 0.0, 16, longer=1.8),
    Arm("average", 0.004, 0.9, 16, longer=1.8),
    Arm("heavy ball", 0.04, 0.9, 16),
    Arm("SGD, large step", 0.4, 0.0, 16),
    Arm("SGD + blue noise", 0.04, 0.0, 16, "blue", 3.0, 1.8),
    Arm("GD, large step", 0.4, 0.0, None),
    Arm("heavy-ball GD", 0.04, 0.9, None),
)
"""The arms that carry verdicts; effective step 0.04 in the first two and the fifth, 0.4 in the others."""

MORE = (
    *FEW,
    Arm("average, .99", 0.0004, 0.99, 16, longer=1.8),
    Arm("average, batch 1", 0.004, 0.9, 1, longer=1.8),
    Arm("SGD, batch 128", 0.04, 0.0, 128, longer=1.8),
    Arm("GD", 0.04, 0.0, None, longer=1.8),
    Arm("GD + isotropic", 0.04, 0.0, 16, "isotropic", longer=1.8),
    Arm("GD, large step, + isotropic", 0.4, 0.0, 16, "isotropic"),
    Arm("heavy ball, batch 128", 0.04, 0.9, 128),
    Arm("SGD, large step, batch 128", 0.4, 0.0, 128),
    Arm("SGD, large step, + blue noise", 0.4, 0.0, 16, "blue", 1.0),
)


@dataclass(frozen=True)
class Network:
    """Two-layer nets on 256 digits: draws with mislabelled digits, and clean ones.

    flips, data: mislabelled share and images per draw; what claims are stated for comes first. Arms are compared at
    equal training loss as well: `target` is one that all reach, `late` one that those of the large step reach.
    """

    arms: tuple[Arm, ...]
    replicas: int
    steps: int
    every: int
    seed: int
    device: str
    flips: tuple[float, ...] = (0.1, 0.0)
    data: tuple[DataSet, ...] = ("digits", "digits")
    target: float = 0.13
    late: float = 0.04

    @classmethod
    def cpu(cls, settings: Settings) -> Network:
        """Take the arms that carry verdicts and two draws."""
        return cls(FEW, max(32, min(settings.replicas // 32, 64)), 1500, 75, settings.seed, settings.device)

    @classmethod
    def paper(cls, settings: Settings) -> Network:
        """Take all sixteen arms, two draws of MNIST as well, and nearly three times the steps."""
        return cls(
            MORE,
            max(64, settings.replicas // 8),
            4000,
            50,
            settings.seed,
            settings.device,
            (0.1, 0.0, 0.1, 0.0),
            ("digits", "digits", "mnist", "mnist"),
        )

    def place(self, name: str) -> int:
        """Return the index of an arm."""
        return [arm.name for arm in self.arms].index(name)


@dataclass(frozen=True, eq=False)
class Draw:
    """One training set: looks at steps (A, T); per record (A, T, N); load (A, N) at the end, NaN for full batches."""

    steps: Array
    records: dict[str, Array]
    load: Array

    def last(self, record: str) -> Array:
        """Return a record at the end, (A, N)."""
        return np.asarray(self.records[record][:, -1])

    def at_loss(self, record: str, target: float) -> Array:
        """Return a record where the training loss first passes a target, between looks on a straight line, (A, N)."""
        loss, values = self.records["loss"], self.records[record]
        below = loss < target
        after = np.where(below.any(axis=1), np.maximum(below.argmax(axis=1), 1), 1)[:, None]
        (l0, v0), (l1, v1) = (
            tuple(np.take_along_axis(a, after - back, axis=1)[:, 0] for a in (loss, values)) for back in (1, 0)
        )
        share = np.clip((l0 - target) / np.where(l0 > l1, l0 - l1, 1.0), 0, 1)
        return np.where(below.any(axis=1), v0 + share * (v1 - v0), np.nan)


@dataclass(frozen=True, eq=False)
class NetworkResult:
    """All draws."""

    config: Network
    draws: tuple[Draw, ...]
    seconds: float


@dataclass(frozen=True)
class Look:
    """A probe of loss, accuracy and instruments; all exact, from the n × n Gram matrix."""

    task: Task
    hyper: Hyper
    every: int

    def __call__(self, step: int, params: Params, velocity: Params) -> dict[str, Tensor]:
        """Return the records, (R,)."""
        gram = self.task.gram(params)
        residual = self.task.outputs(params) - self.task.targets[:, 0]
        lr, unit = (value.float()[:, None] for value in (self.hyper.lr, 1 - self.hyper.momentum))
        old, moved = cast(Leaves, params), cast(Leaves, velocity)
        before = {k: old[k] + _shaped(lr, moved[k]) * moved[k] for k in old}
        true = cast(Leaves, self.task.objective(None).gradient(before, _nobody(len(lr)), 0))
        power = sum((_shaped(unit, moved[k]) * moved[k] - true[k]).flatten(1).square().sum(1) for k in old)
        found = (
            residual.square().mean(1) / 2,
            self.task.accuracy(params),
            self.task.accuracy(params, 0.3),
            torch.as_tensor(power),
            trace_of_noise(gram, residual),
            sharpness(gram),
            loss_alignment(gram, residual).uncentred,
        )
        return dict(zip(RECORDS, found, strict=True))


def _shaped(column: Tensor, leaf: Tensor) -> Tensor:
    return column.view(-1, *[1] * (leaf.ndim - 1))


def _nobody(replicas: int) -> Streams:
    """Return streams for a full gradient, which draws nothing."""
    return Streams(replica_seeds(0, replicas))


@dataclass(eq=False)
class Blue:
    """Minibatch gradients plus c(ζ_t − ζ_{t−1}), ζ an independent draw of their noise: power, but none that adds up.

    ζ is the difference of two independent batches over √2, so that its mean is exactly 0.
    """

    problem: Supervised
    size: float
    twins: tuple[Streams, Streams]
    held: Leaves | None = None
    remembers: ClassVar[bool] = True

    def gradient(self, params: Params, streams: Streams, step: int) -> Leaves:
        """Return the gradient of every replica."""
        one, other = (cast(Leaves, self.problem.gradient(params, twin, step)) for twin in self.twins)
        drawn = {k: (one[k] - other[k]) / 2**0.5 for k in one}
        found = cast(Leaves, self.problem.gradient(params, streams, step))
        if self.held is not None:
            for k, leaf in found.items():
                leaf.add_(drawn[k] - self.held[k], alpha=self.size)
        self.held = drawn
        return found


def run(config: Network) -> NetworkResult:
    """Train every arm on every draw."""
    clock = time.perf_counter()
    draws = tuple(_draw(config, i) for i in range(len(config.flips)))
    return NetworkResult(config, draws, time.perf_counter() - clock)


def _groups(config: Network) -> Iterator[list[int]]:
    """Yield the arms that can run as one stack: those of equal batch, noise and length, a blue arm alone."""
    seen: dict[object, list[int]] = {}
    for i, arm in enumerate(config.arms):
        key = (arm.kind, arm.batch, arm.longer) if arm.kind == "minibatch" else i
        seen.setdefault(key, []).append(i)
    yield from seen.values()


def _draw(config: Network, index: int) -> Draw:
    task = Task.of(config.seed, index, config.device, flips=config.flips[index], data_set=config.data[index])
    n, found, ends, looks = config.replicas, {}, {}, {}
    for group in _groups(config):
        arms = [config.arms[i] for i in group]
        seeds = replica_seeds(config.seed, n, config.device)
        streams = Streams(seeds.repeat(len(arms)))
        hyper = rules_of(arms, n, config.device)
        steps, every = (round(arms[0].longer * count) for count in (config.steps, config.every))
        done = train(
            _objective(task, arms[0], config),
            task.start(streams),
            hyper,
            steps,
            streams,
            probes={"": Look(task, hyper, every)},
            check=10,
        )
        for place, i in enumerate(group):
            rows = slice(place * n, (place + 1) * n)
            found[i] = {name: to_numpy(done.records[f".{name}"].values[:, rows]) for name in RECORDS}
            ends[i] = _load(task, config.arms[i], {k: v[rows] for k, v in cast(Leaves, done.params).items()})
            looks[i] = done.records[".loss"].steps.numpy()
    order = range(len(config.arms))
    records = {name: np.stack([found[i][name] for i in order]) for name in RECORDS}
    seen, loads = (np.stack([part[i] for i in order]) for part in (looks, ends))
    return Draw(seen, records, loads)


def _objective(task: Task, arm: Arm, config: Network) -> Objective:
    if arm.kind == "isotropic":
        return Isotropic(task.objective(None), cast(int, arm.batch))
    if arm.kind == "blue":
        one, other = (Streams(replica_seeds(config.seed + k, config.replicas, config.device)) for k in (10**6, 10**7))
        return Blue(task.objective(arm.batch), arm.blue, (one, other))
    return task.objective(arm.batch)


def _load(task: Task, arm: Arm, params: Leaves) -> Array:
    """Return the mean-square load at the end, (N,)."""
    if arm.batch is None or arm.kind != "minibatch":
        return np.full(len(params["0.bias"]), np.nan)
    return to_numpy(load(task.gram(params), arm.lr, arm.batch, arm.momentum))


def difference(
    draw: Draw, config: Network, record: str, arm: str, control: str, *, at_loss: float | None = None
) -> Estimate:
    """Return the paired difference of a record, at the end or at equal training loss; of pairs that both got there."""
    return paired_difference(*_pairs(draw, config, record, arm, control, at_loss))


def _pairs(
    draw: Draw, config: Network, record: str, arm: str, control: str, at_loss: float | None
) -> tuple[Array, Array]:
    """Return a record of two arms for the nets that have it in both, (N,) each."""
    values = draw.last(record) if at_loss is None else draw.at_loss(record, at_loss)
    a, b = (values[config.place(name)] for name in (arm, control))
    both = np.isfinite(a) & np.isfinite(b)
    return a[both], b[both]


def order(result: NetworkResult, record: str) -> Estimate:
    """Return how well a record orders the arms by accuracy at equal loss, on two draws alike; replicas are resampled.

    The smaller of the draws' two Spearman correlations over arms, in absolute value; 0 where their signs differ.
    """
    config = result.config
    x, y = (np.stack([draw.at_loss(name, config.target) for draw in result.draws[:2]]) for name in (record, "accuracy"))
    alive = np.isfinite(x).all(axis=(0, 1)) & np.isfinite(y).all(axis=(0, 1))

    def common(a: Array, b: Array) -> Array:
        found = spearman(a.mean(axis=1), b.mean(axis=1))  # (resamples, draws)
        same = np.sign(found[:, 0]) == np.sign(found[:, 1])
        return np.where(same, np.abs(found).min(axis=1), 0.0)

    samples = (np.moveaxis(part[..., alive], -1, 0) for part in (x, y))
    return bootstrap(common, *samples, seed=config.seed)


def estimates(result: NetworkResult) -> Estimates:
    """Return what the interventions say about S-20 to S-22 and S-28, and the instruments about S-24."""
    config = result.config
    noisy, clean = result.draws[:2]
    pairs = {"flips": noisy, "clean": clean}
    found: dict[str, Estimate] = {}
    for name, draw in pairs.items():
        found[f"S-20.{name}"] = difference(draw, config, "accuracy", "SGD + blue noise", "SGD")
        found[f"S-20.power_{name}"] = _power(draw, config, "SGD + blue noise", "SGD")
        found[f"S-21.{name}"] = _log_ratio(draw, config, "heavy-ball GD", "GD, large step")
    sharp = ("accuracy", "heavy-ball GD", "GD, large step")
    found["S-22.flips"] = difference(noisy, config, *sharp)
    found["S-28.clean"] = difference(clean, config, *sharp, at_loss=config.late)
    for instrument in INSTRUMENTS:
        found[f"S-24.{instrument}"] = order(result, instrument)
    return found


def _power(draw: Draw, config: Network, arm: str, control: str) -> Estimate:
    """Return the power of the direction's noise over that of a control, averaged over all looks but the first."""
    a, b = (draw.records["direction"][config.place(name), 1:].mean(axis=0) for name in (arm, control))
    return bootstrap(lambda x, y: x.mean(1) / y.mean(1), a, b, seed=config.seed)


def _log_ratio(draw: Draw, config: Network, arm: str, control: str) -> Estimate:
    values = np.log(draw.last("sharpness"))
    return paired_difference(values[config.place(arm)], values[config.place(control)])


def tables(result: NetworkResult) -> dict[str, DataFrame]:
    """Return every arm at the end of every draw, and the course of all records."""
    config, rows, course = result.config, [], []
    for i, draw in enumerate(result.draws):
        for a, arm in enumerate(config.arms):
            ends = {name: mean(draw.last(name)[a]).value for name in RECORDS}
            rows.append(
                {
                    "draw": i,
                    "data": config.data[i],
                    "flips": config.flips[i],
                    "arm": arm.name,
                    "lr": arm.lr,
                    "momentum": arm.momentum,
                    "batch": str(arm.batch or "all"),
                    **ends,
                    "load": float(draw.load[a].mean()),
                    "deterministic": arm.lr * ends["sharpness"] / (2 * (1 + arm.momentum)),
                    "accuracy_at_loss": _mean_of_those(draw.at_loss("accuracy", config.target)[a]),
                }
            )
            for t, step in enumerate(draw.steps[a]):
                course.append(
                    {"draw": i, "arm": arm.name, "step": int(step)}
                    | {name: float(draw.records[name][a, t].mean()) for name in RECORDS}
                )
    return {"network": DataFrame(rows), "network_course": DataFrame(course), "network_sharper": _sharper(result)}


def _mean_of_those(values: Array) -> float:
    """Return the mean of the finite values, not a number where there are none."""
    found = values[np.isfinite(values)]
    return float(found.mean()) if len(found) else float("nan")


def _sharper(result: NetworkResult) -> DataFrame:
    """Return what the sharper end does to accuracy, at the end and at equal late loss, on every draw."""
    config, rows = result.config, []
    for i, draw in enumerate(result.draws):
        for when, target in (("the end", None), ("equal loss", config.late)):
            pairs = _pairs(draw, config, "accuracy", "heavy-ball GD", "GD, large step", target)
            if len(pairs[0]) < 2:  # too short a run: nobody got to that loss
                continue
            found = paired_difference(*pairs)
            rows.append(
                {
                    "draw": i,
                    "data": config.data[i],
                    "flips": config.flips[i],
                    "at": when,
                    "difference": found.value,
                    "low": found.low,
                    "high": found.high,
                    "nets": found.n,
                }
            )
    return DataFrame(rows)


NETWORK = Experiment(
    "network",
    ("S-20", "S-21", "S-22", "S-24", "S-28"),
    lambda settings: run(configure(Network, settings)),
    estimates,
    tables,
)
