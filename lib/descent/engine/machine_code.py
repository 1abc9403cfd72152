"""Philox-4x32-10 and what follows it in exact arithmetic, compiled by numba; see `compiled`, which alone loads it.

An inner loop does the same for every column, so that a processor does eight of them at once. What was compiled is kept
beside this file, or where numba finds a folder it may write to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
import torch
from torch import Tensor

from descent.engine.compiled import Columns, Write, polar

__all__ = ["WRITERS"]

F = TypeVar("F", bound=Callable[..., Any])
u32, u64, i64, f32, f64 = np.uint32, np.uint64, np.int64, np.float32, np.float64
MULTIPLIERS = u64(0xD2511F53), u64(0xCD9E8D57)
WEYL = u32(0x9E3779B9), u32(0xBB67AE85)
WORD = u64(32)
HALF32, HALF64 = f32(0.5), f64(0.5)


def _compiled(function: F) -> F:
    try:
        return cast(F, numba.njit(function, cache=True, nogil=True))
    except RuntimeError:  # no folder to keep it in
        return cast(F, numba.njit(function, nogil=True))


@_compiled
def _rounds(c0: Any, c1: Any, c2: Any, c3: Any, k0: Any, k1: Any) -> Any:
    for _ in range(10):
        p0, p1 = u64(c0) * MULTIPLIERS[0], u64(c2) * MULTIPLIERS[1]
        c0, c2 = u32(p1 >> WORD) ^ c1 ^ k0, u32(p0 >> WORD) ^ c3 ^ k1
        c1, c3 = u32(p1), u32(p0)
        k0, k1 = u32(k0 + WEYL[0]), u32(k1 + WEYL[1])
    return c0, c1, c2, c3


@_compiled
def _spread(seeds: Any, left: int, counters: int, element: Any, low: Any, high: Any) -> None:
    """Write every column's number within its replica, and the two words of its seed."""
    row, within = left // counters, left % counters
    for j in range(len(element)):
        element[j], low[j], high[j] = within, seeds[row] & 0xFFFFFFFF, seeds[row] >> 32
        within += 1
        if within == counters:
            row, within = row + 1, 0


@_compiled
def _raw(element: Any, low: Any, high: Any, step: int, purpose: Any, out: Any) -> None:
    for t in range(out.shape[0]):
        now, then, row = u32((step + t) & 0xFFFFFFFF), u32((step + t) >> 32), out[t]
        for j in range(out.shape[1]):
            a, b, c, d = _rounds(element[j], now, then, purpose, low[j], high[j])
            row[j, 0], row[j, 1], row[j, 2], row[j, 3] = a, b, c, d


@_compiled
def _keys(element: Any, low: Any, high: Any, step: int, purpose: Any, out: Any) -> None:
    for t in range(out.shape[0]):
        now, then, row = u32((step + t) & 0xFFFFFFFF), u32((step + t) >> 32), out[t]
        for j in range(out.shape[1]):
            a, b, c, d = _rounds(element[j], now, then, purpose, low[j], high[j])
            row[j, 0], row[j, 1] = i64(a >> u32(1)) << 32 | i64(b), i64(c >> u32(1)) << 32 | i64(d)


@_compiled
def _uniform32(element: Any, low: Any, high: Any, step: int, purpose: Any, out: Any) -> None:
    scale, drop = f32(2.0**-23), u32(9)
    for t in range(out.shape[0]):
        now, then, row = u32((step + t) & 0xFFFFFFFF), u32((step + t) >> 32), out[t]
        for j in range(out.shape[1]):
            a, b, c, d = _rounds(element[j], now, then, purpose, low[j], high[j])
            row[j, 0], row[j, 1] = (f32(a >> drop) + HALF32) * scale, (f32(b >> drop) + HALF32) * scale
            row[j, 2], row[j, 3] = (f32(c >> drop) + HALF32) * scale, (f32(d >> drop) + HALF32) * scale


@_compiled
def _uniform64(element: Any, low: Any, high: Any, step: int, purpose: Any, out: Any) -> None:
    scale = f64(2.0**-52)
    for t in range(out.shape[0]):
        now, then, row = u32((step + t) & 0xFFFFFFFF), u32((step + t) >> 32), out[t]
        for j in range(out.shape[1]):
            a, b, c, d = _rounds(element[j], now, then, purpose, low[j], high[j])
            row[j, 0] = (f64(i64(a) << 20 | i64(b >> u32(12))) + HALF64) * scale
            row[j, 1] = (f64(i64(c) << 20 | i64(d >> u32(12))) + HALF64) * scale


@_compiled
def _signs(element: Any, low: Any, high: Any, step: int, purpose: Any, out: Any) -> None:
    top = u32(31)
    for t in range(out.shape[0]):
        now, then, row = u32((step + t) & 0xFFFFFFFF), u32((step + t) >> 32), out[t]
        for j in range(out.shape[1]):
            a, b, c, d = _rounds(element[j], now, then, purpose, low[j], high[j])
            row[j, 0], row[j, 1] = 2 * i64(a >> top) - 1, 2 * i64(b >> top) - 1
            row[j, 2], row[j, 3] = 2 * i64(c >> top) - 1, 2 * i64(d >> top) - 1


@_compiled
def _polar32(element: Any, low: Any, high: Any, step: int, purpose: Any, out: Any) -> None:
    """Write (4, steps, columns): two radii and two angles, before logarithm and sine."""
    fine, scale, drop = f32(2.0**-32), f32(2.0**-23), u32(9)
    for t in range(out.shape[1]):
        now, then = u32((step + t) & 0xFFFFFFFF), u32((step + t) >> 32)
        first, second, third, fourth = out[0, t], out[1, t], out[2, t], out[3, t]
        for j in range(out.shape[2]):
            a, b, c, d = _rounds(element[j], now, then, purpose, low[j], high[j])
            first[j], second[j] = (f32(a) + HALF32) * fine, (f32(b >> drop) + HALF32) * scale
            third[j], fourth[j] = (f32(c) + HALF32) * fine, (f32(d >> drop) + HALF32) * scale


@_compiled
def _polar64(element: Any, low: Any, high: Any, step: int, purpose: Any, out: Any) -> None:
    """Write (2, steps, columns): a radius of 64 bits and an angle of 52, before logarithm and sine."""
    word, fine, scale = f64(2.0**32), f64(2.0**-64), f64(2.0**-52)
    for t in range(out.shape[1]):
        now, then = u32((step + t) & 0xFFFFFFFF), u32((step + t) >> 32)
        radius, angle = out[0, t], out[1, t]
        for j in range(out.shape[2]):
            a, b, c, d = _rounds(element[j], now, then, purpose, low[j], high[j])
            radius[j] = ((f64(b) + HALF64) + f64(a) * word) * fine
            angle[j] = (f64(i64(c) << 20 | i64(d >> u32(12))) + HALF64) * scale


def _given(columns: Columns) -> tuple[Any, ...]:
    """Return what every function above begins with."""
    element, low, high = (np.empty(columns.count, dtype=u32) for _ in range(3))
    _spread(columns.seeds.numpy(), columns.left, columns.counters, element, low, high)
    return element, low, high, columns.step, u32(columns.purpose & 0xFFFFFFFF)


def _straight(function: Callable[..., None]) -> Write:
    """Return what writes values as they come."""

    def write(columns: Columns, out: Tensor) -> None:
        block = out if out.is_contiguous() else torch.empty(out.shape, dtype=out.dtype)
        function(*_given(columns), block.numpy())
        if block is not out:
            out.copy_(block)

    return write


def _box_muller(function: Callable[..., None], pairs: int) -> Write:
    """Return what writes normals, of as many radii and angles."""

    def write(columns: Columns, out: Tensor) -> None:
        block = torch.empty(2 * pairs, *out.shape[:2], dtype=out.dtype)
        function(*_given(columns), block.numpy())
        for pair in range(pairs):
            polar(block[2 * pair], block[2 * pair + 1], out[..., 2 * pair : 2 * pair + 2])

    return write


WRITERS: dict[str, Write] = {
    "raw": _straight(_raw),
    "keys": _straight(_keys),
    "uniform32": _straight(_uniform32),
    "uniform64": _straight(_uniform64),
    "signs": _straight(_signs),
    "normal32": _box_muller(_polar32, 2),
    "normal64": _box_muller(_polar64, 1),
}
"""What writes the values of a kind, by the name of what does it in `streams`."""
