"""Synthesis: what is left of momentum when the step is matched. One module per experiment."""

from __future__ import annotations

from descent.experiments.lab import gathered

__all__ = ["EXPERIMENTS", "PAPER"]

PAPER = "S"
EXPERIMENTS = gathered(__name__)
