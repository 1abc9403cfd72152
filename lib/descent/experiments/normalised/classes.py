"""Fifty classes of falling frequency: how far each rule ends from the truth, and Adam at four batch sizes.

The bias of a softmax, gradient q − counts/B. The divergence of a run mixes noise and bias; that of the mean q, over
runs and late steps at a constant rate, is the bias alone. A linear rule has none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from descent.arrays import Array
from descent.engine import adam, every, normalised, sign, stack
from descent.engine.rule import AnyRule
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Share, Tables, each, tidy
from descent.experiments.normalised.nets import fading
from descent.problems.noisy import Unigram
from descent.stats import Estimate, bootstrap, mean, paired_ratio

ARMS = ("plain", "averaged after", "averaged before", "Adam", "normalised")
PLAIN, AFTER = 0, 1
WAYS = ("half-life in examples", "fixed")
MOMENTA = (0.0, 0.9)


@dataclass(frozen=True)
class Classes:
    """Rules that start from equal frequencies, with rates that fade, and Adam from the true ones at a constant rate.

    Adam's second moment forgets at a rate in steps, or in examples.
    """

    classes: int = 50
    batch_size: int = 8
    lr: float = 0.03
    momentum: float = 0.9
    steps: int = 2000
    batches: tuple[int, ...] = (1, 4, 16, 64)
    second: float = 0.984  # of Adam at the batch `meeting`, and at all where it is fixed
    meeting: int = 16
    adam_lr: float = 0.01
    adam_steps: tuple[int, ...] = (12_000, 6000, 3000, 3000)  # by batch size: small ones take longer to settle
    replicas: Share = Share(over=15, least=32)

    @property
    def rule(self) -> AnyRule:
        """The arms, in the order of ARMS."""
        strong = self.momentum
        signs = sign(self.lr), sign(self.lr, strong, "after"), sign(self.lr, strong)
        return stack(*signs, adam(self.lr, strong), normalised(self.lr, strong))

    def forgetting(self, batch_size: int) -> float:
        """Return the second moment whose half-life is as many examples at any batch size."""
        return 1 - (1 - self.second) * batch_size / self.meeting


@dataclass(frozen=True, eq=False)
class ClassesResult(Result[Classes]):
    """What was learnt, q (A, N, K) by ARMS; and of Adam (B, 2, 2, N, K) by batch size, WAYS and MOMENTA, over time."""

    learnt: Array
    adam: Array

    @property
    def divergence(self) -> Array:
        """KL(p, q) of every run, (A, N)."""
        return _divergence(self.config, self.learnt)

    @property
    def bias(self) -> Array:
        """KL(p, mean q) of Adam, (B, 2, 2)."""
        return _divergence(self.config, self.adam.mean(axis=-2))

    def spread(self, way: int, momentum: int) -> Estimate:
        """Return the largest bias over the smallest, of all batch sizes."""

        def ratio(q: Array) -> Array:
            bias = _divergence(self.config, q.mean(axis=1))
            return np.asarray(bias.max(axis=1) / bias.min(axis=1))

        return bootstrap(ratio, np.moveaxis(self.adam[:, way, momentum], 0, 1), seed=self.lab.seed)


def run(config: Classes, lab: Lab) -> ClassesResult:
    """Train all rules at one batch size, and Adam at several."""
    problem, start = Unigram(config.classes, config.batch_size), torch.zeros(1, config.classes)
    arms = lab.arms(config.rule, config.replicas)
    learnt = arms.run(problem, start, config.steps, schedule=fading(config.steps), check=100).end(_softmax)
    settled = [_settled(config, lab, *given) for given in zip(config.batches, config.adam_steps, strict=True)]
    return ClassesResult(config, lab, learnt, np.stack(settled))


def _settled(config: Classes, lab: Lab, batch_size: int, steps: int) -> Array:
    """Return the mean q of Adam in the second half of a run, (2, 2, N, K)."""
    problem = Unigram(config.classes, batch_size)
    second = np.repeat([config.forgetting(batch_size), config.second], len(MOMENTA)).tolist()
    arms = lab.arms(adam(config.adam_lr, list(MOMENTA) * len(WAYS), second), config.replicas)
    start = torch.as_tensor(problem.frequencies, dtype=torch.float32).log().unsqueeze(0)
    done = arms.run(problem, start, steps, probes={"q": every(25, _softmax)}, check=100)
    q = done.average("q", steps // 2)
    return q.reshape(len(WAYS), len(MOMENTA), *q.shape[1:])


def _softmax(x: Tensor) -> Tensor:
    return x.double().softmax(1)


def _divergence(config: Classes, q: Array) -> Array:
    p = Unigram(config.classes).frequencies
    return np.asarray((p * (np.log(p) - np.log(np.maximum(q, 1e-300)))).sum(axis=-1))


def estimates(result: ClassesResult) -> Estimates:
    """Return what the classes say about N-5 and N-9."""
    plain, after = result.divergence[[PLAIN, AFTER]]
    return {
        "N-5.classes": paired_ratio(after, plain, result.lab.seed),
        "N-9.tokens": [result.spread(0, m) for m in range(len(MOMENTA))],
        "N-9.fixed": [result.spread(1, m) for m in range(len(MOMENTA))],
    }


def tables(result: ClassesResult) -> Tables:
    """Return divergences, what was learnt of every class, and Adam's bias."""
    config = result.config
    rank, p = np.arange(1, config.classes + 1), Unigram(config.classes).frequencies
    return {
        "classes": tidy({"arm": ARMS}, divergence=each(mean, result.divergence)),
        "classes_learnt": tidy({"arm": ARMS, "rank": rank}, learnt=result.learnt.mean(axis=1) / p),
        "classes_adam": tidy({"batch_size": config.batches, "way": WAYS, "momentum": MOMENTA}, bias=result.bias),
    }


CLASSES = Experiment(
    "classes", small=Classes(), run=run, estimates=estimates, tables=tables,
    large=Classes(replicas=Share(), adam_steps=(60_000, 30_000, 15_000, 15_000)),
)  # fmt: skip
