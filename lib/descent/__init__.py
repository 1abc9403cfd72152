"""Train stacks of replicas, measure what momentum and noise do, and judge claims by the measurement.

What the README uses is here under one name each; it is loaded when asked for, so that a command can choose its kernels
before torch does.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from descent.engine import Streams, every, heavy_ball, repeat, replica_seeds, sgd, stack, train
    from descent.measure.report import measure_model
    from descent.nets import CrossEntropy, Stacked, Supervised
    from descent.stats import paired_difference

__version__ = "1.0.0"

_HOMES = {
    "descent.engine": ("Streams", "every", "heavy_ball", "repeat", "replica_seeds", "sgd", "stack", "train"),
    "descent.measure.report": ("measure_model",),
    "descent.nets": ("CrossEntropy", "Stacked", "Supervised"),
    "descent.stats": ("paired_difference",),
}

__all__ = [
    "CrossEntropy", "Stacked", "Streams", "Supervised", "every", "heavy_ball", "measure_model", "paired_difference",
    "repeat", "replica_seeds", "sgd", "stack", "train",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module 'descent' has no {name!r}; it offers {', '.join(__all__)}")
