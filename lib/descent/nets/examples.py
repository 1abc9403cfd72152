"""Which examples the replicas of a stack see: all of them the same, or each the rows of its own draw of the data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

__all__ = ["Examples"]

_KEPT = 1 << 20
"""Bytes of a replica's own inputs that are kept once gathered, for full gradients; larger ones are gathered anew."""


@dataclass(frozen=True, eq=False)
class Examples:
    """Inputs (N, …) and targets (N, …) that stay put, and the rows of them that every replica sees.

    rows: None, and everybody sees all N; or (D, n) int64, and row r of any stack of R = D, 2D, … replicas sees
    inputs[rows[r mod D]]. No input is copied before it is asked for. targets may then be (D, n, …), those of the rows
    alone: labels that are another draw's are wrong in other places.
    """

    inputs: Tensor
    targets: Tensor
    rows: Tensor | None = None

    def __len__(self) -> int:
        """Return the number n of examples that one replica sees."""
        return len(self.inputs) if self.rows is None else self.rows.shape[1]

    @property
    def period(self) -> int:
        """After how many replicas the rows come round again: D, or 1 where all replicas see the same."""
        return 1 if self.rows is None else len(self.rows)

    @property
    def own(self) -> bool:
        """Whether the targets (D, n, …) belong to the rows, and not to the inputs."""
        return self.rows is not None and self.targets.shape[:2] == self.rows.shape

    def check(self) -> None:
        """Raise ValueError unless inputs, targets and rows fit each other."""
        count, rows = len(self.inputs), self.rows
        if rows is not None:
            if rows.ndim != 2 or rows.dtype != torch.int64 or not rows.numel():
                raise ValueError(f"rows must be (draws, n) int64, got {rows.dtype} of shape {tuple(rows.shape)}")
            if rows.device != self.inputs.device:
                raise ValueError(f"rows are on {rows.device} and inputs on {self.inputs.device}; use lab.bring")
            low, high = (int(end) for end in torch.aminmax(rows))
            if low < 0 or high >= count:
                raise ValueError(f"rows must name inputs 0 … {count - 1}, they go from {low} to {high}")
        if len(self.targets) != count and not self.own:
            raise ValueError(
                f"inputs and targets must pair up, got {count} inputs and {len(self.targets)} targets"
                + (f"; targets of rows {tuple(rows.shape)} alone begin with that shape" if rows is not None else "")
            )

    def at(self, places: Tensor) -> Tensor:
        """Return which inputs (R, B) stand at the places (R, B) of the replicas' own sets, places in 0 … n − 1."""
        if self.rows is None:
            return places
        return self.rows.reshape(-1).index_select(0, self._flat(places)).view(places.shape)

    def take(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Return inputs (R, B, …) and targets (R, B, …) at the places (R, B) of the replicas' own sets."""
        index = self.at(places)
        return _picked(self.inputs, index), self.targets_at(places, index)

    def targets_at(self, places: Tensor, index: Tensor) -> Tensor:
        """Return the targets (R, B, …) at the places (R, B), which are those of the inputs `index` (R, B)."""
        if self.own:
            found = self.targets.flatten(0, 1).index_select(0, self._flat(places))
            return found.view(*places.shape, *self.targets.shape[2:])
        return _picked(self.targets, index)

    def seen(self, replicas: slice, some: slice = slice(None)) -> tuple[Tensor, Tensor]:
        """Return inputs (R', B, …) and targets (R', B, …): of each of these replicas `some` of its own, in order.

        Views where everybody sees the same, copies otherwise.
        """
        if self.rows is None:
            count, x, y = replicas.stop - replicas.start, self.inputs[some], self.targets[some]
            return x.expand(count, *x.shape), y.expand(count, *y.shape)
        who = self._who(replicas)
        rows = self.rows[who, some]
        return _picked(self.inputs, rows), self.targets[who, some] if self.own else _picked(self.targets, rows)

    def everything(self, replicas: int) -> tuple[Tensor, Tensor]:
        """Return all inputs (R, n, …) and targets (R, n, …) of a stack, which may not be changed."""
        if self.rows is None or replicas != self.period or self.inputs[0].nbytes * len(self) > _KEPT:
            return self.seen(slice(0, replicas))
        return self._gathered

    def subset(self, replicas: slice) -> Examples:
        """Return what the replicas of a slice see."""
        if self.rows is None:
            return self
        who = self._who(replicas)
        return Examples(self.inputs, self.targets[who] if self.own else self.targets, self.rows[who])

    def among(self, some: slice) -> Examples:
        """Return `some` of everybody's examples, in order."""
        if self.rows is None:
            return Examples(self.inputs[some], self.targets[some])
        return Examples(self.inputs, self.targets[:, some] if self.own else self.targets, self.rows[:, some])

    def fits(self, replicas: int) -> None:
        """Raise ValueError unless rows come round a whole number of times in a stack of that many replicas."""
        if replicas % self.period:
            raise ValueError(
                f"{replicas} replicas cannot share {self.period} draws of the data evenly: take a multiple of "
                f"{self.period}, or objective.subset(slice) with a slice of a larger stack"
            )

    def _who(self, replicas: slice) -> Tensor:
        """Return the draw (R',) of each replica of a slice."""
        return torch.arange(replicas.start, replicas.stop, device=self.inputs.device) % self.period

    def _flat(self, places: Tensor) -> Tensor:
        """Return the places (R, B) as an index (R·B,) into rows laid end to end."""
        if len(places) != self.period:
            self.fits(len(places))
            return (places + self._begins.repeat(len(places) // self.period, 1)).view(-1)
        return (places + self._begins).view(-1)

    @cached_property
    def _gathered(self) -> tuple[Tensor, Tensor]:
        return self.seen(slice(0, self.period))

    @cached_property
    def _begins(self) -> Tensor:
        """Where each draw begins in rows laid end to end, (D, 1)."""
        return (torch.arange(self.period, device=self.inputs.device) * len(self)).unsqueeze(1)


def _picked(values: Tensor, index: Tensor) -> Tensor:
    """Return values[index] (R, B, …) of values (N, …): whole rows, for which this is faster than indexing."""
    return values.index_select(0, index.reshape(-1)).view(*index.shape, *values.shape[1:])
