"""Figures of the chapter on normalised rules: each function takes results of its experiments and draws them."""

from __future__ import annotations

from descent.figures.normalised.laws import classes, floors, overlaps
from descent.figures.normalised.nets import adam, control

__all__ = ["adam", "classes", "control", "floors", "overlaps"]
