"""Rules stated before a run, the region each asks an interval to lie in, and the verdict.

An interval inside the region holds, one entirely outside fails, one that straddles an end is inconclusive.
Intervals are widened first, so that all tests of a paper are covered jointly (Bonferroni). Too few replicas, or
replicas without any spread, decide nothing: `Estimate.insufficient` says why.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any, ClassVar, NamedTuple

from descent.results.provenance import NIGHT
from descent.stats.estimate import Estimate
from descent.stats.intervals import replicas_to_settle

__all__ = [
    "Direction", "Equivalence", "Ordering", "Region", "Rule", "Scaling", "Test", "Verdict", "combine",
    "deciding", "family_wise", "judge", "replicas_needed", "rule_from",
]  # fmt: skip

LEVEL = 0.95


class Verdict(StrEnum):
    """The four outcomes of a claim or a test."""

    HOLDS = "holds"
    FAILS = "fails"
    INCONCLUSIVE = "inconclusive"
    NOT_TESTED = "not tested here"


class Region(NamedTuple):
    """The values for which a prediction is right; `closed` counts the finite ends in."""

    low: float
    high: float
    closed: bool = True  # whether a finite end itself counts in

    def judge(self, low: float, high: float) -> Verdict:
        """Compare an interval with the region."""
        if self._starts_below(low) and self._ends_above(high):
            return Verdict.HOLDS
        if self._starts_below(high) and self._ends_above(low):
            return Verdict.INCONCLUSIVE
        return Verdict.FAILS

    def room(self, low: float, high: float) -> float:
        """Return how far an interval lies inside, from the closer end; negative for what sticks out."""
        below = math.inf if self.low == -math.inf else low - self.low
        return min(below, math.inf if self.high == math.inf else self.high - high)

    def _starts_below(self, x: float) -> bool:
        return x > self.low or self.low == -math.inf or (self.closed and x == self.low)

    def _ends_above(self, x: float) -> bool:
        return x < self.high or self.high == math.inf or (self.closed and x == self.high)


@dataclass(frozen=True)
class Direction:
    """The quantity is above (or below) a reference by more than the smallest effect that matters."""

    kind: ClassVar[str] = "direction"
    above: float | None = None  # the reference it must exceed
    below: float | None = None  # the reference it must stay below
    margin: float = 0.0
    each: bool = False

    def __post_init__(self) -> None:
        if (self.above is None) == (self.below is None):
            raise ValueError("a direction needs exactly one of `above` and `below`")
        _nonnegative("margin", self.margin)

    @property
    def region(self) -> Region:
        """(above + margin, ∞) or (−∞, below − margin), end not included."""
        low = -math.inf if self.above is None else self.above + self.margin
        high = math.inf if self.below is None else self.below - self.margin
        return Region(low, high, closed=False)

    def __str__(self) -> str:
        """Return the prediction in signs, such as "> 1.1"."""
        sign = f"> {number(self.region.low)}" if self.above is not None else f"< {number(self.region.high)}"
        return _each(self.each) + sign


@dataclass(frozen=True)
class Equivalence:
    """The quantity equals the target within a tolerance stated in advance."""

    kind: ClassVar[str] = "equivalence"
    target: float
    tolerance: float  # the largest deviation that does not matter
    each: bool = False

    def __post_init__(self) -> None:
        if self.tolerance <= 0:
            raise ValueError(f"`tolerance` must be positive, got {self.tolerance}; say how close counts")

    @property
    def region(self) -> Region:
        """[target − tolerance, target + tolerance]."""
        return Region(self.target - self.tolerance, self.target + self.tolerance)

    def __str__(self) -> str:
        """Return the prediction in signs, such as "1 ± 0.1"."""
        return f"{_each(self.each)}{number(self.target)} ± {number(self.tolerance)}"


@dataclass(frozen=True)
class Scaling:
    """The quantity, usually a fitted exponent, lies in a region."""

    kind: ClassVar[str] = "scaling"
    low: float
    high: float
    each: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"`low` must be smaller than `high`, got {self.low} and {self.high}")

    @property
    def region(self) -> Region:
        """[low, high]."""
        return Region(self.low, self.high)

    def __str__(self) -> str:
        """Return the prediction in signs, such as "0.9 to 1.1"."""
        return f"{_each(self.each)}{number(self.low)} to {number(self.high)}"


@dataclass(frozen=True)
class Ordering:
    """Every one of a list of successive differences exceeds the margin; `each` goes without saying."""

    kind: ClassVar[str] = "ordering"
    margin: float = 0.0
    each: bool = True

    def __post_init__(self) -> None:
        _nonnegative("margin", self.margin)
        if not self.each:
            raise ValueError("an ordering is over each of its differences; leave `each` out")

    @property
    def region(self) -> Region:
        """(margin, ∞) for each difference, end not included."""
        return Region(self.margin, math.inf, closed=False)

    def __str__(self) -> str:
        """Return the prediction in signs, such as "each > 0"."""
        return f"{_each(self.each)}> {number(self.margin)}"


Rule = Direction | Equivalence | Scaling | Ordering
"""A rule has a kind, a region and its prediction in signs; with `each` it is over every one of several estimates."""
RULES: tuple[type[Rule], ...] = (Direction, Equivalence, Scaling, Ordering)


FLAGS = ("identity", "chaotic")
"""What may be so of a test, and is written down only where it is."""


@dataclass(frozen=True)
class Test:
    """One measured quantity of a claim with the rule that judges it, at the scales where it is measured.

    by: the experiment that measures it; needs: what there must be for that, such as a momentum; unit: the kind of
    quantity, which gives the margin; because: why the rule states its own instead; identity: algebra against algebra,
    or one number that no data, training or draw enters; chaotic: its runs amplify last digits until they part, so that
    another processor's number is another draw. None is part of what is claimed, so records made by another experiment
    answer it as well.
    """

    key: str
    quantity: str
    rule: Rule  # by which its estimates are judged
    scales: tuple[str, ...]
    by: str = field(default="", compare=False)
    needs: tuple[str, ...] = field(default=(), compare=False)
    unit: str = field(default="", compare=False)
    because: str = field(default="", compare=False)
    identity: bool = field(default=False, compare=False)
    chaotic: bool = field(default=False, compare=False)

    def stated_for(self, scale: str) -> bool:
        """Tell whether it is judged at a scale; a night judges what is stated for paper scale alone, by smaller runs.

        So a night adds no test, and moves no rule: rule, margin and quantity are those of paper scale.
        """
        return scale in self.scales or (scale == NIGHT and self.scales == ("gpu",))


def rule_from(content: Mapping[str, Any]) -> Rule:
    """Build a rule from {kind: …, …}; raise ValueError naming what is wrong and what is allowed.

    >>> print(rule_from({"kind": "direction", "above": 1.0, "margin": 0.1}))
    > 1.1
    """
    kinds = {rule.kind: rule for rule in RULES}
    kind = kinds.get(content.get("kind", ""))
    if kind is None:
        raise ValueError(f"`kind` must be one of {', '.join(kinds)}, got {content.get('kind')!r}")
    allowed = {item.name for item in fields(kind)}
    unknown = sorted(set(content) - allowed - {"kind"})
    if unknown:
        raise ValueError(f"unknown {', '.join(unknown)}; kind {kind.kind} has {', '.join(sorted(allowed))}")
    values: dict[str, Any] = {
        name: _yes(name, value) if name == "each" else _real(name, value)
        for name, value in content.items()
        if name != "kind"
    }
    try:
        return kind(**values)
    except TypeError:
        raise ValueError(f"a rule of kind {kind.kind} needs {', '.join(sorted(allowed - {'each'}))}") from None


def rule_to(rule: Rule) -> dict[str, Any]:
    """Return a rule as rule_from reads it, without empty fields and without an `each` that goes without saying."""
    stated = {name: value for name, value in asdict(rule).items() if value is not None}
    if rule.each is type(rule).each:
        stated.pop("each")
    return {"kind": rule.kind, **stated}


def judge(test: Test, estimate: Estimate | Sequence[Estimate], family: int) -> Verdict:
    """Judge one test on intervals widened for `family` tests judged together.

    A rule over each of several, such as an ordering, holds when every member holds and fails when one fails; its
    members count as tests of their own in the widening.
    Raises: ValueError for several estimates where the rule judges one, for none, or for another level than 95 %.

    >>> test = Test("ratio", "variance over its prediction", Equivalence(1.0, 0.1), ("cpu",))
    >>> print(judge(test, Estimate(1.02, 0.97, 1.07, n=100, method="Student t", dof=99), family=1))
    holds
    >>> print(judge(test, Estimate(1.02, 0.97, 1.07, n=100, method="Student t", dof=99), family=40))
    inconclusive
    """
    return combine(_judged(test, check_estimates(test, estimate), family))


def _judged(test: Test, estimates: Sequence[Estimate], family: int) -> list[Verdict]:
    """Judge every estimate of a test."""
    return [
        Verdict.INCONCLUSIVE if wide.insufficient else test.rule.region.judge(wide.low, wide.high)
        for wide in family_wise(estimates, family)
    ]


def family_wise(estimates: Sequence[Estimate], family: int) -> tuple[Estimate, ...]:
    """Widen the estimates of one test for all tests of the family, and for one another."""
    return tuple(estimate.widened(family * len(estimates)) for estimate in estimates)


def combine(verdicts: Iterable[Verdict]) -> Verdict:
    """Join verdicts: a failure fails, else an open question leaves it open; untested parts do not count.

    verdicts: of the parts.
    """
    tested = set(verdicts) - {Verdict.NOT_TESTED}
    for verdict in (Verdict.FAILS, Verdict.INCONCLUSIVE, Verdict.HOLDS):
        if verdict in tested:
            return verdict
    return Verdict.NOT_TESTED


def deciding(test: Test, estimates: Sequence[Estimate], family: int) -> int:
    """Return the index of the estimate that decides a test: the worst verdict, then the one that lies least inside."""
    order, region = (Verdict.FAILS, Verdict.INCONCLUSIVE, Verdict.HOLDS), test.rule.region
    verdicts, wide = _judged(test, estimates, family), family_wise(estimates, family)
    ranks = [
        (order.index(verdict), region.room(one.low, one.high)) for verdict, one in zip(verdicts, wide, strict=True)
    ]
    return ranks.index(min(ranks))


def replicas_needed(test: Test, estimates: Sequence[Estimate], family: int) -> int | None:
    """Return how many replicas would settle an inconclusive test; None when it is settled or cannot be."""
    verdicts, region = _judged(test, estimates, family), test.rule.region
    opened = [
        wide
        for wide, verdict in zip(family_wise(estimates, family), verdicts, strict=True)
        if verdict is Verdict.INCONCLUSIVE
    ]
    counts = [_needed(wide, region) for wide in opened]
    return max((count for count in counts if count is not None), default=None) if None not in counts else None


def _needed(wide: Estimate, region: Region) -> int | None:
    """Return how many replicas would settle one estimate, at least as many as its method asks for."""
    count = replicas_to_settle(wide, (region.low, region.high))
    share = math.ceil(wide.n / wide.draws) if wide.draws else 1
    return None if count is None else max(count, wide.least * share)


def check_estimates(test: Test, estimate: Estimate | Sequence[Estimate]) -> tuple[Estimate, ...]:
    """Return the estimates of a test as a tuple; raise ValueError when they do not suit its rule."""
    estimates = (estimate,) if isinstance(estimate, Estimate) else tuple(estimate)
    if not estimates or (len(estimates) > 1 and not test.rule.each):
        expected = "one estimate or more" if test.rule.each else "one estimate, or states `each: true`"
        raise ValueError(f"{test.key}: a rule of kind {test.rule.kind} is judged by {expected}")
    for item in estimates:
        if not math.isclose(item.level, LEVEL):
            raise ValueError(
                f"{test.key}: give the 95 % interval, not one of level {item.level:g}; "
                "the widening for many tests is done here"
            )
    return estimates


def number(x: float) -> str:
    """Return a number of a rule as text, such as "0.0001" or "−2"."""
    return f"{x:.10g}".replace("-", "−").replace("inf", "∞")


def _real(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"`{name}` must be a number, got {value!r}; YAML reads 1e-4 as text, write 1.0e-4")
    return float(value)


def _yes(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"`{name}` must be true or false, got {value!r}")
    return value


def _each(each: bool) -> str:
    return "each " if each else ""


def _nonnegative(name: str, value: float) -> None:
    if value < 0:
        raise ValueError(f"`{name}` must not be negative, got {value}; the sign is in the rule")
