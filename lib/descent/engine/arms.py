"""Arms of replicas: several rules, each for the same N replicas, advanced as one stack and taken apart again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypedDict, Unpack, cast

import numpy as np
import torch
from torch import Tensor
from typing_extensions import TypeVar

from descent.arrays import Array, BoolArray, IntArray
from descent.engine.checkpoint import kept
from descent.engine.probes import FirstPassage, P, P_co, Probe, Series
from descent.engine.rule import AnyRule, repeat
from descent.engine.rules import Hyper, Schedule, per_arm
from descent.engine.stack import Objective, joined, leaves, rows_of
from descent.engine.streams import Streams
from descent.engine.train import Run, train

__all__ = ["ArmRun", "Arms", "in_parts", "survivors", "to_numpy"]

MEMORY = 2 << 30
"""Bytes of working memory for what is measured on a whole stack."""
A = TypeVar("A", bound=AnyRule, default=Hyper)
"""The kind of rule: a bare `Arms` has a linear one."""
Start: TypeAlias = P | Callable[[Streams], P]


class RunOptions(TypedDict, total=False):
    """Keywords of `train` that arms hand on as they are."""

    limit: float
    check: int
    budget: int
    graphs: bool


@dataclass(frozen=True, eq=False)
class Arms(Generic[A]):
    """A arms (the entries of `rule`) of N replicas each, arm-major: row a·N + i is replica i of arm a.

    streams: of all A·N rows; arms that are compared in pairs see the same numbers in replica i of every arm.
    """

    rule: A
    streams: Streams

    @classmethod
    def paired(cls, rule: A, streams: Streams) -> Arms[A]:
        """Give every arm the same N streams."""
        return cls(rule, Streams(streams.seeds.repeat(rule.replicas), streams.dtype))

    def __len__(self) -> int:
        return self.rule.replicas

    @property
    def rows(self) -> int:
        """Rows of the stack, A·N."""
        return self.streams.replicas

    @property
    def replicas(self) -> int:
        """Replicas N of each arm."""
        return self.rows // len(self)

    @property
    def hyper(self) -> A:
        """The rule of every row."""
        return cast(A, repeat(self.rule, self.replicas).to(self.streams.device))  # the kind stays

    def spread(self, values: Any, dtype: torch.dtype | None = None) -> Tensor:
        """Give one value per arm, (A, …), to all of its rows, (A·N, …)."""
        given = torch.as_tensor(values, dtype=dtype).to(self.streams.device)
        return given.repeat_interleave(self.replicas, dim=0)

    def stack(self, start: Start[P]) -> P:
        """Return the parameters of all rows from one point (1, …), one per replica (N, …), or all of them (A·N, …).

        Raises: ValueError for any other number of rows.
        """
        given = start(self.streams) if callable(start) else start
        rows = {name: self._rows(name, leaf.to(self.streams.device)) for name, leaf in leaves(given).items()}
        return cast(P, joined(rows))  # the names stay

    def split(self, values: Tensor) -> Array:
        """Cut (A·N, …) into arms, (A, N, …), in float64 on the host."""
        return to_numpy(values).reshape(len(self), self.replicas, *values.shape[1:])

    def run(
        self,
        objective: Objective[P],
        start: Start[P],
        steps: int,
        *,
        probes: Mapping[str, Probe[P]] | None = None,
        schedule: Schedule | Sequence[Schedule] | None = None,
        **options: Unpack[RunOptions],
    ) -> ArmRun[P]:
        """Train all arms as one stack, see `train`.

        schedule: one for all, or one per arm.
        """
        plan = schedule if schedule is None or callable(schedule) else per_arm(*schedule, replicas=self.replicas)
        done = train(
            objective, self.stack(start), self.hyper, steps, self.streams, probes=probes, schedule=plan, **options
        )
        return ArmRun(self, objective, done, probes or {}, plan, options)

    def _rows(self, name: str, leaf: Tensor) -> Tensor:
        count = len(leaf) if leaf.ndim else 0
        if count == self.rows:
            return leaf
        if count not in (1, self.replicas):
            raise ValueError(
                f"start {name}".strip() + f" has {count} rows; give 1 point, one per replica "
                f"({self.replicas}), or one per row of the stack ({self.rows})"
            )
        return leaf.repeat(self.rows // count, *[1] * (leaf.ndim - 1))


@dataclass(frozen=True, eq=False)
class ArmRun(Generic[P_co]):
    """What a run of arms leaves behind, everything by arm, in float64 on the host.

    `run["probe"]` is the record of a probe: a series (A, N, T, …), or the steps of a first passage (A, N), −1 = never.
    One quantity of a probe that returns several is `run["probe.quantity"]`; ".quantity" for the probe "".
    """

    arms: Arms[Any]
    objective: Objective[P_co]
    whole: Run[P_co]  # the run of all arms as one stack
    probes: Mapping[str, Probe[P_co]]
    schedule: Schedule | None
    options: RunOptions
    before: Tensor | None = field(default=None, repr=False)  # diverged_at (A·N,) of the phases before

    def __getitem__(self, probe: str) -> Array:
        series = self._series(probe)
        return self._cut(series, None) if len(series.steps) else self.arms.split(series.values)

    def first(self, probe: str, count: int) -> Array:
        """Return the series of the first `count` replicas of every arm, (A, count, T, …)."""
        return self._cut(self._series(probe), count)

    def at(self, probe: str) -> IntArray:
        """Return the steps (T,) at which a series was recorded."""
        return np.asarray(self._series(probe).steps.numpy())

    def passed(self, probe: str) -> Array:
        """Return first-passage times (A, N) as min(T, steps), less the mean delay (every − 1)/2 of looking seldom."""
        looks, times = self.probes[probe], self[probe]
        if not isinstance(looks, FirstPassage):
            raise ValueError(f"{probe!r} is a series, not a first passage: read it as run[{probe!r}]")
        return np.where(times < 0, float(self.steps), times - (looks.every - 1) / 2)

    def average(self, probe: str, since: int = 0) -> Array:
        """Return the mean of a series over its steps from `since` on, (A, N, …), in the precision it was taken in."""
        series = self._series(probe)
        return self.arms.split(series.values[int((series.steps < since).sum()) :].mean(dim=0))

    def few(self, count: int, among: slice = slice(None)) -> tuple[Arms[Any], P_co, P_co]:
        """Return the first `count` replicas of some arms as arms of their own, where they ended, and their buffers."""
        arms, draws = self.arms, getattr(self.objective, "period", 1)
        if count % draws:
            raise ValueError(f"the replicas share {draws} draws of the data in turn: take a multiple, not {count}")
        rows = torch.arange(arms.rows, device=arms.streams.device).view(len(arms), -1)[among, :count].flatten()
        some = Arms(arms.rule.subset(among), Streams(arms.streams.seeds[rows], arms.streams.dtype))
        return some, rows_of(self.whole.params, rows), rows_of(self.whole.velocity, rows)

    def end(self, function: Callable[[P_co], Tensor] | None = None) -> Array:
        """Return function(parameters) at the end, (A, N, …); the parameters themselves where they are one tensor."""
        found = self.whole.params if function is None else function(self.whole.params)
        if not isinstance(found, Tensor):
            raise ValueError("these parameters are a dictionary of leaves: name a function of them that returns one")
        return self.arms.split(found)

    def then(
        self,
        steps: int,
        *,
        probes: Mapping[str, Probe[P_co]] | None = None,
        objective: Objective[P_co] | None = None,
        schedule: Schedule | None = None,
        **options: Unpack[RunOptions],
    ) -> ArmRun[P_co]:
        """Go on to step `steps`, counted from the beginning, from where this run ended, buffer included."""
        asked, plan = self.options | options, schedule or self.schedule
        done = train(
            objective or self.objective,
            self.whole.params,
            self.arms.hyper,
            steps,
            self.arms.streams,
            probes=probes,
            schedule=plan,
            velocity=self.whole.velocity,
            state=self.whole.state or None,
            begin=self.whole.steps,
            **asked,
        )
        return ArmRun(self.arms, objective or self.objective, done, probes or {}, plan, asked, self._diverged)

    def fork(self, rule: AnyRule, parents: Sequence[int]) -> ArmRun[P_co]:
        """Return a run that has come as far as this one, whose arm b is a copy of arm parents[b] and goes on by rule b.

        It holds no records; `then` goes on with it. Rules outside the linear family need slots of the same names.
        """
        streams, n = self.arms.streams, self.arms.replicas
        rows = (torch.tensor(parents).unsqueeze(1) * n + torch.arange(n)).flatten().to(streams.device)
        params, velocity = rows_of(self.whole.params, rows), rows_of(self.whole.velocity, rows)
        lost = self._diverged[rows]
        state = {name: slot[rows] for name, slot in self.whole.state.items()}
        whole = Run(params, velocity, lost, {}, self.steps, self.whole.seconds, state)
        return ArmRun(Arms(rule, streams.subset(rows)), self.objective, whole, {}, None, self.options, lost)

    @property
    def params(self) -> P_co:
        """The parameters at the end, one row after the other, where they were computed."""
        return self.whole.params

    @property
    def steps(self) -> int:
        """The step at which the run ended."""
        return self.whole.steps

    @property
    def diverged_at(self) -> Array:
        """The steps whose updates broke replicas, in this phase or one before, (A, N); −1 = never."""
        return self.arms.split(self._diverged)

    @property
    def lost(self) -> BoolArray:
        """Who diverged, (A, N), in this phase or one before."""
        return self.diverged_at >= 0

    @property
    def alive(self) -> BoolArray:
        """Which replicas stayed finite in every arm, (N,): pairs are kept or dropped whole.

        Raises: ValueError when fewer than two are left.
        """
        rule = self.arms.rule
        momenta = f" and momentum {rule.momentum.tolist()}" if isinstance(rule, Hyper) else ""
        return survivors(self.lost, f"some arm of lr {rule.lr.tolist()}{momenta}")

    @property
    def _diverged(self) -> Tensor:
        here = self.whole.diverged_at
        return here if self.before is None else torch.where(self.before >= 0, self.before, here)

    def _series(self, probe: str) -> Series:
        records = self.whole.records
        if probe not in records:
            there = ", ".join(map(repr, records)) or "no probes"
            raise KeyError(f"nothing was recorded as {probe!r}; there are {there}")
        return records[probe]

    def _cut(self, series: Series, count: int | None) -> Array:
        values = series.values
        parts = values.view(len(values), len(self.arms), self.arms.replicas, *values.shape[2:])
        return np.moveaxis(to_numpy(parts[:, :, :count]), 0, 2)


def survivors(lost: Array | BoolArray, where: str = "some arm") -> BoolArray:
    """Return which replicas stayed finite in all of several arms, (N,), of lost (…, N): pairs live or go together.

    lost: which replicas diverged, in every arm; where: what diverged, for the message.

    Raises: ValueError when fewer than two are left, saying `where` the others diverged.
    """
    alive = np.asarray(~lost.any(axis=tuple(range(lost.ndim - 1))))
    if alive.sum() < 2:
        count = f"all but {alive.sum()} of {len(alive)} replicas"
        raise ValueError(f"{count} diverged in {where}; choose a smaller lr or momentum")
    return alive


def in_parts(measure: Callable[[slice], Tensor], replicas: int, bytes_each: int, memory: int = MEMORY) -> Tensor:
    """Return measure(rows) (r, …) of as many rows of a stack at a time as fit into `memory`, one after the other.

    bytes_each: of working memory that a row takes, about. A task that has run out of memory asks for smaller parts.
    measure: a function of a slice of rows, with their axis first.
    """
    around = kept()
    if around is not None:
        memory = min(memory, around.budget or memory)
    step = max(1, memory // bytes_each)
    return torch.cat([measure(slice(begin, min(begin + step, replicas))) for begin in range(0, replicas, step)])


def to_numpy(values: Tensor) -> Array:
    """Return the values as float64 on the host."""
    return np.asarray(values.detach().to("cpu", torch.float64))
