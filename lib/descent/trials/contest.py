"""One rule against others on one problem: rates are tuned on other draws than are reported, the step is held equal."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from descent.arrays import Array
from descent.engine.contract import check
from descent.engine.normalised import as_rule
from descent.engine.probes import every
from descent.engine.rule import AnyRule, Rule, repeat, stack
from descent.engine.rules import Factors, Schedule, constant
from descent.engine.stack import leaves
from descent.engine.streams import Streams, replica_seeds
from descent.engine.train import Run, train
from descent.measure.step import Reaching, Symmetrised
from descent.stats.draws import draw_difference, draw_mean
from descent.stats.estimate import Estimate
from descent.trials.load import Entry
from descent.trials.problems import Problem

__all__ = ["Contest", "Curve", "Plan", "Tuned", "compete"]

LOOKS = 20
LEAST_ROWS, LEAST_DRAWS = 32, 8
"""Replicas and draws below which an interval is withheld."""
_LOST = 1e6


@dataclass(frozen=True)
class Plan:
    """How a trial is run. replicas: of every rule in the report, over `draws` draws; tuning has half as many draws."""

    rates: tuple[float, float, int]  # lowest, highest, how many
    replicas: int = 32
    draws: int = 8
    seed: int = 0
    steps: int | None = None
    match: bool = True  # whether a control takes the same step without momentum
    symmetric: bool = True  # whether it does so under noise made symmetric, too
    every: int = 50

    def __post_init__(self) -> None:
        low, high, count = self.rates
        if not (0 < low <= high and count >= 1):
            raise ValueError(f"rates are LOW:HIGH:COUNT with 0 < LOW ≤ HIGH and COUNT ≥ 1, got {self.rates}")
        if self.draws < 2 or self.replicas % self.draws:
            raise ValueError(f"{self.replicas} replicas over {self.draws} draws: take at least 2 draws, and a multiple")

    @property
    def grid(self) -> Array:
        """The rates, evenly in their logarithm."""
        return np.geomspace(*self.rates[:2], self.rates[2])

    @property
    def few(self) -> bool:
        """Whether there are too few to give an interval."""
        return self.replicas < LEAST_ROWS or self.draws < LEAST_DRAWS


@dataclass(frozen=True, eq=False)
class Tuned:
    """The rate chosen for a rule, with the score at every rate tried; nan where a replica diverged."""

    name: str
    lr: float
    rates: Array  # those that were tried
    scores: Array  # one per rate
    note: str = ""  # what to know about the choice

    @property
    def lost(self) -> bool:
        """Whether it diverged at every rate."""
        return bool(np.isnan(self.scores).all())


@dataclass(frozen=True, eq=False)
class Curve:
    """Scores (draws, nets, T) of one arm at steps (T,); nan where a replica had diverged."""

    name: str
    lr: float
    steps: Array  # at which the score was taken
    scores: Array  # the lower the better

    @property
    def end(self) -> Array:
        """Scores at the end, (draws, nets)."""
        return np.asarray(self.scores[:, :, -1])


@dataclass(frozen=True, eq=False)
class Contest:
    """What a trial found: tuning, curves by arm, factors on the rate of the control, and differences at the end."""

    problem: Problem
    plan: Plan
    entries: Sequence[Entry]  # the rules, the reader's first
    tuned: Mapping[str, Tuned]  # by name of the rule
    curves: Mapping[str, Curve]  # by name of the arm
    factors: Mapping[str, Array]  # of the control, (T, rows), raw and symmetric
    seconds: float

    def mean(self, name: str) -> Estimate | None:
        """Return the mean score of an arm at the end; None where it diverged."""
        return _maybe(lambda: draw_mean(self.curves[name].end))

    def difference(self, name: str, other: str) -> Estimate | None:
        """Return the paired difference of two arms at the end, over draws; None where one diverged."""
        if name not in self.curves or other not in self.curves:
            return None
        return _maybe(lambda: draw_difference(self.curves[name].end, self.curves[other].end))


@dataclass
class _Progress:
    """Progress of a trial, said once a second with the time that is left, about."""

    say: Callable[[str], None]
    total: int
    done: int = 0
    begun: float = field(default_factory=time.perf_counter)
    said: float = 0.0

    def tick(self, what: str, steps: int) -> None:
        """Count steps that have been made."""
        self.done += steps
        now = time.perf_counter()
        if now - self.said > 1 and self.done:
            self.said = now
            left = (now - self.begun) * max(0, self.total - self.done) / self.done
            self.say(f"{what}: {min(1.0, self.done / self.total):.0%}, about {left:.0f} s left")


def compete(
    problem: Problem, entries: Sequence[Entry], plan: Plan, say: Callable[[str], None] = lambda text: None
) -> Contest:
    """Tune every rule, then report them; the first entry is the reader's, against which the control is matched.

    entries: the rules, the reader's first.

    Raises: BrokenRuleError where a rule does not keep its contract. One that diverges is a result.
    """
    begun, steps = time.perf_counter(), plan.steps or problem.steps
    _check(problem, entries)
    progress = _Progress(say, steps * (2 * len(entries) + 4))
    tuned = {entry.name: _tune(problem, entry, plan, steps, progress) for entry in entries}
    kept = [entry for entry in entries if not tuned[entry.name].lost]
    curves: dict[str, Curve] = {}
    factors: dict[str, Array] = {}
    for entry in kept:
        run = _reported(problem, entry.at(tuned[entry.name].lr), plan, steps, progress, entry.name)
        curves[entry.name] = _curve(entry.name, tuned[entry.name].lr, run, plan)
    if plan.match and kept and kept[0] is entries[0]:
        for name, symmetric in (("raw", False), ("symmetric", True))[: 1 + plan.symmetric]:
            made, ratio = _controlled(problem, entries[0], tuned[entries[0].name].lr, plan, steps, progress, symmetric)
            curves |= made
            factors[name] = ratio
    return Contest(problem, plan, entries, tuned, curves, factors, time.perf_counter() - begun)


def _check(problem: Problem, entries: Sequence[Entry]) -> None:
    """Raise BrokenRuleError before anything is run."""
    start = leaves(problem.start(Streams(replica_seeds(0, 1))))
    shapes = {name: (leaf.shape[1:], leaf.dtype) for name, leaf in start.items()}
    for entry in entries:
        made = entry.at([1e-3, 2e-3, 3e-3])
        if isinstance(made, Rule) and made.pure:
            check(as_rule(made), shapes)


def _tune(problem: Problem, entry: Entry, plan: Plan, steps: int, progress: _Progress) -> Tuned:
    """Return the best rate of the grid; one at its end extends it once, and is said."""
    draws = max(2, plan.draws // 2)
    rates, note = plan.grid, ""
    scores = _scores(problem, entry, rates, draws, plan, steps, progress)
    best = _best(scores)
    if len(rates) > 1 and best in (0, len(rates) - 1) and not np.isnan(scores).all():
        ratio = rates[1] / rates[0]
        more = rates[0] / ratio ** np.arange(2, 0, -1) if best == 0 else rates[-1] * ratio ** np.arange(1, 3)
        found = _scores(problem, entry, more, draws, plan, steps, progress)
        parts = ((more, rates), (found, scores)) if best == 0 else ((rates, more), (scores, found))
        rates, scores = np.concatenate(parts[0]), np.concatenate(parts[1])
        note = "grid extended once"
        if _best(scores) in (0, len(rates) - 1):
            note = "best rate at the grid's end"
    if np.isnan(scores).all():
        return Tuned(entry.name, math.nan, rates, scores, "diverged at every rate")
    return Tuned(entry.name, float(rates[_best(scores)]), rates, scores, note)


def _best(scores: Array) -> int:
    return int(np.argmin(np.where(np.isnan(scores), np.inf, scores)))


def _scores(
    problem: Problem, entry: Entry, rates: Array, draws: int, plan: Plan, steps: int, progress: _Progress
) -> Array:
    """Return the mean score at every rate, on draws that the report does not see."""
    nets = max(1, plan.replicas // plan.draws // 2)
    rows = draws * nets
    rule = repeat(entry.at(rates.tolist()), rows)
    streams = Streams(replica_seeds(plan.seed + 1_000_003, rows).repeat(len(rates)))
    objective = problem.objective(Streams(replica_seeds(plan.seed + 2_000_003, draws)))
    run = _run(problem, objective, rule, steps, streams, progress, f"tuning {entry.name}", looks=False)
    scores = problem.score(objective, run.params).double().numpy().reshape(len(rates), rows)
    lost = (run.diverged_at >= 0).numpy().reshape(len(rates), rows) | ~np.isfinite(scores)
    return np.asarray(np.where(lost.any(1), np.nan, np.where(lost, 0, scores).mean(1)))


def _reported(problem: Problem, rule: Any, plan: Plan, steps: int, progress: _Progress, name: str) -> Run[Any]:
    streams, objective = _draws(problem, plan)
    return _run(problem, objective, repeat(rule, plan.replicas), steps, streams, progress, name)


def _controlled(
    problem: Problem, entry: Entry, lr: float, plan: Plan, steps: int, progress: _Progress, symmetric: bool
) -> tuple[dict[str, Curve], Array]:
    """Return the rule and its plain version at the same reach, on the same noise, and the factors on the rate."""
    streams, objective = _draws(problem, plan)
    both = Streams(streams.seeds.repeat(2))
    n, kind = plan.replicas, "symmetric" if symmetric else "raw"
    seen = Symmetrised(objective) if symmetric else objective
    rule = stack(repeat(entry.at(lr), n), repeat(entry.plain(lr), n))
    control = Reaching(slice(n, 2 * n), entry.at(lr), every=min(plan.every, steps), burn=30, steps=50)
    run = _run(problem, objective, rule, steps, both, progress, f"matched, {kind}", seen=seen, control=control)
    whole = _curve("", lr, run, plan, arms=2)
    names = (f"{entry.name}, {kind}", f"plain at its reach, {kind}")
    curves = {
        name: Curve(name, lr, whole.steps, whole.scores[i * plan.draws : (i + 1) * plan.draws])
        for i, name in enumerate(names)
    }
    return curves, run.records["control"].values[:, n:].numpy()


def _draws(problem: Problem, plan: Plan) -> tuple[Streams, Any]:
    streams = Streams(replica_seeds(plan.seed, plan.replicas))
    return streams, problem.objective(Streams(replica_seeds(plan.seed + 3_000_003, plan.draws)))


def _run(
    problem: Problem, objective: Any, rule: AnyRule, steps: int, streams: Streams, progress: _Progress, what: str,
    *, looks: bool = True, seen: Any = None, control: Any = None,
) -> Run[Any]:  # fmt: skip
    """Train once, looking at the score now and then."""
    last = [0]

    def tick(step: int, _: int) -> None:
        progress.tick(what, step - last[0])
        last[0] = step

    probes = {"score": every(max(1, steps // LOOKS), lambda x: problem.score(objective, x))} if looks else {}
    schedule: Schedule = _decay(steps) if problem.decays else constant()
    return train(
        seen or objective, problem.start(streams), rule, steps, streams,
        probes=probes, schedule=schedule, progress=tick, control=control, limit=_LOST,
    )  # fmt: skip


def _decay(steps: int) -> Schedule:
    return lambda step: Factors(lr=1 - step / steps)


def _curve(name: str, lr: float, run: Run[Any], plan: Plan, arms: int = 1) -> Curve:
    """Return the scores by draw: replica r is of draw r mod D."""
    series = run.records["score"]
    values = series.values.double().numpy()
    steps = series.steps.numpy().astype(np.float64)
    gone = run.diverged_at.numpy()
    values = np.where((gone[None] >= 0) & (gone[None] < steps[:, None]) | ~np.isfinite(values), np.nan, values)
    cut = values.reshape(len(steps), arms, plan.replicas // plan.draws, plan.draws)
    return Curve(name, lr, steps, np.moveaxis(cut, (3, 2, 0), (1, 2, 3)).reshape(arms * plan.draws, -1, len(steps)))


def _maybe(estimate: Callable[[], Estimate]) -> Estimate | None:
    """Return an estimate, None where too many diverged to make one."""
    try:
        return estimate()
    except ValueError:
        return None
