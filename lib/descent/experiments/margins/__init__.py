"""Paper P4: momentum and the feature of small margins. One module per experiment."""

from __future__ import annotations

from descent.experiments.lab import gathered

__all__ = ["EXPERIMENTS", "PAPER"]

PAPER = "P4"
EXPERIMENTS = gathered(__name__)
