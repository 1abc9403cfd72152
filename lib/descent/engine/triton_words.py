"""Philox-4x32-10 in one kernel of an accelerator, by Triton; see `compiled`, which alone loads it.

`tl.philox` makes the words of `streams`; `tl.rand` and `tl.randn` make other numbers of them, and are not used.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from descent.engine.compiled import Columns

__all__ = ["words"]

_BLOCK = 512


def _kernel(
    seeds: Any,
    out: Any,
    left: Any,
    columns: Any,
    counters: Any,
    purpose: Any,
    step: Any,
    total: Any,
    block: tl.constexpr,
) -> None:
    """Write the four words of each column at each step, out (4, steps, columns); total = steps·columns."""
    place = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    inside = place < total
    column, now = left + place % columns, step + place // columns
    seed = tl.load(seeds + column // counters, mask=inside, other=0)
    element, low, high = column % counters, now & 0xFFFFFFFF, now >> 32
    last = tl.zeros_like(element) + purpose
    w0, w1, w2, w3 = tl.philox(seed, element.to(tl.uint32), low.to(tl.uint32), high.to(tl.uint32), last.to(tl.uint32))
    tl.store(out + place, w0.to(tl.int64), mask=inside)
    tl.store(out + total + place, w1.to(tl.int64), mask=inside)
    tl.store(out + 2 * total + place, w2.to(tl.int64), mask=inside)
    tl.store(out + 3 * total + place, w3.to(tl.int64), mask=inside)


_COMPILED: Any = triton.jit(_kernel, do_not_specialize=["left", "columns", "counters", "purpose", "step", "total"])


def words(columns: Columns, count: int) -> tuple[Tensor, ...]:
    """Return the four words (count, columns) int64 of the columns at `count` steps, where their seeds are.

    columns: which of a block of draws.
    """
    total = count * columns.count
    out = torch.empty(4, count, columns.count, dtype=torch.int64, device=columns.seeds.device)
    numbers = (columns.left, columns.count, columns.counters, columns.purpose & 0xFFFFFFFF, columns.step, total)
    _COMPILED[(triton.cdiv(total, _BLOCK),)](columns.seeds, out, *numbers, block=_BLOCK)
    return out.unbind(0)
