"""Three cycles of the learning rate on residual networks: what SGD and full-batch descent make of the same schedule.

Stated for paper scale alone. All arms start from the same trained nets and take the same number of steps at the same
rates. Equal epochs would leave full-batch descent some fifteen steps; so the images are few enough to give it as many
steps as SGD has, and are those on which curvature is measured. The lengths are told in epochs of the smaller batch.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from pandas import DataFrame, concat

from descent.arrays import Array
from descent.engine.probes import Leaves
from descent.engine.rules import Schedule, constant, cyclic, repeat, sgd
from descent.engine.streams import Streams, replica_seeds
from descent.engine.train import every, train
from descent.experiments.arms import configure, to_numpy
from descent.experiments.common import Estimates, Experiment, Settings
from descent.experiments.geometry.kept import warmed
from descent.experiments.geometry.pictures import LIMIT, Pictures
from descent.nets.supervised import Supervised
from descent.stats.intervals import geometric_ratio

SMALL, LARGE, DESCENT, STEADY = range(4)


@dataclass(frozen=True)
class Cycles:
    """ResNet-20 trained at `low`, then taken through triangles from `low` to `high` and back.

    The arms: SGD of two batch sizes, full-batch descent, and, for control, SGD of the first batch size at the constant
    mean of both rates. `high` is meant to be beyond the full-batch edge 2/λ₁ of nets trained at `low`, where the rate
    first rises over an epoch; the table has the λ₁ they came with.
    """

    replicas: int
    seed: int
    device: str
    pictures: Pictures = field(default_factory=lambda: Pictures(examples=2000))
    batch_sizes: tuple[int, int] = (64, 512)
    low: float = 0.01
    high: float = 0.04
    training: int = 30  # epochs before the first cycle
    epochs: int = 5  # of a cycle
    cycles: int = 3
    check: int = 50

    @classmethod
    def cpu(cls, settings: Settings) -> Cycles:
        """Return a few steps of tiny nets."""
        return cls(
            min(settings.replicas, 3),
            settings.seed,
            settings.device,
            Pictures.tiny(64, 64),
            batch_sizes=(8, 32),
            training=2,
            epochs=1,
            cycles=2,
            check=5,
        )

    @classmethod
    def paper(cls, settings: Settings) -> Cycles:
        """Return fifteen epochs of cycles of ResNet-20."""
        return cls(min(settings.replicas, 8), settings.seed, settings.device)

    @property
    def epoch(self) -> int:
        """The steps of an epoch of the smaller batch."""
        return self.pictures.examples // self.batch_sizes[0]

    @property
    def period(self) -> int:
        """The steps of a cycle."""
        return self.epochs * self.epoch

    @property
    def names(self) -> tuple[str, ...]:
        """The arms."""
        small, large = self.batch_sizes
        return f"batch {small}", f"batch {large}", "full batch", f"batch {small}, constant rate"

    @property
    def trained_images(self) -> dict[str, float]:
        """How many images of ResNet-8 the training of all replicas counts as, and the looks at them."""
        small, large = self.batch_sizes
        cycled = self.cycles * self.period * (2 * small + large + self.pictures.examples)
        images = self.training * self.epoch * small + cycled
        return self.pictures.worth(float(self.replicas * images), self.replicas * 4 * (self.cycles + 1))


@dataclass(frozen=True, eq=False)
class CyclesResult:
    """Before and after every cycle, by arm, (4, 1 + C, N): λ₁, Tr G, ‖G‖_F, loss; lost (4, N): who diverged."""

    config: Cycles
    title: str
    sharpness: Array
    trace: Array
    frobenius: Array
    loss: Array
    lost: NDArray[np.bool_]
    seconds: float

    @property
    def tail(self) -> Array:
        """The curvature beyond the sharpest direction, Tr G − λ₁."""
        return self.trace - self.sharpness


def run(config: Cycles) -> CyclesResult:
    """Train once, then take the nets through the cycles in every way.

    Raises: DataMissing without the images.
    """
    clock = time.perf_counter()
    title, whole = config.pictures.problem(config.device)
    some, many = (replace(whole, batch_size=size, sampling="with_replacement") for size in config.batch_sizes)
    streams = Streams(replica_seeds(config.seed, config.replicas, config.device))
    hyper = repeat(sgd(config.low), config.replicas).to(config.device)
    start = train(
        some,
        whole.model.initial(streams),
        hyper,
        config.training * config.epoch,
        streams,
        schedule=warmed(config.epoch),
        limit=LIMIT,
        check=config.check,
    )
    triangle = cyclic(config.period, config.low / config.high)
    steady = constant((1 + config.low / config.high) / 2)
    arms = ((some, triangle), (many, triangle), (whole, triangle), (some, steady))
    found, lost = zip(*(_arm(config, whole, *arm, cast(Leaves, start.params)) for arm in arms), strict=True)
    measured = {name: np.stack([one[name] for one in found]) for name in found[0]}
    return CyclesResult(
        config,
        title,
        **measured,
        lost=np.stack(lost) | (start.diverged_at >= 0).cpu().numpy(),
        seconds=time.perf_counter() - clock,
    )


def _arm(
    config: Cycles, whole: Supervised, problem: Supervised, schedule: Schedule, start: Leaves
) -> tuple[dict[str, Array], NDArray[np.bool_]]:
    """Return what was measured before and after every cycle, (1 + C, N) by name, and who diverged, (N,)."""
    streams = Streams(replica_seeds(config.seed + 1, config.replicas, config.device))  # other batches than in training
    hyper = repeat(sgd(config.high), config.replicas).to(config.device)
    one = torch.ones(config.replicas, dtype=torch.float64, device=config.device)
    probe = every(config.period, config.pictures.watch(whole, config.high * one, one))
    done = train(
        problem,
        start,
        hyper,
        config.cycles * config.period,
        streams,
        schedule=schedule,
        probes={"": probe},
        limit=LIMIT,
        check=config.check,
    )
    found = {name: to_numpy(done.records[f".{name}"].values) for name in ("trace", "frobenius", "loss")}
    found["sharpness"] = to_numpy(done.records[".curvature"].values[..., 0])
    return found, (done.diverged_at >= 0).cpu().numpy()


def estimates(result: CyclesResult) -> Estimates:
    """Return what the cycles say about P5-C14; nothing where too few nets are left."""
    alive = ~result.lost[[SMALL, DESCENT]].any(axis=0)
    if alive.sum() < 2:
        return {}
    return {"P5-C14.cycles": geometric_ratio(*(result.tail[arm, -1, alive] for arm in (SMALL, DESCENT)))}


def tables(result: CyclesResult) -> dict[str, DataFrame]:
    """Return means over who did not diverge, one row per arm and cycle, the first before all cycles."""
    return {"cycles": concat([_rows(result, arm) for arm in range(4)], ignore_index=True).assign(data=result.title)}


def _rows(result: CyclesResult, arm: int) -> DataFrame:
    alive = ~result.lost[arm]
    names = ("sharpness", "tail", "trace", "frobenius", "loss")
    numbers = {name: getattr(result, name)[arm][:, alive] for name in names}
    means = {name: values.mean(axis=1) if alive.any() else np.nan for name, values in numbers.items()}
    return DataFrame(
        {
            "arm": result.config.names[arm],
            "cycle": np.arange(result.config.cycles + 1),
            **means,
            "replicas": int(alive.sum()),
            "diverged": int((~alive).sum()),
        }
    )


CYCLES = Experiment(
    "cycles", ("P5-C14",), lambda settings: run(configure(Cycles, settings)), estimates, tables, scales=("gpu",)
)
