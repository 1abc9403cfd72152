"""The form of every experiment: what a reader sets, what a configuration fixes, and how numbers become rows."""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from pandas import DataFrame
from torch import Tensor

from descent.data.draws import Draws, disjoint, splits
from descent.engine.arms import A, Arms
from descent.engine.streams import Streams, replica_seeds
from descent.results.provenance import NIGHT
from descent.stats.estimate import Estimate

__all__ = [
    "PHYSICS", "SCALES", "Arrays", "Estimates", "Experiment", "Found", "Lab", "Parts", "Result", "Share", "Tables",
    "Unit", "each", "gathered", "so_far", "tidy",
]  # fmt: skip

C = TypeVar("C")
R = TypeVar("R")
Estimates = Mapping[str, Estimate | Sequence[Estimate]]
Tables = Mapping[str, DataFrame]
Arrays = Mapping[str, NDArray[Any]]
Found = Mapping[str, Arrays]
"""What units have measured, by the name of the unit."""

SCALES = ("cpu", "gpu")
PHYSICS = ("momentum", "lr")
"""What of a lab is physics: where an experiment asks for it, it is part of what was measured."""
MOST = 1_000_000
"""Replicas: an arm of more does not fit into any memory at hand."""


@dataclass(frozen=True)
class Share:
    """How many an experiment takes of the replicas a reader asks for: times · replicas // over, from least to most.

    each: as many for every one of these.

    >>> Share(over=30, least=32, most=48).of(1000), Share(over=30, least=32, each=4).of(1000)
    (33, 132)
    """

    times: int = 1
    over: int = 1
    least: int = 2
    most: int = 10**9
    each: int = 1

    def of(self, replicas: int) -> int:
        """Return the number."""
        return self.each * max(self.least, min(self.times * replicas // self.over, self.most))


@dataclass(frozen=True)
class Lab:
    """What a reader sets for a run; no configuration holds any of it.

    replicas: independent runs of every low-dimensional arm; momentum, lr: the headline arm, heavy-ball convention.
    registration: of the experiment that is carried out, from its rules and its configuration; `runs.perform` sets it,
    no reader does. Random numbers are drawn from it and the seed, so that other rules are judged by other numbers.
    Raises: ValueError naming the valid values.
    """

    seed: int = 0
    replicas: int = 1000
    device: str = "cpu"
    momentum: float = 0.9
    lr: float = 5e-4
    registration: str = field(default="", repr=False, kw_only=True)

    def __post_init__(self) -> None:
        _whole("seed", self.seed, 0)
        _whole("replicas", self.replicas, 2)
        if self.replicas > MOST:
            raise ValueError(f"replicas must be at most {MOST}, for an arm is in memory whole; got {self.replicas}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must satisfy 0 <= momentum < 1, got {self.momentum}")
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise ValueError(f"lr must be a positive number, got {self.lr}")
        _check_device(self.device)

    def count(self, share: Share | int) -> int:
        """Return how many a share of the replicas is; a plain number stays itself."""
        return share.of(self.replicas) if isinstance(share, Share) else share

    def per_draw(self, share: Share | int, draws: int = 10) -> int:
        """Return a number of replicas that makes as many for every draw of the data: the share, rounded up."""
        return -(-self.count(share) // draws) * draws

    def momenta(self, base: Sequence[float]) -> tuple[float, ...]:
        """Return the momenta of an experiment in rising order: its own, 0 and the headline one."""
        return tuple(sorted({0.0, *base, self.momentum}))

    def bring(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return tensors where this lab computes."""
        return tuple(tensor.to(self.device) for tensor in tensors)

    def key(self, apart: int = 0) -> int:
        """Return what `replica_seeds` draws from, 64 bits; without a registration the seed, `apart` further on.

        >>> Lab(seed=3).key(), hex(Lab(seed=3, registration="0123456789abcdef").key())
        (3, '0xc0949539bf807f26')
        """
        if not self.registration:
            return self.seed + apart
        text = f"{self.seed}:{self.registration}:{apart}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")

    def streams(self, n: Share | int, dtype: torch.dtype = torch.float32, *, apart: int = 0, skip: int = 0) -> Streams:
        """Return the random numbers of n replicas, of those after the first `skip`.

        apart: another number, other streams.
        """
        seeds = replica_seeds(self.key(apart), skip + self.count(n), self.device)
        return Streams(seeds[skip:], dtype)

    def draws(self, examples: int, size: int, count: int = 10, *, tests: int = 0) -> Draws:
        """Return `count` training sets of `size` out of that many examples, and of the others some to test each on.

        Disjoint where there are enough examples, and one test set for all; else random splits, which overlap. They go
        with the master seed. `rows=draws.rows` is all that a `Supervised` needs.
        """
        if count * size + tests <= examples:
            drawn = disjoint(examples, size, count, self.streams(1), tests=tests)
        else:
            drawn = splits(examples, size, self.streams(count), tests=tests)
        return drawn.to(self.device)

    def arms(
        self,
        rule: A,
        n: Share | int = Share(),
        dtype: torch.dtype = torch.float32,
        *,
        shared: bool = True,
        apart: int = 0,
        skip: int = 0,
    ) -> Arms[A]:
        """Return arms of n replicas each, one arm per entry of the rule.

        Replica i of every arm sees the same random numbers; not `shared`, every row sees its own. skip: replicas that
        others are to train; what those after them do is the same without them.
        """
        if shared:
            return Arms.paired(rule, self.streams(n, dtype, apart=apart, skip=skip))
        return Arms(rule, self.streams(self.count(n) * rule.replicas, dtype, apart=apart))


@dataclass(frozen=True, eq=False)
class Result(Generic[C]):
    """What every result holds beside its arrays: the configuration it was made with, and the lab."""

    config: C
    lab: Lab


@dataclass(frozen=True)
class Unit:
    """A part of a long run that is measured, written and kept on its own, such as an arm on one draw of the data.

    name: of its file; kind: of its work, by which time is foretold; size: how much of that, such as images seen; given:
    what tells it from the others, plain values. waits: what it is given hangs on units that are not in yet.
    """

    name: str
    kind: str
    size: float
    given: tuple[Any, ...] = ()
    waits: bool = False


@dataclass(frozen=True)
class Parts(Generic[C, R]):
    """How an experiment is cut into units of some minutes, and put together from those there are.

    units: all of them, in order; what waits for others becomes known when these are found. measure: small arrays, which
    depend on nothing but the arguments. merge: the result over whole draws, None while there are too few for any.
    partial: of a result, by test, how much is there where that is not all, such as "4 of 10 draws": what is measured
    then decides nothing. paces: how much of each kind of work a core does in a second, for the plan.
    """

    units: Callable[[C, Lab, Found], Sequence[Unit]]
    measure: Callable[[C, Lab, Unit], Arrays]
    merge: Callable[[C, Lab, Found], R | None]
    partial: Callable[[R], Mapping[str, str]]
    paces: Mapping[str, float]


@dataclass(frozen=True)
class Experiment(Generic[C, R]):
    """A piece of a chapter: `run` makes a result of arrays, from which estimates, tables and figures are drawn.

    small, large, night: the configuration of the chapter, at paper scale, and for a night of two cores, which is run by
    its `parts`; an estimate's key is "<claim>.<test>". scales: at which its tests are stated. One without "cpu" is run
    by `descent paper` alone, not by the chapter; its small configuration is for trying it out. check: raises ValueError
    for a lab it cannot work with, before anything runs.
    """

    name: str
    small: C
    large: C
    run: Callable[[C, Lab], R]
    estimates: Callable[[R], Estimates]
    tables: Callable[[R], Tables]
    night: C | None = None
    scales: tuple[str, ...] = SCALES
    check: Callable[[C, Lab], None] | None = None
    parts: Parts[C, R] | None = None

    @property
    def modules(self) -> tuple[str, ...]:
        """The modules of this library that it is made of."""
        parts = (self.parts.units, self.parts.measure, self.parts.merge) if self.parts else ()
        found = {part.__module__ for part in (self.run, self.estimates, self.tables, type(self.small), *parts)}
        return tuple(sorted(name for name in found if name.startswith("descent.")))

    @property
    def sizes(self) -> tuple[str, ...]:
        """The scales that it has a configuration for and is carried out at: those it is stated for, and the night."""
        return (*self.scales, *([NIGHT] if self.night is not None and self.parts is not None else []))

    def config(self, scale: str) -> C:
        """Return the configuration of a scale; raise ValueError for one it does not have."""
        found = {"cpu": self.small, "gpu": self.large, "night": self.night}.get(scale)
        if found is None:
            raise ValueError(f"{self.name} has no configuration for scale {scale!r}")
        return found


def so_far(have: int, of: int) -> str:
    """Return how many draws are there where these are not all, such as "4 of 10 draws"; "" where they are."""
    return f"{have} of {of} draws" if have < of else ""


def gathered(package: str) -> tuple[Experiment[Any, Any], ...]:
    """Return the experiments that the modules of a package define, in the order of the modules' names."""
    names = sorted(found.name for found in iter_modules(sys.modules[package].__path__))
    values = [value for name in names for value in vars(import_module(f"{package}.{name}")).values()]
    return tuple({id(value): value for value in values if isinstance(value, Experiment)}.values())


def each(statistic: Callable[..., Estimate], *samples: ArrayLike, **options: Any) -> Any:
    """Return statistic(*rows) over the last axis of samples that broadcast, an array of Estimates shaped like the rest.

    >>> from descent.stats import mean
    >>> [str(found) for found in each(mean, [[1.0, 2.0, 3.0], [2.0, 2.0, 2.0]])]
    ['2.0 [−0.5, 4.5]', '2']
    """
    arrays = np.broadcast_arrays(*samples)
    places = np.ndindex(arrays[0].shape[:-1])
    found = np.empty(arrays[0].shape[:-1], dtype=object)
    for place in places:
        found[place] = statistic(*(array[place] for array in arrays), **options)
    return found if found.ndim else found.item()


def tidy(axes: Mapping[str, Sequence[Any] | NDArray[Any]], **columns: Any) -> DataFrame:
    """Return a table with one row per point of the grid that the axes span, the last one running fastest.

    A column is an array over that grid, or whatever broadcasts to it. Estimates fill three columns: x, x_low and
    x_high; those of the column `value` are value, low and high.

    >>> tidy({"momentum": [0.0, 0.9]}, steps=[10, 20], kind="measured").to_dict("list")
    {'momentum': [0.0, 0.9], 'steps': [10, 20], 'kind': ['measured', 'measured']}
    """
    shape = tuple(len(values) for values in axes.values())
    grid = np.meshgrid(*(np.asarray(values) for values in axes.values()), indexing="ij")
    frame = {name: values.ravel() for name, values in zip(axes, grid, strict=True)}
    for name, given in columns.items():
        flat = np.broadcast_to(np.asarray(given, dtype=object if isinstance(given, Estimate) else None), shape).ravel()
        frame |= _columns(name, flat)
    return DataFrame(frame)


def _columns(name: str, flat: NDArray[Any]) -> dict[str, Any]:
    if not (len(flat) and isinstance(flat[0], Estimate)):
        return {name: flat}
    prefix = "" if name == "value" else f"{name}_"
    ends = {f"{prefix}{end}": [getattr(found, end) for found in flat] for end in ("low", "high")}
    return {name: [found.value for found in flat], **ends}


def _check_device(name: str) -> None:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f'device must be a torch device such as "cpu" or "cuda:0", got {name!r}') from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f'device {name!r}: this machine has {torch.cuda.device_count()} CUDA devices; use "cpu"')
    if device.type not in ("cpu", "cuda"):  # torch knows the names of more devices than it can compute on here
        try:
            torch.ones(1, device=device).item()
        except (RuntimeError, AssertionError, ImportError) as error:
            raise ValueError(f'device {name!r}: nothing can be computed on it here; use "cpu"') from error


def _whole(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        reason = ", since an interval needs a spread" if least == 2 else ""
        raise ValueError(f"{name} must be a whole number of at least {least}{reason}; got {value!r}")
