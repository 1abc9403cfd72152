"""Which of several estimates decides a claim about all of them, and how large a difference of either sign is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from descent.arrays import Array
from descent.stats.estimate import Estimate

__all__ = ["furthest", "largest", "magnitude", "smallest"]

Several = Sequence[Estimate] | Array


def smallest(found: Several) -> Estimate:
    """Return the estimate of the smallest value, out of a list or an array of any shape."""
    return min(_listed(found), key=lambda estimate: estimate.value)


def largest(found: Several) -> Estimate:
    """Return the estimate of the largest value, out of a list or an array of any shape."""
    return max(_listed(found), key=lambda estimate: estimate.value)


def furthest(found: Several, centre: float = 1.0) -> Estimate:
    """Return the estimate whose value lies furthest from `centre`, out of a list or an array of any shape."""
    return max(_listed(found), key=lambda estimate: abs(estimate.value - centre))


def magnitude(found: Estimate) -> Estimate:
    """Return an estimate with the sign that makes it positive, turned round with its interval.

    >>> print(magnitude(Estimate(-2.0, -3.0, -1.0, 9, "Student t", 8)))
    2.0 [1.0, 3.0]
    """
    return found if found.value >= 0 else replace(found, value=-found.value, low=-found.high, high=-found.low)


def _listed(found: Several) -> list[Estimate]:
    return list(np.ravel(np.asarray(found)))
