"""Paper P2: a deterministic mechanism for flat minima. One module per experiment."""

from __future__ import annotations

from descent.experiments.lab import gathered

__all__ = ["EXPERIMENTS", "PAPER"]

PAPER = "P2"
EXPERIMENTS = gathered(__name__)
