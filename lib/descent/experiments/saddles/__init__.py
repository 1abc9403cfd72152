"""Paper P3: momentum leaves saddles faster and is noisier at optima. One module per experiment."""

from __future__ import annotations

from typing import Any

from descent.experiments.lab import Experiment
from descent.experiments.saddles.annealed_networks import ANNEALED_NETWORKS
from descent.experiments.saddles.annealing import ANNEALING
from descent.experiments.saddles.cifar import CIFAR
from descent.experiments.saddles.escape import ESCAPE
from descent.experiments.saddles.features import FEATURES
from descent.experiments.saddles.hopping import HOPPING
from descent.experiments.saddles.initial_saddle import INITIAL
from descent.experiments.saddles.limits import FLOW
from descent.experiments.saddles.linear import LINEAR
from descent.experiments.saddles.logistic import LOGISTIC
from descent.experiments.saddles.optimum import OPTIMUM
from descent.experiments.saddles.resnet import RESNET
from descent.experiments.saddles.stiff import STIFF
from descent.experiments.saddles.tradeoff import TRADEOFF

PAPER = "P3"

EXPERIMENTS: tuple[Experiment[Any, Any], ...] = (
    LINEAR,
    ESCAPE,
    FLOW,
    OPTIMUM,
    LOGISTIC,
    TRADEOFF,
    ANNEALING,
    STIFF,
    HOPPING,
    INITIAL,
    FEATURES,
    ANNEALED_NETWORKS,
    CIFAR,
    RESNET,
)
"""In the order of the chapter; RESNET is stated for paper scale alone."""

__all__ = [
    "ANNEALED_NETWORKS",
    "ANNEALING",
    "CIFAR",
    "ESCAPE",
    "EXPERIMENTS",
    "FEATURES",
    "FLOW",
    "HOPPING",
    "INITIAL",
    "LINEAR",
    "LOGISTIC",
    "OPTIMUM",
    "PAPER",
    "RESNET",
    "STIFF",
    "TRADEOFF",
]
