"""Which of several estimates decides."""

from __future__ import annotations

import numpy as np
import pytest
from descent.stats import Estimate, furthest, largest, magnitude, smallest


def estimates(*values):
    return [Estimate(value, value - 0.5, value + 1, 9, "Student t", 8) for value in values]


@pytest.mark.parametrize("shape", [(4,), (2, 2)])
def test_the_extreme_of_a_list_or_of_an_array(shape):
    found = estimates(0.5, 3.0, -4.0, 2.0)
    array = np.array(found, dtype=object).reshape(shape)
    for several in (found, array):
        assert (smallest(several).value, largest(several).value) == (-4.0, 3.0)
        assert (furthest(several).value, furthest(several, -4.0).value) == (-4.0, 3.0)


def test_a_magnitude_is_turned_round_with_its_interval():
    (below,) = estimates(-2.0)
    assert (magnitude(below).value, magnitude(below).low, magnitude(below).high) == (2.0, 1.0, 2.5)
    assert magnitude(magnitude(below)) == magnitude(below)
