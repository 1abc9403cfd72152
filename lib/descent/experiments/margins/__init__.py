"""Paper P4: momentum and the feature of small margins. One module per experiment."""

from __future__ import annotations

from typing import Any

from descent.experiments.lab import Experiment
from descent.experiments.margins.cifar import CIFAR
from descent.experiments.margins.coast import COAST
from descent.experiments.margins.dimmed import DIMMED
from descent.experiments.margins.heterogeneity import HETEROGENEITY
from descent.experiments.margins.images import DIGITS, MNIST
from descent.experiments.margins.kick import KICK
from descent.experiments.margins.noise import NOISE
from descent.experiments.margins.normed import NORMED
from descent.experiments.margins.phase import PHASE
from descent.experiments.margins.race import RACE
from descent.experiments.margins.surgery import SURGERY
from descent.experiments.margins.teacher import TEACHER

PAPER = "P4"

EXPERIMENTS: tuple[Experiment[Any, Any], ...] = (
    RACE, SURGERY, COAST, PHASE, KICK, NOISE, HETEROGENEITY, TEACHER, DIGITS, MNIST, CIFAR, DIMMED, NORMED,
)  # fmt: skip
"""In the order of the chapter."""

__all__ = [
    "CIFAR", "COAST", "DIGITS", "DIMMED", "EXPERIMENTS", "HETEROGENEITY", "KICK", "MNIST", "NOISE", "NORMED", "PAPER",
    "PHASE", "RACE", "SURGERY", "TEACHER",
]  # fmt: skip
