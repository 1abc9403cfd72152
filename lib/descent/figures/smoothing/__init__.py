"""Figures of the smoothing chapter: each function takes results of its experiments and draws them."""

from __future__ import annotations

from descent.figures.smoothing.generalisation import headline, iso, structure
from descent.figures.smoothing.landscapes import annealed, collapse, valleys

__all__ = ["annealed", "collapse", "headline", "iso", "structure", "valleys"]
