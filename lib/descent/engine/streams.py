"""Random numbers for a stack of replicas, as a pure function of (seed, purpose, step, element).

The generator is Philox-4x32-10 (Salmon et al. 2011): a keyed bijection of a 128-bit counter. Nothing is
carried from one draw to the next, so what a replica sees cannot depend on its neighbours, on the order of the
calls, on how a stack is cut into chunks or on the number of workers. Layout: key = (seed low, seed high),
counter = (element, step low, step high, purpose), every entry a 32-bit word held in an int64 tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

import torch
from torch import Tensor

from descent.engine.compiled import Columns, kernel, polar, writer

__all__ = ["Purpose", "Streams", "philox", "replica_seeds"]

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_SEEDING = 0x5EED  # purpose word of `replica_seeds`, apart from every `Purpose`


class Purpose(IntEnum):
    """What a random number is for; draws for different purposes are independent."""

    INIT = 0
    BATCH = 1
    NOISE = 2
    DATA = 3
    LABEL = 4
    PROBE = 5
    AUGMENT = 6
    ORDER = 7


def philox(counter: Tensor, key: Tensor) -> Tensor:
    """Return the Philox-4x32-10 words of `counter` (…, 4) under `key` (…, 2), all int64 in [0, 2³²).

    counter: four words, (…, 4); key: two words, (…, 2).
    """
    shape = torch.broadcast_shapes(counter.shape[:-1], key.shape[:-1])  # type: ignore[no-untyped-call]
    words = [word.expand(shape).clone() for word in counter.unbind(-1)]
    keys = [word.expand(shape).clone() for word in key.unbind(-1)]
    return torch.stack(_rounds(*words, *keys), dim=-1)


def replica_seeds(seed: int, replicas: int, device: str | torch.device = "cpu") -> Tensor:
    """Return (replicas,) int64 seeds in [0, 2⁶³); entry i depends on (seed, i) only."""
    counter = torch.zeros(replicas, 4, dtype=torch.int64)
    counter[:, 0] = torch.arange(replicas)
    counter[:, 3] = _SEEDING
    words = philox(counter, torch.tensor([seed & _MASK, (seed >> 32) & _MASK]))
    return (words[:, 0] | ((words[:, 1] >> 1) << 32)).to(device)


def _rounds(c0: Tensor, c1: Tensor, c2: Tensor, c3: Tensor, k0: Tensor, k1: Tensor) -> tuple[Tensor, ...]:
    """Apply the ten rounds, overwriting every argument (keys may broadcast against the counters).

    A product of two 32-bit words wraps in int64, but its 64 bits survive: the high word is the masked
    arithmetic shift. c1 and c3 only ever enter an xor that is masked afterwards, so they keep their high bits
    until the end.
    """
    p0, p1 = torch.empty_like(c0), torch.empty_like(c2)
    for _ in range(10):
        torch.mul(c0, _MULTIPLIERS[0], out=p0)
        torch.mul(c2, _MULTIPLIERS[1], out=p1)
        torch.bitwise_right_shift(p1, 32, out=c0).bitwise_xor_(c1).bitwise_xor_(k0).bitwise_and_(_MASK)
        torch.bitwise_right_shift(p0, 32, out=c2).bitwise_xor_(c3).bitwise_xor_(k1).bitwise_and_(_MASK)
        c1, p1, c3, p0 = p1, c1, p0, c3
        k0.add_(_WEYL[0]).bitwise_and_(_MASK)
        k1.add_(_WEYL[1]).bitwise_and_(_MASK)
    return c0, c1.bitwise_and_(_MASK), c2, c3.bitwise_and_(_MASK)


Words = tuple[Tensor, ...]


def _raw(words: Words, out: Tensor) -> None:
    for lane, word in enumerate(words):
        out[..., lane] = word


def _keys(words: Words, out: Tensor) -> None:
    """63-bit sorting keys: 32-bit ones tie within a few ten thousand elements."""
    for lane in (0, 1):
        out[..., lane] = (words[2 * lane] >> 1 << 32) | words[2 * lane + 1]


def _uniform32(words: Words, out: Tensor) -> None:
    """(k + ½)/2²³: exact in float32, symmetric, never 0 or 1."""
    for lane, word in enumerate(words):
        out[..., lane] = (word >> 9).to(out.dtype).add_(0.5).mul_(2.0**-23)


def _uniform64(words: Words, out: Tensor) -> None:
    """(k + ½)/2⁵²: exact in float64, symmetric, never 0 or 1."""
    for lane in (0, 1):
        bits = (words[2 * lane] << 20) | (words[2 * lane + 1] >> 12)
        out[..., lane] = bits.to(out.dtype).add_(0.5).mul_(2.0**-52)


def _normal32(words: Words, out: Tensor) -> None:
    """All 32 bits go into the radius, so the tail reaches 6.7 standard deviations."""
    for pair in (0, 1):
        radius = words[2 * pair].to(out.dtype).add_(0.5).mul_(2.0**-32)
        angle = (words[2 * pair + 1] >> 9).to(out.dtype).add_(0.5).mul_(2.0**-23)
        polar(radius, angle, out[..., 2 * pair : 2 * pair + 2])


def _normal64(words: Words, out: Tensor) -> None:
    """64 bits in the radius (tail 9.5 standard deviations), 52 in the angle."""
    low, high = words[1].to(out.dtype), words[0].to(out.dtype)
    radius = low.add_(0.5).add_(high, alpha=2.0**32).mul_(2.0**-64)
    angle = ((words[2] << 20) | (words[3] >> 12)).to(out.dtype).add_(0.5).mul_(2.0**-52)
    polar(radius, angle, out)


def _signs(words: Words, out: Tensor) -> None:
    for lane, word in enumerate(words):
        out[..., lane] = (word >> 31).to(out.dtype).mul_(2.0).sub_(1.0)


@dataclass(frozen=True)
class _Kind:
    """How four words become values: `write` makes `lanes` of them, `finish(block, high)` the rest."""

    lanes: int
    write: Callable[[Words, Tensor], None]
    dtype: torch.dtype
    finish: Callable[[Tensor, int], Tensor] | None = None


def _scale(block: Tensor, high: int) -> Tensor:
    """⌊u·high⌋ from 32-bit words; the bias is at most high/2³² relative."""
    return block.mul_(high).bitwise_right_shift_(32)


def _order(block: Tensor, high: int) -> Tensor:
    return block.argsort(dim=-1, stable=True)


def _floyd(block: Tensor, high: int) -> Tensor:
    """Floyd's sampling without replacement, all replicas and steps of the block at once."""
    size = block.shape[-1]
    block.mul_(torch.arange(high - size + 1, high + 1, device=block.device)).bitwise_right_shift_(32)
    for i in range(1, size):
        taken = (block[..., :i] == block[..., i : i + 1]).any(dim=-1)
        block[..., i].masked_fill_(taken, high - size + i)
    return block


_INTEGERS = _Kind(4, _raw, torch.int64, _scale)
_SAMPLE = _Kind(4, _raw, torch.int64, _floyd)
_PERMUTATION = _Kind(2, _keys, torch.int64, _order)
_FLOAT = {
    torch.float32: {k: _Kind(4, f, torch.float32) for k, f in (("n", _normal32), ("u", _uniform32), ("s", _signs))},
    torch.float64: {
        "n": _Kind(2, _normal64, torch.float64),
        "u": _Kind(2, _uniform64, torch.float64),
        "s": _Kind(4, _signs, torch.float64),
    },
}


_KEPT = 64 << 20
"""Bytes of a block that is kept in any case: of a single step, which a probe may ask for again."""


class Streams:
    """Random numbers for a stack: each draw returns a fresh tensor of shape (R, *shape).

    `seeds` (R,) int64; arms that share noise repeat a seed, and each distinct seed is drawn once.
    `budget` bounds the bytes of one block of consecutive steps drawn ahead; it never changes a number. By default it is
    what stays in a CPU's cache, and elsewhere so much that the hundred kernels of a draw serve many steps.
    """

    def __init__(self, seeds: Tensor, dtype: torch.dtype = torch.float32, budget: int | None = None) -> None:
        if seeds.ndim != 1 or seeds.dtype != torch.int64:
            raise ValueError(f"seeds must be a 1-d int64 tensor, got {seeds.dtype} of shape {tuple(seeds.shape)}")
        if dtype not in _FLOAT:
            raise ValueError(f"dtype must be torch.float32 or torch.float64, got {dtype}")
        self.seeds, self.dtype = seeds, dtype
        self.budget = (4 << 20 if seeds.device.type == "cpu" else 256 << 20) if budget is None else budget
        distinct, inverse = torch.unique(seeds, return_inverse=True)
        shared = len(distinct) < len(seeds)
        self._distinct = distinct if shared else seeds
        self._inverse = inverse if shared else None
        self._floats = _FLOAT[dtype]
        self._blocks: dict[tuple[object, ...], tuple[int, Tensor]] = {}

    @property
    def replicas(self) -> int:
        """Number of replicas R."""
        return len(self.seeds)

    @property
    def device(self) -> torch.device:
        """Where the draws live."""
        return self.seeds.device

    def subset(self, index: Tensor | slice) -> Streams:
        """Return the streams of the replicas `index`, number for number."""
        return Streams(self.seeds[index], self.dtype, self.budget)

    def normal(self, purpose: int, step: int, shape: tuple[int, ...] = ()) -> Tensor:
        """Draw standard normals (R, *shape)."""
        return self._draw(self._floats["n"], purpose, step, shape)

    def uniform(self, purpose: int, step: int, shape: tuple[int, ...] = ()) -> Tensor:
        """Draw uniforms (R, *shape) in the open interval (0, 1)."""
        return self._draw(self._floats["u"], purpose, step, shape)

    def signs(self, purpose: int, step: int, shape: tuple[int, ...] = ()) -> Tensor:
        """Draw ±1 with equal probability, (R, *shape), in the streams' dtype."""
        return self._draw(self._floats["s"], purpose, step, shape)

    def integers(self, purpose: int, step: int, high: int, shape: tuple[int, ...] = ()) -> Tensor:
        """Draw int64 (R, *shape) uniform on {0, …, high−1}; relative bias at most high/2³²."""
        if not 0 < high < 2**31:
            raise ValueError(f"high must be in [1, 2³¹), got {high}")
        return self._draw(_INTEGERS, purpose, step, shape, high)

    def permutation(self, purpose: int, step: int, n: int, part: slice = slice(None)) -> Tensor:
        """Draw one permutation of {0, …, n−1} per replica and return its columns `part`, int64."""
        return self._select(self._at(_PERMUTATION, purpose, step, n)[:, part])

    def sample(self, purpose: int, step: int, n: int, size: int) -> Tensor:
        """Draw `size` distinct members of {0, …, n−1}, (R, size) int64, every subset equally likely."""
        if not 0 < size <= n:
            raise ValueError(f"cannot draw {size} distinct members of {n}: size must be between 1 and n")
        if size * size > n:  # the pairwise test inside Floyd's method would cost more than a sort
            return self.permutation(purpose, step, n, slice(0, size))
        return self._draw(_SAMPLE, purpose, step, (size,), n)

    def _draw(self, kind: _Kind, purpose: int, step: int, shape: tuple[int, ...], high: int = 0) -> Tensor:
        values = self._select(self._at(kind, purpose, step, math.prod(shape), high))
        return values if len(shape) == 1 else values.view(-1, *shape)

    def _select(self, rows: Tensor) -> Tensor:
        return rows.clone() if self._inverse is None else rows.index_select(0, self._inverse)

    def _at(self, kind: _Kind, purpose: int, step: int, size: int, high: int = 0) -> Tensor:
        """Return the (distinct, size) values of one step from the cached block, or draw the next block.

        Sequential readers get blocks that double up to the budget; a single or scattered draw costs one step.
        """
        key = (kind.write, kind.finish, int(purpose), size, high)
        start, block = self._blocks.get(key, (0, None))
        if block is None or not start <= step < start + len(block):
            follows = block is not None and step == start + len(block)
            limit = max(1, self.budget // max(1, size * len(self._distinct) * kind.dtype.itemsize))
            count = min(limit, 2 * len(block)) if block is not None and follows else 1
            start, block = step, self._generate(kind, int(purpose), step, count, size, high)
            if block.nbytes <= max(self.budget, _KEPT):
                self._remember(key, start, block)
        return block[step - start]

    def _remember(self, key: tuple[object, ...], start: int, block: Tensor) -> None:
        self._blocks.pop(key, None)
        while len(self._blocks) >= 8:
            self._blocks.pop(next(iter(self._blocks)))
        self._blocks[key] = (start, block)

    def _generate(self, kind: _Kind, purpose: int, step: int, count: int, size: int, high: int) -> Tensor:
        """Return values (count, distinct, size) of consecutive steps, in pieces that stay in cache."""
        counters = -(-size // kind.lanes)
        columns = len(self._distinct) * counters
        out = torch.empty(count, columns, kind.lanes, dtype=kind.dtype, device=self.device)
        piece = 32768 * torch.get_num_threads() if self.device.type == "cpu" else 1 << 22
        for left in range(0, columns, piece):
            right = min(columns, left + piece)
            rows = max(1, piece // (right - left))
            for top in range(0, count, rows):
                part = out[top : top + rows, left:right]
                self._fill(kind, Columns(self._distinct, left, right, counters, purpose, step + top), part)
        block = out.view(count, len(self._distinct), -1)[..., :size]
        return block.contiguous() if kind.finish is None else kind.finish(block.contiguous(), high)

    def _fill(self, kind: _Kind, columns: Columns, part: Tensor) -> None:
        """Write the values of some columns at consecutive steps, by machine code where there is some."""
        here = self.device.type == "cpu"
        write = writer(kind.write.__name__.removeprefix("_"), 4 * len(part) * columns.count) if here else None
        if write is None:
            kind.write(self._words(columns, len(part)), part)
        else:
            write(columns, part)

    def _words(self, columns: Columns, count: int) -> Words:
        """Return the four words of the columns at `count` steps, by one kernel where there is one."""
        by_kernel = kernel(self.device)
        if by_kernel is not None:
            return by_kernel(columns, count)
        column = torch.arange(columns.left, columns.right, device=self.device)
        seed = columns.seeds[column.div(columns.counters, rounding_mode="floor")]
        steps = torch.arange(columns.step, columns.step + count, device=self.device).unsqueeze(1)
        shape = (count, columns.count)
        element = (column % columns.counters).expand(shape).clone()
        low, high = ((steps >> shift & _MASK).expand(shape).clone() for shift in (0, 32))
        last = torch.full(shape, columns.purpose & _MASK, device=self.device)
        return _rounds(element, low, high, last, seed & _MASK, seed >> 32 & _MASK)
