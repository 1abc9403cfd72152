"""The engine: random streams, update rules, probes, and the loop that makes steps. Randomness is made here alone."""

from __future__ import annotations

from descent.engine.arms import ArmRun, Arms
from descent.engine.probes import Every, FirstPassage, Params, Probe, Series, Watch, column, every, outside
from descent.engine.rules import (
    Factors,
    Hyper,
    Schedule,
    anneal_momentum,
    constant,
    cosine,
    cyclic,
    dampened,
    drop,
    ema,
    heavy_ball,
    nesterov,
    qhm,
    repeat,
    sgd,
    stack,
)
from descent.engine.stack import Objective
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.engine.train import Noisy, Run, train

__all__ = [
    "ArmRun", "Arms", "Every", "Factors", "FirstPassage", "Hyper", "Noisy", "Objective", "Params", "Probe",
    "Purpose", "Run", "Schedule", "Series", "Streams", "Watch", "anneal_momentum", "column", "constant", "cosine",
    "cyclic", "dampened", "drop", "ema", "every", "heavy_ball", "nesterov", "outside", "qhm", "repeat",
    "replica_seeds", "sgd", "stack", "train",
]  # fmt: skip
