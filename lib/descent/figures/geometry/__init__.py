"""Figures of the geometry chapter: each function takes results of its experiments and draws them."""

from __future__ import annotations

from descent.figures.geometry.alignment import batches_and_momentum, directions, fingerprint, sample_sizes, widths
from descent.figures.geometry.training import along_training, cycles, kept, margins, residual

__all__ = [
    "along_training",
    "batches_and_momentum",
    "cycles",
    "directions",
    "fingerprint",
    "kept",
    "margins",
    "residual",
    "sample_sizes",
    "widths",
]
