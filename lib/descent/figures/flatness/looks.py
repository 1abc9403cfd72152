"""One look per batch size, the same in every figure of the chapter."""

from __future__ import annotations

import math

from descent.figures import Look

__all__ = ["batch_look"]

# Warm where noise is loudest, cold for the full batch.
_BATCH: tuple[tuple[float, Look], ...] = (
    (1, Look("#d6405f", "X", "--")),
    (2, Look("#e0702f", "v", (5.0, 1.5))),
    (4, Look("#b58a1a", "^", "-")),
    (8, Look("#6f9a2e", "D", "-.")),
    (32, Look("#1f9d8b", "s", "--")),
    (256, Look("#a862c4", "P", "-.")),
    (math.inf, Look("#3d85c6", "o", "-")),
)


def batch_look(batch_size: int | None) -> Look:
    """Return the look of the nearest batch size of the ramp on a logarithmic scale; None is the full batch."""
    if batch_size is None:
        return _BATCH[-1][1]
    return min(_BATCH[:-1], key=lambda item: abs(math.log(batch_size / item[0])))[1]
