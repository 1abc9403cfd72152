"""Words by Triton's interpreter against those of torch, on a CPU: `TRITON_INTERPRET=1 python interpreted.py`.

A process of its own, for Triton has to know before it is imported. It ends with 0 if all is as it must be.
"""

from __future__ import annotations

import sys

import torch
from descent.engine import compiled, streams
from descent.engine.compiled import Columns
from descent.engine.streams import Purpose, Streams, philox, replica_seeds
from descent.engine.triton_words import words
from descent.runs.calibrate import KNOWN

LATE = (1 << 33) + 5


def signed(high: int, low: int) -> int:
    """Return a 64-bit word as int64 holds it."""
    found = high << 32 | low
    return found - (1 << 64) if found >> 63 else found


def one(counter: tuple[int, ...], key: tuple[int, ...]) -> list[int]:
    """Return the words of one counter under one key."""
    element, low, high, last = counter
    seed = torch.tensor([signed(key[1], key[0])])
    return [int(word) for word in words(Columns(seed, element, element + 1, 1 << 32, last, signed(high, low)), 1)]


def published() -> bool:
    """Compare with Random123's vectors, and random counters and keys with the reference."""
    draw = torch.randint(0, 1 << 32, (61, 6), generator=torch.Generator().manual_seed(0))
    pairs = [(tuple(row[:4]), tuple(row[4:])) for row in draw.tolist()]
    expected = [philox(torch.tensor(counter), torch.tensor(key)).tolist() for counter, key in pairs]
    return all(one(c, k) == list(w) for c, k, w in KNOWN) and [one(*pair) for pair in pairs] == expected


def drawn(dtype: torch.dtype) -> list[tuple[bool, torch.Tensor]]:
    """Return draws of every kind, and whether every bit of them is to be the same."""
    found = []
    for step in (0, 1, 2, LATE):
        s = Streams(replica_seeds(3, 5), dtype)
        found += [(True, s.integers(Purpose.BATCH, step, 1797, (7,))), (True, s.sample(Purpose.BATCH, step, 400, 6))]
        found += [(True, s.uniform(Purpose.INIT, step, (3, 3))), (True, s.signs(Purpose.PROBE, step, (5,)))]
        found += [(True, s.permutation(Purpose.ORDER, step, 11)), (False, s.normal(Purpose.NOISE, step, (1001,)))]
    return found


def main() -> int:
    """Compare, and say what is wrong."""
    wrong = [] if published() else ["published vectors"]
    if compiled.tried(torch.device("cpu")) is None:
        wrong.append("the kernel is not trusted")
    for dtype in (torch.float32, torch.float64):
        by_torch = drawn(dtype)
        streams.kernel = compiled.tried
        by_kernel = drawn(dtype)
        streams.kernel = compiled.kernel
        for (exact, mine), (_, theirs) in zip(by_torch, by_kernel, strict=True):
            if not (torch.equal(mine, theirs) if exact else float((mine - theirs).abs().max()) <= 4e-6):
                wrong.append(f"{dtype}, {tuple(mine.shape)}")
    print(wrong or "the same")
    return len(wrong)


if __name__ == "__main__":
    sys.exit(main())
