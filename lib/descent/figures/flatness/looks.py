"""One look per batch size, the same in every figure of the chapter."""

from __future__ import annotations

import math

from descent.figures import LAVENDER, MAGENTA, MOSS, SLATE, STEEL, TAUPE, VIOLET, Look

__all__ = ["batch_look"]

# No arm's colour; bright where noise is loudest, slate for the full batch.
_BATCH: tuple[tuple[float, Look], ...] = (
    (1, Look(MAGENTA, "X", "--")),
    (2, Look(TAUPE, "v", (5.0, 1.5))),
    (4, Look(VIOLET, "^", "-")),
    (8, Look(MOSS, "D", "-.")),
    (32, Look(LAVENDER, "s", "--")),
    (256, Look(STEEL, "P", "-.")),
    (math.inf, Look(SLATE, "o", "-")),
)


def batch_look(batch_size: int | None) -> Look:
    """Return the look of the nearest batch size of the ramp on a logarithmic scale; None is the full batch."""
    if batch_size is None:
        return _BATCH[-1][1]
    return min(_BATCH[:-1], key=lambda item: abs(math.log(batch_size / item[0])))[1]
