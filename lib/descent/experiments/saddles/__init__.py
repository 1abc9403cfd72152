"""Paper P3: momentum leaves saddles faster and is noisier at optima. One module per experiment."""

from __future__ import annotations

from descent.experiments.lab import gathered

__all__ = ["EXPERIMENTS", "PAPER"]

PAPER = "P3"
EXPERIMENTS = gathered(__name__)
