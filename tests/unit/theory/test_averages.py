"""Averages of independent draws: their density at the mean and their median, against what is known exactly."""

import math

import numpy as np
import pytest
from descent.theory.averages import LAWS, average_median, centre_density
from descent.theory.signs import ema, median_bias, window
from scipy import stats


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
def test_the_density_of_a_normal_average_is_normal(momentum):
    kernel = ema(momentum)
    assert centre_density("normal", kernel) == pytest.approx(math.sqrt(kernel.for_mean / (2 * math.pi)), rel=1e-9)


def test_the_density_of_one_draw_is_that_of_its_law():
    assert centre_density("laplace", ema(0.0)) == pytest.approx(1 / math.sqrt(2), rel=1e-3)
    assert centre_density("student", ema(0.0)) == pytest.approx(stats.t(3).pdf(0) * math.sqrt(3), rel=1e-9)


@pytest.mark.parametrize("length", [2, 5])
def test_the_median_of_a_window_of_exponential_draws_is_a_gamma_law_s(length):
    exact = stats.gamma(length, scale=1 / length).median() - 1
    assert average_median("exponential", window(length)) == pytest.approx(exact, abs=1e-4)


def test_a_long_average_has_the_median_of_the_first_order_law():
    assert average_median("exponential", ema(0.0)) == pytest.approx(math.log(2) - 1)
    first = median_bias(2.0, 1.0, kernel=ema(0.95))
    assert -average_median("exponential", ema(0.95)) == pytest.approx(first, rel=0.03)


def test_symmetric_laws_have_no_median_of_their_own():
    assert [average_median(law, ema(0.5)) for law in LAWS[:3]] == [0.0] * 3
    assert np.isfinite([centre_density(law, ema(0.9)) for law in LAWS]).all()
