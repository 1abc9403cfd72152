"""Bound, edge and alignment along the training of residual networks on two classes of CIFAR-10, with momentum too.

Stated for paper scale alone. At the edge heavy ball with (lr, B, momentum μ) is plain SGD with lr/(1 + μ) and
B(1 − μ)/(1 + μ). So every pair (η, B) is trained three times: by SGD, by heavy ball with ((1 + μ)η, B(1 + μ)/(1 − μ)),
which that SGD is equivalent to, and, for control, by SGD with the batch and the effective step lr/(1 − μ) of the
heavy ball. Batches are drawn with replacement, as the formulas have it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from enum import IntEnum

import numpy as np
import torch
from pandas import DataFrame, concat

from descent.arrays import Array, BoolArray
from descent.data.draws import Draws
from descent.engine import every, heavy_ball
from descent.experiments.geometry.kept import warmed
from descent.experiments.geometry.looks import Course, levels
from descent.experiments.geometry.pictures import LIMIT, Pictures
from descent.experiments.lab import (
    Arrays,
    Estimates,
    Experiment,
    Found,
    Lab,
    Parts,
    Result,
    Share,
    Tables,
    Unit,
    so_far,
)
from descent.nets import Supervised
from descent.stats import Estimate, draw_mean, draw_ratio

NAMES = ("SGD", "momentum", "SGD, equal effective step")
TWO_CLASSES = 10_000
"""Training images of two classes of CIFAR-10."""
LOOK = 10
"""Training images that an image of a Gram matrix counts as."""


class Kind(IntEnum):
    """The ways of training a pair, in the order of NAMES."""

    PLAIN = 0
    HEAVY = 1
    MATCHED = 2


@dataclass(frozen=True)
class Arm:
    """What trains one pair in one of the ways."""

    pair: int
    kind: Kind
    lr: float
    momentum: float
    batch_size: int

    @property
    def equivalent(self) -> tuple[float, float]:
        """Learning rate and batch size of the plain SGD with the same edge: its own without momentum."""
        return self.lr / (1 + self.momentum), self.batch_size * (1 - self.momentum) / (1 + self.momentum)


@dataclass(frozen=True)
class Residual:
    """Pairs (learning rate, batch size), trained for the same epochs, the rate rising over the first `warm`."""

    replicas: Share = Share(most=10)  # one of every draw of the data
    pictures: Pictures = Pictures()
    pairs: tuple[tuple[float, int], ...] = ((0.005, 4), (0.01, 4), (0.01, 8))
    epochs: int = 200
    warm: float = 20.0  # even the smallest rate gets past the λ₁ of about 650 of an untrained ResNet-20 only so
    looks: int = 4  # after the one at the start
    fitted: float = 0.01  # the loss at the end above which a net has found no minimum, and says nothing about minima
    check: int = 50

    def arms(self, momentum: float) -> tuple[Arm, ...]:
        """Return all arms, pair by pair in the order of NAMES."""
        found, m = [], momentum
        for pair, (lr, size) in enumerate(self.pairs):
            large = round(size * (1 + m) / (1 - m))
            found.append(Arm(pair, Kind.PLAIN, lr, 0.0, size))
            found.append(Arm(pair, Kind.HEAVY, lr * (1 + m), m, large))
            found.append(Arm(pair, Kind.MATCHED, lr * (1 + m) / (1 - m), 0.0, large))
        return tuple(found)

    def period(self, batch_size: int) -> int:
        """Return the steps between two looks."""
        return max(1, round(self.epochs * self.pictures.examples / (batch_size * self.looks)))

    def trained_images(self, lab: Lab) -> dict[str, float]:
        """Return how many images of ResNet-8 the training of all replicas counts as, and the looks at them."""
        arms, replicas = self.arms(lab.momentum), lab.per_draw(self.replicas, self.pictures.draws)
        images = sum(self.period(arm.batch_size) * self.looks * arm.batch_size for arm in arms)
        return self.pictures.worth(float(replicas * images), replicas * (self.looks + 1) * len(arms))


@dataclass(frozen=True, eq=False)
class Spectra(Course):
    """A course with ‖G‖_F and the edge index of the equivalent plain SGD, (T, N), from the whole spectrum."""

    frobenius: Array
    index: Array


@dataclass(frozen=True, eq=False)
class Path:
    """The way of one arm: its course, and at the end loss (N,) over all training images and who diverged, lost (N,)."""

    arm: Arm
    course: Spectra
    loss: Array
    lost: BoolArray

    def bound(self, who: BoolArray) -> Array:
        """Return lr‖G‖_F/√B of the equivalent plain SGD, (T, N'): at most one at minima it keeps, if aligned."""
        lr, batch_size = self.arm.equivalent
        return np.asarray(lr * self.course.frobenius[:, who] / batch_size**0.5)


@dataclass(frozen=True, eq=False)
class ResidualResult(Result[Residual]):
    """All paths, in the order of the arms."""

    title: str
    sets: Draws  # net i is trained on draw i mod D
    paths: tuple[Path, ...]

    def minima(self, path: Path) -> BoolArray:
        """Tell which nets have found a minimum, (N,)."""
        return np.asarray(~path.lost & (path.loss < self.config.fitted))

    def whole(self, *kinds: Kind) -> list[tuple[Path, ...]]:
        """Return the paths of those kinds, pair by pair; a pair in which any net diverged is left out."""
        pairs = [self.paths[begin : begin + len(Kind)] for begin in range(0, len(self.paths), len(Kind))]
        chosen = [tuple(pair[kind] for kind in kinds) for pair in pairs]
        return [paths for paths in chosen if not any(path.lost.any() for path in paths)]


def run(config: Residual, lab: Lab) -> ResidualResult:
    """Train every arm and look.

    Raises: DataMissing without the images.
    """
    title, sets, whole = config.pictures.problem(lab)
    paths: list[Path] = []
    for size in sorted({arm.batch_size for arm in config.arms(lab.momentum)}):
        paths += _trained(config, lab, whole, [arm for arm in config.arms(lab.momentum) if arm.batch_size == size])
    ordered = tuple(sorted(paths, key=lambda path: (path.arm.pair, path.arm.kind)))
    return ResidualResult(config, lab, title, sets, ordered)


def _trained(config: Residual, lab: Lab, whole: Supervised, some: Sequence[Arm], draw: int | None = None) -> list[Path]:
    """Train arms of one batch size, all nets or the one of a draw alone, and look at them."""
    size, count = some[0].batch_size, lab.per_draw(config.replicas, config.pictures.draws)
    rule = heavy_ball([arm.lr for arm in some], [arm.momentum for arm in some])
    arms = lab.arms(rule, count if draw is None else 1, skip=draw or 0)
    lr, batch_size = arms.spread([arm.equivalent for arm in some], torch.float64).unbind(1)
    problem, period = replace(whole, batch_size=size, sampling="with_replacement"), config.period(size)
    done = arms.run(
        problem, problem.model.initial, period * config.looks,
        probes={"": every(period, config.pictures.watch(whole, lr, batch_size))},
        schedule=warmed(max(1, round(config.warm * config.pictures.examples / size))), limit=LIMIT,
        check=config.check,
    )  # fmt: skip
    loss = done.end(whole.value)
    lost = done.lost | ~np.isfinite(loss)
    return [Path(arm, Spectra.of(done, a), loss[a], lost[a]) for a, arm in enumerate(some)]


def estimates(result: ResidualResult) -> Estimates:
    """Return what the nets say about P5-W5, P5-C9, P5-C10 and P5-X1; nothing where too few of them are left."""

    def level(paths: Sequence[Path]) -> Array:  # geometric mean of ‖G‖_F over pairs and looks after the start, (N,)
        return np.asarray(np.exp(np.mean([np.log(path.course.frobenius[1:]) for path in paths], axis=(0, 1))))

    def over(values: Sequence[Array] | Array) -> Estimate:  # draws, of the mean over pairs
        return draw_mean(result.sets.by_draw(np.mean(values, axis=0)))

    found: dict[str, Estimate | Sequence[Estimate]] = {}
    if at_minima := _at_minima(result):
        found["P5-W5.resnet"] = at_minima
    if plain := [path.course for (path,) in result.whole(Kind.PLAIN)]:
        found["P5-C9.resnet"] = levels(result.sets, *plain)
        found["P5-C10.resnet_within"] = over([course.within.mean(axis=(0, 2)) for course in plain])
        found["P5-C10.resnet_slope"] = over([course.tracking for course in plain])
    if pairs := result.whole(Kind.PLAIN, Kind.HEAVY):
        plains, heavies = zip(*pairs, strict=True)
        found["P5-X1.resnet"] = draw_ratio(*(result.sets.by_draw(level(some)) for some in (heavies, plains)))
    return found


def _at_minima(result: ResidualResult) -> list[Estimate]:
    """Return lr‖G‖_F/√B of every arm of plain SGD that has found minima on two draws of the data at least."""
    found = []
    for path in result.paths:
        minima = result.minima(path)
        bound = np.where(minima, path.bound(np.ones_like(minima))[-1], np.nan)
        if path.arm.kind != Kind.HEAVY and result.sets.by_draw(minima).any(axis=1).sum() > 1:
            found.append(draw_mean(result.sets.by_draw(bound)))
    return found


def tables(result: ResidualResult) -> Tables:
    """Return the ends, one row per pair and arm, and the courses, one row per look: means over who did not diverge."""
    ends = DataFrame([_end(result, path) for path in result.paths])
    courses = [_course(result, path) for path in result.paths]
    return {"resnet": ends.assign(data=result.title), "resnet_course": concat(courses, ignore_index=True)}


def _named(result: ResidualResult, path: Path) -> dict[str, float | str]:
    lr, batch_size = result.config.pairs[path.arm.pair]
    return {"pair": f"{lr:g}, {batch_size}", "arm": NAMES[path.arm.kind]}


def _end(result: ResidualResult, path: Path) -> dict[str, float | str]:
    """Return the end of an arm; `bound_minima` is over who has found a minimum, the index a median, ∞ beyond 2/λ₁."""
    arm, minima, alive = path.arm, result.minima(path), ~path.lost
    course = path.course.among(alive)
    means = {
        "loss": path.loss[alive], "sharpness": course.curvature[-1, :, 0], "frobenius": course.frobenius[-1],
        "bound": path.bound(alive)[-1], "bound_minima": path.bound(minima)[-1],
    }  # fmt: skip
    return {
        **_named(result, path),
        "lr": arm.lr, "momentum": arm.momentum, "batch_size": arm.batch_size,
        "equivalent_lr": arm.equivalent[0], "equivalent_batch": arm.equivalent[1],
        **{name: float(values.mean()) if len(values) else np.nan for name, values in means.items()},
        "index": float(np.median(course.index[-1])) if alive.any() else np.nan,
        "minima": int(minima.sum()), "replicas": int(alive.sum()), "diverged": int(path.lost.sum()),
    }  # fmt: skip


def _course(result: ResidualResult, path: Path) -> DataFrame:
    """Return the course of an arm; no rows if all its nets diverged."""
    alive = ~path.lost
    if not alive.any():
        return DataFrame()
    course = path.course.among(alive)
    return course.table().assign(
        **_named(result, path),
        epoch=course.steps * path.arm.batch_size / result.config.pictures.examples,
        sharpness=course.curvature[..., 0].mean(axis=1),
        frobenius=course.frobenius.mean(axis=1),
        bound=path.bound(alive).mean(axis=1),
        index=np.median(course.index, axis=1),
    )


NIGHT = Residual(Share(most=5), Pictures(draws=5, examples=512, measured=512, pool=2), epochs=80, warm=20.0)
"""Five draws that share no image, at 16 × 16 pixels: as many as are fitted in the time, so that there are minima."""
COURSE = tuple(item.name for item in fields(Spectra))
TESTS = ("P5-W5.resnet", "P5-C9.resnet", "P5-C10.resnet_within", "P5-C10.resnet_slope", "P5-X1.resnet")


def units(config: Residual, lab: Lab, found: Found) -> list[Unit]:
    """Return a unit for every arm on every draw of the data."""
    return [_unit(config, arm, draw) for draw in range(config.pictures.draws) for arm in config.arms(lab.momentum)]


def _unit(config: Residual, arm: Arm, draw: int) -> Unit:
    images = config.period(arm.batch_size) * config.looks * arm.batch_size
    looks = LOOK * (config.looks + 1) * config.pictures.measured
    name = f"pair{arm.pair}-{arm.kind.name.lower()}-draw{draw}"
    return Unit(name, f"batches of {arm.batch_size}", float(images + looks), (arm.pair, int(arm.kind), draw))


def measure(config: Residual, lab: Lab, unit: Unit) -> Arrays:
    """Train one arm on one draw; return its course, and loss and lost (1,). DataMissing without the images."""
    pair, kind, draw = unit.given
    title, sets, whole = config.pictures.problem(lab)
    alone = replace(whole, rows=sets.some([draw]).rows)
    (path,) = _trained(config, lab, alone, [config.arms(lab.momentum)[len(Kind) * pair + kind]], draw)
    course = {name: getattr(path.course, name) for name in COURSE}
    return {**course, "end": path.loss, "lost": path.lost, "title": np.array(title)}


def merge(config: Residual, lab: Lab, found: Found) -> ResidualResult | None:
    """Return all arms on the draws that all of them are through, None for fewer than two."""
    arms = config.arms(lab.momentum)
    there = [d for d in range(config.pictures.draws) if all(_unit(config, arm, d).name in found for arm in arms)]
    if len(there) < 2:
        return None
    several = [[found[_unit(config, arm, d).name] for d in there] for arm in arms]
    sets = lab.draws(TWO_CLASSES, config.pictures.examples, config.pictures.draws).some(there)
    paths = tuple(_joined(arm, ones) for arm, ones in zip(arms, several, strict=True))
    return ResidualResult(config, lab, str(several[0][0]["title"]), sets, paths)


def _joined(arm: Arm, several: Sequence[Arrays]) -> Path:
    """Return the path of an arm over all draws, net by net."""
    course = {name: np.concatenate([one[name] for one in several], axis=1) for name in COURSE if name != "steps"}
    loss, lost = (np.concatenate([one[name] for one in several]) for name in ("end", "lost"))
    return Path(arm, Spectra(steps=several[0]["steps"], **course), loss, lost)


def partial(result: ResidualResult) -> dict[str, str]:
    """Return how many draws are there, where that is not all."""
    short = so_far(len(result.sets), result.config.pictures.draws)
    return dict.fromkeys(TESTS, short) if short else {}


PACES = {"batches of 4": 220.0, "batches of 8": 370.0, "batches of 76": 760.0, "batches of 152": 820.0}
"""Training images of ResNet-20 a second of one core, in pilots."""
RESNET = Experiment(
    "resnet", large=Residual(), run=run, estimates=estimates, tables=tables, scales=("gpu",), night=NIGHT,
    small=Residual(
        Share(most=3), Pictures.tiny(96, 32), ((0.01, 4), (0.02, 4)), epochs=2, warm=0.5, looks=2, fitted=1.0, check=5,
    ),
    parts=Parts(units, measure, merge, partial, PACES),
)  # fmt: skip
