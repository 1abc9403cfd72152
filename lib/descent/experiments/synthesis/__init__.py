"""Synthesis: what is left of momentum when the step is matched. One module per experiment."""

from __future__ import annotations

from typing import Any

from descent.experiments.lab import Experiment
from descent.experiments.synthesis.batches import BATCHES
from descent.experiments.synthesis.directions import DIRECTIONS
from descent.experiments.synthesis.features import FEATURES
from descent.experiments.synthesis.hopping import HOPPING
from descent.experiments.synthesis.limits import LIMITS
from descent.experiments.synthesis.lineup import all_cells, summary
from descent.experiments.synthesis.modes import MODES
from descent.experiments.synthesis.network import NETWORK
from descent.experiments.synthesis.rescaling import RESCALING
from descent.experiments.synthesis.theory import THEORY
from descent.experiments.synthesis.tolerance import TOLERANCE
from descent.experiments.synthesis.warmup import WARMUP

PAPER = "S"
EXPERIMENTS: tuple[Experiment[Any, Any], ...] = (
    LIMITS, THEORY, MODES, TOLERANCE, FEATURES, DIRECTIONS, HOPPING, RESCALING, WARMUP, NETWORK, BATCHES,
)  # fmt: skip
"""In the order of the chapter."""

__all__ = [
    "BATCHES", "DIRECTIONS", "EXPERIMENTS", "FEATURES", "HOPPING", "LIMITS", "MODES", "NETWORK", "PAPER", "RESCALING",
    "THEORY", "TOLERANCE", "WARMUP", "all_cells", "summary",
]  # fmt: skip
