"""Figures of the smoothing chapter: each function takes results of its experiments and draws them."""

from __future__ import annotations

from descent.figures.smoothing.generalisation import headline, iso, structure
from descent.figures.smoothing.landscapes import annealed, collapse, valleys
from descent.figures.smoothing.noise import crossing, direction, shape

__all__ = ["annealed", "collapse", "crossing", "direction", "headline", "iso", "shape", "structure", "valleys"]
