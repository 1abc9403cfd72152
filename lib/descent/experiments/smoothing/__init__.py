"""Paper P1: momentum and the smoothing of the objective. One module per experiment."""

from __future__ import annotations

from typing import Any

from descent.experiments.lab import Experiment
from descent.experiments.smoothing.critical import CRITICAL
from descent.experiments.smoothing.equal_steps import EQUAL_STEPS
from descent.experiments.smoothing.escape import ESCAPE
from descent.experiments.smoothing.graduated import GRADUATED
from descent.experiments.smoothing.grid import GRID
from descent.experiments.smoothing.headline import HEADLINE, MNIST
from descent.experiments.smoothing.iso import ISO
from descent.experiments.smoothing.noise import NOISE
from descent.experiments.smoothing.normality import NORMALITY
from descent.experiments.smoothing.quadratic import QUADRATIC
from descent.experiments.smoothing.structure import STRUCTURE

PAPER = "P1"

EXPERIMENTS: tuple[Experiment[Any, Any], ...] = (
    NOISE,
    QUADRATIC,
    NORMALITY,
    ESCAPE,
    GRADUATED,
    CRITICAL,
    HEADLINE,
    MNIST,
    EQUAL_STEPS,
    ISO,
    STRUCTURE,
    GRID,
)
"""In the order of the chapter; GRID is stated for paper scale alone."""

__all__ = [
    "CRITICAL",
    "EQUAL_STEPS",
    "ESCAPE",
    "EXPERIMENTS",
    "GRADUATED",
    "GRID",
    "HEADLINE",
    "ISO",
    "MNIST",
    "NOISE",
    "NORMALITY",
    "PAPER",
    "QUADRATIC",
    "STRUCTURE",
]
