"""Bound, edge and alignment along the training of residual networks on two classes of CIFAR-10, with momentum too.

Stated for paper scale alone. At the edge heavy ball with (lr, B, momentum μ) is plain SGD with lr/(1 + μ) and
B(1 − μ)/(1 + μ). So every pair (η, B) is trained three times: by SGD, by heavy ball with ((1 + μ)η, B(1 + μ)/(1 − μ)),
which that SGD is equivalent to, and, for control, by SGD with the batch and the effective step lr/(1 − μ) of the
heavy ball. Batches are drawn with replacement, as the formulas have it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np
import torch
from numpy.typing import NDArray
from pandas import DataFrame, concat
from torch import Tensor

from descent.arrays import Array
from descent.engine.rules import heavy_ball, repeat
from descent.engine.streams import Streams, replica_seeds
from descent.engine.train import every, train
from descent.experiments.arms import configure, to_numpy
from descent.experiments.common import Estimates, Experiment, Settings
from descent.experiments.geometry.kept import warmed
from descent.experiments.geometry.pictures import LIMIT, Pictures
from descent.experiments.geometry.training import Course, fitted_slopes, furthest
from descent.nets.supervised import Supervised
from descent.stats.estimate import Estimate
from descent.stats.intervals import geometric_ratio, mean

NAMES = ("SGD", "momentum", "SGD, equal effective step")
PLAIN, HEAVY, MATCHED = range(3)


@dataclass(frozen=True)
class Arm:
    """What trains one pair in one of the ways of NAMES."""

    pair: int
    kind: int
    lr: float
    momentum: float
    batch_size: int

    @property
    def equivalent(self) -> tuple[float, float]:
        """Learning rate and batch size of the plain SGD with the same edge: its own without momentum."""
        return self.lr / (1 + self.momentum), self.batch_size * (1 - self.momentum) / (1 + self.momentum)


@dataclass(frozen=True)
class Residual:
    """Pairs (learning rate, batch size), trained for the same number of epochs; the rate rises over the first `warm`.

    Who has a loss over all training images above `fitted` at the end has found no minimum, and says nothing about
    minima. An untrained ResNet-20 has a λ₁ of about 650, in the direction that moves all outputs alike: it takes the
    rise to get even the smallest rate past it.
    """

    replicas: int
    seed: int
    device: str
    momentum: float
    pictures: Pictures = field(default_factory=Pictures)
    pairs: tuple[tuple[float, int], ...] = ((0.005, 4), (0.01, 4), (0.01, 8))
    epochs: int = 20
    warm: float = 2.0
    looks: int = 4  # after the one at the start
    fitted: float = 0.01
    check: int = 50

    @classmethod
    def cpu(cls, settings: Settings) -> Residual:
        """Return two pairs and an epoch or two of tiny nets."""
        return cls(
            min(settings.replicas, 3),
            settings.seed,
            settings.device,
            settings.momentum,
            Pictures.tiny(96, 32),
            pairs=((0.01, 4), (0.02, 4)),
            epochs=2,
            warm=0.5,
            looks=2,
            fitted=1.0,
            check=5,
        )

    @classmethod
    def paper(cls, settings: Settings) -> Residual:
        """Return three pairs of ResNet-20 on all ten thousand images."""
        return cls(min(settings.replicas, 8), settings.seed, settings.device, settings.momentum)

    @property
    def arms(self) -> tuple[Arm, ...]:
        """All arms, pair by pair in the order of NAMES."""
        m, found = self.momentum, []
        for pair, (lr, size) in enumerate(self.pairs):
            large = round(size * (1 + m) / (1 - m))
            found += [
                Arm(pair, PLAIN, lr, 0.0, size),
                Arm(pair, HEAVY, lr * (1 + m), m, large),
                Arm(pair, MATCHED, lr * (1 + m) / (1 - m), 0.0, large),
            ]
        return tuple(found)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The batch sizes, one stack each."""
        return tuple(sorted({arm.batch_size for arm in self.arms}))

    def period(self, batch_size: int) -> int:
        """Return the steps between two looks."""
        return max(1, round(self.epochs * self.pictures.examples / (batch_size * self.looks)))

    @property
    def trained_images(self) -> dict[str, float]:
        """How many images of ResNet-8 the training of all replicas counts as, and the looks at them."""
        images = sum(self.period(arm.batch_size) * self.looks * arm.batch_size for arm in self.arms)
        looks = (self.looks + 1) * len(self.arms)
        return self.pictures.worth(float(self.replicas * images), self.replicas * looks)


@dataclass(frozen=True, eq=False)
class Path:
    """The way of one arm: its course, and ‖G‖_F and the edge index (T, N), that of the equivalent plain SGD.

    loss (N,): at the end, over all training images; lost (N,): who diverged, whose entries are not numbers.
    """

    arm: Arm
    course: Course
    frobenius: Array
    index: Array
    loss: Array
    lost: NDArray[np.bool_]

    @property
    def bound(self) -> Array:
        """lr‖G‖_F/√B of the equivalent plain SGD, (T, N): at most one at minima it keeps, at alignment one."""
        lr, batch_size = self.arm.equivalent
        return np.asarray(lr * self.frobenius / batch_size**0.5)

    def among(self, who: NDArray[np.bool_]) -> Path:
        """Return the path of some of the nets."""
        course = {item.name: getattr(self.course, item.name)[:, who] for item in fields(Course) if item.name != "steps"}
        return replace(
            self,
            course=replace(self.course, **course),
            frobenius=self.frobenius[:, who],
            index=self.index[:, who],
            loss=self.loss[who],
            lost=self.lost[who],
        )


@dataclass(frozen=True, eq=False)
class ResidualResult:
    """All paths, in the order of the arms."""

    config: Residual
    title: str
    paths: tuple[Path, ...]
    seconds: float

    def minima(self, path: Path) -> NDArray[np.bool_]:
        """Tell which nets have found a minimum, (N,)."""
        return ~path.lost & (path.loss < self.config.fitted)

    def whole(self, *kinds: int) -> list[tuple[Path, ...]]:
        """Return the paths of those kinds, pair by pair; a pair in which any net diverged is left out."""
        pairs = [
            tuple(self.paths[len(NAMES) * pair + kind] for kind in kinds) for pair in range(len(self.config.pairs))
        ]
        return [paths for paths in pairs if not any(path.lost.any() for path in paths)]


def run(config: Residual) -> ResidualResult:
    """Train every arm and look.

    Raises: DataMissing without the images.
    """
    clock = time.perf_counter()
    title, problem = config.pictures.problem(config.device)
    paths = [path for size in config.sizes for path in _stack(config, problem, size)]
    paths.sort(key=lambda path: (path.arm.pair, path.arm.kind))
    return ResidualResult(config, title, tuple(paths), time.perf_counter() - clock)


def _stack(config: Residual, whole: Supervised, size: int) -> list[Path]:
    """Train the arms of one batch size side by side."""
    arms, n = [arm for arm in config.arms if arm.batch_size == size], config.replicas
    streams = Streams(replica_seeds(config.seed, n, config.device).repeat(len(arms)))
    hyper = repeat(heavy_ball([arm.lr for arm in arms], [arm.momentum for arm in arms]), n).to(config.device)
    edge = torch.tensor([arm.equivalent for arm in arms], dtype=torch.float64, device=config.device)
    lr, batch_size = edge.repeat_interleave(n, dim=0).unbind(1)
    probe = every(config.period(size), config.pictures.watch(whole, lr, batch_size))
    problem = replace(whole, batch_size=size, sampling="with_replacement")
    rise = warmed(max(1, round(config.warm * config.pictures.examples / size)))
    done = train(
        problem,
        problem.model.initial(streams),
        hyper,
        config.period(size) * config.looks,
        streams,
        schedule=rise,
        probes={"": probe},
        limit=LIMIT,
        check=config.check,
    )
    loss = whole.value(done.params)
    lost = (done.diverged_at >= 0) | ~loss.isfinite()
    steps = to_numpy(done.records[".loss"].steps)
    found = {name.removeprefix("."): to_numpy(series.values) for name, series in done.records.items()}
    return [_path(arm, slice(a * n, (a + 1) * n), steps, found, loss, lost) for a, arm in enumerate(arms)]


def _path(arm: Arm, rows: slice, steps: Array, found: Mapping[str, Array], loss: Tensor, lost: Tensor) -> Path:
    """Cut the rows of one arm out of the records (T, R, …) of its stack."""
    names = [item.name for item in fields(Course) if item.name != "steps"]
    course = Course(steps, **{name: found[name][:, rows] for name in names})
    return Path(
        arm,
        course,
        found["frobenius"][:, rows],
        found["index"][:, rows],
        to_numpy(loss[rows]),
        lost[rows].cpu().numpy(),
    )


def estimates(result: ResidualResult) -> Estimates:
    """Return what the nets say about P5-W5, P5-C9, P5-C10 and P5-X1; nothing where too few of them are left."""
    ends = [path.bound[-1][result.minima(path)] for path in result.paths if path.arm.kind != HEAVY]
    at_minima = [mean(values) for values in ends if len(values) > 1]
    found = {"P5-W5.resnet": max(at_minima, key=lambda cell: cell.value)} if at_minima else {}
    plain = [path for (path,) in result.whole(PLAIN)]
    if plain:
        found |= _alignment([path.course for path in plain])
    both = result.whole(PLAIN, HEAVY)
    if both and result.config.momentum > 0:
        found["P5-X1.resnet"] = geometric_ratio(*(_level([pair[kind] for pair in both]) for kind in (HEAVY, PLAIN)))
    return found


def _alignment(courses: Sequence[Course]) -> dict[str, Estimate]:
    """Return the alignment furthest from one, the share along eigenvectors that is near it, and how noise grows."""
    inside = [((c.along > 1 / 3) & (c.along < 3)).mean(axis=(0, 2)) for c in courses]
    slopes = [fitted_slopes(c.curvature[-1].T, (c.curvature[-1] * c.along[-1].clip(1e-12)).T) for c in courses]
    return {
        "P5-C9.resnet": furthest(tuple(courses)),
        "P5-C10.resnet_within": mean(np.mean(inside, axis=0)),
        "P5-C10.resnet_slope": mean(np.mean(slopes, axis=0)),
    }


def _level(paths: Sequence[Path]) -> Array:
    """Return the geometric mean of ‖G‖_F over pairs and looks, without the common start, (N,)."""
    return np.asarray(np.exp(np.mean([np.log(path.frobenius[1:]) for path in paths], axis=(0, 1))))


def tables(result: ResidualResult) -> dict[str, DataFrame]:
    """Return the ends, one row per pair and arm, and the courses, one row per look: means over who did not diverge."""
    ends = DataFrame([_end(result, path) for path in result.paths])
    courses = [_course(result, path) for path in result.paths]
    return {"resnet": ends.assign(data=result.title), "resnet_course": concat(courses, ignore_index=True)}


def _named(result: ResidualResult, path: Path) -> dict[str, float | str]:
    lr, batch_size = result.config.pairs[path.arm.pair]
    return {"pair": f"{lr:g}, {batch_size}", "arm": NAMES[path.arm.kind]}


def _end(result: ResidualResult, path: Path) -> Mapping[str, float | str]:
    """Return the end of an arm; `bound_minima` is over who has found a minimum, the index a median, ∞ beyond 2/λ₁."""
    arm, minima, alive = path.arm, result.minima(path), path.among(~path.lost)
    means = {
        "loss": alive.loss,
        "sharpness": alive.course.curvature[-1, :, 0],
        "frobenius": alive.frobenius[-1],
        "bound": alive.bound[-1],
        "bound_minima": path.bound[-1][minima],
    }
    numbers = {name: float(values.mean()) if len(values) else np.nan for name, values in means.items()}
    return {
        **_named(result, path),
        "lr": arm.lr,
        "momentum": arm.momentum,
        "batch_size": arm.batch_size,
        "equivalent_lr": arm.equivalent[0],
        "equivalent_batch": arm.equivalent[1],
        **numbers,
        "index": float(np.median(alive.index[-1])) if len(alive.loss) else np.nan,
        "minima": int(minima.sum()),
        "replicas": len(alive.loss),
        "diverged": int(path.lost.sum()),
    }


def _course(result: ResidualResult, path: Path) -> DataFrame:
    """Return the course of an arm; no rows if all its nets diverged."""
    alive = path.among(~path.lost)
    if not len(alive.loss):
        return DataFrame()
    c, names = alive.course, ("uncentred", "centred", "loss", "noise", "stable_rank")
    rows = {name: getattr(c, name).mean(axis=1) for name in names}
    rows |= {
        "sharpness": c.curvature[..., 0].mean(axis=1),
        "frobenius": alive.frobenius.mean(axis=1),
        "bound": alive.bound.mean(axis=1),
        "index": np.median(alive.index, axis=1),
        "within": ((c.along > 1 / 3) & (c.along < 3)).mean(axis=(1, 2)),
    }
    epoch = c.steps * path.arm.batch_size / result.config.pictures.examples
    return DataFrame({**_named(result, path), "step": c.steps.astype(int), "epoch": epoch, **rows})


RESNET = Experiment(
    "resnet",
    ("P5-C9", "P5-C10", "P5-W5", "P5-X1"),
    lambda settings: run(configure(Residual, settings)),
    estimates,
    tables,
    scales=("gpu",),
)
