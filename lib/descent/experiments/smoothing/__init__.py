"""Paper P1: momentum and the smoothing of the objective. One module per experiment."""

from __future__ import annotations

from descent.experiments.lab import gathered

__all__ = ["EXPERIMENTS", "PAPER"]

PAPER = "P1"
EXPERIMENTS = gathered(__name__)
