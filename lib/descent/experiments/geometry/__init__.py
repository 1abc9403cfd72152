"""Paper P5: the geometry of gradient noise. One module per experiment."""

from __future__ import annotations

from descent.experiments.common import Experiment
from descent.experiments.geometry.directions import DIRECTIONS
from descent.experiments.geometry.edge import EDGE
from descent.experiments.geometry.escape import ESCAPE
from descent.experiments.geometry.identities import IDENTITIES
from descent.experiments.geometry.nets import NETS
from descent.experiments.geometry.samples import SAMPLES
from descent.experiments.geometry.width import WIDTH

PAPER = "P5"

EXPERIMENTS: tuple[Experiment, ...] = (
    IDENTITIES,
    SAMPLES,
    WIDTH,
    DIRECTIONS,
    ESCAPE,
    EDGE,
    NETS,
)
"""In the order of the chapter."""

__all__ = [
    "DIRECTIONS",
    "EDGE",
    "ESCAPE",
    "EXPERIMENTS",
    "IDENTITIES",
    "NETS",
    "PAPER",
    "SAMPLES",
    "WIDTH",
]
