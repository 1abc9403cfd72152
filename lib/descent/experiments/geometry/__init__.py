"""Paper P5: the geometry of gradient noise. One module per experiment."""

from __future__ import annotations

from descent.experiments.lab import gathered

__all__ = ["EXPERIMENTS", "PAPER"]

PAPER = "P5"
EXPERIMENTS = gathered(__name__)
