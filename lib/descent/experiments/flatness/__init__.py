"""Paper P2: a deterministic mechanism for flat minima. One module per experiment."""

from __future__ import annotations

from typing import Any

from descent.experiments.flatness.circle import CIRCLE
from descent.experiments.flatness.crossover import CROSSOVER
from descent.experiments.flatness.dimension import DIMENSION
from descent.experiments.flatness.exits import EXITS
from descent.experiments.flatness.floors import FLOORS
from descent.experiments.flatness.growth import GROWTH
from descent.experiments.flatness.hyperbola import HYPERBOLA
from descent.experiments.flatness.mechanisms import MECHANISMS
from descent.experiments.flatness.networks import NETWORKS
from descent.experiments.flatness.phase import PHASE
from descent.experiments.flatness.samples import SAMPLES
from descent.experiments.flatness.sandwich import SANDWICH
from descent.experiments.flatness.selection import SELECTION
from descent.experiments.flatness.wells import WELLS
from descent.experiments.lab import Experiment

__all__ = [
    "CIRCLE", "CROSSOVER", "DIMENSION", "EXITS", "EXPERIMENTS", "FLOORS", "GROWTH", "HYPERBOLA", "MECHANISMS",
    "NETWORKS", "PAPER", "PHASE", "SAMPLES", "SANDWICH", "SELECTION", "WELLS",
]  # fmt: skip

PAPER = "P2"

EXPERIMENTS: tuple[Experiment[Any, Any], ...] = (
    GROWTH, SANDWICH, FLOORS, SAMPLES, EXITS, MECHANISMS, CIRCLE, PHASE, CROSSOVER, DIMENSION, WELLS, SELECTION,
    HYPERBOLA, NETWORKS,
)  # fmt: skip
"""In the order of the chapter."""
