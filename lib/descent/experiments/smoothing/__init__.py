"""Paper P1: momentum and the smoothing of the objective. One module per experiment."""

from __future__ import annotations

from descent.experiments.common import Experiment

PAPER = "P1"

EXPERIMENTS: tuple[Experiment, ...] = ()
"""In the order of the chapter."""

__all__ = ["EXPERIMENTS", "PAPER"]
