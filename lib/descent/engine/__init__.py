"""The engine: random streams, update rules, probes, and the loop that makes steps. Randomness is made here alone."""

from __future__ import annotations

from descent.engine.arms import ArmRun, Arms
from descent.engine.contract import BrokenRuleError
from descent.engine.muon import muon
from descent.engine.normalised import adam, adamw, by_leaf, clipped, coupled, decayed, lion, normalised, sign
from descent.engine.probes import Every, FirstPassage, Params, Probe, Series, Watch, column, every, outside
from descent.engine.rule import AnyRule, Mixed, Rule, elementwise, repeat, stack
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
    sgd,
)
from descent.engine.split import Split
from descent.engine.stack import Objective
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.engine.torch_rule import torch_rule
from descent.engine.train import Control, Noisy, Run, train

__all__ = [
    "AnyRule", "ArmRun", "Arms", "BrokenRuleError", "Control", "Every", "Factors", "FirstPassage", "Hyper", "Mixed",
    "Noisy", "Objective", "Params", "Probe", "Purpose", "Rule", "Run", "Schedule", "Series", "Split", "Streams",
    "Watch", "adam", "adamw", "anneal_momentum", "by_leaf", "clipped", "column", "constant", "cosine", "coupled",
    "cyclic", "dampened", "decayed", "drop", "elementwise", "ema", "every", "heavy_ball", "lion", "muon",
    "nesterov", "normalised", "outside", "qhm", "repeat", "replica_seeds", "sgd", "sign", "stack", "torch_rule",
    "train",
]  # fmt: skip
