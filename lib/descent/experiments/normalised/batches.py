"""Sign descent with momentum against plain sign descent at a larger batch, and averaging after the sign against none.

Digits, small batches, rates that fade to nothing. Averaged before the sign at batch B against plain at B and at
N_s·B; averaged after it against plain at B.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from descent.arrays import Array
from descent.engine import sign
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Tables, tidy
from descent.experiments.normalised.nets import Net
from descent.stats import Estimate, draw_difference, draw_mean
from descent.theory.signs import ema

ARMS = ("plain", "before", "after", "larger batch")


@dataclass(frozen=True)
class Batches:
    """One net on every draw; the first two rates are those at which a run is still on its way down when it ends."""

    net: Net = field(default_factory=Net)
    lr: tuple[float, ...] = (3e-4, 1e-3, 3e-3)
    momentum: float = 0.9
    batch_size: int = 8
    steps: int = 600
    slow: int = 2  # rates that are slow enough for a statement about the way down

    @property
    def larger(self) -> int:
        """The batch N_s·B."""
        return round(ema(self.momentum).for_mean * self.batch_size)


@dataclass(frozen=True, eq=False)
class BatchesResult(Result[Batches]):
    """Log training losses (4, E, D, N/D) by ARMS and rate."""

    losses: Array

    def arm(self, name: str) -> Array:
        """Return the losses of an arm, (E, D, N/D)."""
        return np.asarray(self.losses[ARMS.index(name)])

    def against(self, a: str, b: str) -> list[Estimate]:
        """Return the difference of two arms at every rate."""
        return [draw_difference(x, y) for x, y in zip(self.arm(a), self.arm(b), strict=True)]


def run(config: Batches, lab: Lab) -> BatchesResult:
    """Train all arms of a batch size together."""
    task, momentum, lr = config.net.task(lab), config.momentum, list(config.lr)
    small = [
        task.ends(lab, config.net, rule, config.batch_size, config.steps)
        for rule in (sign(lr * 2, [0.0] * len(lr) + [momentum] * len(lr)), sign(lr, momentum, "after"))
    ]
    large = task.ends(lab, config.net, sign(lr), config.larger, config.steps)
    losses = np.concatenate([*small, large]).reshape(len(ARMS), len(lr), *large.shape[1:])
    return BatchesResult(config, lab, losses)


def estimates(result: BatchesResult) -> Estimates:
    """Return what the ends say about N-2 and N-5."""
    slow = result.config.slow
    return {
        "N-2.same": result.against("before", "larger batch")[:slow],
        "N-2.gain": result.against("before", "plain")[:slow],
        "N-5.net": result.against("after", "plain"),
    }


def tables(result: BatchesResult) -> Tables:
    """Return mean log losses, and differences to plain."""
    losses = np.array([[draw_mean(x) for x in arm] for arm in result.losses], dtype=object)
    less = np.array([result.against(arm, "plain") for arm in ARMS], dtype=object)
    return {"batches": tidy({"arm": ARMS, "lr": result.config.lr}, log_loss=losses, less_plain=less)}


BATCHES = Experiment(
    "batches", small=Batches(), run=run, estimates=estimates, tables=tables,
    large=Batches(net=Net(draws=32, hidden=64), steps=1000),
)  # fmt: skip
