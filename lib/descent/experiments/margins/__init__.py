"""Paper P4: momentum learns the feature of small margins. One module per experiment."""

from __future__ import annotations

from descent.experiments.common import Experiment

PAPER = "P4"

EXPERIMENTS: tuple[Experiment, ...] = ()
"""In the order of the chapter."""

__all__ = ["EXPERIMENTS", "PAPER"]
