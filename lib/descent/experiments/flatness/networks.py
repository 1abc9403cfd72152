"""Small networks trained to interpolation: where each sits relative to the exact threshold of its own minimum."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from pandas import DataFrame, concat
from torch import Tensor

from descent.arrays import Array
from descent.engine.probes import FirstPassage, Params, Probe, every
from descent.engine.rules import repeat, sgd
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.engine.train import Run, train
from descent.experiments.arms import configure
from descent.experiments.common import Estimates, Experiment, Settings
from descent.experiments.flatness.task import Leaves, Task
from descent.experiments.flatness.wells import batch_name
from descent.measure import growth
from descent.measure.stability import bounds, cheap_bounds, leading, threshold
from descent.stats.estimate import Estimate
from descent.stats.intervals import bootstrap, exact, mean, median, paired_difference, proportion

FEW = 4
"""The batch size whose linearised networks are run."""

SLACK = 1.02
"""A network counts as above its threshold from here on, in units of the threshold."""

BELOW = 0.7
"""Runs with k = 1 count as well below their threshold up to here."""


@dataclass(frozen=True)
class Group:
    """Networks trained with one batch size (None: all examples) at several learning rates, for at most `steps`."""

    batch_size: int | None
    lr: tuple[float, ...]
    steps: int


@dataclass(frozen=True)
class Networks:
    """Images, odd or even, fitted by tanh nets with square loss ½(f − y)², by SGD with replacement.

    The first group has k = 1. Its first learning rate is also run with the full batch, for at most `patience` steps:
    the two are compared on the way, every `pause` steps. Nets of the middle learning rate of k = 4 are linearised and
    run, in `copies`, for `horizon` steps at `around` times their C*(4).
    """

    data: str
    examples: int
    hidden: tuple[int, ...]
    groups: tuple[Group, ...]
    patience: int
    pause: int
    replicas: int
    seed: int
    device: str
    fitted: float = 1e-5  # mean loss below which a network counts as interpolating
    copies: int = 100
    around: tuple[float, ...] = (0.96, 1.0, 1.04, 1.08)
    horizon: int = 250

    @classmethod
    def cpu(cls, settings: Settings) -> Networks:
        """Take 64 digits and 16 hidden units."""
        groups = (
            Group(1, (0.06, 0.1, 0.15, 0.2), 20_000),
            Group(4, (0.2, 0.5, 0.8), 9_000),
            Group(16, (0.4, 0.8, 1.1), 4_000),
            Group(None, (0.4, 0.8, 1.2, 1.6, 2.0), 4_000),
        )
        return cls._of(settings, "digits", 64, (16,), groups, 12_000, 2_000)

    @classmethod
    def paper(cls, settings: Settings) -> Networks:
        """Take 512 images of MNIST and two layers of 64 hidden units."""
        groups = (
            Group(1, (0.005, 0.01, 0.015, 0.02, 0.025), 300_000),
            Group(4, (0.02, 0.04, 0.06), 150_000),
            Group(16, (0.05, 0.1, 0.15), 80_000),
            Group(64, (0.1, 0.2, 0.3), 40_000),
            Group(None, (0.1, 0.2, 0.3, 0.45, 0.6), 40_000),
        )
        return cls._of(settings, "mnist", 512, (64, 64), groups, 200_000, 20_000)

    @classmethod
    def _of(
        cls,
        settings: Settings,
        data: str,
        examples: int,
        hidden: tuple[int, ...],
        groups: tuple[Group, ...],
        patience: int,
        pause: int,
    ) -> Networks:
        replicas = min(settings.replicas, 32)
        return cls(data, examples, hidden, groups, patience, pause, replicas, settings.seed, settings.device)

    @property
    def gentle(self) -> float:
        """The learning rate at which single examples and full batches are compared on the way."""
        return self.groups[0].lr[0]

    @property
    def task(self) -> Task:
        """The net and its data."""
        return Task.of(self.data, self.examples, self.hidden, self.seed, self.device)


@dataclass(frozen=True, eq=False)
class Trained:
    """What became of a group, (A, N) each by learning rate and replica; NaN where a net did not come to interpolate.

    diverged: who broke up instead; initial, sharpness: λ₁ at the start and at the end; threshold: C*(k) of its own
    batch size, single: C*(1), lower: C_low(1).
    """

    group: Group
    diverged: NDArray[np.bool_]
    initial: Array
    sharpness: Array
    threshold: Array
    single: Array
    lower: Array

    @property
    def lr(self) -> Array:
        """The learning rate of every net, (A, N)."""
        return np.broadcast_to(np.array(self.group.lr)[:, None], self.threshold.shape)

    @property
    def load(self) -> Array:
        """C/C*(k), (A, N)."""
        return self.lr / self.threshold

    @property
    def found(self) -> NDArray[np.bool_]:
        """Who interpolates, (A, N)."""
        return np.isfinite(self.threshold)


@dataclass(frozen=True, eq=False)
class Track:
    """A run at the gentle learning rate: sharpness λ₁ and C/C*(1) on the way, (T, N) at steps (T,)."""

    steps: Array
    sharpness: Array
    load: Array


@dataclass(frozen=True, eq=False)
class NetworksResult:
    """Groups by batch size, and the gentle runs with k = 1 and with the full batch.

    growth: (2, M, S) per step, of the mean square and of single runs of M linearised nets, at `around` times C*(4).
    one: the Gram matrix (n, n) of the gentle full-batch run's first net, whose bounds are drawn.
    """

    config: Networks
    groups: tuple[Trained, ...]
    tracks: tuple[Track, Track]
    growth: Array
    one: Array
    seconds: float

    def of(self, batch_size: int | None) -> Trained:
        """Return the networks of one batch size."""
        return next(trained for trained in self.groups if trained.group.batch_size == batch_size)


def run(config: Networks) -> NetworksResult:
    """Train every group, then take the Gram matrices of those that interpolate."""
    clock = time.perf_counter()
    task = config.task
    watch = every(config.pause, lambda params: _look(task, config, params))
    runs = [_fit(task, config, group, {} if i else {"watch": watch}) for i, group in enumerate(config.groups)]
    gentle = _fit(task, config, Group(None, (config.gentle,), config.patience), {"watch": watch})
    groups = tuple(_weigh(task, config, group, done) for group, done in zip(config.groups, runs, strict=True))
    few = next(i for i, group in enumerate(config.groups) if group.batch_size == FEW)
    return NetworksResult(
        config=config,
        groups=groups,
        tracks=(_track(runs[0], config), _track(gentle, config)),
        growth=_grow(task, config, runs[few], groups[few]),
        one=_numpy(task.gram({name: leaf[:1] for name, leaf in cast(Leaves, gentle.params).items()})[0]),
        seconds=time.perf_counter() - clock,
    )


def _streams(config: Networks, arms: int) -> Streams:
    return Streams(replica_seeds(config.seed, config.replicas, config.device).repeat(arms))


def _fit(task: Task, config: Networks, group: Group, probes: dict[str, Probe]) -> Run:
    """Train a group from the same starts on the same batches, until all interpolate or the steps are used up."""
    streams, objective = _streams(config, len(group.lr)), task.objective(group.batch_size)
    fitted = FirstPassage(lambda params: objective.value(params) < config.fitted, every=200, stop=True)
    hyper = repeat(sgd(list(group.lr)), config.replicas)
    return train(
        objective, task.start(streams), hyper, group.steps, streams, probes=probes | {"fitted": fitted}, check=10
    )


def _look(task: Task, config: Networks, params: Params) -> dict[str, Tensor]:
    """Measure the gentle runs, the first of the stack; the others are left blank."""
    leaves = cast(Leaves, params)
    first, rows = slice(config.replicas), len(next(iter(leaves.values())))
    k = task.gram({name: leaf[first] for name, leaf in leaves.items()})
    found = {"sharpness": leading(k).sharpness, "single": threshold(k, 1, tolerance=1e-4)}
    return {name: torch.nn.functional.pad(v, (0, rows - len(v)), value=torch.nan) for name, v in found.items()}


def _track(done: Run, config: Networks) -> Track:
    sharpness, single = (done.records[f"watch.{name}"] for name in ("sharpness", "single"))
    first = slice(config.replicas)
    load = config.gentle / _numpy(single.values[:, first])
    return Track(_numpy(sharpness.steps), _numpy(sharpness.values[:, first]), load)


def _weigh(task: Task, config: Networks, group: Group, done: Run) -> Trained:
    """Compare every net that interpolates with its thresholds."""
    loss = task.objective(None).value(done.params)
    rows = (loss < config.fitted).nonzero().squeeze(1)
    if not len(rows):
        raise ValueError(
            f"no network with batch size {batch_name(group.batch_size)} reached a loss of {config.fitted:g} within "
            f"{group.steps} steps at lr {group.lr}; give it more steps or another lr"
        )
    k = task.interpolating(done.params, rows)
    start = leading(task.gram(task.start(_streams(config, 1)))).sharpness

    def laid(values: Tensor) -> Array:
        full = torch.full((len(loss),), torch.nan, dtype=torch.float64, device=loss.device)
        full[rows] = values.double()
        return _numpy(full).reshape(len(group.lr), config.replicas)

    own = threshold(k, group.batch_size)
    single = own if group.batch_size == 1 else threshold(k, 1)
    return Trained(
        group=group,
        diverged=(done.diverged_at >= 0).cpu().numpy().reshape(len(group.lr), -1),
        initial=np.broadcast_to(_numpy(start), (len(group.lr), config.replicas)),
        sharpness=laid(leading(k).sharpness),
        threshold=laid(own),
        single=laid(single),
        lower=laid(bounds(k, 1).lower),
    )


def _grow(task: Task, config: Networks, done: Run, trained: Trained) -> Array:
    """Return the growth per step of each linearised net, (2, M, S): of its mean square and of single runs.

    Its residuals r obey r ← r − C/k Σ_j K_·j r_j over the batch: the Gram matrix is all there is.
    """
    arm = len(trained.group.lr) // 2
    kept = torch.from_numpy(trained.found[arm].nonzero()[0]).to(config.device)
    k = task.interpolating(done.params, kept + arm * config.replicas).float()
    lr = k.new_tensor(trained.threshold[arm])[kept].unsqueeze(1) * k.new_tensor(config.around) / FEW
    rate = lr.flatten().repeat_interleave(config.copies).unsqueeze(1)
    seeds = replica_seeds(config.seed, len(k) * config.copies, config.device)
    streams = Streams(seeds.view(len(k), 1, -1).expand(-1, len(config.around), -1).flatten())

    def step(residuals: Tensor, t: int) -> Tensor:
        batch = streams.integers(Purpose.BATCH, t, config.examples, (FEW,))
        drive = torch.zeros_like(residuals).scatter_add_(1, batch, residuals.gather(1, batch))
        return residuals - rate * (drive.view(len(k), -1, config.examples) @ k).view_as(residuals)

    begin = streams.normal(Purpose.PROBE, 0, (config.examples,))
    found = growth.resampled_growth(step, begin, config.horizon, streams, arms=len(lr.flatten()))
    values = [[one.mean_square.value for one in found], [one.lyapunov.value for one in found]]
    return np.array(values).reshape(2, len(k), -1)


def _numpy(values: Tensor) -> Array:
    return np.asarray(values.detach().to("cpu", torch.float64))


def estimates(result: NetworksResult) -> Estimates:
    """Return what trained networks say about P2-C3, P2-C8, P2-X1, P2-X6 and P2-X11."""
    full, one = result.of(None), result.of(1)
    unstable = full.found & (full.lr * full.initial / 2 > 1)
    kept = full.lr[full.found] > full.single[full.found]
    slow, fast = result.tracks
    gentle = slow.load[-1] < BELOW
    rise = [track.sharpness[-1, gentle] / track.sharpness[0, gentle] for track in (slow, fast)]
    return {
        "P2-C3.necessary": _above(result.groups),
        "P2-C8.networks": _above((one, result.of(FEW))),
        "P2-C8.edge": mean(full.load[unstable]),
        "P2-X1.network": median((one.single / one.lower)[one.found], result.config.seed),
        "P2-X6.rejects": proportion(int(kept.sum()), kept.size),
        "P2-X6.sharpness_silent": exact(float(np.nanmax(one.lr * one.sharpness / 2))),
        "P2-X6.simulated": onset(result, 0),
        "P2-X11.flattens": paired_difference(*rise),
        "P2-X11.far_below": exact(float(slow.load[:, gentle].max())),
    }


def _above(groups: Sequence[Trained]) -> Estimate:
    """Return the share of interpolating nets that sit above their own threshold."""
    loads = np.concatenate([trained.load[trained.found] for trained in groups])
    return proportion(int((loads > SLACK).sum()), len(loads))


def onset(result: NetworksResult, kind: int) -> Estimate:
    """Return where the mean growth of the linearised nets (0 mean square, 1 single runs) changes sign, over C*(4).

    Between neighbouring steps the growth is taken as a straight line; nets are resampled.
    """
    around = np.array(result.config.around)

    def crossing(drawn: Array) -> Array:
        return growth.onset(around, drawn.mean(1))

    return bootstrap(crossing, result.growth[kind], seed=result.config.seed)


def tables(result: NetworksResult) -> dict[str, DataFrame]:
    """Return every net that interpolates, every group and step, the gentle runs, the bounds, the onset of growth."""
    return {
        "networks": concat([_nets(trained) for trained in result.groups], ignore_index=True),
        "network_arms": DataFrame([row for trained in result.groups for row in _arms(trained)]),
        "network_tracks": concat(
            [_way(track, k) for track, k in zip(result.tracks, ("1", "all"), strict=True)], ignore_index=True
        ),
        "network_bounds": bound_curves(result),
        "network_onset": _onsets(result),
    }


def _nets(trained: Trained) -> DataFrame:
    arm, replica = trained.found.nonzero()
    names = ("lr", "sharpness", "threshold", "single", "load")
    columns = {name: getattr(trained, name)[arm, replica] for name in names}
    return DataFrame({"batch_size": batch_name(trained.group.batch_size), "replica": replica, **columns})


def _arms(trained: Trained) -> list[dict[str, float | str]]:
    rows = []
    columns = (trained.group.lr, trained.load, trained.sharpness, trained.diverged)
    for lr, loads, sharpness, diverged in zip(*columns, strict=True):
        kept = loads[np.isfinite(loads)]
        rows.append(
            {
                "batch_size": batch_name(trained.group.batch_size),
                "lr": lr,
                "started": len(loads),
                "diverged": int(diverged.sum()),
                "interpolate": len(kept),
                "above": int((kept > SLACK).sum()),
                "load_median": float(np.median(kept)) if len(kept) else np.nan,
                "load_largest": kept.max(initial=-np.inf) if len(kept) else np.nan,
                "sharpness_median": float(np.nanmedian(sharpness)) if len(kept) else np.nan,
            }
        )
    return rows


def _way(track: Track, batch_size: str) -> DataFrame:
    frame = {"batch_size": batch_size, "step": track.steps}
    for name in ("sharpness", "load"):
        low, middle, high = np.quantile(getattr(track, name), [0.1, 0.5, 0.9], axis=1)
        frame |= {f"{name}_low": low, f"{name}_median": middle, f"{name}_high": high}
    return DataFrame(frame)


def _onsets(result: NetworksResult) -> DataFrame:
    found = {"mean square": onset(result, 0), "single runs": onset(result, 1)}
    return DataFrame([{"of": name, "value": e.value, "low": e.low, "high": e.high} for name, e in found.items()])


def bound_curves(result: NetworksResult) -> DataFrame:
    """Return threshold and bounds of one net at batch sizes 1, 2, 4, …, n."""
    k = torch.from_numpy(result.one).unsqueeze(0)
    sizes = [2**i for i in range(int(np.log2(len(result.one))) + 1)]
    rows = [[float(v) for v in (threshold(k, size), *bounds(k, size), *cheap_bounds(k, size))] for size in sizes]
    frame = DataFrame(rows, columns=["threshold", "lower", "upper", "top", "mean"])
    return frame.assign(batch_size=sizes, full_batch=float(threshold(k, None)))


NETWORKS = Experiment(
    "networks",
    ("P2-C3", "P2-C8", "P2-X1", "P2-X6", "P2-X11"),
    lambda settings: run(configure(Networks, settings)),
    estimates,
    tables,
)
