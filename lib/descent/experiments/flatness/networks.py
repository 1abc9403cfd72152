"""Small networks trained to interpolation: where each sits relative to the exact threshold of its own minimum.

The threshold follows from the Gram matrix of a network's gradients. The question is whether it binds at every batch
size, and whether it says more than the sharpness, which alone is silent at small batches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from pandas import DataFrame, concat
from torch import Tensor

from descent.arrays import Array, BoolArray
from descent.data.draws import Draws
from descent.engine import ArmRun, FirstPassage, Params, Probe, Purpose, Streams, every, sgd
from descent.engine.arms import to_numpy
from descent.engine.probes import Leaves
from descent.experiments.flatness.batches import Batch, batch_name
from descent.experiments.flatness.parity import Parity
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Share, Tables, tidy
from descent.measure import growth
from descent.measure.stability import bounds, cheap_bounds, leading, threshold
from descent.stats import Estimate, draw_difference, draw_mean, draw_share, draw_statistic

FEW = 4  # the batch size whose linearised networks are run
SLACK = 1.02  # from here on a network counts as above its threshold, in units of the threshold
KINDS = ("mean square", "single runs")  # what the growth of a linearised network is that of


@dataclass(frozen=True)
class Group:
    """Networks trained with one batch size (None: all examples) at several learning rates, for at most `steps`."""

    batch_size: Batch
    lr: tuple[float, ...]
    steps: int


@dataclass(frozen=True)
class Networks:
    """Images, odd or even, fitted by tanh nets with square loss ½(f − y)², by SGD with replacement."""

    data: str = "digits"
    examples: int = 64
    draws: int = 16  # of so many images, disjoint while there are enough
    hidden: tuple[int, ...] = (16,)
    groups: tuple[Group, ...] = (  # the first has k = 1
        Group(1, (0.06, 0.1, 0.15, 0.2), 20_000),
        Group(FEW, (0.2, 0.5, 0.8), 9_000),
        Group(16, (0.4, 0.8, 1.1), 4_000),
        Group(None, (0.4, 0.8, 1.2, 1.6, 2.0), 4_000),
    )
    patience: int = 12_000  # at most, of the full batch at the first learning rate of k = 1, compared with it …
    pause: int = 2_000  # … every so many steps
    replicas: Share = Share(most=32)
    fitted: float = 1e-5  # mean loss below which a network counts as interpolating
    copies: int = 100  # in which nets of the middle learning rate of k = 4 are linearised and run, …
    around: tuple[float, ...] = (0.96, 1.0, 1.04, 1.08)  # … at these multiples of their C*(4), …
    horizon: int = 250  # … for so many steps

    @property
    def gentle(self) -> float:
        """The learning rate at which single examples and full batches are compared on the way."""
        return self.groups[0].lr[0]

    def task(self, lab: Lab) -> Parity:
        """Return the net and its data."""
        return Parity.of(lab, self.data, self.examples, self.draws, self.hidden)

    def nets(self, lab: Lab) -> int:
        """Return the replicas of every arm, as many for each draw."""
        return lab.per_draw(self.replicas, self.draws)


@dataclass(frozen=True, eq=False)
class Trained:
    """What became of a group, (A, N) each by learning rate and replica; NaN for who did not come to interpolate."""

    group: Group
    diverged: BoolArray  # who broke up instead
    initial: Array  # λ₁ at the start
    sharpness: Array  # λ₁ at the end
    threshold: Array  # C*(k) of its own batch size
    single: Array  # C*(1)
    lower: Array  # C_low(1)

    @property
    def lr(self) -> Array:
        """The learning rate of every net, (A, N)."""
        return np.broadcast_to(np.array(self.group.lr)[:, None], self.threshold.shape)

    @property
    def load(self) -> Array:
        """C/C*(k), (A, N)."""
        return self.lr / self.threshold

    @property
    def found(self) -> BoolArray:
        """Who interpolates, (A, N)."""
        return np.isfinite(self.threshold)


@dataclass(frozen=True, eq=False)
class Track:
    """A run at the gentle learning rate: sharpness λ₁ and C/C*(1) on the way, (N, T) at steps (T,)."""

    steps: Array
    sharpness: Array
    load: Array

    def band(self, name: str) -> Array:
        """Return the middle four fifths of the nets and their median, low, middle and high, (3, T)."""
        return np.asarray(np.quantile(getattr(self, name), [0.1, 0.5, 0.9], axis=0))


@dataclass(frozen=True, eq=False)
class NetworksResult(Result[Networks]):
    """Groups by batch size, and the gentle runs with k = 1 and with the full batch.

    sets: the images of every draw; net i of any arm is of draw i mod D.
    """

    sets: Draws
    groups: tuple[Trained, ...]
    tracks: tuple[Track, ...]
    growth: Array  # (2, S, N) per step, by KINDS, of the linearised nets at `around` times C*(4); NaN for the others
    one: Array  # (n, n): the Gram matrix of the gentle full-batch run's first net, whose bounds are drawn

    def of(self, batch_size: Batch) -> Trained:
        """Return the networks of one batch size."""
        return next(trained for trained in self.groups if trained.group.batch_size == batch_size)

    def pooled(self, *values: Array) -> Array:
        """Return values (…, N) of nets by draw, (D, M), all arms and groups of a draw together."""
        flat = np.concatenate([value.reshape(-1, value.shape[-1]) for value in values])
        return self.sets.by_draw(flat).swapaxes(0, 1).reshape(len(self.sets), -1)

    def largest(self, values: Array) -> Estimate:
        """Return the largest of values (…, N) over the nets of a draw, mean over the draws."""
        return draw_mean(np.fmax.reduce(self.pooled(values), axis=1)[:, None])


def run(config: Networks, lab: Lab) -> NetworksResult:
    """Train every group, then take the Gram matrices of those that interpolate."""
    task = config.task(lab)

    def look(params: Params) -> dict[str, Tensor]:  # at the gentle runs, the first of the stack; others are left blank
        leaves, count = cast(Leaves, params), config.nets(lab)
        k = task.gram({name: leaf[:count] for name, leaf in leaves.items()})
        found = {"sharpness": leading(k).sharpness, "single": threshold(k, 1, tolerance=1e-4)}
        blank = len(next(iter(leaves.values()))) - count
        return {name: torch.nn.functional.pad(v, (0, blank), value=torch.nan) for name, v in found.items()}

    def track(done: ArmRun) -> Track:
        load = config.gentle / done[".single"][0]
        return Track(done.at(".single").astype(np.float64), done[".sharpness"][0], load)

    watch = {"": every(config.pause, look)}
    runs = [fit(task, config, lab, group, {} if i else watch) for i, group in enumerate(config.groups)]
    gentle = fit(task, config, lab, Group(None, (config.gentle,), config.patience), watch)
    initial = to_numpy(leading(task.gram(task.start(lab.streams(config.nets(lab))))).sharpness)
    groups = tuple(_weigh(task, config, group, done, initial) for group, done in zip(config.groups, runs, strict=True))
    few = next(i for i, group in enumerate(config.groups) if group.batch_size == FEW)
    one = {name: leaf[:1] for name, leaf in gentle.params.items()}
    tracks, grown = tuple(map(track, (runs[0], gentle))), grow(task, config, lab, runs[few], groups[few])
    return NetworksResult(config, lab, task.sets, groups, tracks, grown, to_numpy(task.gram(one)[0]))


def fit(task: Parity, config: Networks, lab: Lab, group: Group, probes: Mapping[str, Probe]) -> ArmRun[Leaves]:
    """Train a group from the same starts on the same batches, until all interpolate or the steps are used up."""
    objective = task.objective(group.batch_size)
    fitted = FirstPassage(lambda params: objective.value(params) < config.fitted, every=200, stop=True)
    arms = lab.arms(sgd(group.lr), config.nets(lab))
    return arms.run(objective, task.start, group.steps, probes={**probes, "fitted": fitted}, check=10)


def _weigh(task: Parity, config: Networks, group: Group, done: ArmRun[Leaves], initial: Array) -> Trained:
    """Compare every net that interpolates with its thresholds."""
    loss = task.objective(None).value(done.params)
    rows = (loss < config.fitted).nonzero().squeeze(1)
    if not len(rows):
        raise ValueError(
            f"no network with batch size {batch_name(group.batch_size)} reached a loss of {config.fitted:g} within "
            f"{group.steps} steps at lr {group.lr}; give it more steps or another lr"
        )
    k = task.interpolating(done.params, rows)

    def laid(values: Tensor) -> Array:
        full = torch.full_like(loss, torch.nan, dtype=torch.float64)
        full[rows] = values.double()
        return done.arms.split(full)

    own = laid(threshold(k, group.batch_size))
    single = own if group.batch_size == 1 else laid(threshold(k, 1))
    start, sharp, lower = np.broadcast_to(initial, own.shape), leading(k).sharpness, bounds(k, 1).lower
    return Trained(group, done.lost, start, laid(sharp), own, single, laid(lower))


def grow(task: Parity, config: Networks, lab: Lab, done: ArmRun[Leaves], trained: Trained) -> Array:
    """Return the growth per step of each linearised net, (2, S, N), by KINDS; NaN where it does not interpolate."""
    arm, around = len(trained.group.lr) // 2, config.around
    (kept,) = lab.bring(torch.from_numpy(trained.found[arm].nonzero()[0]))
    k = task.interpolating(done.params, kept + arm * done.arms.replicas).float()
    lr = k.new_tensor(trained.threshold[arm])[kept].unsqueeze(1) * k.new_tensor(around) / FEW
    rate = lr.flatten().repeat_interleave(config.copies).unsqueeze(1)
    seeds = lab.streams(len(k) * config.copies).seeds.view(len(k), 1, -1)
    streams = Streams(seeds.expand(-1, len(around), -1).flatten())  # the steps of a net are on the same luck

    def step(residuals: Tensor, t: int) -> Tensor:  # r ← r − C/k Σ_j K_·j r_j over the batch
        batch = streams.integers(Purpose.BATCH, t, config.examples, (FEW,))
        drive = torch.zeros_like(residuals).scatter_add_(1, batch, residuals.gather(1, batch))
        return residuals - rate * (drive.view(len(k), -1, config.examples) @ k).view_as(residuals)

    begin = streams.normal(Purpose.PROBE, 0, (config.examples,))
    found = growth.resampled_growth(step, begin, config.horizon, streams, arms=lr.numel())
    values = [[one.mean_square.value for one in found], [one.lyapunov.value for one in found]]
    full = np.full((2, len(around), done.arms.replicas), np.nan)
    full[:, :, trained.found[arm]] = np.array(values).reshape(2, len(k), -1).swapaxes(1, 2)
    return full


def estimates(result: NetworksResult) -> Estimates:
    """Return what trained networks say about P2-C3, P2-C8, P2-X1, P2-X6 and P2-X11."""
    full, one, seed = result.of(None), result.of(1), result.lab.seed

    def share(*groups: Trained, beyond: Callable[[Trained], BoolArray]) -> Estimate:  # of the nets that interpolate
        return draw_share(result.pooled(*(np.where(t.found, beyond(t), np.nan) for t in groups)))

    def above(trained: Trained) -> BoolArray:
        return np.asarray(trained.load > SLACK)

    unstable = full.lr * full.initial / 2 > 1
    rise = [result.pooled(np.log(track.sharpness[:, -1] / track.sharpness[:, 0])) for track in result.tracks]
    highest = [result.largest(track.load.T) for track in result.tracks]
    return {
        "P2-C3.necessary": share(*result.groups, beyond=above),
        "P2-C8.networks": share(one, result.of(FEW), beyond=above),
        "P2-C8.edge": draw_mean(result.pooled(np.where(unstable, full.load, np.nan))),
        "P2-X1.network": draw_statistic(_median, result.pooled(one.single / one.lower), seed=seed),
        "P2-X6.rejects": share(full, beyond=lambda t: np.asarray(t.lr > t.single)),
        "P2-X6.sharpness_silent": result.largest(one.lr * one.sharpness / 2),
        "P2-X6.simulated": onset(result, "mean square"),
        "P2-X11.flattens": draw_difference(*rise),
        "P2-X11.far_below": highest[0],
        "P2-X11.flattens_first": draw_mean(rise[0]),
        "P2-X11.below_first": highest,
    }


def _median(drawn: Array) -> Array:
    """Return the median over nets, (B, D, M) → (B,)."""
    return np.asarray(np.nanmedian(drawn, axis=(1, 2)))


def onset(result: NetworksResult, kind: str) -> Estimate:
    """Return where the mean growth of the linearised nets, of one of KINDS, changes sign, over C*(4)."""
    around = np.array(result.config.around)
    grown = [result.pooled(found) for found in result.growth[KINDS.index(kind)]]

    def crossing(*drawn: Array) -> Array:
        return growth.onset(around, np.stack([np.nanmean(one, axis=(1, 2)) for one in drawn], axis=-1))

    return draw_statistic(crossing, *grown, seed=result.lab.seed)


def tables(result: NetworksResult) -> Tables:
    """Return every net that interpolates, every group and step, the gentle runs, the bounds, the onset of growth."""
    nets, ways = [], []
    for trained in result.groups:
        where = trained.found.nonzero()  # arms and replicas
        columns = {name: getattr(trained, name)[where] for name in ("lr", "sharpness", "threshold", "single", "load")}
        about = {"batch_size": batch_name(trained.group.batch_size), "draw": where[1] % len(result.sets)}
        nets.append(DataFrame({**about, "replica": where[1] // len(result.sets), **columns}))
    for track, name in zip(result.tracks, ("1", "all"), strict=True):
        bands = {
            which: zip(("low", "median", "high"), track.band(which), strict=True) for which in ("sharpness", "load")
        }
        ends = {f"{which}_{end}": row for which, band in bands.items() for end, row in band}
        ways.append(tidy({"batch_size": [name], "step": track.steps}, **ends))
    return {
        "networks": concat(nets, ignore_index=True),
        "network_arms": concat([_arms(trained) for trained in result.groups], ignore_index=True),
        "network_tracks": concat(ways, ignore_index=True),
        "network_bounds": bound_curves(result),
        "network_onset": tidy({"of": KINDS}, value=[onset(result, kind) for kind in KINDS]),
    }


def _arms(trained: Trained) -> DataFrame:
    def middle(values: Array) -> list[float]:
        rows = zip(values, trained.found, strict=True)
        return [float(np.median(row[found])) if found.any() else np.nan for row, found in rows]

    largest = np.where(trained.found, trained.load, -np.inf).max(axis=1)
    return tidy(
        {"batch_size": [batch_name(trained.group.batch_size)], "lr": trained.group.lr},
        started=trained.load.shape[1], diverged=trained.diverged.sum(axis=1), interpolate=trained.found.sum(axis=1),
        above=(trained.load > SLACK).sum(axis=1), load_median=middle(trained.load),
        load_largest=np.where(trained.found.any(axis=1), largest, np.nan), sharpness_median=middle(trained.sharpness),
    )  # fmt: skip


def bound_curves(result: NetworksResult) -> DataFrame:
    """Return threshold and bounds of one net at batch sizes 1, 2, 4, …, n."""
    k = torch.from_numpy(result.one).unsqueeze(0)
    sizes = [2**i for i in range(int(np.log2(len(result.one))) + 1)]
    rows = [[float(v) for v in (threshold(k, size), *bounds(k, size), *cheap_bounds(k, size))] for size in sizes]
    frame = DataFrame(rows, columns=["threshold", "lower", "upper", "top", "mean"])
    return frame.assign(batch_size=sizes, full_batch=float(threshold(k, None)))


NETWORKS = Experiment(
    "networks", small=Networks(), run=run, estimates=estimates, tables=tables,
    large=Networks(
        "mnist", examples=512, hidden=(64, 64),
        groups=(
            Group(1, (0.005, 0.01, 0.015, 0.02, 0.025), 300_000),
            Group(FEW, (0.02, 0.04, 0.06), 150_000),
            Group(16, (0.05, 0.1, 0.15), 80_000),
            Group(64, (0.1, 0.2, 0.3), 40_000),
            Group(None, (0.1, 0.2, 0.3, 0.45, 0.6), 40_000),
        ),
        patience=200_000, pause=20_000,
    ),
)  # fmt: skip
