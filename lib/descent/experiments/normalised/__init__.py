"""Normalised rules: sign, Adam, normalised steps and Muon under the step control. One module per experiment."""

from __future__ import annotations

from descent.experiments.lab import gathered

__all__ = ["EXPERIMENTS", "PAPER"]

PAPER = "N"
EXPERIMENTS = gathered(__name__)
