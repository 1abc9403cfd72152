"""Momentum against plain SGD at a matched step: the control table worked out beforehand, limits and domains."""

from __future__ import annotations

import math

import numpy as np
import pytest
from descent.theory.escape import kramers_time
from descent.theory.inertia import race
from descent.theory.linear import edge_profile
from descent.theory.matched import GAUGES, RACE_STEPS, SPECTRUM, STATES, Setting, arms, badges, gauges, load
from descent.theory.mode import mode_edge
from numpy.testing import assert_allclose

HELD = ("lr", "effective", "noise")

# The predicted columns A (lr), C (effective) and D (noise) at η = 0.01 and h = b = σ = 1, s₁² = 0.25.
TABLE = {
    "noise": {0.5: (1.3361, 0.3356, 1.0092), 0.9: (5.3346, 0.0571, 1.1103), 0.99: (57.52, 0.0100, 2.639)},
    "escape": {0.5: (0.4640, 1.0142, 0.8473), 0.9: (0.1305, 1.1187, 0.6482), 0.99: (0.0902, 1.879, math.nan)},
    "floor": {0.5: (1.9992, 0.9967, 2.9975), 0.9: (10.090, 0.9953, 19.35), 0.99: (113.9, 0.9950, 263.2)},
}

# Largest stable step with exponential weights (s₁² = 1), at batch 4 and 256.
EDGES = {
    (0.5, 4): (1.0714, 2.143, 1.154),
    (0.9, 4): (0.4130, 4.130, 0.260),
    (0.99, 4): (0.0490, 4.901, 0.0251),
    (0.5, 256): (1.4884, 2.977, 2.909),
    (0.9, 256): (1.7756, 17.76, 7.914),
    (0.99, 256): (1.124, 112.4, 1.283),
}


def ratio(setting: Setting, held: str, name: str) -> float:
    return float(np.exp(gauges(setting, held).log_ratio[GAUGES.index(name)]))


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("momentum", [0.5, 0.9, 0.99])
def test_the_control_table(name, momentum):
    found = [ratio(Setting(0.01, momentum), held, name) for held in HELD]
    assert_allclose(found, TABLE[name][momentum], rtol=6e-4, atol=6e-5)


@pytest.mark.parametrize(("momentum", "batch"), EDGES)
def test_the_largest_stable_steps(momentum, batch):
    found = [ratio(Setting(0.01, momentum, batch, multiplicative=1.0), held, "edge") for held in HELD]
    assert_allclose(found, EDGES[momentum, batch], rtol=1.2e-3)


def test_barrier_four_temperatures_high():
    expected = {0.5: (0.0708, 1.019, 0.0708), 0.9: (math.nan, 1.152, math.nan), 0.99: (math.nan, 1.977, math.nan)}
    for momentum, row in expected.items():
        setting = Setting(0.02, momentum, noise=6.25)
        assert_allclose([ratio(setting, held, "barrier") for held in HELD], row, rtol=7e-4)


def test_barrier_is_kramers_time():
    for held in HELD:
        setting = Setting(0.02, 0.8, 2.0, instability=0.7, noise=0.5)
        times = [
            kramers_time(0.7 / 4, 1.4, 0.7, arm.lr, arm.momentum, 0.5 / arm.batch_size) for arm in arms(setting, held)
        ]
        assert ratio(setting, held, "barrier") == pytest.approx(float(times[0] / times[1]), rel=1e-10)


def test_feature_is_that_of_the_race():
    lr, momentum = 0.1, 0.9
    plain, same_lr, same_step = (
        race(step, beta, RACE_STEPS).feature[-1] ** 3
        for step, beta in ((lr, 0.0), (lr / (1 - momentum), momentum), (lr, momentum))
    )
    for held, own in zip(HELD, (same_lr, same_step, same_step), strict=True):
        assert ratio(Setting(lr, momentum), held, "feature") == pytest.approx(own / plain, rel=1e-9)


def test_flat_part_is_that_of_plain_sgd_with_a_smaller_batch():
    def flat(momentum: float, batch: float) -> float:
        profile = edge_profile(SPECTRUM, momentum, 1 / batch)
        return float(profile[1:].sum() / profile[0])

    shift = (1 - 0.9) / (1 + 0.9)
    for held, batch in zip(HELD, (64, 64, 64 * shift), strict=True):
        found = ratio(Setting(0.01, 0.9, 64), held, "flat")
        assert found == pytest.approx(flat(0.0, batch * shift) / flat(0.0, 64), rel=1e-9)


def test_heavy_ball_at_a_rate_is_the_running_average_at_its_effective_step():
    lr, momentum = 0.01, 0.5
    heavy = arms(Setting(lr, momentum), "lr")[0]
    average = arms(Setting(lr / (1 - momentum), momentum), "effective")[0]
    assert_allclose(heavy, average, rtol=1e-15)
    assert ratio(Setting(0.02, 0.5), "effective", "floor") == pytest.approx(0.9933, abs=5e-5)


@pytest.mark.parametrize("held", HELD)
def test_without_momentum_every_ratio_is_one(held):
    found = gauges(Setting(0.05, 0.0, 4.0), held)
    assert_allclose(found.log_ratio, 0, atol=1e-14)
    assert set(found.state) == {"drawn"}


@pytest.mark.parametrize("held", HELD)
@pytest.mark.parametrize(("curvature", "multiplicative"), [(2.1, 0.01), (1.0, 1.01 * (2.0 - 1.0))])
def test_where_plain_sgd_diverges_there_is_no_control(held, curvature, multiplicative):
    setting = Setting(1.0, 0.9, curvature=curvature, multiplicative=multiplicative)
    assert load(arms(setting, held)[1], setting) >= 1
    found = gauges(setting, held)
    assert [state == STATES[1] for state in found.state] == [True, False, True, True, True, False, True]
    assert_allclose(np.isnan(found.log_ratio), [True, False, True, True, True, False, True])


def test_momentum_can_diverge_where_plain_sgd_does_not():
    setting = Setting(0.9 * float(mode_edge(1.0, 0.0, 4.0)), 0.9, multiplicative=4.0)
    found = gauges(setting, "lr")
    assert found.state[0] == "momentum diverges"
    assert math.isnan(found.log_ratio[0])
    assert gauges(setting, "effective").state[0] == "drawn"


def test_load_is_one_at_the_edge():
    setting = Setting(float(mode_edge(1.0, 0.0, 0.5)), 0.9, 2.0, multiplicative=1.0)
    assert load(arms(setting, "lr")[1], setting) == pytest.approx(1, rel=1e-12)


def test_badges():
    found = badges(Setting(0.05, 0.9, 32, multiplicative=4.0), "lr")
    assert_allclose(found[:3], [0.5, 5.0, 32 / 76], rtol=1e-12)
    assert found.load == pytest.approx(0.125 / (2 / 0.5 - 1 / 19), rel=1e-12)
    small = badges(Setting(0.05, 0.9, 32, multiplicative=4.0), "noise")
    assert small.batch == pytest.approx(found.batch / 19, rel=1e-12)


def test_at_equal_effective_step_the_edge_never_falls_and_the_saddle_holds_longer():
    for momentum in (0.3, 0.9, 0.99):
        for batch in (1, 30, 1000):
            found = gauges(Setting(0.02, momentum, batch, multiplicative=3.0), "effective").log_ratio
            assert found[GAUGES.index("edge")] > 0
            assert found[GAUGES.index("escape")] > 0
            assert found[GAUGES.index("floor")] < 0
