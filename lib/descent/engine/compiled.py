"""The words of `streams` from machine code, where numba or Triton is installed: bit for bit the same, and faster.

An accelerator makes them in one kernel of Triton's instead of a hundred of torch's. On a CPU numba makes values of
them, as far as integers and sums and products go that are exact, or rounded once; logarithms and sines stay with torch.
Loading takes about as long as drawing twenty million words without it, so that many are drawn first.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor

__all__ = ["Columns", "Kernel", "Write", "kernel", "polar", "writer"]

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


Kernel = Callable[[Columns, int], tuple[Tensor, ...]]
"""Makes the four words (steps, columns) of some columns at so many steps."""


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


def kernel(device: torch.device) -> Kernel | None:
    """Return what makes words in one kernel of a device; None for `streams` to do it itself."""
    return tried(device) if device.type == "cuda" else None


@lru_cache
def tried(device: torch.device) -> Kernel | None:
    """Return the kernel if it makes the words that are published for Philox (Salmon et al. 2011), None otherwise."""
    seed = torch.tensor([0x299F31D0A4093822], device=device)
    columns = Columns(seed, 0x243F6A88, 0x243F6A89, 1 << 32, 0x03707344, 0x13198A2E85A308D3)
    try:
        found: Kernel = importlib.import_module("descent.engine.triton_words").words
        said = [int(word) for word in found(columns, 1)]
    except Exception:  # no Triton, no compiler for it, or a device it does not know: torch makes the same words
        return None
    return found if said == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1] else None


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
