"""The border: at a matched step heavy ball ends flatter below descent's edge and sharper above it.

Full batches along a scan of steps, and a map of steps and batches; both rules see the same batches. The training loss
has the opposite sign: heavy ball gains on descent only where descent meets its edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from descent.arrays import Array
from descent.engine import every, stack
from descent.engine.rules import ema, sgd
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Share, Tables, tidy
from descent.experiments.synthesis.small_nets import SCALES, at_level, looks, small_task
from descent.experiments.synthesis.task import DataSet, Task
from descent.stats import Estimate, draw_mean, draw_statistic

HEAD = 0.9
LAG = HEAD / (1 - HEAD)  # steps by which heavy ball is behind
GAP = 0.1  # in log loss, from which heavy ball counts as ahead
BELOW, ABOVE, SLOW = 0.4, 1.0, 0.2  # steps that tests are stated for


@dataclass(frozen=True)
class Border:
    """Nets on clean digits and glyphs; the map is of digits, with one row of glyphs. Steps of glyphs are scaled."""

    draws: int = 10
    replicas: Share | int = 10  # one net of each draw
    scan: tuple[float, ...] = (0.2, 0.4, 0.5, 0.6, 0.8, 1.0)  # effective steps on full batches
    time: float = 240.0
    look: float = 4.0
    last: float = 20.0  # over which what oscillates at the end is averaged
    onset: tuple[float, ...] = (0.8, 1.0)  # steps at which it is watched when the gap opens
    loss: tuple[float, ...] = (0.03, 0.05)  # late loss at which accuracy is compared, of each kind of data
    map_steps: tuple[float, ...] = (0.2, 0.4, 0.8, 1.2)
    map_batches: tuple[int, ...] = (2, 4, 8, 16, 32, 0)  # 0: all images
    map_time: float = 150.0
    data: tuple[DataSet, ...] = ("digits", "glyphs")


class Pair(NamedTuple):
    """Both rules, descent first, at one step and batch: (2, D, N/D, T) along the run; a diverged net is nan."""

    time: Array
    loss: Array
    sharpness: Array
    accuracy: Array

    def ends(self, name: str, last: int) -> Array:
        """Return the mean over the last looks, (2, D, N/D)."""
        return np.asarray(getattr(self, name)[..., -last:].mean(-1))

    def gap(self, name: str, last: int) -> Array:
        """Return heavy ball less descent at the end, (D, N/D)."""
        descent, heavy = self.ends(name, last)
        return np.asarray(heavy - descent)


@dataclass(frozen=True, eq=False)
class BorderResult(Result[Border]):
    """Pairs along the scan by data, and ends of the map."""

    scan: tuple[tuple[Pair, ...], ...]
    map_sharpness: Array  # (E, B, D, N/D), heavy ball less descent in log λ₁
    map_loss: Array  # the same in log loss
    row: Array  # (2, D, N/D): log λ₁ of glyphs, heavy ball less descent, at the smaller step, batch 4 and full

    @property
    def last(self) -> int:
        """The number of looks that an end is averaged over."""
        return round(self.config.last / self.config.look)

    def steps(self, data: int) -> Array:
        """Return the steps of a scan, as they were taken."""
        return np.array(self.config.scan) * SCALES[self.config.data[data]]

    def at(self, effective: float, data: int = 0) -> Pair:
        """Return the full-batch pair of one step."""
        return self.scan[data][self.config.scan.index(effective)]

    def border(self, data: int = 0) -> Array:
        """Return e·λ₁ of heavy ball's end where it passes descent's, log-linear between steps, (D, N/D)."""
        gaps = np.stack([pair.gap("sharpness", self.last) for pair in self.scan[data]], -1)
        ends = np.stack([pair.ends("sharpness", self.last)[1] for pair in self.scan[data]], -1)
        at = ends + np.log(self.steps(data))
        return np.exp(at_level(-gaps, at, 0.0))

    def accuracy(self, data: int = 0) -> Array:
        """Return heavy ball less descent at equal late loss, percentage points, (D, N/D)."""
        pair, level = self.at(BELOW, data), float(np.log(self.config.loss[data]))
        descent, heavy = (at_level(*one, level) for one in zip(pair.loss, pair.accuracy, strict=True))
        return np.asarray(heavy - descent)

    def after(self, effective: float) -> Array:
        """Return log(onset of the gap in loss/first look with eλ₁ > 2 of descent), (D, N/D); nan where neither is."""
        pair = self.at(effective)
        shift = LAG * effective
        heavy = np.apply_along_axis(lambda y: np.interp(pair.time + shift, pair.time, y), -1, pair.loss[1])
        ahead = (pair.loss[0] - heavy > GAP) & (pair.time > 5)
        beyond = pair.sharpness[0] + np.log(effective) > np.log(2)
        both = ahead.any(-1) & beyond.any(-1)
        onset, first = (pair.time[np.argmax(which, -1)] for which in (ahead, beyond))
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.where(both & (first > 0), np.log(onset / np.where(first > 0, first, 1.0)), np.nan))


def run(config: Border, lab: Lab) -> BorderResult:
    """Train every pair."""
    tasks = [small_task(lab, config.draws, data) for data in config.data]
    scan = tuple(
        tuple(_pair(config, lab, task, e * SCALES[data], 0, config.time) for e in config.scan)
        for task, data in zip(tasks, config.data, strict=True)
    )
    last = round(config.last / config.look)
    sharp, loss = np.empty((2, len(config.map_steps), len(config.map_batches), *scan[0][0].loss.shape[1:3]))
    for i, e in enumerate(config.map_steps):
        for j, batch in enumerate(config.map_batches):
            pair = _pair(config, lab, tasks[0], e, batch, config.map_time, only=config.last)
            sharp[i, j], loss[i, j] = pair.gap("sharpness", last), pair.gap("loss", last)
    rows = [
        _pair(config, lab, tasks[-1], BELOW * SCALES[config.data[-1]], b, config.map_time, only=config.last)
        for b in (4, 0)
    ]
    return BorderResult(config, lab, scan, sharp, loss, np.stack([pair.gap("sharpness", last) for pair in rows]))


def _pair(
    config: Border, lab: Lab, task: Task, effective: float, batch: int, time: float, only: float | None = None
) -> Pair:
    """Train descent and heavy ball on the same batches; only: look at the last stretch of time alone."""
    arms = lab.arms(
        stack(sgd(effective), ema(effective, HEAD)), lab.per_draw(config.replicas, config.draws), torch.float64
    )
    stride = max(1, round(config.look / effective))
    probes = {"": every(stride, lambda params: looks(task, params) | {"accuracy": task.accuracy(params)})}
    steps = round(time / effective)
    if only is None:
        run = arms.run(task.objective(batch), task.start, steps, probes=probes, check=10, limit=1e3)
    else:
        before = arms.run(task.objective(batch), task.start, steps - round(only / effective), check=10, limit=1e3)
        run = before.then(steps, probes=probes)
    lost = run.lost[..., None]
    seen = [task.sets.by_draw(np.moveaxis(np.where(lost, np.nan, run[f".{name}"]), -1, 0)) for name in LOOKED]
    return Pair(effective * run.at(".loss").astype(np.float64), *(np.moveaxis(one, 0, -1) for one in seen))


LOOKED = ("loss", "sharpness", "accuracy")


def estimates(result: BorderResult) -> Estimates:
    """Return what the border does to sharpness and loss, for S-21 and S-39 to S-41."""
    config, last = result.config, result.last
    small, full = config.map_batches.index(4), config.map_batches.index(0)
    row = result.map_sharpness[config.map_steps.index(BELOW)]
    found: dict[str, Estimate | Sequence[Estimate] | None] = {
        "S-21.edge": _mean(ABOVE * np.exp(result.at(ABOVE).ends("sharpness", last)[1])),
        "S-39.below": _mean(result.at(BELOW).gap("sharpness", last)),
        "S-39.above": _mean(result.at(ABOVE).gap("sharpness", last)),
        "S-39.border": _mean(result.border()),
        "S-39.accuracy": _mean(result.accuracy()),
        "S-40.small": _mean(row[small]),
        "S-40.full": _mean(row[full]),
        "S-41.below": _mean(result.at(SLOW).gap("loss", last)),
        "S-41.above": _mean(result.at(ABOVE).gap("loss", last)),
        "S-41.after": [one for e in config.onset if (one := _mean(result.after(e))) is not None],
        "S-41.same": draw_statistic(
            _opposite, *_by_cell(result.map_sharpness), *_by_cell(result.map_loss), seed=result.lab.seed
        ),
    }
    if len(result.scan) > 1:
        found |= {
            "S-39.below_glyphs": _mean(result.at(BELOW, 1).gap("sharpness", last)),
            "S-39.above_glyphs": _mean(result.at(ABOVE, 1).gap("sharpness", last)),
            "S-39.border_glyphs": _mean(result.border(1)),
            "S-39.accuracy_glyphs": _mean(result.accuracy(1)),
            "S-40.small_glyphs": _mean(result.row[0]),
            "S-40.full_glyphs": _mean(result.row[1]),
            "S-41.below_glyphs": _mean(result.at(SLOW, 1).gap("loss", last)),
            "S-41.above_glyphs": _mean(result.at(ABOVE, 1).gap("loss", last)),
        }
    return {key: value for key, value in found.items() if value is not None and value != []}


def _mean(values: Array) -> Estimate | None:
    """Estimate the mean over draws; None where fewer than two are left."""
    return draw_mean(values) if np.isfinite(values).any(axis=1).sum() > 1 else None


def _by_cell(values: Array) -> list[Array]:
    """Return the cells of a map, (D, N/D) each, zero for what diverged: it has no sign."""
    return list(np.nan_to_num(values).reshape(-1, *values.shape[2:]))


def _opposite(*cells: Array) -> Array:
    """Return the share of cells in which the means of sharpness and loss, (S, D, N/D) each, have opposite signs."""
    sharp, loss = np.split(np.stack(cells).sum(axis=(-2, -1)), 2)
    known = sharp * loss != 0
    return np.asarray((sharp * loss < 0).sum(0) / known.sum(0))


def tables(result: BorderResult) -> Tables:
    """Return the scan and the map."""
    config, last = result.config, result.last
    gaps = {name: np.array([[pair.gap(name, last) for pair in pairs] for pairs in result.scan]) for name in LOOKED[:2]}
    ends = np.exp([[pair.ends("sharpness", last) for pair in pairs] for pairs in result.scan])
    steps = np.array([result.steps(data) for data in range(len(result.scan))])
    edges = np.moveaxis(np.nanmean(ends, (-2, -1)) * steps[..., None], -1, 0)
    scan = tidy(
        {"data": config.data, "scan": config.scan}, effective=steps, descent=edges[0], heavy=edges[1],
        **_columns(gaps),
    )  # fmt: skip
    grid = {"effective": config.map_steps, "batch": [str(batch or "all") for batch in config.map_batches]}
    lost = np.isnan(result.map_sharpness).sum((-2, -1))
    cells = {"sharpness": result.map_sharpness, "loss": result.map_loss}
    return {"border": scan, "border_map": tidy(grid, lost=lost, **_columns(cells))}


def _columns(gaps: dict[str, Array]) -> dict[str, Array]:
    """Return means over draws and their intervals, (…, D, N/D) → (…); nan where hardly a draw is left."""
    found = {}
    for name, values in gaps.items():
        rows = [_mean(one) for one in values.reshape(-1, *values.shape[-2:])]
        for end in ("value", "low", "high"):
            column = np.array([getattr(one, end) if one else np.nan for one in rows])
            found[name if end == "value" else f"{name}_{end}"] = column.reshape(values.shape[:-2])
    return found


BORDER = Experiment(
    "border", small=Border(), large=Border(
        replicas=Share(over=25, least=40), scan=(0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0),
        map_steps=(0.1, 0.2, 0.4, 0.8, 1.2), map_batches=(2, 4, 8, 16, 32, 64, 0),
    ), run=run, estimates=estimates,
    tables=tables,
)  # fmt: skip
