"""One network, five instruments, and interventions that move one of them at a time.

What momentum does to a net could come from the noise of its direction, from the noise of its gradients, from the
sharpness or from the alignment. Blue noise raises the first alone; the full batch takes all noise away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pandas import DataFrame
from torch import Tensor

from descent.arrays import Array
from descent.data.draws import Draws
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
from descent.stats import Estimate, draw_difference, draw_mean, draw_ratio, draw_statistic, magnitude, spearman

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


class Kind(IntEnum):
    """The families of draws that claims are stated for, which come first in every configuration."""

    FLIPS = 0
    CLEAN = 1
    GLYPHS_FLIPS = 2
    GLYPHS_CLEAN = 3


@dataclass(frozen=True)
class Network:
    """Two-layer nets on draws of 256 digits or glyphs, with wrong labels and clean ones: a family of draws each."""

    arms: tuple[Treatment, ...] = FEW
    draws: int = 16  # of every family, with one net each: the draw is what counts in an interval
    replicas: Share | int = 16
    steps: int = 1500
    every: int = 100
    flips: tuple[float, ...] = (0.1, 0.0)  # mislabelled shares, a family of draws for each
    data: tuple[DataSet, ...] = ("digits", "glyphs")  # the families of each are trained as one stack
    target: float = 0.13  # training loss that all arms reach on digits
    late: tuple[float, ...] = (0.04, 0.08)  # and one that those of the large step reach on full batches, for each data

    @property
    def kinds(self) -> list[tuple[DataSet, float, float]]:
        """Data, mislabelled share and late loss of every family."""
        return [(data, share, late) for data, late in zip(self.data, self.late, strict=True) for share in self.flips]

    def nets(self, lab: Lab) -> int:
        """Return the number of nets of an arm in all families that are trained together."""
        return lab.per_draw(self.replicas, self.draws) * len(self.flips)

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
class Family:
    """Draws of one kind: looks at steps (A, T); per record (A, T, N); load (A, N) at the end, NaN for full batches.

    Net i is of draw i mod D.
    """

    sets: Draws
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

    def seen(self, record: str, at_loss: float | None = None) -> Array:
        """Return a record at the end, or at a training loss, by arm and draw, (A, D, N/D); NaN where it is not met."""
        values = self.last(record) if at_loss is None else self.at_loss(record, at_loss)
        return self.sets.by_draw(np.where(np.isfinite(values), values, np.nan))


@dataclass(frozen=True, eq=False)
class NetworkResult(Result[Network]):
    """All families."""

    families: tuple[Family, ...]

    def difference(
        self, family: int, record: str, arm: str, control: str, at_loss: float | None = None
    ) -> Estimate | None:
        """Return the difference of a record, net by net, over draws, at the end or at equal training loss.

        Nets that do not get there in both arms are left out; None where fewer than two draws are left.
        """
        values = self.families[family].seen(record, at_loss)
        gap = values[self.config.place(arm)] - values[self.config.place(control)]
        return draw_mean(gap) if np.isfinite(gap).any(axis=1).sum() > 1 else None

    def sharper(self, family: int) -> Estimate:
        """Return the logarithm of the sharpness that momentum reaches on full batches, less that of plain descent."""
        ends = np.log(self.families[family].seen("sharpness"))
        return draw_difference(*(ends[self.config.place(name)] for name in (SHARPER, PLAINER)))

    def bluer(self, family: int, looks: slice = slice(1, None)) -> Estimate:
        """Return the power of the direction's noise with blue noise over that without, mean of looks but the first."""
        found, config = self.families[family], self.config
        power = found.sets.by_draw(found.records["direction"][:, looks].mean(axis=1))
        return draw_ratio(*(power[config.place(name)] for name in ("SGD + blue noise", "SGD")))

    def order(self, record: str) -> Estimate:
        """Return the size of the rank correlation over arms of a record with accuracy at equal loss.

        Of the arms' means over draws; mean of the families with wrong labels and with clean ones.
        """
        pair, target = self.families[:2], self.config.target
        grids = [row for name in (record, "accuracy") for kind in pair for row in kind.seen(name, target)]

        def common(*drawn: Array) -> Array:  # four times as many grids as arms, each (B, D, N/D)
            means = np.stack([np.nanmean(grid, axis=(1, 2)) for grid in drawn], axis=1)
            x, y = np.split(means.reshape(len(means), 2 * len(pair), -1), 2, axis=1)
            return np.asarray(spearman(x, y).mean(axis=1))

        return magnitude(draw_statistic(common, *grids, seed=self.lab.seed))


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
        residual = task.residuals(params)
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
    """Train every arm on every draw of every family."""
    return NetworkResult(config, lab, tuple(family for data in config.data for family in _families(config, lab, data)))


def _families(config: Network, lab: Lab, data: DataSet) -> list[Family]:
    """Train every arm on all draws of one kind of data, the arms of one batch, noise and length as one stack."""
    task = Task.of(lab, config.draws, flips=config.flips, data_set=data)
    parts: dict[int, tuple[NDArray[np.int64], Array, Array]] = {}
    for group in config.groups:
        arms = [config.arms[i] for i in group]
        stack = lab.arms(heavy_ball([arm.lr for arm in arms], [arm.momentum for arm in arms]), config.nets(lab))
        length, look = (round(arms[0].longer * count) for count in (config.steps, config.every))
        problem, probes = objective(task, arms[0], config, lab), {"": Look(task, stack, look)}
        done = stack.run(problem, task.start, length, probes=probes, check=10)
        found, ends = np.stack([done[f".{name}"] for name in RECORDS]), done.params
        for place, i in enumerate(group):
            rows = slice(place * stack.replicas, (place + 1) * stack.replicas)
            loaded = load_of(task, config.arms[i], {k: leaf[rows] for k, leaf in ends.items()})
            parts[i] = done.at(".loss"), found[:, place].swapaxes(1, 2), loaded
    steps, records, loads = (np.stack(part) for part in zip(*(parts[i] for i in sorted(parts)), strict=True))
    return _apart(task.sets, config.draws, steps, records.swapaxes(0, 1), loads)


def _apart(sets: Draws, draws: int, steps: NDArray[np.int64], records: Array, loads: Array) -> list[Family]:
    """Return families of so many draws each, of records (K, A, T, N) and loads (A, N) of all of them."""
    count, found = len(sets) // draws, []
    for i in range(count):
        one = slice(i * draws, (i + 1) * draws)
        own = Draws(sets.kind, sets.rows[one], sets.test[one], sets.overlap)
        some, load = (x.reshape(*x.shape[:-1], -1, count, draws)[..., i, :] for x in (records, loads))
        some, load = (x.reshape(*x.shape[:-2], -1) for x in (some, load))
        found.append(Family(own, steps, dict(zip(RECORDS, some, strict=True)), load))
    return found


def objective(task: Task, arm: Treatment, config: Network, lab: Lab) -> Objective[Leaves]:
    """Return what an arm descends."""
    if arm.kind == "isotropic":
        return Isotropic(task.objective(), arm.batch)
    if arm.kind == "blue":
        one, other = (lab.streams(config.nets(lab), apart=apart) for apart in (10**6, 10**7))
        return Blue(task.objective(arm.batch), arm.blue, (one, other))
    return task.objective(arm.batch)


def load_of(task: Task, arm: Treatment, params: Leaves) -> Array:
    """Return the mean-square load at the end, (N,)."""
    if not arm.batch or arm.kind != "minibatch":
        return np.full(len(params["0.bias"]), np.nan)
    return to_numpy(load(task.gram(params), arm.lr, arm.batch, arm.momentum))


def estimates(result: NetworkResult) -> Estimates:
    """Return what the interventions say about S-20 to S-22 and S-28, and the instruments about S-24."""
    config, accuracy = result.config, result.difference
    blue, sharper = ("accuracy", "SGD + blue noise", "SGD"), ("accuracy", SHARPER, PLAINER)
    late = [late for _, _, late in config.kinds]
    found = {
        "S-20.flips": accuracy(Kind.FLIPS, *blue),
        "S-20.clean": accuracy(Kind.CLEAN, *blue),
        "S-20.glyphs_flips": accuracy(Kind.GLYPHS_FLIPS, *blue),
        "S-20.glyphs_clean": accuracy(Kind.GLYPHS_CLEAN, *blue),
        "S-20.flips_loss_first": accuracy(Kind.FLIPS, *blue, at_loss=config.target),
        "S-20.clean_loss_first": accuracy(Kind.CLEAN, *blue, at_loss=config.target),
        "S-20.power_flips": result.bluer(Kind.FLIPS),
        "S-20.power_flips_first": result.bluer(Kind.FLIPS, slice(-1, None)),
        "S-20.power_clean": result.bluer(Kind.CLEAN),
        "S-20.power_glyphs_flips": result.bluer(Kind.GLYPHS_FLIPS),
        "S-20.power_glyphs_clean": result.bluer(Kind.GLYPHS_CLEAN),
        "S-21.flips": result.sharper(Kind.FLIPS),
        "S-21.clean": result.sharper(Kind.CLEAN),
        "S-22.flips": accuracy(Kind.FLIPS, *sharper),
        "S-22.glyphs_flips": accuracy(Kind.GLYPHS_FLIPS, *sharper),
        "S-22.clean_first": accuracy(Kind.CLEAN, *sharper),
        "S-24.direction": result.order("direction"),
        "S-24.gradient_noise": result.order("gradient_noise"),
        "S-24.sharpness": result.order("sharpness"),
        "S-24.alignment": result.order("alignment"),
        "S-28.clean": accuracy(Kind.CLEAN, *sharper, at_loss=late[Kind.CLEAN]),
        "S-28.glyphs_clean": accuracy(Kind.GLYPHS_CLEAN, *sharper, at_loss=late[Kind.GLYPHS_CLEAN]),
        "S-28.clean_first": accuracy(Kind.CLEAN, *sharper, at_loss=late[Kind.CLEAN]),
        "S-28.flips_first": accuracy(Kind.FLIPS, *sharper, at_loss=late[Kind.FLIPS]),
    }
    return {key: value for key, value in found.items() if value is not None}


def tables(result: NetworkResult) -> Tables:
    """Return every arm at the end of every family, the course of all records, and what the sharper end does."""
    config, families = result.config, result.families
    lr, momentum = (np.array([getattr(arm, name) for arm in config.arms]) for name in ("lr", "momentum"))
    axes = {"family": range(len(families)), "arm": [arm.name for arm in config.arms]}
    ends = {name: np.stack([kind.last(name).mean(axis=-1) for kind in families]) for name in RECORDS}
    there = [kind.at_loss("accuracy", config.target) for kind in families]
    met = [[np.mean(row[np.isfinite(row)]) if np.isfinite(row).any() else np.nan for row in rows] for rows in there]
    data, flips, _ = (np.array(part)[:, None] for part in zip(*config.kinds, strict=True))
    network = tidy(
        axes, data=data, flips=flips, lr=lr, momentum=momentum,
        batch=[str(arm.batch or "all") for arm in config.arms], **ends,
        load=np.stack([kind.load.mean(axis=-1) for kind in families]),
        deterministic=lr * ends["sharpness"] / (2 * (1 + momentum)), accuracy_at_loss=met,
    )  # fmt: skip
    means = {name: np.stack([kind.records[name].mean(axis=-1) for kind in families]) for name in RECORDS}
    steps = np.stack([kind.steps for kind in families])
    course = tidy({**axes, "look": range(steps.shape[-1])}, step=steps, **means).drop(columns="look")
    return {"network": network, "network_course": course, "network_sharper": _sharper(result)}


def _sharper(result: NetworkResult) -> DataFrame:
    """Return what the sharper end does to accuracy, at the end and at equal late loss, in every family."""
    config, rows = result.config, []
    for i, (data, flips, late) in enumerate(config.kinds):
        for at, target in (("the end", None), ("equal loss", late)):
            found = result.difference(i, "accuracy", SHARPER, PLAINER, target)
            if found is not None:  # in too short a run nobody gets to that loss
                rows.append((i, data, flips, at, found.value, found.low, found.high, found.n, found.draws))
    return DataFrame(rows, columns=["family", "data", "flips", "at", "difference", "low", "high", "nets", "draws"])


NETWORK = Experiment(
    "network", small=Network(), run=run, estimates=estimates, tables=tables,
    # all sixteen arms, families of MNIST as well, four nets of each draw, and nearly three times the steps
    large=Network(
        MORE, 32, Share(over=8, least=64), steps=4000, every=50, data=("digits", "glyphs", "mnist"),
        late=(0.04, 0.08, 0.04),
    ),
)  # fmt: skip
