"""Heavy-ball arms that share their noise, and what their runs have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from descent.arrays import Array
from descent.engine.checkpoint import kept
from descent.engine.probes import Params, Probe, Series
from descent.engine.rules import Hyper, heavy_ball, repeat
from descent.engine.streams import Streams, replica_seeds
from descent.engine.train import Objective, Run, train
from descent.experiments.common import Settings
from descent.problems.pca import overlap
from descent.stats.estimate import Estimate
from descent.stats.intervals import ratio_of_means

BLOCKS = 20_000
MEMORY = 2 << 30
"""Bytes of working memory for what is measured on a whole stack."""


def momenta(base: Sequence[float], headline: float) -> tuple[float, ...]:
    """Return the momenta of an experiment in rising order: its own, 0 and the headline one."""
    return tuple(sorted({0.0, *base, headline}))


def configure(kind: Any, settings: Settings) -> Any:
    """Return the configuration of that kind at the scale the settings ask for."""
    config = kind.cpu(settings) if settings.scale == "cpu" else kind.paper(settings)
    if _PLANNING.get():
        raise _Planned(config)
    return config


_PLANNING: ContextVar[bool] = ContextVar("planning", default=False)


class _Planned(Exception):
    pass


def planned(run: Callable[[Settings], Any], settings: Settings) -> Any:
    """Return the configuration that `run` would use; nothing is run."""
    token = _PLANNING.set(True)
    try:
        run(settings)
    except _Planned as found:
        return found.args[0]
    finally:
        _PLANNING.reset(token)
    raise ValueError("this experiment does not take its configuration from `configure`")


@dataclass(frozen=True)
class Arms:
    """Arms (lr, momentum), each of `replicas` rows, arm-major; row i of every arm sees the same random numbers.

    With `shared` off, every arm draws its own.
    """

    lr: tuple[float, ...]
    momentum: tuple[float, ...]
    replicas: int
    seed: int
    device: str = "cpu"
    shared: bool = True

    @property
    def hyper(self) -> Hyper:
        """The hyper-parameters of the stack."""
        return repeat(heavy_ball(list(self.lr), list(self.momentum)), self.replicas).to(self.device)

    @property
    def rows(self) -> int:
        """Rows of the stack, arms × replicas."""
        return len(self.momentum) * self.replicas

    def streams(self, dtype: torch.dtype = torch.float32) -> Streams:
        """Return the random numbers of the stack."""
        if not self.shared:
            return Streams(replica_seeds(self.seed, self.rows, self.device), dtype)
        return Streams(replica_seeds(self.seed, self.replicas, self.device).repeat(len(self.momentum)), dtype)

    def split(self, values: Tensor) -> Array:
        """Cut (A·N, …) into arms, (A, N, …)."""
        return to_numpy(values).reshape(len(self.momentum), self.replicas, *values.shape[1:])

    def split_series(self, series: Series, keep: int | None = None) -> Array:
        """Cut a record (T, A·N, …) into arms of the first `keep` replicas (default: all), (A, N, T, …)."""
        values = series.values
        parts = values.view(len(values), len(self.momentum), self.replicas, *values.shape[2:])
        return np.moveaxis(to_numpy(parts[:, :, :keep]), 0, 2)


def arms_at(
    lr: float, momentum: Sequence[float], replicas: int, seed: int, device: str, *, shared: bool = True
) -> Arms:
    """Return arms of one learning rate."""
    return Arms((lr,) * len(momentum), tuple(momentum), replicas, seed, device, shared)


def in_parts(measure: Callable[[slice], Tensor], replicas: int, bytes_each: int, memory: int = MEMORY) -> Tensor:
    """Return measure(rows) (r, …) of as many rows of a stack at a time as fit into `memory`, one after the other.

    bytes_each: of working memory that a row takes, about. A task that has run out of memory asks for smaller parts.
    """
    around = kept()
    if around is not None:
        memory = min(memory, around.budget or memory)
    step = max(1, memory // bytes_each)
    return torch.cat([measure(slice(begin, min(begin + step, replicas))) for begin in range(0, replicas, step)])


def to_numpy(values: Tensor) -> Array:
    """Return the values as float64 on the host."""
    return np.asarray(values.detach().to("cpu", torch.float64))


def column(index: int) -> Callable[[Params], Tensor]:
    """Return the function that picks one coordinate of every replica, (R, d) → (R,)."""
    return lambda params: cast(Tensor, params)[:, index]


def outside(radius: float, index: int = 0) -> Callable[[Params], Tensor]:
    """Return the condition that one coordinate has left the interval ±radius."""
    return lambda params: cast(Tensor, params)[:, index].abs() >= radius


def beyond(level: float) -> Callable[[Params], Tensor]:
    """Return the condition that the squared overlap with the optimum has reached a level."""
    return lambda params: overlap(params) >= level


def settle(problem: Objective, start: Tensor, arms: Arms, burn: int, watch: int, probe: Probe) -> tuple[Run, Series]:
    """Run `burn` steps to forget the start, then `watch` steps under the probe; return the end and the record.

    A replica that diverges on the way stays marked in the run returned.
    """
    streams = arms.streams()
    early = train(problem, start, arms.hyper, burn, streams)
    end, moving = burn + watch, early.velocity
    late = train(problem, early.params, arms.hyper, end, streams, velocity=moving, begin=burn, probes={"": probe})
    lost = torch.where(early.diverged_at >= 0, early.diverged_at, late.diverged_at)
    return replace(late, diverged_at=lost), late.records[""]


def survivors(arms: Arms, run: Run) -> NDArray[np.bool_]:
    """Tell which replicas stayed finite in every arm, (N,): pairs are kept or dropped whole.

    Raises ValueError when fewer than two are left.
    """
    alive = (arms.split(run.diverged_at) < 0).all(axis=0)
    if alive.sum() < 2:
        raise ValueError(
            f"all but {alive.sum()} of {arms.replicas} replicas diverged in some arm of lr {arms.lr} and momentum "
            f"{arms.momentum}; choose a smaller lr or momentum, so that lr/(1 - momentum) stays below about 0.05"
        )
    return np.asarray(alive)


def passage_times(times: Array, steps: int, every: int) -> Array:
    """Return first-passage times with the mean delay (every − 1)/2 of looking every few steps taken off.

    Who has not passed is entered with the length of the run: the mean is the mean of min(T, steps).
    """
    return np.where(times < 0, float(steps), times - (every - 1) / 2)


def blocks(values: Array, most: int = BLOCKS) -> Array:
    """Average replicas in at most that many equal blocks: the mean stays, a bootstrap of a million becomes cheap."""
    count = min(most, len(values))
    return np.asarray(values[: len(values) // count * count].reshape(count, -1).mean(axis=1))


def paired_ratio(x: Array, y: Array, seed: int, most: int = BLOCKS) -> Estimate:
    """Return mean(x)/mean(y) of paired replicas (N,) by the bootstrap over at most that many blocks."""
    return ratio_of_means(blocks(x, most), blocks(y, most), seed)


def rows_of(estimates: Sequence[Estimate]) -> dict[str, list[float]]:
    """Return the columns value, low, high of a table."""
    return {name: [getattr(e, name) for e in estimates] for name in ("value", "low", "high")}
