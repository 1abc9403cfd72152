"""Whether a rule can fail: what its test would have said of other effects, at the spread that was published.

A test found v with an interval of standard error s. Had the truth been θ, its estimate would lie around θ as v does
around the truth, by Student's t at the interval's degrees of freedom (the normal law where it has none), with the same
half-width h once it is widened for the family. Then, F the distribution of that law and (a, b) the region,

    P(holds) = F((b − h − θ)/s) − F((a + h − θ)/s),    P(fails) = F((a − h − θ)/s) + 1 − F((b + h − θ)/s).

Asked are: *holds* if there were no effect, *fails* if the effect were half of what was found, and the largest
probability to fail over everything the quantity can be. No effect is the reference of a direction (its margin left
out), zero for an ordering, and for an equivalence or a region its closer end. Intervals that are not symmetrical count
with half their width: an approximation, good to a few per cent where it matters.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from scipy import special

from descent.claims.margins import Unit
from descent.claims.record import Outcome, Record
from descent.claims.verdict import Direction, Ordering, Region, Rule, Verdict
from descent.stats.estimate import (
    CLOPPER_PEARSON,
    EXPONENTIAL,
    EXPONENTIAL_CENSORED,
    KOLMOGOROV,
    STUDENT_LOG,
    Estimate,
    critical_t,
)

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["Power", "chances", "has_ends", "measured", "only_hold", "power_of", "powers", "table"]

FAILS_SELDOM = 0.01
"""Probability below which a rule is said not to be able to fail."""
RANGES = {
    CLOPPER_PEARSON: (0.0, 1.0),
    STUDENT_LOG: (0.0, math.inf),
    EXPONENTIAL: (0.0, math.inf),
    EXPONENTIAL_CENSORED: (0.0, math.inf),
    KOLMOGOROV: (0.0, math.inf),
}
"""Between which ends an estimate lies by how it was made, where its unit does not say."""


@dataclass(frozen=True)
class Power:
    """What one test could have said: of no effect, of half the effect found, and at the most."""

    key: str
    rule: str  # in words
    found: float  # the estimate's value
    error: float  # standard error of the estimate
    holds_without: float  # probability to hold if there were no effect
    fails_at_half: float  # probability to fail at half the effect
    fails_most: float  # largest probability to fail

    @property
    def only_holds(self) -> bool:
        """Whether the rule fails almost never, whatever the effect."""
        return self.fails_most < FAILS_SELDOM


def chances(region: Region, truth: float, error: float, half: float, dof: float = math.inf) -> tuple[float, float]:
    """Return the probabilities of *holds* and of *fails* of an estimate around a truth, half its joint half-width.

    truth: what the estimate lies around; error: its standard error; half: half the width of the interval, widened for
    the family.

    >>> [round(chance, 3) for chance in chances(Region(0.0, math.inf), truth=1.0, error=0.5, half=0.98)]
    [0.516, 0.0]
    """
    if error == 0:
        verdict = region.judge(truth - half, truth + half)
        return float(verdict is Verdict.HOLDS), float(verdict is Verdict.FAILS)
    law = special.ndtr if math.isinf(dof) else partial(special.stdtr, dof)
    low, high = (end - truth for end in (region.low, region.high))
    holds = float(law((high - half) / error) - law((low + half) / error))
    return max(0.0, holds), float(law((low - half) / error) + law(-(high + half) / error))


def power_of(key: str, outcome: Outcome, units: Mapping[str, Unit]) -> Power:
    """Return what a measured test could have said; of several estimates, the one that decides speaks for all."""
    raw, wide = outcome.deciding
    rule, region = outcome.test.rule, outcome.test.rule.region
    dof = raw.dof if raw.dof > 0 else math.inf
    error, half = (raw.high - raw.low) / 2 / critical_t(raw.level, dof), (wide.high - wide.low) / 2
    nothing = _without(rule, raw.value)

    def said(truth: float) -> tuple[float, float]:
        return (0.0, 0.0) if raw.insufficient else chances(region, truth, error, half, dof)

    most = max(said(end)[1] for end in _reach(region, raw, units.get(outcome.test.unit), error + half))
    at_half = said((nothing + raw.value) / 2)[1]
    return Power(key, str(rule), raw.value, error, said(nothing)[0], at_half, max(most, at_half))


def table(records: Iterable[Record], units: Mapping[str, Unit]) -> DataFrame:
    """Return one row per measured test: what it could have said, rounded, those that can only hold first."""
    from pandas import DataFrame

    found = sorted(powers(records, units), key=lambda power: not power.only_holds)
    rows = [
        [p.key, p.rule, f"{p.found:.4g} ± {p.error:.2g}", *(f"{x:.3f}" for x in _probabilities(p)), p.only_holds]
        for p in found
    ]
    names = ["test", "rule", "found", "holds without effect", "fails at half", "fails at most", "can only hold"]
    return DataFrame(rows, columns=names)


def only_hold(records: Iterable[Record], units: Mapping[str, Unit]) -> tuple[str, ...]:
    """Return the keys of tests that could not have failed, whatever the effect."""
    return tuple(power.key for power in powers(records, units) if power.only_holds)


def powers(records: Iterable[Record], units: Mapping[str, Unit]) -> list[Power]:
    """Return what every measured test could have said."""
    return [power_of(key, outcome, units) for key, outcome in measured(records)]


def measured(records: Iterable[Record]) -> list[tuple[str, Outcome]]:
    """Return by key the tests that could be judged; identities have no spread, and are left out."""
    return [
        (f"{record.claim.id}.{outcome.test.key}", outcome)
        for record in records
        for outcome in record.outcomes
        if outcome.estimates and not outcome.test.identity and _judged(outcome)
    ]


def has_ends(outcome: Outcome, units: Mapping[str, Unit]) -> bool:
    """Tell whether it is known, on some side, how far the quantity of a measured test can go."""
    return any(map(math.isfinite, _ends(outcome.deciding[0], units.get(outcome.test.unit))))


def _judged(outcome: Outcome) -> bool:
    raw, wide = outcome.deciding
    return not wide.insufficient and math.isfinite(raw.value)


def _probabilities(power: Power) -> tuple[float, float, float]:
    return power.holds_without, power.fails_at_half, power.fails_most


def _without(rule: Rule, found: float) -> float:
    """Return what stands for no effect: a direction's reference, zero of an ordering, else past the closer end."""
    if isinstance(rule, Direction):
        return rule.above if rule.above is not None else float(rule.below or 0.0)
    if isinstance(rule, Ordering):
        return 0.0
    low, high = rule.region.low, rule.region.high
    return math.nextafter(low, -math.inf) if abs(low - found) < abs(high - found) else math.nextafter(high, math.inf)


def _ends(raw: Estimate, unit: Unit | None) -> tuple[float, float]:
    """Return between which ends a quantity lies, by its unit or by how it was estimated."""
    if unit:
        return unit.low, unit.high
    return RANGES.get(raw.law, (-math.inf, math.inf))


def _reach(region: Region, raw: Estimate, unit: Unit | None, width: float) -> list[float]:
    """Return the most extreme values that the quantity can take, on either side; far outside where it knows no end."""
    low, high = _ends(raw, unit)
    ends = [end for end in region[:2] if math.isfinite(end)]
    far = 20 * width + 1.0
    return [max(low, min(ends) - far), min(high, max(ends) + far)]
