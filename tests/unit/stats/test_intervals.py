"""Every interval covers as often as it says, and every refusal names its reason."""

from __future__ import annotations

import math

import numpy as np
import pytest
from descent.stats import intervals, resample
from descent.stats.intervals import Estimate
from scipy import stats as law

EXPERIMENTS = 1000


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


def covered(estimate, truth: float, experiments: int = EXPERIMENTS) -> int:
    """Count the simulated experiments whose interval contains the truth."""
    intervals = (estimate(generator(seed)) for seed in range(experiments))
    return sum(interval.low <= truth <= interval.high for interval in intervals)


def assert_covers(
    estimate,
    truth: float,
    *,
    level: float = 0.95,
    slack: float = 0.0,
    exact: bool = False,
    experiments: int = EXPERIMENTS,
) -> None:
    """Coverage within 4 binomial errors of level (below only unless exact), less a stated shortfall."""
    share = covered(estimate, truth, experiments) / experiments
    error = 4 * math.sqrt(level * (1 - level) / experiments)
    assert share >= level - slack - error
    if exact:
        assert share <= level + error


# ---- the record


def test_widened_student_is_the_bonferroni_interval():
    x = generator(1).normal(size=12)
    wide = intervals.mean(x).widened(40)
    direct = intervals.mean(x, level=1 - 0.05 / 40)
    assert (wide.low, wide.high) == pytest.approx((direct.low, direct.high), rel=1e-12)
    assert wide.level == pytest.approx(direct.level)
    assert wide.widened(1).low == pytest.approx(wide.low, rel=1e-12)


@pytest.mark.parametrize(
    "make",
    [
        lambda level: intervals.proportion(3, 40, level=level),
        lambda level: intervals.proportion(0, 40, level=level),
        lambda level: intervals.censored_mean([1.0, 2.0, 5.0], [1, 1, 0], level=level),
        lambda level: intervals.censored_mean([1.0, 2.0, 5.0], [1, 1, 1], level=level),
        lambda level: intervals.censored_mean([1.0, 2.0, 5.0], [0, 0, 0], level=level),
        lambda level: intervals.geometric_ratio([1.0, 2.0, 5.0], [3.0, 1.0, 2.0], level=level),
    ],
)
def test_widened_recomputes_what_has_a_closed_form(make):
    wide, direct = make(0.95).widened(10), make(0.995)
    assert wide.value == direct.value
    assert (wide.low, wide.high) == pytest.approx((direct.low, direct.high), rel=1e-10)


def test_widened_bootstrap_scales_each_side():
    wide = Estimate(1.0, 0.9, 1.2, 32, "bootstrap", 31).widened(10)
    factor = law.t.isf(0.0025, 31) / law.t.isf(0.025, 31)
    assert (1 - wide.low, wide.high - 1) == pytest.approx((0.1 * factor, 0.2 * factor))


def test_exact_number_has_no_width_and_never_gains_any():
    number = intervals.exact(4 / 3)
    assert number.widened(100).low == number.high == 4 / 3
    assert str(number) == "1.333"


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((13.12, 12.62, 13.62), "13.1 [12.6, 13.6]"),
        ((0.42, 0.31, 0.55), "0.42 [0.31, 0.55]"),
        ((1.0004, 0.99, 1.0108), "1.000 [0.990, 1.011]"),
        ((-1.23e-7, -1.3e-7, -1.2e-7), "−1.23e−7 [−1.30e−7, −1.20e−7]"),
        ((90_900, 84_300, 97_500), "91000 [84000, 98000]"),
        ((-0.001, -0.02, 0.03), "−0.001 [−0.020, 0.030]"),
        ((-0.0001, -0.4, 0.4), "0.0 [−0.4, 0.4]"),
        ((math.inf, 1.63, math.inf), "∞ [1.63, ∞]"),
    ],
)
def test_finished_string(numbers, text):
    assert str(Estimate(*numbers, 10, "")) == text


def test_value_outside_its_interval_is_refused():
    with pytest.raises(ValueError, match="low <= value <= high"):
        Estimate(2.0, 0.0, 1.0, 3, "")
    with pytest.raises(ValueError, match="low <= value <= high"):
        Estimate(math.nan, 0.0, 1.0, 3, "")


# ---- coverage


def test_mean_covers():
    assert_covers(lambda r: intervals.mean(r.normal(3, 2, 32)), 3.0, exact=True)


def test_widened_mean_covers_at_its_level():
    assert_covers(lambda r: intervals.mean(r.normal(size=8)).widened(10), 0.0, level=0.995, exact=True)


def test_paired_difference_uses_the_pairing():
    def experiment(r):
        common = 10 * r.normal(size=32)
        return intervals.paired_difference(common + r.normal(1, 1, 32), common)

    assert_covers(experiment, 1.0, exact=True)
    assert experiment(generator(0)).high - experiment(generator(0)).low < 1.5


def test_geometric_ratio_covers():
    def experiment(r):
        return intervals.geometric_ratio(*np.exp(r.normal([[1.0], [0.0]], 1, (2, 32))))

    assert_covers(experiment, math.e, exact=True)


def test_ratio_of_means_covers_for_skewed_paired_times():
    def experiment(r):
        common = r.exponential(size=32)
        return intervals.ratio_of_means(3 * (common + r.exponential(size=32)), common + r.exponential(size=32), 7)

    assert_covers(experiment, 3.0, slack=0.01)


def test_ratio_of_means_covers_for_independent_samples_of_different_length():
    def experiment(r):
        return intervals.ratio_of_means(r.normal(6, 1, 32), r.normal(2, 0.5, 50), 7, paired=False)

    assert_covers(experiment, 3.0, experiments=400)


def test_ratio_of_medians_covers():
    assert_covers(
        lambda r: intervals.ratio_of_medians(r.normal(6, 1, 32), r.normal(2, 0.2, 32), 7), 3.0, experiments=300
    )


def test_median_covers():
    assert_covers(lambda r: intervals.median(r.exponential(size=32), 7), math.log(2), experiments=500)


def test_quantile_covers():
    assert_covers(
        lambda r: intervals.quantile(r.exponential(size=120), 0.9, 7), math.log(10), slack=0.02, experiments=200
    )


def test_variance_ratio_covers():
    assert_covers(lambda r: intervals.variance_ratio(r.normal(5, 3, 100), 9.0, 7), 1.0, slack=0.02, experiments=200)


def test_ratio_of_two_variances_covers():
    def experiment(r):
        return intervals.variance_ratio(r.normal(5, 3, 100), r.normal(1, 2, 100), 7)

    assert_covers(experiment, 2.25, slack=0.02, experiments=200)


def test_variance_ratio_resamples_whole_replicas():
    """Values of one replica are copies of each other: only replicas count."""
    x = np.repeat(generator(3).normal(size=(200, 1)), 50, axis=1)
    pooled, single = intervals.variance_ratio(x, 1.0, 7), intervals.variance_ratio(x[:, 0], 1.0, 7)
    assert (pooled.low, pooled.high) == pytest.approx((single.low, single.high), rel=1e-9)
    assert pooled.value == pytest.approx(np.var(x[:, 0], ddof=1))


def power_laws(r: np.random.Generator, noise: float) -> tuple[np.ndarray, np.ndarray]:
    x = np.array([1.0, 2.0, 4.0, 8.0])
    return x, x**0.5 * np.exp(r.normal(size=(32, 4)) * noise)


def test_slopes_cover():
    assert_covers(lambda r: intervals.slope(*power_laws(r, 0.5), 7), 0.5, experiments=400)
    assert_covers(lambda r: intervals.slope_of_mean(*power_laws(r, 0.3), 7), 0.5, experiments=400)


def test_slope_is_least_squares():
    x, y = power_laws(generator(5), 0.3)
    fits = np.polyfit(np.log(x), np.log(y).T, 1)[0]
    assert intervals.slope(x, y, 1).value == pytest.approx(fits.mean(), rel=1e-12)
    mean_fit = np.polyfit(np.log(x), np.log(y.mean(0)), 1)[0]
    assert intervals.slope_of_mean(x, y, 1).value == pytest.approx(mean_fit, rel=1e-12)


@pytest.mark.parametrize("p", [0.02, 0.3, 0.5])
def test_proportion_covers_at_least_exactly(p):
    """The exact coverage, summed over every outcome, not simulated."""
    counts = [intervals.proportion(k, 40) for k in range(41)]
    inside = [k for k, interval in enumerate(counts) if interval.low <= p <= interval.high]
    assert 0.95 <= law.binom.pmf(inside, 40, p).sum() <= 1


def test_proportion_matches_the_textbook():
    ends = intervals.proportion(10, 100)
    assert (ends.low, ends.high) == pytest.approx((0.0490047, 0.1762226), abs=1e-7)
    assert (intervals.proportion(0, 10).low, intervals.proportion(10, 10).high) == (0.0, 1.0)


def test_exponential_mean_covers_with_and_without_censoring():
    def watched(r, limit):
        times = r.exponential(5.0, size=32)
        return intervals.censored_mean(np.minimum(times, limit), times <= limit)

    assert_covers(lambda r: watched(r, np.inf), 5.0, exact=True)
    assert_covers(lambda r: watched(r, 4.0), 5.0)


def test_ratio_of_censored_means_covers():
    def experiment(r):
        slow, fast = r.exponential(6.0, size=60), r.exponential(3.0, size=60)
        return intervals.censored_ratio(np.minimum(slow, 8), slow <= 8, np.minimum(fast, 8), fast <= 8, 7)

    assert_covers(experiment, 2.0, experiments=300)


# ---- bootstrap


def test_bootstrap_is_reproducible_and_follows_its_seed():
    x, y = generator(0).normal(5, 1, (2, 50))
    assert intervals.ratio_of_means(x, y, 1) == intervals.ratio_of_means(x, y, 1)
    assert intervals.ratio_of_means(x, y, 1).low != intervals.ratio_of_means(x, y, 2).low


def test_bootstrap_in_chunks_still_uses_every_resample(monkeypatch):
    x = generator(0).normal(size=100)
    whole = intervals.bootstrap(lambda a: a.mean(1), x, seed=3)
    monkeypatch.setattr(resample, "_CHUNK", 7 * 100)
    chunked = intervals.bootstrap(lambda a: a.mean(1), x, seed=3)
    assert chunked.high - chunked.low == pytest.approx(whole.high - whole.low, rel=0.1)


def test_bootstrap_of_a_mean_is_students_interval():
    x = generator(4).normal(size=200)
    resampled = intervals.bootstrap(lambda a: a.mean(1), x, seed=3, resamples=20_000)
    student = intervals.mean(x)
    assert resampled.high - resampled.low == pytest.approx(student.high - student.low, rel=0.03)


def test_pairing_narrows_the_ratio():
    common = generator(2).exponential(size=64)
    x, y = 2 * common + 1, common + 1
    paired, free = intervals.ratio_of_means(x, y, 1), intervals.ratio_of_means(x, y, 1, paired=False)
    assert paired.high - paired.low < 0.5 * (free.high - free.low)
    assert (paired.method, free.method) == ("paired bootstrap", "bootstrap")


# ---- Kolmogorov and Smirnov


def test_critical_value_is_the_one_percent_rule():
    assert intervals.KS(0.0, 20_000).critical * math.sqrt(20_000) == pytest.approx(1.628, abs=0.003)
    assert intervals.KS(0.0, 1000, comparisons=5).critical == pytest.approx(law.kstwo.isf(0.002, 1000))


def test_distance_matches_scipy_for_a_continuous_law():
    x = generator(1).normal(size=500)
    expected = law.kstest(x, "norm").statistic
    assert intervals.ks_distance(x, law.norm.cdf).distance == pytest.approx(expected, abs=1e-15)


def test_lattice_law_is_compared_on_the_lattice():
    x = generator(1).geometric(0.2, size=2000).astype(float)
    distance = intervals.ks_distance(x, lambda k: law.geom.cdf(k, 0.2), lattice=True).distance
    steps = np.arange(0, 200)
    brute = np.abs((x[:, None] <= steps).mean(0) - law.geom.cdf(steps, 0.2)).max()
    assert distance == pytest.approx(brute, abs=1e-12)
    assert intervals.ks_distance(x, lambda k: law.geom.cdf(k, 0.2)).distance > 0.15


def test_censored_replicas_count_in_the_denominator():
    x = generator(6).exponential(size=1000)
    seen = x[x < 1.0]
    part = intervals.ks_distance(seen, law.expon.cdf, censored=len(x) - len(seen))
    assert part.n == 1000
    assert part.distance <= intervals.ks_distance(x, law.expon.cdf).distance + 1e-12


def test_true_law_is_rarely_rejected_and_a_wrong_one_always():
    tests = [intervals.ks_distance(generator(seed).normal(size=200), law.norm.cdf) for seed in range(400)]
    rejected = sum(test.estimate().high >= 1 for test in tests)
    assert 0 < rejected <= 4 + 4 * math.sqrt(4)
    assert all((test.pvalue < 0.01) == (test.estimate().high > 1) for test in tests)
    assert not any(test.estimate().low > 1 for test in tests)
    wrong = intervals.ks_distance(generator(1).normal(1.0, 1.0, 1000), law.norm.cdf).estimate()
    assert wrong.widened(60).low > 1


# ---- decisions


def test_tost_agrees_with_the_ninety_percent_interval():
    for seed in range(200):
        x = generator(seed).normal(0.1, 1, 30)
        inside = intervals.mean(x, level=0.9)
        assert (intervals.tost(x, 0.0, 0.5) < 0.05) == (inside.low > -0.5 and inside.high < 0.5)
    assert intervals.tost([1.0, 1.0], 1.0, 0.1) == 1.0  # a constant sample is no certainty


def test_replicas_to_settle_scales_with_the_square():
    estimate = Estimate(1.1, 0.9, 1.3, 50, "")
    assert intervals.replicas_to_settle(estimate, (1.0, math.inf)) == 200
    assert intervals.replicas_to_settle(estimate, (0.0, 1.2)) == 200
    assert intervals.replicas_to_settle(estimate, (1.0, 1.3)) == 200
    assert intervals.replicas_to_settle(estimate, (0.0, 9.0)) == 50
    assert intervals.replicas_to_settle(estimate, (1.1, 2.0)) is None
    assert intervals.replicas_to_settle(intervals.exact(1.0), (0.0, 2.0)) is None


def test_power_matches_simulation_and_its_inverse():
    hits = sum(intervals.mean(generator(seed).normal(0.5, 1, 32)).low > 0 for seed in range(EXPERIMENTS))
    expected = intervals.power(0.5, 1.0, 32)
    error = math.sqrt(expected * (1 - expected) / EXPERIMENTS)
    assert hits / EXPERIMENTS == pytest.approx(expected, abs=4 * error)
    n = intervals.replicas_for_power(0.5, 1.0, family=20)
    assert intervals.power(0.5, 1.0, n, family=20) >= 0.9 > intervals.power(0.5, 1.0, n - 1, family=20)


# ---- refusals


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: intervals.mean([1.0, math.nan, math.inf]), "2 of 3 values are not finite"),
        (lambda: intervals.mean([1.0]), "at least 2"),
        (lambda: intervals.mean(np.ones((3, 2))), "one number per replica"),
        (lambda: intervals.paired_difference([1.0, 2.0], [1.0, 2.0, 3.0]), "equal shapes"),
        (lambda: intervals.ratio_of_means([1.0, 2.0], [1.0, 2.0, 3.0], 1), "equal lengths"),
        (lambda: intervals.geometric_ratio([1.0, 0.0], [1.0, 2.0]), "positive"),
        (lambda: intervals.slope([1.0, 2.0], [[1.0, -1.0]] * 3, 1), "positive"),
        (lambda: intervals.quantile([1.0, 2.0], 1.0, 1), "strictly between"),
        (lambda: intervals.proportion(5, 4), "0 <= k <= n"),
        (lambda: intervals.censored_mean([-1.0, 2.0], [0, 1]), "not yet"),
        (lambda: intervals.censored_ratio([1.0, 2.0], [1, 0], [1.0, 2.0], [1, 1], 1), "denominator"),
        (lambda: intervals.tost([1.0, 2.0], 0.0, 0.0), "positive"),
        (lambda: intervals.replicas_for_power(0.0, 1.0), "nonzero effect"),
        (lambda: intervals.power(1.0, 0.0, 5), "sd > 0"),
        (lambda: intervals.exact(1.0).widened(0), "at least 1"),
    ],
)
def test_refusals_say_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()
