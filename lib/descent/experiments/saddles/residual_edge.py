"""Is it the edge? Momentum and plain descent with the matched step on a residual net, at a large step and a small one.

`resnet` finds annealed momentum below annealed plain descent with the matched step, where nothing should be left of
momentum. The matched step is ten times the plain one, and on the sign map plain descent stops at an edge that momentum
passes. If that is the reason, momentum stands before the cut where plain descent could not stand, and at a step well
inside the edge the difference is gone. Stated for paper scale alone; nets, data, batches and cut are those of `resnet`,
drawn anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from pandas import DataFrame
from torch import Tensor

from descent.arrays import Array
from descent.data.images import pictures
from descent.engine import ArmRun, Params, every
from descent.engine.probes import Leaves
from descent.engine.stack import leaves
from descent.engine.streams import Streams
from descent.experiments.lab import Arrays, Estimates, Experiment, Found, Lab, Parts, Result, Tables, Unit, so_far
from descent.experiments.saddles import resnet
from descent.experiments.saddles.arms import Arm, rule
from descent.experiments.saddles.resnet import Residual
from descent.measure.curvature import hessian
from descent.measure.spectra import top_eigenpairs
from descent.nets import Augment, CrossEntropy, Supervised
from descent.stats import Estimate, draw_difference, draw_mean

BEFORE = (Arm.HEAD, Arm.MATCHED)
AFTER = (Arm.STEP, Arm.ANNEALED)
"""What the two become at the cut."""
PRODUCT = 4
"""Training images that an image of a curvature product counts as."""


@dataclass(frozen=True)
class Edge:
    """The race of `resnet` in two arms; the first share of its step is all of it, the last is well inside the edge."""

    race: Residual
    shares: tuple[float, float] = (1.0, 0.125)  # of the learning rate
    before: int = 3  # the epochs before the cut at the ends of which the curvature is looked at, and at their beginning
    curved: int = 500  # images of each draw that the curvature is that of
    products: int = 20

    def trained_images(self, lab: Lab) -> Mapping[str, float]:
        """Return how many images of ResNet-8 all runs are worth."""
        return {self.race.main.name: sum(unit.size for unit in units(self, lab, {}))}

    def effective(self, lab: Lab) -> Array:
        """Return the effective steps, (2,)."""
        return np.array([share * self.race.lr / (1 - lab.momentum) for share in self.shares])


@dataclass(frozen=True, eq=False)
class EdgeResult(Result[Edge]):
    """By share, on the draws that are there: final training loss and curvature before the cut, (2, D) of two arms each.

    loss, sharpness: one entry (2, D) per share; the curvature is the mean over the looks. A net that diverged in either
    arm is not a number in both.
    """

    title: str
    loss: tuple[Array, ...]
    sharpness: tuple[Array, ...]

    def gap(self, place: int) -> Estimate:
        """Return annealed momentum's final loss less annealed plain descent's, at a share."""
        momentum, plain = self.loss[place][..., None]
        return draw_difference(momentum, plain)

    def against_edge(self, place: int) -> tuple[Estimate, Estimate]:
        """Return e·λ₁ of momentum and of plain descent before the cut, which is 2 at plain descent's edge."""
        effective = self.config.effective(self.lab)[place]
        momentum, plain = effective * self.sharpness[place][..., None]
        return draw_mean(momentum), draw_mean(plain)


def run(config: Edge, lab: Lab) -> EdgeResult:
    """Measure all units; DataMissing without the images, ValueError for fewer than two draws."""
    result = merge(config, lab, {unit.name: measure(config, lab, unit) for unit in units(config, lab, {})})
    if result is None:
        raise ValueError(f"an interval over draws of the data needs two of them, draws is {config.race.draws}")
    return result


def units(config: Edge, lab: Lab, found: Found) -> list[Unit]:
    """Return a unit for every share and draw: both arms from the same weights."""
    race = config.race
    looks = race.epochs * race.watched / 3 + (config.before + 1) * PRODUCT * config.products * config.curved
    size = 2 * (race.epochs * race.images + looks)
    return [
        Unit(f"step{share:g}-draw{draw}", "two arms", size, (place, draw))
        for place, share in enumerate(config.shares)
        for draw in range(race.draws)
    ]


def measure(config: Edge, lab: Lab, unit: Unit) -> Arrays:
    """Train both arms on one draw; return their final loss and their curvature at the looks, (2,) and (2, T)."""
    race, (place, draw) = config.race, unit.given
    data = pictures("cifar10", race.examples, race.test_examples, race.pool, lab.device)
    rows = lab.draws(race.examples, race.images, race.draws).some([draw]).rows
    exact = Supervised(
        race.main.model, CrossEntropy(), data.inputs, data.labels, race.batch_size, "shuffled_epochs", rows=rows
    )
    done, end = _trained(config, lab, replace(exact, augment=Augment(race.shift)), place, draw)
    watched, lost = rows[:, : race.watched], np.asarray(end.lost.any(axis=0))
    loss = np.where(lost, np.nan, end.end(lambda params: exact.value(params, rows=watched)))[:, 0]
    sharpness = np.where(lost[:, None], np.nan, done["sharpness"])[:, 0]
    return {"loss": loss, "sharpness": sharpness, "title": np.array(data.title)}


def _trained(
    config: Edge, lab: Lab, problem: Supervised, place: int, draw: int
) -> tuple[ArmRun[Leaves], ArmRun[Leaves]]:
    """Return the last epochs before the cut, with the curvature at their ends, and what follows the cut."""
    race, lr = config.race, config.race.lr * config.shares[place]
    epoch, cut, end = race.legs
    before, after = (rule(arms, lr, lab.momentum, annealed=arms is AFTER) for arms in (BEFORE, AFTER))
    arms = lab.arms(before, 1, skip=draw)
    start = arms.run(problem, problem.model.initial, cut - config.before * epoch, check=race.check)
    done = start.then(cut, probes={"sharpness": every(epoch, _curvature(config, problem, arms.streams.seeds))})
    return done, done.fork(after, (0, 1)).then(end)


def _curvature(config: Edge, problem: Supervised, seeds: Tensor) -> Callable[[Params], Tensor]:
    """Return what finds the largest eigenvalue of the Hessian on the first images of the draw, without augmentation."""
    data = problem.data.among(slice(config.curved))
    some = replace(
        problem, inputs=data.inputs, targets=data.targets, rows=data.rows, batch_size=None, sampling="full",
        augment=None,
    )  # fmt: skip

    def look(params: Params) -> Tensor:
        operator = hessian(some, leaves(params))
        return top_eigenpairs(operator, 1, Streams(seeds), steps=config.products, tolerance=1e-2).values[:, 0]

    return look


def merge(config: Edge, lab: Lab, found: Found) -> EdgeResult | None:
    """Return what is known on the draws that are there at every share, None for fewer than two."""
    there = [[d for d in range(config.race.draws) if f"step{share:g}-draw{d}" in found] for share in config.shares]
    if min(map(len, there)) < 2:
        return None
    cells = [
        [found[f"step{share:g}-draw{d}"] for d in draws] for share, draws in zip(config.shares, there, strict=True)
    ]
    return EdgeResult(
        config, lab, str(cells[0][0]["title"]),
        loss=tuple(np.stack([one["loss"] for one in row], axis=-1) for row in cells),
        sharpness=tuple(np.stack([one["sharpness"].mean(-1) for one in row], axis=-1) for row in cells),
    )  # fmt: skip


def partial(result: EdgeResult) -> dict[str, str]:
    """Return how many draws are there, where that is not all."""
    short = so_far(min(loss.shape[-1] for loss in result.loss), result.config.race.draws)
    return dict.fromkeys(estimates(result), short) if short else {}


def estimates(result: EdgeResult) -> Estimates:
    """Return what the two steps say about P3-X11."""
    return {
        "P3-X11.beyond": result.against_edge(0)[0],
        "P3-X11.held": result.against_edge(0)[1],
        "P3-X11.inside": result.gap(-1),
    }


def tables(result: EdgeResult) -> Tables:
    """Return a row per step: e·λ₁ of both arms before the cut, and the difference in the final loss."""
    rows = []
    for place, effective in enumerate(result.config.effective(result.lab)):
        named = dict(zip(("momentum", "plain"), result.against_edge(place), strict=True)) | {"gap": result.gap(place)}
        row = {"data": result.title, "effective": effective, "draws": result.loss[place].shape[-1]}
        for name, found in named.items():
            row |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
        rows.append(row)
    return {"residual_edge": DataFrame(rows)}


SMALL = Edge(Residual(), before=1, curved=40, products=6)
NIGHT = Edge(resnet.NIGHT)
RESIDUAL_EDGE = Experiment(
    "residual_edge", SMALL, Edge(resnet.LARGE), run=run, estimates=estimates, tables=tables, scales=("gpu",),
    night=NIGHT, parts=Parts(units, measure, merge, partial, {"two arms": 2000.0}),
)  # fmt: skip
