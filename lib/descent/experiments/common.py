"""What every experiment shares: the parameters a reader sets, and the record an experiment is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from descent.stats.estimate import Estimate

__all__ = ["Estimates", "Experiment", "Settings"]

SCALES = ("cpu", "gpu")
MOST = 1_000_000
"""Replicas: an arm of more does not fit into any memory at hand."""

Estimates = Mapping[str, Estimate | list[Estimate]]


@dataclass(frozen=True)
class Settings:
    """The parameters of a chapter.

    scale: "cpu" runs in a minute or two, "gpu" is the paper-scale configuration; replicas: independent runs of
    every low-dimensional arm; momentum, lr: the headline arm, heavy-ball convention.
    Raises ValueError naming the valid values.
    """

    scale: str = "cpu"
    seed: int = 0
    replicas: int = 1000
    device: str = "cpu"
    momentum: float = 0.9
    lr: float = 5e-4

    def __post_init__(self) -> None:
        if self.scale not in SCALES:
            raise ValueError(f'scale must be "cpu" or "gpu", got {self.scale!r}')
        _whole("seed", self.seed, 0)
        _whole("replicas", self.replicas, 2)
        if self.replicas > MOST:
            raise ValueError(f"replicas must be at most {MOST}, for an arm is in memory whole; got {self.replicas}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum must satisfy 0 <= momentum < 1, got {self.momentum}")
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise ValueError(f"lr must be a positive number, got {self.lr}")
        _check_device(self.device)


def Experiment(name: str, claims: Any, run: Any, estimates: Any, tables: Any, scales: Any = SCALES) -> Any:
    """Return an experiment of the old form in the new one, as long as there are some."""
    from descent.experiments import lab as form
    from descent.experiments.arms import planned

    small, large = (planned(run, Settings(scale)) for scale in SCALES)

    def ported(config: Any, lab: Any) -> Any:
        asked = {name: getattr(lab, name) for name in ("seed", "replicas", "device", "momentum", "lr")}
        return run(Settings("cpu" if config is small else "gpu", **asked))

    ported.__module__ = estimates.__module__
    return form.Experiment(name, small, large, ported, estimates, tables, scales=scales)


def _check_device(name: str) -> None:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f'device must be a torch device such as "cpu" or "cuda:0", got {name!r}') from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f'device {name!r}: this machine has {torch.cuda.device_count()} CUDA devices; use "cpu"')
    if device.type not in ("cpu", "cuda"):  # torch knows the names of more devices than it can compute on here
        try:
            torch.ones(1, device=device).item()
        except (RuntimeError, AssertionError, ImportError) as error:
            raise ValueError(f'device {name!r}: nothing can be computed on it here; use "cpu"') from error


def _whole(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        reason = ", since an interval needs a spread" if least == 2 else ""
        raise ValueError(f"{name} must be a whole number of at least {least}{reason}; got {value!r}")
