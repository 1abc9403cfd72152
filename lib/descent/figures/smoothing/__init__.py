"""Figures of the smoothing chapter: each function takes results of its experiments and draws them."""

from __future__ import annotations

from descent.figures.smoothing.generalisation import headline, iso, structure
from descent.figures.smoothing.landscapes import annealed, collapse, valleys
from descent.figures.smoothing.noise import crossing, direction, shape
from descent.figures.smoothing.residual import residual

__all__ = [
    "annealed", "collapse", "crossing", "direction", "headline", "iso", "residual", "shape", "structure", "valleys",
]  # fmt: skip
