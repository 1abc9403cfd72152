"""What rules do where there is no slope: how they hover about a minimum, and how they leave a saddle.

At an equal rate, and at an equal response: with every rule given the rate at which its mean update follows a small
slope as that of gradient descent at the rate η does. Rates are in units of one over the curvature, noise is one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from descent.arrays import Array
from descent.engine.normalised import as_rule
from descent.engine.probes import Probe, every
from descent.engine.rule import repeat
from descent.engine.streams import Streams, replica_seeds
from descent.engine.train import train
from descent.measure.step import StepReport, step_of
from descent.problems.noisy import Bowl
from descent.theory.averages import Law, average_median, centre_density
from descent.theory.mode import stationary_variance
from descent.theory.signs import Kernel, adam_bias, ema, lion, plain_floor, sign_floor, signum_floor
from descent.trials.load import Entry
from descent.trials.plan import Cell, Plan, Progress, Side, estimated

__all__ = ["Besides", "Known", "floors", "known", "passages"]

Besides: TypeAlias = Callable[[Sequence[Entry], Plan, int, Progress], Side]
"""What a problem finds of rules beside their trial, in so many steps."""

RATES = (0.1, 0.01)  # so that the noise of a batch is 10 and 100 times the step
LAWS: tuple[Law, ...] = ("normal", "exponential")
LEVELS = (0.2, 1.0)  # distances from a saddle
COORDINATES = 16
RINGS, RING, BURN, LOOK = 8, 100, 300, 5
REST, LEAVE = 3, 6  # lengths of a run at rest, of which the first is not counted, and of one that leaves a saddle
LOST = 1e6
EXACT = 100.0  # noise in units of the step up to which the chain of an averaged sign is computed


@dataclass(frozen=True)
class Known:
    """What theory says of a rule: its floor at a rate, its response per rate, where it rests; None where it does not.

    floor: variance at rest, of the rate. response: mean update per slope and rate, for a small slope. skewed: where it
    rests under exponential noise.
    """

    floor: Callable[[float], float] | None = None
    response: float | None = None
    skewed: float | None = None

    def at(self, rate: float, law: Law) -> tuple[Cell, Cell]:
        """Return the floors at a rate, and at the rate that has this response, over that of gradient descent."""
        if self.floor is None or self.response is None or (law != "normal" and self.skewed != 0):
            return None, None
        return self.floor(rate) / descent_floor(rate), self.floor(rate / self.response) / descent_floor(rate)

    def rests(self, law: Law) -> Cell:
        """Return where it rests."""
        return 0.0 if law == "normal" else self.skewed


def known(entry: Entry) -> Known:
    """Return what theory says of a rule that is built in; nothing of a reader's own.

    entry: the rule.
    """
    if entry.digest:
        return Known()
    mu = entry.settings.get("momentum", 0.0)
    linear = {"sgd": 1.0, "heavy_ball": 1 / (1 - mu), "ema": 1.0}
    if entry.name in linear:
        raw = (1 - mu) if entry.name == "ema" else 1.0
        return Known(lambda lr: float(stationary_variance(1.0, lr * raw, mu)), linear[entry.name], 0.0)
    if entry.name == "sign":
        return _of_sign(ema(mu), mu)
    if entry.name == "lion":
        return _of_sign(lion(mu, entry.settings["slow"]), None)
    if entry.name in ("adam", "adamw"):
        return Known(skewed=2 * adam_bias(mu, entry.settings["second"]))  # the third cumulant is 2
    return Known()


def _of_sign(kernel: Kernel, momentum: float | None) -> Known:
    """Return the exact chain where noise is not far above the step, else its limit."""

    def floor(lr: float) -> float:
        if momentum is None or lr * EXACT < 1 - 1e-9:
            return sign_floor(lr, 1.0, 1.0, kernel)
        return lr**2 * (plain_floor(1 / lr) if momentum == 0 else signum_floor(1 / lr, momentum, tolerance=1e-8))

    return Known(floor, 2 * centre_density("normal", kernel), -average_median("exponential", kernel))


def descent_floor(rate: float) -> float:
    """Return the variance of gradient descent at rest, η/(2 − η)."""
    return float(stationary_variance(1.0, rate, 0.0))


def floors(
    entries: Sequence[Entry], plan: Plan, steps: int, progress: Progress, laws: Sequence[Law] = LAWS
) -> Side:  # fmt: skip
    """Return how far rules hover about the minimum of a bowl, and where, under normal and under skewed noise.

    entries: the rules, the reader's first. laws: of the noise.
    """
    rivals = _rivals(entries)
    found = {(law, entry.name): _hovering(entry, law, plan, steps, progress) for law in laws for entry in rivals}
    rows = [
        (law, rate, entry.name, *found[law, entry.name][index])
        for law in laws for index, rate in enumerate(RATES) for entry in rivals
    ]  # fmt: skip
    head = (
        "noise", "rate", "rule", "floor", "in theory", "at equal response", "by its step", "in theory there",
        "rests at", "rests in theory",
    )  # fmt: skip
    title = "Variance at rest over that of gradient descent: at an equal rate, and at an equal response"
    return Side("floors", title, head, 3, tuple(rows))


def passages(entries: Sequence[Entry], plan: Plan, steps: int, progress: Progress) -> Side:
    """Return after how many steps coordinates are first so far from a saddle, at an equal rate and response.

    entries: the rules, the reader's first.
    """
    rows = tuple((entry.name, *_leaving(entry, plan, steps, progress)) for entry in _rivals(entries))
    head = ("rule", *(f"to {level:g}{how}" for how in ("", ", equal response") for level in LEVELS))
    title = f"Steps until a coordinate is so far from a saddle, at the rate {RATES[-1]:g} and at an equal response"
    return Side("passages", title, head, 1, rows)


def _rivals(entries: Sequence[Entry]) -> list[Entry]:
    """Return the rules, the first of them also without its momentum."""
    first = entries[0]
    plain = [Entry(f"{first.name}, plain", first.plain, {}, False, first.digest or "built in")]
    return [first, *(plain if first.momentum else []), *entries[1:]]


def _hovering(entry: Entry, law: Law, plan: Plan, steps: int, progress: Progress) -> list[tuple[Cell, ...]]:
    """Return the cells of every rate: floors and where the rule rests, each beside its theory."""
    bowl, theory = Bowl(law), known(entry)
    place = _settled(entry, bowl, plan, steps, progress)
    step = _step(entry, bowl, place, plan, steps)
    rates, own = _rates(step, RATES)
    look = every(min(LOOK, steps), _moments)
    seen = _seen(entry, bowl, place, rates, plan, steps * REST, progress, look, "floors")
    seen = seen[:, :, seen.shape[2] // REST :].mean(2)
    rows = []
    for index, rate in enumerate(RATES):
        unit, laws = descent_floor(rate), theory.at(rate, law)
        equal, *matched = (
            _known(_spread(seen[arm]) / unit, plan) for arm in (index, index + len(RATES)) if arm < len(seen)
        )
        warm = estimated(plan.by_draw(step.temperature.double().numpy() * own[index] / unit)) if matched else None
        rests = _known(seen[index, :, 0], plan)
        rows.append((equal, laws[0], *(matched or ["unknown"]), warm, laws[1], rests, theory.rests(law)))
    return rows


def _leaving(entry: Entry, plan: Plan, steps: int, progress: Progress) -> list[Cell]:
    """Return passage times at every level, at the rate and at the response."""
    saddle = Bowl(curvature=-1.0)
    rates, _ = _rates(_step(entry, saddle, 0.0, plan, steps), RATES[-1:])
    far = _seen(entry, saddle, 0.0, rates, plan, steps * LEAVE, progress, every(1, torch.abs), "passages")
    found: list[Cell] = [_passed(one, level, plan) for one in far for level in LEVELS]
    return found + ["unknown"] * (2 * len(LEVELS) - len(found))


def _rates(step: StepReport, asked: Sequence[float]) -> tuple[list[float], list[float]]:
    """Return the rates, with those at which the response is as large beside them, and these in units of RATES[-1]."""
    gain = float(step.response.mean()) / RATES[-1]
    own = [rate / gain for rate in asked] if np.isfinite(gain) and gain > 0 else []
    return [*asked, *own], [rate / RATES[-1] for rate in own]


def _settled(entry: Entry, bowl: Bowl, plan: Plan, steps: int, progress: Progress) -> float:
    """Return where a rule rests, the mean over replicas and coordinates at the end of a slow run."""
    seen = _seen(entry, bowl, 0.0, RATES[-1:], plan, steps, progress, every(steps, _moments), "floors")
    place = float(seen[0, :, -1, 0].mean())
    return place if np.isfinite(place) else 0.0


def _step(entry: Entry, bowl: Bowl, place: float, plan: Plan, steps: int) -> StepReport:
    """Return the step of a rule at a place, at the slowest rate."""
    rule = entry.at(RATES[-1])
    x, streams = torch.full((plan.replicas, COORDINATES), place), _streams(plan, 5)
    burn = min(as_rule(rule).memory(), BURN, steps)
    return step_of(rule, bowl, x, streams=streams, steps=max(2, min(RING, steps)), rings=RINGS, burn=burn)


def _seen(
    entry: Entry, bowl: Bowl, place: float, rates: Sequence[float], plan: Plan, steps: int, progress: Progress,
    look: Probe[Tensor], what: str,
) -> Array:  # fmt: skip
    """Return what a probe sees, (rates, replicas, T, …), nan where a replica diverged."""
    streams, arms = _streams(plan, 4), len(rates)
    streams = Streams(streams.seeds.repeat(arms))
    start = torch.full((streams.replicas, COORDINATES), place)
    rule = repeat(entry.at(list(rates)), plan.replicas)
    run = train(
        bowl, start, rule, steps, streams, probes={"seen": look}, limit=LOST,
        progress=progress.during(f"{what} of {entry.name}"),
    )  # fmt: skip
    series, lost = run.records["seen"], run.diverged_at
    gone = (lost >= 0) & (series.steps[:, None] >= lost)
    values = series.values.double().masked_fill(gone.unsqueeze(-1), np.nan).numpy()
    return np.asarray(np.moveaxis(values, 0, 1).reshape(arms, plan.replicas, len(values), -1))


def _streams(plan: Plan, which: int) -> Streams:
    return Streams(replica_seeds(plan.seed + which * 1_000_000 + 3, plan.replicas))


def _moments(x: Any) -> Tensor:
    """Return the means of x and x² over coordinates, (R, 2)."""
    return torch.stack([x.mean(1), x.square().mean(1)], dim=1)


def _spread(moments: Array) -> Array:
    """Return the variance about the place where an arm rests, from means of x and x² (replicas, 2)."""
    centre = moments[:, 0].mean()
    return np.asarray(moments[:, 1] - 2 * centre * moments[:, 0] + centre**2)


def _passed(far: Array, level: float, plan: Plan) -> Cell:
    """Return the mean first step at which |x| (replicas, T, d) is above a level."""
    beyond = far > level
    if not beyond.any(1).all():
        return "not reached"
    return estimated(plan.by_draw(beyond.argmax(1).mean(1).astype(np.float64)))


def _known(values: Array, plan: Plan) -> Cell:
    return "diverged" if np.isnan(values).any() else estimated(plan.by_draw(values))
