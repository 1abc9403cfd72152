"""The extreme of several estimates, with an interval that knows it was picked, and how large a difference is.

The largest of k noisy values lies too high. Where the *true* values are θ₁ … θₖ, with intervals [lᵢ, uᵢ] and wider
ones [l'ᵢ, u'ᵢ] that hold for all k jointly, the largest θ lies between the largest l' and the largest u: below, all
must hold; above, only the one of the largest θ. So too at the other side for the smallest, and about a centre for the
furthest. Numbers without error have none as an extreme either; where a member is constant, nothing is certain.

A rule over every cell (`each: true`) asks more plainly: it needs no extreme.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from descent.arrays import Array
from descent.stats.estimate import EXACT, Estimate

__all__ = ["furthest", "largest", "magnitude", "smallest"]

Several = Sequence[Estimate] | Array
Members = list[Estimate]


def smallest(found: Several) -> Estimate:
    """Return the estimate of the smallest value, out of a list or an array of any shape."""
    return _picked(
        "smallest",
        found,
        lambda one: -one.value,
        lambda own, wide: (min(e.low for e in own), min(e.high for e in wide)),
    )


def largest(found: Several) -> Estimate:
    """Return the estimate of the largest value, out of a list or an array of any shape.

    >>> print(largest([Estimate(2.0, 1.0, 3.0, 9, "Student t", 8), Estimate(1.9, 0.9, 3.1, 9, "Student t", 8)]))
    2.0 [0.8, 3.1]
    """
    return _picked(
        "largest", found, lambda one: one.value, lambda own, wide: (max(e.low for e in wide), max(e.high for e in own))
    )


def furthest(found: Several, centre: float = 1.0) -> Estimate:
    """Return the estimate whose value lies furthest from `centre`, out of a list or an array of any shape.

    Its interval spans those of all, but for what is closer to the centre than one of them lies for certain.

    centre: where no effect lies.
    """

    def ends(own: Members, wide: Members) -> tuple[float, float]:
        low, high = min(e.low for e in own), max(e.high for e in own)
        apart = max(max(e.low - centre, centre - e.high, 0.0) for e in wide)
        return (low if low <= centre - apart else centre + apart, high if high >= centre + apart else centre - apart)

    return _picked("furthest", found, lambda one: abs(one.value - centre), ends)


def _picked(
    word: str,
    found: Several,
    rank: Callable[[Estimate], float],
    ends: Callable[[Members, Members], tuple[float, float]],
) -> Estimate:
    """Return the member of the highest rank with the interval that `ends` makes of all, and of all widened."""
    members = _listed(found)
    first, count = max(members, key=rank), len(members)
    if count == 1 or all(one.method == EXACT for one in members):
        return first
    alike = [one for one in members if one.method != EXACT and one.low == one.high]
    low, high = (first.value, first.value) if alike else ends(members, [one.widened(count) for one in members])
    measured = [one for one in members if one.method != EXACT]
    law = first if first.method != EXACT else measured[0]
    return replace(
        law, value=first.value, low=min(low, first.value), high=max(high, first.value),
        n=min(one.n for one in measured), dof=min(one.dof for one in measured),
        draws=min(one.draws for one in measured), method=f"{word} of {count}: {law.law}",
    )  # fmt: skip


def magnitude(found: Estimate) -> Estimate:
    """Return an estimate with the sign that makes it positive, turned round with its interval.

    >>> print(magnitude(Estimate(-2.0, -3.0, -1.0, 9, "Student t", 8)))
    2.0 [1.0, 3.0]
    """
    return found if found.value >= 0 else replace(found, value=-found.value, low=-found.high, high=-found.low)


def _listed(found: Several) -> list[Estimate]:
    return list(np.ravel(np.asarray(found)))
