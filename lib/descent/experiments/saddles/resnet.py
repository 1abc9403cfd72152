"""The six arms of `cifar` with residual networks, crops and flips: the kind of network the paper trained.

Stated for paper scale alone. The verdicts rest on a small net without batch norm and without weight decay, where an
effective step is what it says, trained on each of ten draws of half of CIFAR-10; a large net with both is a check of
directions, in a table of its own. Two draws have half of their images in common, so that the intervals are somewhat too
narrow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from pandas import DataFrame, concat
from torch import Tensor

from descent.arrays import Array, IntArray
from descent.data.draws import Draws
from descent.data.images import Pictures, pictures
from descent.engine import Params, every
from descent.engine.arms import to_numpy
from descent.engine.precision import Precision
from descent.engine.probes import Leaves
from descent.engine.stack import leaves
from descent.experiments.lab import Arrays, Estimates, Experiment, Found, Lab, Parts, Share, Tables, Unit, so_far, tidy
from descent.experiments.saddles.arms import BEFORE, SIX, Arm, Race, race, rule
from descent.measure.noise import flat
from descent.measure.operators import unflatten
from descent.nets import Augment, CrossEntropy, ResNet, Supervised
from descent.nets.convolutional import Norm
from descent.stats import Estimate, draw_difference, draw_mean, draw_statistic


@dataclass(frozen=True)
class Net:
    """A residual network with its decay, and how many of it there are; each draw of the data trains as many."""

    name: str
    blocks: tuple[int, ...]
    widths: tuple[int, ...]
    norm: Norm
    weight_decay: float
    replicas: Share

    @property
    def model(self) -> ResNet:
        """The network itself."""
        return ResNet(blocks=self.blocks, widths=self.widths, norm=self.norm)


@dataclass(frozen=True)
class Residual:
    """Shuffled epochs of CIFAR-10 with crops and flips at a constant rate, annealed at the beginning of epoch `switch`.

    `main` carries the verdicts, `second` is the check. The training loss is that of the first `watched` images of each
    draw without crops and flips, in float32, batch norms settled on as many images, the same for all.
    """

    main: Net = Net("ResNet-8", (1, 1, 1), (8, 8, 8), "group", 0.0, Share(most=3))
    second: Net | None = Net("ResNet-8, batch norm", (1, 1, 1), (8, 8, 8), "batch", 5e-4, Share(most=3))
    lr: float = 0.02
    batch_size: int = 16
    examples: int = 320
    images: int = 160  # of the examples, in each draw
    draws: int = 2
    test_examples: int = 200
    pool: int = 2  # pixels of a side that are averaged to one
    shift: int = 2
    watched: int = 160
    epochs: int = 3
    switch: int = 2
    parts: int = 2  # looks per epoch at the weights
    tail: int = 2  # of which the last so many give the excess loss
    precision: Precision = "float32"
    compiled: bool = False
    check: int = 5

    @property
    def legs(self) -> tuple[int, int, int]:
        """The steps of the first epoch, up to the switch, and in all."""
        epoch = self.images // self.batch_size
        return epoch, self.switch * epoch, self.epochs * epoch

    def nets(self, lab: Lab, net: Net) -> tuple[int, int]:
        """Return how many nets of one kind each arm has, and of how many draws: of all, if there are enough nets."""
        draws = min(self.draws, lab.count(net.replicas))
        return lab.per_draw(net.replicas, draws), draws

    def trained_images(self, lab: Lab) -> dict[str, float]:
        """Return how many training images all replicas of a net go through, by the net's name."""
        epochs = 3 * self.switch + 6 * (self.epochs - self.switch)
        nets = [net for net in (self.main, self.second) if net is not None]
        return {net.name: float(self.nets(lab, net)[0] * epochs * self.images) for net in nets}


@dataclass(frozen=True, eq=False)
class RaceResult:
    """Final training loss and test accuracy (6, N) of SIX; early (2, N): training loss of plain and momentum.

    excess (2, N): by how much the losses of plain and momentum at the last looks exceed, on average, the loss at the
    mean of their weights; not a number with batch norm. curve, norm (6, N, T): training loss and length of the weights
    at steps (T,). A net that diverged in any arm is not a number in all. sets: the images of every draw.
    """

    sets: Draws
    loss: Array
    accuracy: Array
    early: Array
    excess: Array
    curve: Array
    norm: Array
    steps: IntArray


@dataclass(frozen=True, eq=False)
class ResidualResult:
    """Both races; a night has the main one alone."""

    config: Residual
    lab: Lab
    title: str
    main: RaceResult
    second: RaceResult | None


def run(config: Residual, lab: Lab) -> ResidualResult:
    """Train both nets; DataMissing without the images."""
    data = pictures("cifar10", config.examples, config.test_examples, config.pool, lab.device)
    main = _race(config, lab, config.main, data)
    second = _race(config, lab, config.second, data) if config.second is not None else None
    return ResidualResult(config, lab, data.title, main, second)


def _race(config: Residual, lab: Lab, net: Net, data: Pictures, draw: int | None = None) -> RaceResult:
    """Train one net on its draws of the data, or a single one on that draw, and look at what came of it."""
    count, draws = config.nets(lab, net)
    sets = lab.draws(config.examples, config.images, draws)
    if draw is not None:
        sets, count = sets.some([draw]), 1
    problem = Supervised(
        net.model, CrossEntropy(), data.inputs, data.labels, config.batch_size, "shuffled_epochs", rows=sets.rows,
        augment=Augment(config.shift), precision=config.precision, compiled=config.compiled,
    )  # fmt: skip
    exact, shown = replace(problem, augment=None, precision="float32", compiled=False), sets.rows[:, : config.watched]

    def settled(params: Params) -> Leaves:
        return net.model.settled(leaves(params), data.inputs[: config.watched])

    def loss(params: Params) -> Tensor:
        return exact.value(settled(params), rows=shown)

    epoch = config.legs[0]
    look = every(epoch, lambda params: {"loss": loss(params), "norm": flat(params).norm(dim=1)})
    weights = {"weights": every(max(1, epoch // config.parts), flat)} if net.norm != "batch" else {}
    before, after = (
        rule(arms, config.lr, lab.momentum, annealed=arms is SIX, weight_decay=net.weight_decay)
        for arms in (BEFORE, SIX)
    )
    done = race(problem, lab.arms(before, count, skip=draw or 0), after, config.legs, {"": look}, weights, config.check)
    return RaceResult(
        sets, loss=done.end(loss), early=done.early(loss),
        accuracy=done.end(lambda params: exact.accuracy(settled(params), data.test_inputs, data.test_labels)),
        excess=done.whole(_excess(config, done, loss)), curve=done.curve(".loss"), norm=done.curve(".norm"),
        steps=done.at(".loss"),
    )  # fmt: skip


def _excess(config: Residual, done: Race, loss: Callable[[Params], Tensor]) -> Array:
    """Return the mean loss at the last looks minus the loss at the mean weights, of plain and momentum, (2, N)."""
    records, count = done.last.whole.records, len(done.alive)
    if "weights" not in records:
        return np.full((2, count), np.nan)
    two = slice(0, 2 * count)  # plain and momentum come first
    weights = records["weights"].values[-config.tail :, two]
    like = {name: leaf[two] for name, leaf in leaves(done.last.params).items()}
    losses = torch.stack([loss(unflatten(look, like)) for look in weights])
    excess = losses.mean(dim=0) - loss(unflatten(weights.mean(dim=0), like))
    return to_numpy(excess).reshape(2, -1)


def estimates(result: ResidualResult) -> Estimates:
    """Return what the main net says about P3-C2, P3-C3, P3-C16 and P3-X1."""
    main, by_draw = result.main, result.main.sets.by_draw
    loss, excess = dict(zip(SIX, by_draw(main.loss), strict=True)), by_draw(main.excess)
    return {
        "P3-C2.resnet": draw_statistic(_ratio, excess[1], excess[0]),
        "P3-C3.resnet": draw_difference(loss[Arm.HEAD], loss[Arm.STEP]),
        "P3-C16.resnet": draw_difference(*by_draw(main.early)),
        "P3-X1.resnet": draw_difference(loss[Arm.STEP], loss[Arm.ANNEALED]),
    }


def _ratio(x: Array, y: Array) -> Array:
    """Return the mean of x over that of y, (B, draws, nets) → (B,); one draw's excess may be below 0."""
    return np.asarray(np.nanmean(x, axis=(1, 2)) / np.nanmean(y, axis=(1, 2)))


def tables(result: ResidualResult) -> Tables:
    """Return one row per arm of the main net, of the second one, and the curves of both, means over the nets."""
    config = result.config
    both = ((config.main, result.main), (config.second, result.second))
    races = [(net, race) for net, race in both if net is not None and race is not None]
    curves = [
        tidy(
            {"net": [net.name], "arm": SIX, "step": race.steps},
            loss=np.nanmean(race.curve, axis=1), norm=np.nanmean(race.norm, axis=1),
        )
        for net, race in races
    ]  # fmt: skip
    arms = dict(zip(("resnet", "resnet_check"), (_arms(result, *pair) for pair in races), strict=False))
    return {**arms, "resnet_curve": concat(curves, ignore_index=True)}


def _arms(result: ResidualResult, net: Net, race: RaceResult) -> DataFrame:
    last = rule(SIX, result.config.lr, result.lab.momentum, annealed=True)

    def over_draws(values: Array) -> list[Estimate]:
        return [draw_mean(arm) for arm in race.sets.by_draw(values)]

    return tidy(
        {"arm": SIX}, data=result.title, net=net.name, final_lr=last.lr.numpy(), final_momentum=last.momentum.numpy(),
        weight_decay=net.weight_decay, loss=np.array(over_draws(race.loss), dtype=object),
        accuracy=np.array(over_draws(race.accuracy), dtype=object), norm=np.nanmean(race.norm[:, :, -1], axis=1),
        replicas=np.isfinite(race.loss).sum(axis=1),
    )  # fmt: skip


LARGE = Residual(
    Net("ResNet-8", (1, 1, 1), (16, 32, 64), "group", 0.0, Share(most=10)),
    Net("ResNet-18", (2, 2, 2, 2), (64, 128, 256, 512), "batch", 5e-4, Share(most=4)),
    batch_size=128, examples=50_000, images=25_000, draws=10, test_examples=10_000, pool=1, shift=4, watched=10_000,
    epochs=30, switch=20, tail=4, precision="bf16", compiled=True, check=50,
)  # fmt: skip
NIGHT = replace(
    LARGE, main=replace(LARGE.main, replicas=Share(most=10)), second=None, batch_size=64, images=5000, pool=2, shift=2,
    watched=2500, epochs=15, switch=10, precision="float32", compiled=False, check=20,
)  # fmt: skip
"""Ten draws that share no image."""
ARRAYS = ("loss", "accuracy", "early", "excess", "curve", "norm", "steps")


def units(config: Residual, lab: Lab, found: Found) -> list[Unit]:
    """Return a unit for every draw, on which all arms are trained from the same weights."""
    seen = config.trained_images(lab)[config.main.name] / config.draws
    looks = 6 * config.epochs * config.watched / 3 + 8 * config.test_examples / 3
    return [Unit(f"draw{d}", "all arms", seen + looks, (d,)) for d in range(config.draws)]


def measure(config: Residual, lab: Lab, unit: Unit) -> Arrays:
    """Train all arms on one draw; DataMissing without the images."""
    data = pictures("cifar10", config.examples, config.test_examples, config.pool, lab.device)
    done = _race(config, lab, config.main, data, unit.given[0])
    return {**{name: getattr(done, name) for name in ARRAYS}, "title": np.array(data.title)}


def merge(config: Residual, lab: Lab, found: Found) -> ResidualResult | None:
    """Return the race on the draws that are there, None for fewer than two."""
    there = [d for d in range(config.draws) if f"draw{d}" in found]
    if len(there) < 2:
        return None
    several = [found[f"draw{d}"] for d in there]
    sets = lab.draws(config.examples, config.images, config.draws).some(there)
    whole = {name: np.concatenate([one[name] for one in several], axis=1) for name in ARRAYS if name != "steps"}
    main = RaceResult(sets, steps=several[0]["steps"], **whole)
    return ResidualResult(config, lab, str(several[0]["title"]), main, None)


def partial(result: ResidualResult) -> dict[str, str]:
    """Return how many draws are there, where that is not all."""
    short = so_far(len(result.main.sets), result.config.draws)
    return dict.fromkeys(estimates(result), short) if short else {}


RESNET = Experiment(
    "resnet", Residual(), LARGE, run=run, estimates=estimates, tables=tables, scales=("gpu",), night=NIGHT,
    parts=Parts(units, measure, merge, partial, {"all arms": 900.0}),
)  # fmt: skip
