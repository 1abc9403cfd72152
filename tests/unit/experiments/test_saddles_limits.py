"""Ladders of falling steps, and what is read off them."""

from __future__ import annotations

import numpy as np
import pytest
from descent.experiments.saddles import escape, ladder


def test_the_order_of_momenta_is_asked_in_logarithms() -> None:
    times = np.array([4.0, 8.0, 12.0, 8.0])
    found = escape.log_ratio(np.e * times, times, seed=0)
    assert (found.low, found.value, found.high) == pytest.approx((1.0, 1.0, 1.0))


def test_a_step_from_the_limit_is_no_approach() -> None:
    rng = np.random.Generator(np.random.Philox(0))
    near, far = (1 + offset + 0.1 * rng.standard_normal(4000) for offset in (0.02, -0.2))
    away, back = ladder.closer(near, far, seed=0), ladder.closer(far, near, seed=0)
    assert away.high < 0 < back.low
    assert back.value == pytest.approx(0.18, abs=0.01)


def test_the_last_rungs_are_within_half_of_the_margin_by_the_exact_law() -> None:
    config = ladder.LADDER.small
    for quantity, ladders in (("variance", config.early), ("escape", config.late), ("travel", config.late)):
        for momentum, rungs in ladders:
            off = [abs(ladder.exact(config, quantity, momentum, inertia) - 1) for inertia in rungs]
            assert off[-1] < 0.025
            assert (np.diff(off) < 0).all()
