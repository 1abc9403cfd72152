"""Rare events: which frequency a rule has learnt when its mean step is nothing.

A single logit for every event of frequency p, gradient q − count/B. A linear rule learns q = p. A plain sign learns
nothing of an event that most batches do not hold, and of single examples takes one that most hold for certain. Averaged
first it learns the median of a shot noise, and Adam loses the same amount of every event. Runs start at the truth, with
a small rate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from descent.arrays import Array
from descent.engine import adam, every, sign
from descent.engine.rule import Rule
from descent.experiments.lab import Estimates, Experiment, Lab, Result, Share, Tables, each, tidy
from descent.problems.noisy import Events
from descent.stats import mean
from descent.theory.signs import adam_rare, rare_frequency, shot_median


@dataclass(frozen=True)
class Rare:
    """Events in terms of what each rule's law asks: shares of the threshold, or events per memory."""

    batches: tuple[int, ...] = (1, 8, 32)
    shares: tuple[float, ...] = (0.7, 0.85, 1.15)  # of the frequency below which plain sign descent learns nothing
    batch_size: int = 8
    momentum: float = 0.9
    per_memory: tuple[float, ...] = (0.35, 0.5, 0.75, 1.0, 2.0)  # events while the average remembers
    second: float = 0.998
    per_second: tuple[float, ...] = (0.75, 1.0, 2.0, 5.0)  # events while Adam's second moment remembers
    replicas: Share = Share(over=2, least=32)
    lr: float = 3e-3
    plain_steps: int = 2000
    steps: int = 6000
    adam_steps: int = 12_000

    def below(self, batch_size: int) -> tuple[float, ...]:
        """Return frequencies about the threshold of a batch size."""
        return tuple(share * float(rare_frequency(batch_size)) for share in self.shares)

    def averaged(self) -> Events:
        """Return events as the averaged sign meets them."""
        rate = (1 - self.momentum) / self.batch_size
        return Events(tuple(rate * events for events in self.per_memory), self.batch_size)

    def for_adam(self) -> Events:
        """Return events as Adam meets them."""
        rate = (1 - self.second) / self.batch_size
        return Events(tuple(rate * events for events in self.per_second), self.batch_size)


@dataclass(frozen=True, eq=False)
class RareResult(Result[Rare]):
    """What was learnt in the second half of a run.

    drift (B, S, N): mean steps of the logit over the rate, plain. averaged (V, N) and adam (W, N): q/p.
    """

    drift: Array
    averaged: Array
    adam: Array

    @property
    def drift_law(self) -> Array:
        """1 − 2(1 − p)^B where that is negative, else 0, (B, S)."""
        config = self.config
        found = [[1 - 2 * (1 - p) ** size for p in config.below(size)] for size in config.batches]
        return np.asarray(np.minimum(0.0, np.array(found)))


def run(config: Rare, lab: Lab) -> RareResult:
    """Let every rule settle on its events."""
    plain = [_drift(config, lab, Events(config.below(size), size)) for size in config.batches]
    strong = sign(config.lr, config.momentum)
    slow = adam(config.lr, config.momentum, config.second, eps=0.0)
    return RareResult(
        config, lab, np.stack(plain),
        averaged=_learnt(config, lab, config.averaged(), strong, config.steps),
        adam=_learnt(config, lab, config.for_adam(), slow, config.adam_steps),
    )  # fmt: skip


def _drift(config: Rare, lab: Lab, events: Events) -> Array:
    """Return the mean step of every logit over the rate in the second half of plain sign descent, (S, N)."""
    half = config.plain_steps // 2
    arms = lab.arms(sign(config.lr), config.replicas)
    before = arms.run(events, events.start(), half)
    after = before.then(config.plain_steps)
    return np.asarray((after.end() - before.end())[0].T / (half * config.lr))


def _learnt(config: Rare, lab: Lab, events: Events, rule: Rule, steps: int) -> Array:
    """Return q/p of every event in the second half of a run, (K, N)."""
    done = lab.arms(rule, config.replicas).run(
        events, events.start(), steps, probes={"q": every(20, torch.sigmoid)}, check=100
    )
    learnt: Array = done.average("q", steps // 2)[0] / np.array(events.frequencies)
    return learnt.T


def estimates(result: RareResult) -> Estimates:
    """Return what the events say about N-7."""
    config, law = result.config, result.drift_law
    falls = result.drift[:, :-1] / law[:, :-1, None]
    shot = result.averaged[:-1] - shot_median(config.per_memory[:-1])[:, None]
    slow = result.adam - adam_rare(config.per_second)[:, None]
    return {
        "N-7.falls": list(each(mean, falls).flat),
        "N-7.stays": list(each(mean, result.drift[1:, -1])),
        "N-7.averaged": list(each(mean, shot)),
        "N-7.adam": list(each(mean, slow)),
    }


def tables(result: RareResult) -> Tables:
    """Return drifts and learnt shares beside their laws."""
    config = result.config
    return {
        "events_plain": tidy(
            {"batch_size": config.batches, "share": config.shares}, drift=each(mean, result.drift), law=result.drift_law
        ),
        "events_averaged": tidy(
            {"events": config.per_memory}, learnt=each(mean, result.averaged), law=shot_median(config.per_memory)
        ),
        "events_adam": tidy(
            {"events": config.per_second}, learnt=each(mean, result.adam), law=adam_rare(config.per_second)
        ),
    }


EVENTS = Experiment(
    "events", small=Rare(), run=run, estimates=estimates, tables=tables,
    large=Rare(replicas=Share(times=2), lr=1e-3, plain_steps=10_000, steps=30_000, adam_steps=60_000),
)  # fmt: skip
