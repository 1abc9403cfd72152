"""The words of `streams` from machine code, where numba is installed: bit for bit the same, several times as fast.

Only integers and sums and products that are exact, or rounded once, are computed there; logarithms and sines stay with
torch. Loading takes about as long as drawing twenty million words without it, so that many are drawn first.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

__all__ = ["Columns", "Write", "polar", "writer"]

PATIENCE = 20_000_000
"""Words that a process draws before it loads machine code."""


@dataclass(frozen=True)
class Columns:
    """Columns left…right of a block of draws, replica-major with `counters` of each of the seeds, from a step on."""

    seeds: Tensor  # the distinct ones, int64
    left: int  # the first column
    right: int  # the column after the last
    counters: int  # columns that belong to one seed
    purpose: int  # what the draw is for, a word of the counter
    step: int  # the first step

    @property
    def count(self) -> int:
        """The number of columns."""
        return self.right - self.left


Write = Callable[[Columns, Tensor], None]
"""Writes the values of some columns at consecutive steps, (steps, columns, lanes)."""


@dataclass
class _Loading:
    """What was drawn so far, and the writers by name once they were loaded; none where there is no numba."""

    words: int = 0
    writers: Mapping[str, Write] | None = field(default=None)

    def ask(self, name: str, words: int) -> Write | None:
        self.words += words
        if self.words < PATIENCE:
            return None
        if self.writers is None:
            self.writers = _load()
        return self.writers.get(name)


_LOADING = _Loading()


def writer(name: str, words: int) -> Write | None:
    """Return what writes values of a kind, about to be made of so many words; None for `streams` to do it itself.

    words: how many are about to be made.
    """
    return _LOADING.ask(name, words)


def polar(radius: Tensor, angle: Tensor, out: Tensor) -> None:
    """Box–Muller in place: `radius` uniform on (0, 1], `angle` uniform on (0, 1).

    radius: uniform on (0, 1], overwritten; angle: uniform on (0, 1), overwritten; out: where the pairs of normal
    numbers go, (…, 2).
    """
    radius.log_().mul_(-2.0).sqrt_()
    angle.mul_(2.0 * math.pi)
    torch.mul(angle.cos(), radius, out=out[..., 0])
    torch.mul(angle.sin_(), radius, out=out[..., 1])


def _load() -> Mapping[str, Write]:
    try:
        found: Mapping[str, Write] = importlib.import_module("descent.engine.machine_code").WRITERS
    except Exception:  # no numba, or one that something here does not suit: the words are the same without it
        return {}
    return found
