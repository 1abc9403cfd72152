"""One rule against others on one problem: rates are tuned on other draws than are reported, the step is held equal."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from descent.arrays import Array
from descent.engine.contract import BrokenRuleError, check
from descent.engine.normalised import as_rule
from descent.engine.probes import FirstPassage, Leaves, Params
from descent.engine.rule import AnyRule, Rule, repeat, stack
from descent.engine.rules import Factors, Schedule, constant
from descent.engine.stack import joined, leaves
from descent.engine.streams import Streams, replica_seeds
from descent.engine.train import Run, train
from descent.measure.step import Reaching, Symmetrised
from descent.stats.draws import draw_difference, draw_mean
from descent.stats.estimate import Estimate
from descent.trials.load import Entry
from descent.trials.plan import Plan, Progress, Side, estimated
from descent.trials.problems import Posed, Problem

__all__ = ["Contest", "Curve", "Plan", "Tuned", "compete"]

LOOKS, LOOKS_TUNING = 20, 1
STEP = 4
"""Steps between two looks at who has come to where replicas are compared."""
BESIDES = 40
"""Runs of a trial that take as long as the table a problem has beside it, about."""
_LOST = 1e6


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
    """Scores (draws, nets, T) of one arm at steps (T,); nan where a replica had diverged.

    measures: by name (draws, nets); nan, too, where a replica never came to the level at which they are taken.
    """

    name: str
    lr: float
    steps: Array  # at which the score was taken
    scores: Array  # the lower the better
    measures: Mapping[str, Array]  # what is measured beside the score, by name

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
    side: Side | None = None

    @property
    def measures(self) -> list[str]:
        """The names of what is measured beside the score."""
        return list(next(iter(self.curves.values())).measures) if self.curves else []

    def measured(self, name: str, measure: str) -> Estimate | str:
        """Return the mean of a measure, or how many replicas have none."""
        values = self.curves[name].measures[measure]
        return estimated(values) or f"{int(np.isnan(values).sum())} of {values.size} without"

    def mean(self, name: str) -> Estimate | None:
        """Return the mean score of an arm at the end; None where it diverged."""
        return _maybe(lambda: draw_mean(self.curves[name].end))

    def difference(self, name: str, other: str) -> Estimate | None:
        """Return the paired difference of two arms at the end, over draws; None where one diverged."""
        if name not in self.curves or other not in self.curves:
            return None
        return _maybe(lambda: draw_difference(self.curves[name].end, self.curves[other].end))


def compete(
    problem: Problem, entries: Sequence[Entry], plan: Plan, say: Callable[[str], None] = lambda text: None
) -> Contest:
    """Tune every rule, then report them; the first entry is the reader's, against which the control is matched.

    entries: the rules, the reader's first.

    Raises: BrokenRuleError where a rule does not keep its contract. One that diverges is a result.
    """
    begun, steps = time.perf_counter(), plan.steps or problem.steps
    _check(problem, entries, plan)
    progress = Progress(say, steps * (2 * len(entries) + 4 * plan.match + BESIDES * (problem.besides is not None)))
    tuned = {entry.name: _tune(problem, entry, plan, steps, progress) for entry in entries}
    kept = [entry for entry in entries if not tuned[entry.name].lost]
    curves: dict[str, Curve] = {}
    factors: dict[str, Array] = {}
    for entry in kept:
        seen = _reported(problem, entry.at(tuned[entry.name].lr), plan, steps, progress, entry.name)
        curves[entry.name] = _curve(entry.name, tuned[entry.name].lr, seen, plan)
    if plan.match and kept and kept[0] is entries[0]:
        for name, symmetric in (("raw", False), ("symmetric", True))[: 1 + (plan.symmetric and problem.noisy)]:
            made, ratio = _controlled(problem, entries[0], tuned[entries[0].name].lr, plan, steps, progress, symmetric)
            curves |= made
            factors[name] = ratio
    side = problem.besides(entries, plan, steps, progress) if problem.besides else None
    return Contest(problem, plan, entries, tuned, curves, factors, time.perf_counter() - begun, side)


def _check(problem: Problem, entries: Sequence[Entry], plan: Plan) -> None:
    """Raise BrokenRuleError before anything is run, ValueError for more draws than there are."""
    if problem.most is not None and plan.draws > problem.most:
        raise ValueError(
            f"{problem.name} has {problem.most} draws without a common image, not {plan.draws}; give --draws "
            f"{problem.most} or fewer"
        )
    start = leaves(problem.start(Streams(replica_seeds(0, 1))))
    shapes = {name or "x": (leaf.shape[1:], leaf.dtype) for name, leaf in start.items()}
    for entry in entries:
        made = entry.at([1e-3, 2e-3, 3e-3])
        if isinstance(made, Rule) and made.pure:
            try:
                check(as_rule(made), shapes)
            except BrokenRuleError as fault:
                raise BrokenRuleError(f"{fault}{_remedy(fault.__cause__)}") from fault


def _remedy(cause: BaseException | None) -> str:
    """Return what to do where a rule asks for a setting or a buffer that it was not given."""
    if not (isinstance(cause, AttributeError) and isinstance(cause.obj, SimpleNamespace)):
        return ""
    there = ", ".join(vars(cause.obj)) or "nothing"
    return f"; there is {there}: give a setting as -p {cause.name}=NUMBER, or name a buffer in @elementwise(…)"


def _tune(problem: Problem, entry: Entry, plan: Plan, steps: int, progress: Progress) -> Tuned:
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
        return Tuned(entry.name, math.nan, rates, scores, f"{problem.lost} at every rate")
    return Tuned(entry.name, float(rates[_best(scores)]), rates, scores, note)


def _best(scores: Array) -> int:
    return int(np.argmin(np.where(np.isnan(scores), np.inf, scores)))


def _scores(
    problem: Problem, entry: Entry, rates: Array, draws: int, plan: Plan, steps: int, progress: Progress
) -> Array:
    """Return the mean score at every rate, on draws that the report does not see."""
    nets = max(1, plan.replicas // plan.draws // 2)
    rows = draws * nets
    rule = repeat(entry.at(rates.tolist()), rows)
    streams = Streams(replica_seeds(plan.seed + 1_000_003, rows).repeat(len(rates)))
    posed = problem.pose(Streams(replica_seeds(plan.seed + 2_000_003, draws)), True)
    run, look = _run(problem, posed.objective, rule, steps, streams, progress, f"tuning {entry.name}", LOOKS_TUNING)
    scores = run.records["score"].values[-1].double().numpy().reshape(len(rates), rows)
    lost = ~look.sound(run).numpy().reshape(len(rates), rows) | ~np.isfinite(scores)
    return np.asarray(np.where(lost.any(1), np.nan, np.where(lost, 0, scores).mean(1)))


def _reported(problem: Problem, rule: Any, plan: Plan, steps: int, progress: Progress, name: str) -> _Seen:
    streams, posed = _draws(problem, plan)
    return _watched(problem, posed, repeat(rule, plan.replicas), steps, streams, progress, name)


def _controlled(
    problem: Problem, entry: Entry, lr: float, plan: Plan, steps: int, progress: Progress, symmetric: bool
) -> tuple[dict[str, Curve], Array]:
    """Return the rule and its plain version at the same step, on the same noise, and the factors on the rate."""
    streams, posed = _draws(problem, plan)
    both = Streams(streams.seeds.repeat(2))
    n, kind = plan.replicas, "symmetric" if symmetric else "raw"
    noise = Symmetrised(posed.objective) if symmetric else None
    rule = stack(repeat(entry.at(lr), n), repeat(entry.plain(lr), n))
    control = Reaching(slice(n, 2 * n), entry.at(lr), every=min(plan.every, steps), burn=30, steps=50, by=plan.by)
    seen = _watched(problem, posed, rule, steps, both, progress, f"matched, {kind}", noise=noise, control=control)
    names = (f"{entry.name}, {kind}", f"plain at its {plan.by}, {kind}")
    curves = {name: _curve(name, lr, seen, plan, arm) for arm, name in enumerate(names)}
    return curves, seen.run.records["control"].values[:, n:].numpy()


def _draws(problem: Problem, plan: Plan) -> tuple[Streams, Posed]:
    streams = Streams(replica_seeds(plan.seed, plan.replicas))
    return streams, problem.pose(Streams(replica_seeds(plan.seed + 3_000_003, plan.draws)), False)


@dataclass(frozen=True, eq=False)
class _Seen:
    """A run, who of its replicas has a score to compare, and what was measured of them, (R,) each."""

    run: Run[Any]
    sound: Tensor
    measures: dict[str, Array]


@dataclass(eq=False)
class _Look:
    """A probe of the score; where replicas are compared before the end, of the parameters they had there.

    kept: these, once there; passed: the step (R,), −1 before.
    """

    problem: Problem
    objective: Any
    every: int
    kept: Leaves = field(default_factory=dict)
    passed: Tensor = field(default_factory=lambda: torch.empty(0))

    def __call__(self, step: int, params: Params, velocity: Params) -> Tensor:
        """Return the score, (R,)."""
        self.kept = self.at(params)
        if self.problem.there is not None:
            fresh = self.problem.there(self.objective, params)
            if not len(self.passed):
                self.passed = torch.full(fresh.shape, -1)
            self.passed = torch.where(fresh & (self.passed < 0), step, self.passed)
        return self.problem.score(self.objective, joined(self.kept))

    def at(self, params: Params) -> Leaves:
        """Return what is compared: the parameters, those of earlier for who is there already."""
        now = {name: leaf.clone() for name, leaf in leaves(params).items()}
        if self.kept and self.problem.there is not None:
            for name, leaf in now.items():
                leaf[self.passed >= 0] = self.kept[name][self.passed >= 0]
        return now

    def sound(self, run: Run[Any]) -> Tensor:
        """Return who has a score to compare, (R,) bool."""
        return self.passed >= 0 if self.problem.there is not None else run.diverged_at < 0


def _watched(
    problem: Problem, posed: Posed, rule: AnyRule, steps: int, streams: Streams, progress: Progress, what: str,
    *, noise: Any = None, control: Any = None,
) -> _Seen:  # fmt: skip
    """Train once, look at the score now and then, and measure where replicas are compared."""
    run, look = _run(problem, posed.objective, rule, steps, streams, progress, what, LOOKS, noise, control)
    params, sound = joined(look.kept), look.sound(run)
    found = {name: measure(params).double() for name, measure in posed.measures.items()}
    if problem.there is not None:
        found["steps to it"] = look.passed.double()
    return _Seen(run, sound, {name: values.masked_fill(~sound, math.nan).numpy() for name, values in found.items()})


def _run(
    problem: Problem, objective: Any, rule: AnyRule, steps: int, streams: Streams, progress: Progress, what: str,
    looks: int, noise: Any = None, control: Any = None,
) -> tuple[Run[Any], _Look]:  # fmt: skip
    """Train once, until everybody is where they are compared."""
    schedule: Schedule = _decay(steps) if problem.decays else constant()
    look = _Look(problem, objective, max(1, steps // looks) if problem.there is None else STEP)
    probes: dict[str, Any] = {"score": look}
    if problem.there is not None:
        probes["there"] = FirstPassage(lambda _: look.passed >= 0, every=STEP, stop=True)
    run = train(
        noise or objective, problem.start(streams), rule, steps, streams, probes=probes, schedule=schedule,
        progress=progress.during(what), control=control, limit=_LOST,
    )  # fmt: skip
    return run, look


def _decay(steps: int) -> Schedule:
    return lambda step: Factors(lr=1 - step / steps)


def _curve(name: str, lr: float, seen: _Seen, plan: Plan, arm: int = 0) -> Curve:
    """Return scores and measures of an arm by draw: replica r is of draw r mod D."""
    series, rows = seen.run.records["score"], slice(arm * plan.replicas, (arm + 1) * plan.replicas)
    values = series.values[:, rows].double().numpy()
    steps = series.steps.numpy().astype(np.float64)
    gone = seen.run.diverged_at[rows].numpy()
    values = np.where((gone[None] >= 0) & (gone[None] < steps[:, None]) | ~np.isfinite(values), np.nan, values)
    values[-1, ~seen.sound[rows].numpy()] = np.nan
    measures = {key: plan.by_draw(measure[rows]) for key, measure in seen.measures.items()}
    return Curve(name, lr, steps, np.moveaxis(plan.by_draw(values), 0, -1), measures)


def _maybe(estimate: Callable[[], Estimate]) -> Estimate | None:
    """Return an estimate, None where too many diverged to make one."""
    try:
        return estimate()
    except ValueError:
        return None
