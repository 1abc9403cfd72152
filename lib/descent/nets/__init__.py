"""Networks that exist as a stack, every leaf with the replica axis first, and what they are trained on."""

from __future__ import annotations

from descent.nets.augment import Augment
from descent.nets.convolutional import CNN, ResNet
from descent.nets.dense import MLP, CrossEntropy, LogisticError, Loss, Model, SquaredError, Stacked
from descent.nets.supervised import Supervised

__all__ = [
    "CNN", "MLP", "Augment", "CrossEntropy", "LogisticError", "Loss", "Model", "ResNet", "SquaredError", "Stacked",
    "Supervised",
]  # fmt: skip
