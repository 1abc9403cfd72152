"""Where arms of networks end: how sharp the minima are, and how well the networks do there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from descent.arrays import Array
from descent.data.draws import Draws
from descent.engine import ArmRun
from descent.engine.stack import leaves
from descent.experiments.lab import Lab, each
from descent.experiments.smoothing.arms import Task, over_draws, whole
from descent.measure.traces import gauss_newton_trace
from descent.stats import draw_difference

C = TypeVar("C")


@dataclass(frozen=True, eq=False)
class Minima(Generic[C]):
    """Per arm, (A, N): log trace of the Gauss–Newton matrix, test accuracy in percent, loss on the labels as they are.

    The log trace is the mean over a few looks near the end, between which it fluctuates. Net i is of draw i mod D of
    the sets. One that diverged in some arm is not a number in any.
    """

    config: C
    lab: Lab
    sets: Draws
    sharpness: Array
    accuracy: Array
    loss: Array

    def shifts(self, values: Array, base: int) -> Any:
        """Return values (A, N) less those of a base arm, an array of Estimates (A,)."""
        return each(over_draws(self.sets, draw_difference), values, values[base])

    def over(self, base: int) -> dict[str, Any]:
        """Return the columns of a table by arm; shifts of the log trace and gains in accuracy are over the base."""
        return {
            "log_trace": np.nanmean(self.sharpness, axis=-1),
            "shift": self.shifts(self.sharpness, base),
            "accuracy": np.nanmean(self.accuracy, axis=-1),
            "gain": self.shifts(self.accuracy, base),
            "loss": np.nanmean(self.loss, axis=-1),
        }


def measured(config: C, lab: Lab, images: Task, looks: Sequence[Sequence[ArmRun]]) -> Minima[C]:
    """Measure the nets of every arm, each a run of its own, at its looks and, of all but the trace, at the last one."""
    found = []
    for several in looks:
        end, traces = several[-1], [gauss_newton_trace(images.full, leaves(look.params)).log() for look in several]
        trace = end.arms.split(torch.stack(traces).mean(dim=0))
        found.append(np.concatenate([trace, end.end(images.accuracy), end.end(images.full.value), end.lost]))
    *measures, lost = np.stack(found, axis=1)
    return Minima(config, lab, images.sets, *(whole(values, lost) for values in measures))
