"""Paper P5: the geometry of gradient noise. One module per experiment."""

from __future__ import annotations

from descent.experiments.common import Experiment

PAPER = "P5"

EXPERIMENTS: tuple[Experiment, ...] = ()
"""In the order of the chapter."""

__all__ = ["EXPERIMENTS", "PAPER"]
