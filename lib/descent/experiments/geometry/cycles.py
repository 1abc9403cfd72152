"""Three cycles of the learning rate on residual networks: what SGD and full-batch descent make of the same schedule.

Stated for paper scale alone. All arms start from the same trained nets and take the same number of steps at the same
rates. Equal epochs would leave full-batch descent some fifteen steps; so the images are few enough to give it as many
steps as SGD has, and are those on which curvature is measured. The lengths are told in epochs of the smaller batch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np
import torch
from pandas import concat

from descent.arrays import Array, BoolArray
from descent.data.draws import Draws
from descent.engine import constant, cyclic, every, sgd
from descent.experiments.geometry.kept import warmed
from descent.experiments.geometry.pictures import LIMIT, Pictures
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Share, Tables, tidy
from descent.stats import draw_ratio


class Arm(IntEnum):
    """SGD of two batch sizes, full-batch descent, and SGD of the first batch size at the constant mean rate."""

    SMALL = 0
    LARGE = 1
    DESCENT = 2
    STEADY = 3


@dataclass(frozen=True)
class Cycles:
    """ResNet-20 trained at `low`, over whose first epoch the rate rises, then through triangles to `high` and back."""

    replicas: Share = Share(most=10)  # one of every draw of the data
    pictures: Pictures = Pictures()
    batch_sizes: tuple[int, int] = (64, 512)
    low: float = 0.01
    high: float = 0.04  # meant to be beyond the full-batch edge 2/λ₁ of the trained nets, whose λ₁ the table has
    training: int = 60  # epochs before the first cycle
    epochs: int = 10  # of a cycle
    cycles: int = 3
    check: int = 50

    @property
    def epoch(self) -> int:
        """The steps of an epoch of the smaller batch."""
        return self.pictures.examples // self.batch_sizes[0]

    @property
    def period(self) -> int:
        """The steps of a cycle."""
        return self.epochs * self.epoch

    def trained_images(self, lab: Lab) -> dict[str, float]:
        """Return how many images of ResNet-8 the training of all replicas counts as, and the looks at them."""
        replicas, (small, large) = lab.per_draw(self.replicas, self.pictures.draws), self.batch_sizes
        cycled = self.cycles * self.period * (2 * small + large + self.pictures.examples)
        images = self.training * self.epoch * small + cycled
        return self.pictures.worth(float(replicas * images), replicas * 4 * (self.cycles + 1))


@dataclass(frozen=True, eq=False)
class CyclesResult(Result[Cycles]):
    """Before and after every cycle, by arm, (4, 1 + C, N): λ₁, Tr G, ‖G‖_F, loss; lost (4, N): who diverged."""

    title: str
    sets: Draws  # net i is trained on draw i mod D
    sharpness: Array
    trace: Array
    frobenius: Array
    loss: Array
    lost: BoolArray

    @property
    def tail(self) -> Array:
        """The curvature beyond the sharpest direction, Tr G − λ₁."""
        return self.trace - self.sharpness


def run(config: Cycles, lab: Lab) -> CyclesResult:
    """Train once, then take the nets through the cycles in every way.

    Raises: DataMissing without the images.
    """
    title, sets, whole = config.pictures.problem(lab)
    count = lab.per_draw(config.replicas, config.pictures.draws)
    some, many = (replace(whole, batch_size=size, sampling="with_replacement") for size in config.batch_sizes)
    triangle = cyclic(config.period, config.low / config.high)
    steady = constant((1 + config.low / config.high) / 2)
    trained = lab.arms(sgd(config.low), count).run(
        some, whole.model.initial, config.training * config.epoch, schedule=warmed(config.epoch), limit=LIMIT,
        check=config.check,
    )  # fmt: skip
    arms = lab.arms(sgd(config.high), count, apart=1)  # other batches than in training
    one, steps = torch.ones(arms.rows, dtype=torch.float64, device=lab.device), config.cycles * config.period
    probes = {"": every(config.period, config.pictures.watch(whole, config.high * one, one))}
    ways = ((some, triangle), (many, triangle), (whole, triangle), (some, steady))
    runs = [
        arms.run(way, trained.params, steps, probes=probes, schedule=schedule, limit=LIMIT, check=config.check)
        for way, schedule in ways
    ]
    return CyclesResult(
        config, lab, title, sets,
        sharpness=np.stack([done[".curvature"][0, ..., 0].T for done in runs]),
        **{name: np.stack([done[f".{name}"][0].T for done in runs]) for name in ("trace", "frobenius", "loss")},
        lost=np.concatenate([done.lost for done in runs]) | trained.lost,
    )  # fmt: skip


def estimates(result: CyclesResult) -> Estimates:
    """Return what the cycles say about P5-C14; nothing where too few nets are left."""
    arms, sets = (Arm.SMALL, Arm.DESCENT), result.sets
    lost = np.asarray(result.lost[list(arms)].any(axis=0))
    if (~sets.by_draw(lost)).any(axis=1).sum() < 2:
        return {}
    ends = (np.where(lost, np.nan, result.tail[arm, -1]) for arm in arms)
    return {"P5-C14.cycles": draw_ratio(*(sets.by_draw(values) for values in ends))}


def tables(result: CyclesResult) -> Tables:
    """Return means over who did not diverge, one row per arm and cycle, the first before all cycles."""
    parts, (small, large) = [], result.config.batch_sizes
    names = f"batch {small}", f"batch {large}", "full batch", f"batch {small}, constant rate"
    for name, arm in zip(names, Arm, strict=True):
        alive = ~result.lost[arm]
        seen = {key: getattr(result, key)[arm] for key in ("sharpness", "tail", "trace", "frobenius", "loss")}
        means = {key: values[:, alive].mean(axis=1) if alive.any() else np.nan for key, values in seen.items()}
        axes = {"arm": [name], "cycle": range(result.config.cycles + 1)}
        parts.append(tidy(axes, **means, replicas=alive.sum(), diverged=(~alive).sum()))
    return {"cycles": concat(parts, ignore_index=True).assign(data=result.title)}


CYCLES = Experiment(
    "cycles", large=Cycles(), run=run, estimates=estimates, tables=tables, scales=("gpu",),
    small=Cycles(Share(most=3), Pictures.tiny(64, 64), batch_sizes=(8, 32), training=2, epochs=1, cycles=2, check=5),
)  # fmt: skip
