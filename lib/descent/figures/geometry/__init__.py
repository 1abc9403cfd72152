"""Figures of the geometry chapter: each function takes results of its experiments and draws them."""

from __future__ import annotations

from descent.figures.geometry.alignment import (
    batches_and_momentum,
    directions,
    fingerprint,
    sample_sizes,
    widths,
)

__all__ = ["batches_and_momentum", "directions", "fingerprint", "sample_sizes", "widths"]
