"""The border in convolutional networks: pictures of two classes, and glyphs, odd or even, at a matched step.

Stated for paper scale alone. What `border` asks of small dense nets: full batches along a scan of steps, from one below
descent's edge to one above it, and a small batch at the first. Both rules begin with the same weights and see the same
batches; every draw of the data has a net of its own. The glyphs' net is the pictures' along one axis.

Such nets begin with a curvature near two and end a hundred times sharper, long before they have fitted: where a step is
against the edge is a matter of when one looks. Steps and times were chosen in pilots (seed 1000), by descent's own end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from pandas import DataFrame, concat
from torch import Tensor, nn

from descent.arrays import Array
from descent.data.draws import Draws, fresh
from descent.data.images import channels_first, load, pair, pooled, signs
from descent.engine import Hyper, Params, every
from descent.engine.rules import ema, sgd
from descent.experiments.lab import Arrays, Estimates, Experiment, Found, Lab, Parts, Result, Tables, Unit, so_far
from descent.experiments.synthesis.border import GAP, HEAD, LAG, Pair
from descent.experiments.synthesis.small_nets import ITERATIONS, at_level
from descent.experiments.synthesis.task import sharpness
from descent.measure.gram import gram
from descent.nets import CNN, Model, SquaredError, Stacked, Supervised
from descent.problems.glyphs import glyphs
from descent.stats import Estimate, draw_mean

LOOK = 3
"""Training images that the Gram matrix of an image counts as."""
RULES = ("descent", "heavy ball")
LOOKED = ("loss", "sharpness", "accuracy")


@dataclass(frozen=True)
class Kind:
    """A kind of data, and the steps and times of its nets; a step is an effective one, times are in τ = step · number.

    scan: on full batches, the first below descent's edge to the end, the last beyond it. batch: the small one, at the
    first step. short: the time at which both batches are compared; loss: at which accuracy is.
    """

    data: Literal["cifar10", "glyphs"]
    scan: tuple[float, ...]
    time: float
    short: float
    loss: float
    batch: int = 4


@dataclass(frozen=True)
class Convolutions:
    """Two convolutions and a dense layer without norm, one output, square loss; draws have no image in common."""

    kinds: tuple[Kind, ...]
    draws: int = 10
    examples: int = 128  # of a draw
    tests: int = 1000
    pool: int = 2  # pixels of a side that are averaged to one
    widths: tuple[int, int] = (16, 32)
    dense: int = 64
    looks: int = 40  # after the one at the start
    last: int = 4  # of which the last so many make an end, for descent oscillates at its edge

    def trained_images(self, lab: Lab) -> Mapping[str, float]:
        """Return how many images of ResNet-8 at 32 × 32 pixels all runs are worth, by floating-point operations."""
        return {"ResNet-8": sum(unit.size for unit in units(self, lab, {})) * 2.4 / 74.1}


@dataclass(frozen=True, eq=False)
class Seen:
    """A kind of data: its draws that are there, pairs of rules (2, D, 1, T) along the scan, and on small batches."""

    kind: Kind
    title: str
    draws: tuple[int, ...]
    scan: tuple[Pair, ...]
    batches: Pair

    def border(self, last: int) -> Array:
        """Return e·λ₁ of heavy ball's end where it passes descent's, log-linear between steps, (D, 1)."""
        gaps = np.stack([pair.gap("sharpness", last) for pair in self.scan], -1)
        ends = np.stack([pair.ends("sharpness", last)[1] for pair in self.scan], -1)
        return np.exp(at_level(-gaps, ends + np.log(self.kind.scan), 0.0))

    def accuracy(self) -> Array:
        """Return heavy ball less descent at equal late loss at the first step, percentage points, (D, 1)."""
        pair, level = self.scan[0], float(np.log(self.kind.loss))
        descent, heavy = (at_level(*one, level) for one in zip(pair.loss, pair.accuracy, strict=True))
        return np.asarray(heavy - descent)

    def after(self) -> Array:
        """Return log(onset of the gap in loss/first look with eλ₁ > 2 of descent) at the last step, (D, 1).

        Heavy ball is ahead once its loss, without its lag, is lower by `GAP`. Not a number where either is missing.
        """
        pair, step = self.scan[-1], self.kind.scan[-1]
        heavy = np.apply_along_axis(lambda y: np.interp(pair.time + LAG * step, pair.time, y), -1, pair.loss[1])
        late = pair.time > 0
        ahead, beyond = late & (pair.loss[0] - heavy > GAP), late & (pair.sharpness[0] + np.log(step) > np.log(2))
        onset, first = (np.where(which.any(-1), pair.time[which.argmax(-1)], np.nan) for which in (ahead, beyond))
        return np.asarray(np.log(onset / first))

    def early(self, last: int) -> tuple[Array, Array]:
        """Return log sharpness, heavy ball less descent, (D, 1), at the time `short`: small batches, and full ones."""
        full, looks = self.scan[0], int((self.scan[0].time <= self.kind.short * (1 + 1e-9)).sum())
        until = Pair(full.time[:looks], *(getattr(full, name)[..., :looks] for name in LOOKED))
        return self.batches.gap("sharpness", last), until.gap("sharpness", last)


@dataclass(frozen=True, eq=False)
class ConvolutionsResult(Result[Convolutions]):
    """What is known of each kind of data of which two draws are there."""

    seen: tuple[Seen, ...]


class Right:
    """Percent on the right side of zero, in the place of a loss."""

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return 100 where output and target have one sign, (R, B)."""
        return 100 * (outputs * targets > 0).to(outputs.dtype).mean(-1)


def along_a_line(config: Convolutions, points: int) -> nn.Module:
    """Return the pictures' net for signals (n, 1, 1, points): convolutions over five points, means over two."""
    first, second = config.widths
    return nn.Sequential(
        nn.Conv2d(1, first, (1, 5), padding=(0, 2)), nn.ReLU(), nn.AvgPool2d((1, 2)),
        nn.Conv2d(first, second, (1, 5), padding=(0, 2)), nn.ReLU(), nn.AvgPool2d((1, 2)),
        nn.Flatten(), nn.Linear(second * (points // 4), config.dense), nn.ReLU(), nn.Linear(config.dense, 1),
    )  # fmt: skip


def problem(config: Convolutions, lab: Lab, data: str) -> tuple[str, Draws, Supervised]:
    """Return the name of the data, all draws, and the loss over all of a draw; DataMissing without the images."""
    if data == "glyphs":
        signals, classes = glyphs(lab.streams(config.draws), config.examples + config.tests)
        sets = fresh(config.draws, config.examples, config.tests).to(lab.device)
        inputs, odd = signals.flatten(0, 1)[:, None, None], classes.flatten() % 2
        net = Stacked(along_a_line(config, signals.shape[-1]).to(lab.device))
        return "glyphs, odd or even", sets, _whole(net, inputs, odd, sets)
    images = pair(load(data), "airplane", "automobile")
    sets = lab.draws(len(images), config.examples, config.draws, tests=config.tests)
    inputs, labels = lab.bring(channels_first(pooled(images, config.pool).images), images.labels)
    size, channels = inputs.shape[-1], inputs.shape[1]
    model = CNN(widths=config.widths, dense=(config.dense,), size=size, classes=1, channels=channels)
    return images.title, sets, _whole(model, inputs, labels, sets)


def _whole(model: Model, inputs: Tensor, labels: Tensor, sets: Draws) -> Supervised:
    return Supervised(model, SquaredError(), inputs, signs(labels).unsqueeze(1), sampling="full", rows=sets.rows)


def units(config: Convolutions, lab: Lab, found: Found) -> list[Unit]:
    """Return a unit for every draw, kind of data, step and batch: a pair of rules."""
    return [
        _unit(config, kind, draw, *cell)
        for kind in range(len(config.kinds))
        for draw in range(config.draws)
        for cell in _cells(config.kinds[kind])
    ]


def _cells(kind: Kind) -> list[tuple[float, int]]:
    """Return steps and batches, 0 for all images."""
    return [*((step, 0) for step in kind.scan), (kind.scan[0], kind.batch)]


def _unit(config: Convolutions, place: int, draw: int, step: float, batch: int) -> Unit:
    kind = config.kinds[place]
    stride, looks = _looks(config, kind, step, batch)
    images = stride * looks * (batch or config.examples) + (looks + 1) * (LOOK * config.examples + config.tests / 3)
    work = f"{kind.data}, batches of {batch}" if batch else f"{kind.data}, full batch"
    name = f"{kind.data}-step{step:g}-{f'batch{batch}' if batch else 'full'}-draw{draw}"
    return Unit(name, work, len(RULES) * float(images), (place, draw, step, batch))


def _looks(config: Convolutions, kind: Kind, step: float, batch: int) -> tuple[int, int]:
    """Return the steps between two looks, about the same share of the time for all, and how many looks there are."""
    stride = max(1, round(kind.time / (step * config.looks)))
    return stride, round(config.looks * kind.short / kind.time) if batch else config.looks


def measure(config: Convolutions, lab: Lab, unit: Unit) -> Arrays:
    """Train both rules on one draw; return time (T,), and loss, sharpness, both in logarithms, and accuracy (2, T)."""
    place, draw, step, batch = unit.given
    kind = config.kinds[place]
    title, sets, whole = problem(config, lab, kind.data)
    stride, looks = _looks(config, kind, step, batch)
    whole, probe = _probed(whole, sets.some([draw]))
    objective = replace(whole, batch_size=batch, sampling="with_replacement") if batch else whole

    def run(rule: Hyper) -> tuple[Array, dict[str, Array]]:
        arms = lab.arms(rule, 1, skip=draw)
        done = arms.run(
            objective, whole.model.initial, stride * looks, probes={"": every(stride, probe)}, check=stride, limit=1e3
        )
        seen = {name: np.where(done.lost[0], np.nan, done[f".{name}"][0, 0]) for name in LOOKED}
        return step * done.at(".loss").astype(np.float64), seen

    (time, descent), (_, heavy) = run(sgd(step)), run(ema(step, HEAD))
    return {
        "time": time, **{name: np.stack([descent[name], heavy[name]]) for name in LOOKED}, "title": np.array(title),
    }  # fmt: skip


def _probed(whole: Supervised, sets: Draws) -> tuple[Supervised, Callable[[Params], Mapping[str, Tensor]]]:
    """Return the loss on one draw, and what looks at its nets, (R,) each."""
    own, tests = replace(whole, rows=sets.rows), replace(whole, loss=Right(), rows=sets.test)

    def look(params: Params) -> Mapping[str, Tensor]:
        kernel = gram(own.model, params, own.inputs, rows=own.rows)  # type: ignore[arg-type]
        top = sharpness(kernel, ITERATIONS)
        return {"loss": own.value(params).log(), "sharpness": top.log(), "accuracy": tests.value(params)}

    return own, look


def merge(config: Convolutions, lab: Lab, found: Found) -> ConvolutionsResult | None:
    """Return what is known over whole draws of each kind, None while there is none with two."""
    seen = [one for place in range(len(config.kinds)) if (one := _seen(config, place, found)) is not None]
    return ConvolutionsResult(config, lab, tuple(seen)) if seen else None


def _seen(config: Convolutions, place: int, found: Found) -> Seen | None:
    kind = config.kinds[place]
    names = {d: [_unit(config, place, d, *cell).name for cell in _cells(kind)] for d in range(config.draws)}
    draws = tuple(d for d, several in names.items() if set(several) <= set(found))
    if len(draws) < 2:
        return None
    *scan, batches = (_paired([found[names[d][cell]] for d in draws]) for cell in range(len(names[0])))
    return Seen(kind, str(found[names[draws[0]][0]]["title"]), draws, tuple(scan), batches)


def _paired(several: Sequence[Arrays]) -> Pair:
    """Return the pair of all draws, (2, D, 1, T)."""
    return Pair(several[0]["time"], *(np.stack([one[name] for one in several], 1)[:, :, None] for name in LOOKED))


def run(config: Convolutions, lab: Lab) -> ConvolutionsResult:
    """Measure all units; DataMissing without the images, ValueError for fewer than two draws."""
    result = merge(config, lab, {unit.name: measure(config, lab, unit) for unit in units(config, lab, {})})
    if result is None:
        raise ValueError(f"an interval over draws of the data needs two of them, draws is {config.draws}; take more")
    return result


KEYS = {
    "cifar10": (
        "S-21.edge_cnn", "S-39.below_cnn", "S-39.above_cnn", "S-39.border_cnn", "S-39.accuracy_cnn",
        "S-40.small_cnn", "S-40.full_cnn", "S-41.below_cnn", "S-41.above_cnn", "S-41.after_cnn",
    ),
    "glyphs": (
        "S-21.edge_cnn_glyphs", "S-39.below_cnn_glyphs", "S-39.above_cnn_glyphs", "S-39.border_cnn_glyphs",
        "S-39.accuracy_cnn_glyphs", "S-40.small_cnn_glyphs", "S-40.full_cnn_glyphs", "S-41.below_cnn_glyphs",
        "S-41.above_cnn_glyphs", "S-41.after_cnn_glyphs",
    ),
}  # fmt: skip
"""The tests that a kind of data answers, in the order of `_asked`."""


def estimates(result: ConvolutionsResult) -> Estimates:
    """Return what these nets say about S-21 and S-39 to S-41."""
    pairs = [
        pair
        for seen in result.seen
        for pair in zip(KEYS[seen.kind.data], _asked(seen, result.config.last), strict=True)
    ]
    return {key: found for key, found in pairs if found is not None}


def _asked(seen: Seen, last: int) -> list[Estimate | None]:
    first, above = seen.scan[0], seen.scan[-1]
    edge = seen.kind.scan[-1] * np.exp(above.ends("sharpness", last)[1])
    small, full = seen.early(last)
    values = (
        edge, first.gap("sharpness", last), above.gap("sharpness", last), seen.border(last), seen.accuracy(),
        small, full, first.gap("loss", last), above.gap("loss", last), seen.after(),
    )  # fmt: skip
    return [_mean(one) for one in values]


def _mean(values: Array) -> Estimate | None:
    """Estimate the mean over draws; None where fewer than two are left."""
    return draw_mean(values) if np.isfinite(values).any(axis=1).sum() > 1 else None


def tables(result: ConvolutionsResult) -> Tables:
    """Return one row per kind of data, step and batch; and the courses of both rules, means over the draws."""
    cells = [(seen, *each) for seen in result.seen for each in zip(_cells(seen.kind), _pairs(seen), strict=True)]
    rows = [_row(seen, cell, pair, result.config.last) for seen, cell, pair in cells]
    courses = [_course(seen, cell, pair) for seen, cell, pair in cells]
    return {"convolutions": DataFrame(rows), "convolutions_course": concat(courses, ignore_index=True)}


def _pairs(seen: Seen) -> tuple[Pair, ...]:
    return (*seen.scan, seen.batches)


def _named(seen: Seen, cell: tuple[float, int]) -> dict[str, Any]:
    return {"data": seen.title, "effective": cell[0], "batch": str(cell[1] or "all")}


def _row(seen: Seen, cell: tuple[float, int], pair: Pair, last: int) -> dict[str, Any]:
    """Return e·λ₁ of both ends, and heavy ball less descent; `lost` are draws on which either rule diverged."""
    row = _named(seen, cell) | {"time": float(pair.time[-1]), "draws": len(seen.draws)}
    ends = cell[0] * np.exp(pair.ends("sharpness", last))
    row["lost"] = int(np.isnan(pair.gap("loss", last)).sum())
    row |= {name: float(end[np.isfinite(end)].mean()) for name, end in zip(("descent", "heavy"), ends, strict=True)}
    for name in LOOKED:
        found = _mean(pair.gap(name, last))
        row |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high} if found else {name: np.nan}
    return row


def _course(seen: Seen, cell: tuple[float, int], pair: Pair) -> DataFrame:
    """Return a row per rule and look."""
    means = {name: np.nanmean(getattr(pair, name), axis=(1, 2)) for name in LOOKED}  # (2, T)
    frames = [
        DataFrame(_named(seen, cell) | {"rule": rule, "time": pair.time} | {name: m[a] for name, m in means.items()})
        for a, rule in enumerate(RULES)
    ]
    return concat(frames, ignore_index=True)


def lacking(result: ConvolutionsResult) -> dict[str, str]:
    """Return by test how many draws are there, where that is not all."""
    have = {seen.kind.data: len(seen.draws) for seen in result.seen}
    short = {kind.data: so_far(have.get(kind.data, 0), result.config.draws) for kind in result.config.kinds}
    return {key: words for data, words in short.items() if words for key in KEYS[data]}


SMALL = Convolutions(
    (Kind("cifar10", (0.05, 0.2), 2.0, 1.0, 0.45), Kind("glyphs", (0.05, 0.2), 2.0, 1.0, 0.45)),
    draws=2, examples=24, tests=20, pool=4, widths=(4, 8), dense=8, looks=4, last=2,
)  # fmt: skip
NIGHT = Convolutions(
    (
        Kind("cifar10", (0.01, 0.0125, 0.016, 0.02, 0.025, 0.03), 12.0, 7.5, 0.15),
        Kind("glyphs", (0.012, 0.015, 0.01875, 0.024, 0.03, 0.0375), 24.0, 15.0, 0.12),
    )
)
PACES = {
    "cifar10, full batch": 8000.0, "cifar10, batches of 4": 3500.0,
    "glyphs, full batch": 12000.0, "glyphs, batches of 4": 2800.0,
}  # fmt: skip
"""Training images a second of one core, in pilots."""
CONVOLUTIONS = Experiment(
    "convolutions", SMALL, replace(NIGHT, draws=20), run=run, estimates=estimates, tables=tables, scales=("gpu",),
    night=NIGHT, parts=Parts(units, measure, merge, lacking, PACES),
)  # fmt: skip
