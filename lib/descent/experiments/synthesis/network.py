"""One network, five instruments, and interventions that move one of them at a time.

What momentum does to a net could come from the noise of its direction, from the noise of its gradients, from the
sharpness or from the alignment. Blue noise raises the first alone; the full batch takes all noise away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pandas import DataFrame
from torch import Tensor

from descent.arrays import Array
from descent.engine import Arms, Objective, Params, Streams, heavy_ball
from descent.engine.arms import to_numpy
from descent.engine.probes import Leaves
from descent.engine.stack import leaves
from descent.experiments.isotropic import Isotropic
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Share, Tables, tidy
from descent.experiments.synthesis.task import CONTRAST, DataSet, Task, sharpness
from descent.measure.alignment import loss_alignment, trace_of_noise
from descent.measure.stability import load
from descent.nets import Supervised
from descent.stats import Estimate, bootstrap, paired_difference, spearman

INSTRUMENTS = ("direction", "gradient_noise", "sharpness", "alignment")
"""What could predict accuracy: power of the direction's noise, C², λ₁ of G, loss alignment."""
RECORDS = ("loss", "accuracy", "faint", *INSTRUMENTS)


class Treatment(NamedTuple):
    """A heavy-ball rule at its raw rate; batch 0: all examples."""

    name: str
    lr: float
    momentum: float
    batch: int
    kind: Literal["minibatch", "blue", "isotropic"] = "minibatch"
    blue: float = 0.0  # size c of what is added and taken back
    longer: float = 1.0  # factor on the steps of a run and between two looks: small steps need more of them


FEW = (
    Treatment("SGD", 0.04, 0.0, 16, longer=1.8),
    Treatment("average", 0.004, 0.9, 16, longer=1.8),
    Treatment("heavy ball", 0.04, 0.9, 16),
    Treatment("SGD, large step", 0.4, 0.0, 16),
    Treatment("SGD + blue noise", 0.04, 0.0, 16, "blue", 3.0, 1.8),
    Treatment("GD, large step", 0.4, 0.0, 0),
    Treatment("heavy-ball GD", 0.04, 0.9, 0),
)
"""The arms that carry verdicts; effective step 0.04 in the first two and the fifth, 0.4 in the others."""
MORE = (
    *FEW,
    Treatment("average, .99", 0.0004, 0.99, 16, longer=1.8),
    Treatment("average, batch 1", 0.004, 0.9, 1, longer=1.8),
    Treatment("SGD, batch 128", 0.04, 0.0, 128, longer=1.8),
    Treatment("GD", 0.04, 0.0, 0, longer=1.8),
    Treatment("GD + isotropic", 0.04, 0.0, 16, "isotropic", longer=1.8),
    Treatment("GD, large step, + isotropic", 0.4, 0.0, 16, "isotropic"),
    Treatment("heavy ball, batch 128", 0.04, 0.9, 128),
    Treatment("SGD, large step, batch 128", 0.4, 0.0, 128),
    Treatment("SGD, large step, + blue noise", 0.4, 0.0, 16, "blue", 1.0),
)
SHARPER, PLAINER = "heavy-ball GD", "GD, large step"  # at the same large step, of which the first ends sharper


@dataclass(frozen=True)
class Network:
    """Two-layer nets on 256 digits, draws with mislabelled digits and clean ones; what claims are stated for first."""

    arms: tuple[Treatment, ...] = FEW
    replicas: Share = Share(over=32, least=32, most=64)
    steps: int = 1500
    every: int = 75
    flips: tuple[float, ...] = (0.1, 0.0)  # mislabelled share of each draw
    data: tuple[DataSet, ...] = ("digits", "digits")  # images of each draw
    target: float = 0.13  # training loss that all arms reach
    late: float = 0.04  # and one that those of the large step reach

    def place(self, name: str) -> int:
        """Return the index of an arm."""
        return [arm.name for arm in self.arms].index(name)

    @property
    def groups(self) -> list[list[int]]:
        """The arms that can run as one stack: those of equal batch, noise and length; those with made noise alone."""
        seen: dict[object, list[int]] = {}
        for i, arm in enumerate(self.arms):
            seen.setdefault((arm.batch, arm.longer) if arm.kind == "minibatch" else i, []).append(i)
        return list(seen.values())


@dataclass(frozen=True, eq=False)
class Draw:
    """One training set: looks at steps (A, T); per record (A, T, N); load (A, N) at the end, NaN for full batches."""

    steps: NDArray[np.int64]
    records: Mapping[str, Array]
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
class NetworkResult(Result[Network]):
    """All draws."""

    draws: tuple[Draw, ...]

    def pairs(self, draw: int, record: str, arm: str, control: str, at_loss: float | None) -> tuple[Array, Array]:
        """Return a record of two arms, at the end or at a training loss, for the nets that have it in both, (N,)."""
        found = self.draws[draw]
        values = found.last(record) if at_loss is None else found.at_loss(record, at_loss)
        a, b = (values[self.config.place(name)] for name in (arm, control))
        both = np.isfinite(a) & np.isfinite(b)
        return a[both], b[both]

    def difference(self, draw: int, record: str, arm: str, control: str, at_loss: float | None = None) -> Estimate:
        """Return the paired difference of a record, at the end or at equal training loss; see `pairs`."""
        return paired_difference(*self.pairs(draw, record, arm, control, at_loss))

    def sharper(self, draw: int) -> Estimate:
        """Return the logarithm of the sharpness that momentum reaches on full batches, less that of plain descent."""
        ends = np.log(self.draws[draw].last("sharpness"))
        return paired_difference(*(ends[self.config.place(name)] for name in (SHARPER, PLAINER)))

    def bluer(self, draw: int) -> Estimate:
        """Return the power of the direction's noise with blue noise over that without, mean of looks but the first."""
        power, config = self.draws[draw].records["direction"], self.config
        a, b = (power[config.place(name), 1:].mean(axis=0) for name in ("SGD + blue noise", "SGD"))
        return bootstrap(lambda x, y: x.mean(1) / y.mean(1), a, b, seed=self.lab.seed)

    def order(self, record: str) -> Estimate:
        """Return the smaller |Spearman correlation| of two draws over arms, of a record and accuracy at equal loss."""
        target = self.config.target
        x, y = (np.stack([draw.at_loss(name, target) for draw in self.draws[:2]]) for name in (record, "accuracy"))
        alive = np.isfinite(x).all(axis=(0, 1)) & np.isfinite(y).all(axis=(0, 1))

        def common(a: Array, b: Array) -> Array:  # 0 where the draws' signs differ
            found = spearman(a.mean(axis=1), b.mean(axis=1))  # (resamples, draws)
            same = np.sign(found[:, 0]) == np.sign(found[:, 1])
            return np.where(same, np.abs(found).min(axis=1), 0.0)

        samples = (np.moveaxis(part[..., alive], -1, 0) for part in (x, y))
        return bootstrap(common, *samples, seed=self.lab.seed)


@dataclass(frozen=True)
class Look:
    """A probe of loss, accuracy and instruments; all exact, from the n × n Gram matrix."""

    task: Task
    arms: Arms
    every: int

    def __call__(self, step: int, params: Params, velocity: Params) -> dict[str, Tensor]:
        """Return the records, (R,)."""
        task, hyper = self.task, self.arms.hyper
        gram = task.gram(params)
        residual = task.outputs(params) - task.targets[:, 0]
        lr, unit = (value.float()[:, None] for value in (hyper.lr, 1 - hyper.momentum))
        old, moved = leaves(params), leaves(velocity)
        before = {k: old[k] + _shaped(lr, moved[k]) * moved[k] for k in old}
        true = task.objective().gradient(before, self.arms.streams, 0)  # draws nothing
        power = sum((_shaped(unit, moved[k]) * moved[k] - true[k]).flatten(1).square().sum(1) for k in old)
        return {
            "loss": residual.square().mean(1) / 2,
            "accuracy": task.accuracy(params),
            "faint": task.accuracy(params, CONTRAST),
            "direction": torch.as_tensor(power),
            "gradient_noise": trace_of_noise(gram, residual),
            "sharpness": sharpness(gram),
            "alignment": loss_alignment(gram, residual).uncentred,
        }


def _shaped(column: Tensor, leaf: Tensor) -> Tensor:
    return column.view(-1, *[1] * (leaf.ndim - 1))


@dataclass(eq=False)
class Blue:
    """Minibatch gradients plus c(ζ_t − ζ_{t−1}), ζ an independent draw of their noise: power, but none that adds up."""

    problem: Supervised
    size: float
    twins: tuple[Streams, Streams]
    held: Leaves | None = None
    remembers: ClassVar[bool] = True

    def gradient(self, params: Leaves, streams: Streams, step: int) -> Leaves:
        """Return the gradient of every replica."""
        one, other = (self.problem.gradient(params, twin, step) for twin in self.twins)
        drawn = {k: (one[k] - other[k]) / 2**0.5 for k in one}  # ζ, whose mean is exactly 0
        found = self.problem.gradient(params, streams, step)
        if self.held is not None:
            for k, leaf in found.items():
                leaf.add_(drawn[k] - self.held[k], alpha=self.size)
        self.held = drawn
        return found


def run(config: Network, lab: Lab) -> NetworkResult:
    """Train every arm on every draw."""
    draws = []
    for draw, (flips, data) in enumerate(zip(config.flips, config.data, strict=True)):
        task = Task.of(lab, draw, flips=flips, data_set=data)
        parts: dict[int, tuple[NDArray[np.int64], Array, Array]] = {}
        for group in config.groups:
            arms = [config.arms[i] for i in group]
            stack = lab.arms(heavy_ball([arm.lr for arm in arms], [arm.momentum for arm in arms]), config.replicas)
            length, look = (round(arms[0].longer * count) for count in (config.steps, config.every))
            problem, probes = objective(task, arms[0], config, lab), {"": Look(task, stack, look)}
            done = stack.run(problem, task.start, length, probes=probes, check=10)
            found, ends = np.stack([done[f".{name}"] for name in RECORDS]), done.params
            for place, i in enumerate(group):
                rows = slice(place * stack.replicas, (place + 1) * stack.replicas)
                loaded = load_of(task, config.arms[i], {k: leaf[rows] for k, leaf in ends.items()})
                parts[i] = done.at(".loss"), found[:, place].swapaxes(1, 2), loaded
        steps, records, loads = (np.stack(part) for part in zip(*(parts[i] for i in sorted(parts)), strict=True))
        draws.append(Draw(steps, dict(zip(RECORDS, records.swapaxes(0, 1), strict=True)), loads))
    return NetworkResult(config, lab, tuple(draws))


def objective(task: Task, arm: Treatment, config: Network, lab: Lab) -> Objective[Leaves]:
    """Return what an arm descends."""
    if arm.kind == "isotropic":
        return Isotropic(task.objective(), arm.batch)
    if arm.kind == "blue":
        one, other = (lab.streams(config.replicas, apart=apart) for apart in (10**6, 10**7))
        return Blue(task.objective(arm.batch), arm.blue, (one, other))
    return task.objective(arm.batch)


def load_of(task: Task, arm: Treatment, params: Leaves) -> Array:
    """Return the mean-square load at the end, (N,)."""
    if not arm.batch or arm.kind != "minibatch":
        return np.full(len(params["0.bias"]), np.nan)
    return to_numpy(load(task.gram(params), arm.lr, arm.batch, arm.momentum))


def estimates(result: NetworkResult) -> Estimates:
    """Return what the interventions say about S-20 to S-22 and S-28, and the instruments about S-24."""
    noisy, clean = 0, 1
    blue = ("accuracy", "SGD + blue noise", "SGD")
    return {
        "S-20.flips": result.difference(noisy, *blue),
        "S-20.clean": result.difference(clean, *blue),
        "S-20.power_flips": result.bluer(noisy),
        "S-20.power_clean": result.bluer(clean),
        "S-21.flips": result.sharper(noisy),
        "S-21.clean": result.sharper(clean),
        "S-22.flips": result.difference(noisy, "accuracy", SHARPER, PLAINER),
        "S-24.direction": result.order("direction"),
        "S-24.gradient_noise": result.order("gradient_noise"),
        "S-24.sharpness": result.order("sharpness"),
        "S-24.alignment": result.order("alignment"),
        "S-28.clean": result.difference(clean, "accuracy", SHARPER, PLAINER, at_loss=result.config.late),
    }


def tables(result: NetworkResult) -> Tables:
    """Return every arm at the end of every draw, the course of all records, and what the sharper end does."""
    config, draws = result.config, result.draws
    lr, momentum = (np.array([getattr(arm, name) for arm in config.arms]) for name in ("lr", "momentum"))
    axes = {"draw": range(len(draws)), "arm": [arm.name for arm in config.arms]}
    ends = {name: np.stack([draw.last(name).mean(axis=-1) for draw in draws]) for name in RECORDS}
    there = [draw.at_loss("accuracy", config.target) for draw in draws]
    met = [[np.mean(row[np.isfinite(row)]) if np.isfinite(row).any() else np.nan for row in rows] for rows in there]
    network = tidy(
        axes, data=np.array(config.data)[:, None], flips=np.array(config.flips)[:, None], lr=lr, momentum=momentum,
        batch=[str(arm.batch or "all") for arm in config.arms], **ends,
        load=np.stack([draw.load.mean(axis=-1) for draw in draws]),
        deterministic=lr * ends["sharpness"] / (2 * (1 + momentum)), accuracy_at_loss=met,
    )  # fmt: skip
    means = {name: np.stack([draw.records[name].mean(axis=-1) for draw in draws]) for name in RECORDS}
    steps = np.stack([draw.steps for draw in draws])
    course = tidy({**axes, "look": range(steps.shape[-1])}, step=steps, **means).drop(columns="look")
    return {"network": network, "network_course": course, "network_sharper": _sharper(result)}


def _sharper(result: NetworkResult) -> DataFrame:
    """Return what the sharper end does to accuracy, at the end and at equal late loss, on every draw."""
    config, rows = result.config, []
    for i, (data, flips) in enumerate(zip(config.data, config.flips, strict=True)):
        for at, target in (("the end", None), ("equal loss", config.late)):
            pairs = result.pairs(i, "accuracy", SHARPER, PLAINER, target)
            if len(pairs[0]) > 1:  # in too short a run nobody gets to that loss
                found = paired_difference(*pairs)
                rows.append((i, data, flips, at, found.value, found.low, found.high, found.n))
    return DataFrame(rows, columns=["draw", "data", "flips", "at", "difference", "low", "high", "nets"])


NETWORK = Experiment(
    "network", small=Network(), run=run, estimates=estimates, tables=tables,
    # all sixteen arms, two draws of MNIST as well, and nearly three times the steps
    large=Network(
        MORE, Share(over=8, least=64), steps=4000, every=50, flips=(0.1, 0.0, 0.1, 0.0),
        data=("digits", "digits", "mnist", "mnist"),
    ),
)  # fmt: skip
