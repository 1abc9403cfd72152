"""Surgery on the momentum buffer: keep, erase or filter what is remembered, while everything else stays as it was.

    operated = Surgery(objective, [Bypass(rows, noise_part, inflow=1.0), Erase(other_rows, fitted)])
    train(operated, start, hyper, steps, streams)

An operation acts on the rows it is given, between the gradient and the update. Its rule is a function of the
parameters of those rows, and what is once true stays true. A run with operations cannot be resumed or cut in two,
since they remember.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Generic, Protocol

import torch
from torch import Tensor

from descent.engine.probes import P, Params
from descent.engine.stack import Leaves, Objective, leaves
from descent.engine.streams import Streams

__all__ = ["Bypass", "Erase", "Kick", "Operation", "Part", "Project", "Rule", "Surgery", "Withhold"]

Part = Callable[[Leaves, Leaves], Leaves]
"""(parameters, gradient) of some rows → the part of the gradient that is meant."""
Rule = Callable[[Leaves], Tensor]
"""Parameters of some rows → bool (rows,)."""


class Operation(Protocol):
    """What is done before every update; changes gradient and buffer in place."""

    def __call__(self, step: int, params: Leaves, gradient: Leaves, buffer: Leaves) -> None:
        """Operate."""


@dataclass(frozen=True, eq=False)
class Surgery(Generic[P]):
    """An objective whose runs are operated on, in the order given."""

    objective: Objective[P]
    operations: Sequence[Operation]  # what is done before every update
    remembers: ClassVar[bool] = True  # operations know what has happened, which no checkpoint holds

    def gradient(self, params: P, streams: Streams, step: int) -> P:
        """Return the gradient of the objective."""
        return self.objective.gradient(params, streams, step)

    def operate(self, step: int, params: Params, gradient: Leaves, buffer: Leaves) -> None:
        """Let every operation act."""
        for operation in self.operations:
            operation(step, leaves(params), gradient, buffer)


@dataclass(eq=False)
class _Ruled:
    """Remembers for which of its rows the rule has come true."""

    rows: slice
    when: Rule | None
    happened: Tensor | None = field(default=None, init=False)

    def now(self, params: Leaves) -> tuple[Tensor, Tensor]:
        """Return for which rows the rule has come true, (rows,), and for which it just did."""
        own = {name: leaf[self.rows] for name, leaf in params.items()}
        before = self.happened
        if before is None:
            leaf = next(iter(own.values()))
            before = torch.zeros(len(leaf), dtype=torch.bool, device=leaf.device)
        if bool(before.all()):
            return before, torch.zeros_like(before)
        true = torch.ones_like(before) if self.when is None else self.when(own)
        self.happened = before | true
        return self.happened, self.happened & ~before


class Erase:
    """Empty the buffer of the rows once, when the rule first holds."""

    def __init__(self, rows: slice, when: Rule | None = None) -> None:
        self._ruled = _Ruled(rows, when)

    def __call__(self, step: int, params: Leaves, gradient: Leaves, buffer: Leaves) -> None:
        """Erase where it is time."""
        _, fresh = self._ruled.now(params)
        if bool(fresh.any()):
            for leaf in buffer.values():
                own = leaf[self._ruled.rows]
                own.masked_fill_(_column(fresh, own), 0.0)


class Bypass:
    """Let a part of the gradient act once, with weight one, and be forgotten: momentum 0 for that part.

    inflow: the weight with which a gradient enters the buffer, 1 − momentum for an EMA, 1 for a heavy ball. when: a
    rule from which on it is so (default: always); with `ends` the rule ends it instead. part: a function of parameters
    and gradient, which gives the part of the gradient that is meant; ends: whether the rule ends it instead.
    """

    def __init__(self, rows: slice, part: Part, inflow: float, when: Rule | None = None, *, ends: bool = False) -> None:
        self._ruled = _Ruled(rows, when)
        self._ends, self._part, self._inflow = ends, part, inflow
        self._last: Leaves = {}

    def __call__(self, step: int, params: Leaves, gradient: Leaves, buffer: Leaves) -> None:
        """Take last step's part out of the buffer, and raise this step's to weight one."""
        rows = self._ruled.rows
        for name, past in self._last.items():
            buffer[name][rows] -= past
        own = {name: leaf[rows] for name, leaf in params.items()}
        active = self._ruled.now(params)[0] ^ self._ends
        part = self._part(own, {name: leaf[rows] for name, leaf in gradient.items()})
        self._last = {name: leaf * _column(active, leaf) for name, leaf in part.items()}
        for name, leaf in self._last.items():
            gradient[name][rows] += leaf * (1 / self._inflow - 1)


class Withhold:
    """Take a part out of the gradient altogether, from the step on at which the rule first holds.

    part: a function of parameters and gradient, which gives the part of the gradient that is meant.
    """

    def __init__(self, rows: slice, part: Part, when: Rule | None = None) -> None:
        self._ruled, self._part = _Ruled(rows, when), part

    def __call__(self, step: int, params: Leaves, gradient: Leaves, buffer: Leaves) -> None:
        """Withhold the part."""
        rows = self._ruled.rows
        active, _ = self._ruled.now(params)
        if not bool(active.any()):
            return
        own = {name: leaf[rows] for name, leaf in params.items()}
        for name, leaf in self._part(own, {name: leaf[rows] for name, leaf in gradient.items()}).items():
            gradient[name][rows] -= leaf * _column(active, leaf)


class Kick:
    """Add to the parameters of the rows once, when the rule first holds; the buffer is left alone.

    change: a function of the rows' parameters, which gives what is added.
    """

    def __init__(self, rows: slice, change: Callable[[Leaves], Leaves], when: Rule | None = None) -> None:
        self._ruled, self._change = _Ruled(rows, when), change

    def __call__(self, step: int, params: Leaves, gradient: Leaves, buffer: Leaves) -> None:
        """Kick where it is time; this step's gradient is still the one from before."""
        rows = self._ruled.rows
        _, fresh = self._ruled.now(params)
        if not bool(fresh.any()):
            return
        for name, leaf in self._change({name: leaf[rows] for name, leaf in params.items()}).items():
            params[name][rows] += leaf * _column(fresh, leaf)


class Project:
    """Keep of the buffer only its component along a direction, or remove that component, from when the rule holds on.

    direction: leaves (rows, …) or (1, …); it is normalised here, over all leaves together. keep: whether the component
    is kept, and not removed.
    """

    def __init__(self, rows: slice, direction: Leaves, *, keep: bool, when: Rule | None = None) -> None:
        self._ruled, self._keep = _Ruled(rows, when), keep
        size = sum(leaf.flatten(1).square().sum(1) for leaf in direction.values())
        norm = torch.as_tensor(size).sqrt()
        self._unit = {name: leaf / _column(norm, leaf) for name, leaf in direction.items()}

    def __call__(self, step: int, params: Leaves, gradient: Leaves, buffer: Leaves) -> None:
        """Project."""
        rows = self._ruled.rows
        active, _ = self._ruled.now(params)
        if not bool(active.any()):
            return
        own = {name: leaf[rows] for name, leaf in buffer.items()}
        along = torch.stack([(own[name] * leaf).flatten(1).sum(1) for name, leaf in self._unit.items()]).sum(0)
        for name, leaf in own.items():
            unit = self._unit.get(name)
            component = torch.zeros_like(leaf) if unit is None else unit * _column(along, leaf)
            change = component - leaf if self._keep else -component
            leaf += change * _column(active, leaf)


def _column(values: Tensor, like: Tensor) -> Tensor:
    """Return values (rows,) shaped to multiply leaves (rows, …)."""
    return values.view(-1, *[1] * (like.ndim - 1))
