"""What the nets of this chapter fit: draws of the digits, all ten classes, by cross-entropy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from descent.arrays import Array
from descent.data.draws import Draws
from descent.data.images import load
from descent.engine import Arms, Factors, Params, Schedule
from descent.engine.rule import AnyRule
from descent.experiments.lab import Lab, Share
from descent.nets import MLP, CrossEntropy, Model, Supervised

TESTS = 797  # digits that every draw is tested on


@dataclass(frozen=True)
class Net:
    """A two-layer tanh net on `examples` digits of 8 × 8 pixels, grey levels from 0 to 1, for each of the draws.

    One net to a draw: the draw is what counts in an interval. Draws of the digits overlap.
    """

    draws: int = 12
    each: Share = Share(over=1000, least=1)
    examples: int = 1000
    hidden: int = 32

    def task(self, lab: Lab, *, skip: int = 0) -> Task:
        """Draw the training sets; skip: draws that are left out before."""
        data = load("digits")
        images = (data.images.flatten(1).to(torch.float32) / data.peak).to(lab.device)
        sets = lab.draws(len(data), self.examples, self.draws + skip, tests=TESTS).some(range(skip, skip + self.draws))
        return Task(MLP((64, self.hidden, 10), "tanh"), images, data.labels.to(lab.device), sets)

    def arms(self, lab: Lab, rule: AnyRule, *, skip: int = 0) -> Arms[AnyRule]:
        """Return arms of as many replicas as there are nets; skip: as in `task`."""
        return lab.arms(rule, lab.count(self.each) * self.draws, skip=lab.count(self.each) * skip)


@dataclass(frozen=True, eq=False)
class Task:
    """D draws of images and classes and what is trained on them; replica r is trained on draw r mod D."""

    net: Model
    images: Tensor
    labels: Tensor
    sets: Draws

    def objective(self, batch_size: int) -> Supervised:
        """Return the mean cross-entropy over batches with replacement."""
        return Supervised(self.net, CrossEntropy(), self.images, self.labels, batch_size, rows=self.sets.rows)

    def log_loss(self, params: Params) -> Tensor:
        """Return the logarithm of the training loss, (R,)."""
        return self.objective(1).value(params).clamp_min(1e-30).log()

    def accuracy(self, params: Params) -> Tensor:
        """Return the share of the digits outside its draw that a net names rightly, in per cent, (R,)."""
        return 100 * self.objective(1).accuracy(params, rows=self.sets.test)

    def by_draw(self, values: Array) -> Array:
        """Return values (…, N) of replicas as (…, D, N/D)."""
        return self.sets.by_draw(values)

    def ends(self, lab: Lab, net: Net, rule: AnyRule, batch_size: int, steps: int) -> Array:
        """Return log training losses (A, D, N/D) of arms whose rates fade in a straight line; nan where diverged."""
        arms = net.arms(lab, rule)
        done = arms.run(self.objective(batch_size), self.net.initial, steps, schedule=fading(steps), check=10)
        return self.by_draw(np.where(done.lost, np.nan, done.end(self.log_loss)))


def fading(steps: int) -> Schedule:
    """Return the schedule of a rate that falls to nothing in a straight line."""
    return lambda step: Factors(lr=max(0.0, 1 - step / steps))
