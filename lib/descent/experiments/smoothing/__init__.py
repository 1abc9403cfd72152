"""Paper P1: momentum and the smoothing of the objective. One module per experiment."""

from __future__ import annotations

from descent.experiments.common import Experiment
from descent.experiments.smoothing.critical import CRITICAL
from descent.experiments.smoothing.escape import ESCAPE
from descent.experiments.smoothing.graduated import GRADUATED

PAPER = "P1"

EXPERIMENTS: tuple[Experiment, ...] = (ESCAPE, GRADUATED, CRITICAL)
"""In the order of the chapter."""

__all__ = ["CRITICAL", "ESCAPE", "EXPERIMENTS", "GRADUATED", "PAPER"]
