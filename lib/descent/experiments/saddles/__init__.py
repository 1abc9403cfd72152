"""Paper P3: momentum leaves saddles faster and is noisier at optima. One module per experiment."""

from __future__ import annotations

from descent.experiments.common import Experiment
from descent.experiments.saddles.escape import ESCAPE
from descent.experiments.saddles.limits import FLOW
from descent.experiments.saddles.linear import LINEAR

PAPER = "P3"

EXPERIMENTS: tuple[Experiment, ...] = (LINEAR, ESCAPE, FLOW)
"""In the order of the chapter."""

__all__ = ["ESCAPE", "EXPERIMENTS", "FLOW", "LINEAR", "PAPER"]
