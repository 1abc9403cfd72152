"""Paper P2: a deterministic mechanism for flat minima. One module per experiment."""

from __future__ import annotations

from descent.experiments.common import Experiment
from descent.experiments.flatness.hyperbola import HYPERBOLA
from descent.experiments.flatness.selection import SELECTION
from descent.experiments.flatness.wells import WELLS

PAPER = "P2"

EXPERIMENTS: tuple[Experiment, ...] = (
    WELLS,
    SELECTION,
    HYPERBOLA,
)
"""In the order of the chapter."""

__all__ = [
    "EXPERIMENTS",
    "HYPERBOLA",
    "PAPER",
    "SELECTION",
    "WELLS",
]
