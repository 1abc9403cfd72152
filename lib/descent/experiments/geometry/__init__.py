"""Paper P5: the geometry of gradient noise. One module per experiment."""

from __future__ import annotations

from typing import Any

from descent.experiments.geometry.cifar import CIFAR
from descent.experiments.geometry.cycles import CYCLES
from descent.experiments.geometry.cyclic import CYCLIC
from descent.experiments.geometry.directions import DIRECTIONS
from descent.experiments.geometry.edge import EDGE
from descent.experiments.geometry.escape import ESCAPE
from descent.experiments.geometry.identities import IDENTITIES
from descent.experiments.geometry.kept import KEPT
from descent.experiments.geometry.margins import MARGINS
from descent.experiments.geometry.nets import NETS
from descent.experiments.geometry.resnet import RESNET
from descent.experiments.geometry.samples import SAMPLES
from descent.experiments.geometry.training import TRAINING
from descent.experiments.geometry.width import WIDTH
from descent.experiments.lab import Experiment

__all__ = [
    "CIFAR", "CYCLES", "CYCLIC", "DIRECTIONS", "EDGE", "ESCAPE", "EXPERIMENTS", "IDENTITIES", "KEPT", "MARGINS",
    "NETS", "PAPER", "RESNET", "SAMPLES", "TRAINING", "WIDTH",
]  # fmt: skip

PAPER = "P5"

EXPERIMENTS: tuple[Experiment[Any, Any], ...] = (
    IDENTITIES, SAMPLES, WIDTH, DIRECTIONS, TRAINING, CIFAR, MARGINS, ESCAPE, EDGE, NETS, KEPT, CYCLIC, RESNET, CYCLES,
)  # fmt: skip
"""In the order of the chapter."""
