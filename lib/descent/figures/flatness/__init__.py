"""Figures of the flatness chapter: each function takes results of its experiments and draws them."""

from __future__ import annotations

from descent.figures.flatness.looks import batch_look
from descent.figures.flatness.wells import continuum, outcomes, selection, selection_controls

__all__ = ["batch_look", "continuum", "outcomes", "selection", "selection_controls"]
