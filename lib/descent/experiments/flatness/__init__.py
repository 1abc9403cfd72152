"""Paper P2: a deterministic mechanism for flat minima. One module per experiment."""

from __future__ import annotations

from descent.experiments.common import Experiment

PAPER = "P2"

EXPERIMENTS: tuple[Experiment, ...] = ()
"""In the order of the chapter."""

__all__ = ["EXPERIMENTS", "PAPER"]
