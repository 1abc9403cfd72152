"""Three laws of exit times: each is a straight line in coordinates of its own, fitted to some radii, tried on others.

A barrier crossed by additive noise makes the time exponential in the squared radius; multiplicative noise makes it a
power of the radius, or, above the almost-sure threshold, grow with its logarithm.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from descent.arrays import Array

__all__ = ["BARRIER", "LAWS", "LOGARITHM", "POWER", "predicted", "prediction_error", "slope_of"]

BARRIER, POWER, LOGARITHM = "barrier", "power", "logarithm"

LAWS: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    BARRIER: (np.square, np.log),
    POWER: (np.log, np.log),
    LOGARITHM: (np.log, np.asarray),
}
"""What each law says is a straight line: a function of the radius, and a function of the mean exit time."""


def slope_of(law: str, times: Array, radii: Array) -> Array:
    """Return the least-squares slope of a law's straight line, (B, L) → (B,).

    law: the name of a law in LAWS; times: mean exit times.
    """
    x, y = LAWS[law][0](radii), LAWS[law][1](times)
    return np.asarray(y @ (x - x.mean()) / ((x - x.mean()) ** 2).sum())


def predicted(law: str, times: Array, radii: Array, at: Array) -> Array:
    """Return the log exit times at radii `at` (M,) by a law fitted to mean times at `radii`, (B, L) → (B, M).

    Where the logarithmic law passes below one step, one step is predicted.

    law: the name of a law in LAWS; times: mean exit times; at: the radii that are asked for.
    """
    x, y = LAWS[law][0](radii), LAWS[law][1](times)
    line = y.mean(1)[:, None] + np.multiply.outer(slope_of(law, times, radii), LAWS[law][0](at) - x.mean())
    return np.asarray(np.log(np.maximum(line, 1.0)) if law == LOGARITHM else line)


def prediction_error(law: str, times: Array, radii: Array) -> Array:
    """Return how far a law, fitted to all but the largest radius, misses the log mean time there, (B, L) → (B,).

    law: the name of a law in LAWS.
    """
    guess = predicted(law, times[:, :-1], radii[:-1], radii[-1:])[:, 0]
    return np.asarray(np.abs(guess - np.log(times[:, -1])))
