"""Lilliefors' test against its published critical values; draws of batch noise and their spectrum by brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.measure.noise import example_gradients, gradient_noise
from descent.measure.normality import Normality, lilliefors_pvalue, noise_draws, normality, participation
from descent.nets.dense import MLP, CrossEntropy
from descent.nets.supervised import Supervised
from numpy.testing import assert_allclose
from scipy import stats

F64 = torch.float64


def streams(replicas: int, seed: int = 0) -> Streams:
    return Streams(replica_seeds(seed, replicas), F64)


def net(n: int = 40, batch_size: int = 5) -> Supervised:
    inputs = torch.linspace(-3, 3, n * 6, dtype=F64).mul(1.7).sin().reshape(n, 6)
    inputs[:, 0] = 0.0  # a pixel that is always dark: its weights have no noise
    return Supervised(MLP((6, 5, 3)), CrossEntropy(), inputs, torch.arange(n) % 3, batch_size)


def test_critical_values_are_those_of_stephens():
    """Modified statistic D(√n − .01 + .85/√n), both parameters unknown: Stephens (1974)."""
    n = 100
    found = lilliefors_pvalue(np.array([0.775, 0.819, 0.895, 1.035]) / (n**0.5 - 0.01 + 0.85 / n**0.5), n)
    assert_allclose(found, [0.15, 0.10, 0.05, 0.01], rtol=0.12, atol=0.003)


@pytest.mark.parametrize(("n", "critical"), [(200, 1.048), (2000, 1.070)])
def test_critical_values_of_large_samples(n, critical):
    """99 % quantiles of the modified statistic from 10⁵ and 10⁴ samples of another generator."""
    found = lilliefors_pvalue(critical / (n**0.5 - 0.01 + 0.85 / n**0.5), n)
    assert found == pytest.approx(0.01, abs=0.003)


@pytest.mark.parametrize("n", [30, 1500])
def test_normal_samples_have_uniform_pvalues(n):
    samples = streams(1).normal(Purpose.DATA, 0, (n * 1000,)).view(1, n, 1000).mul(3.0).add(7.0)
    found = normality(samples)
    assert stats.kstest(found.pvalue[0], "uniform").pvalue > 1e-3
    assert found.rejected().item() < 0.01
    assert found.kurtosis.mean() == pytest.approx(-6 / (n + 1), abs=4 * (24 / n / 1000) ** 0.5)


def test_distance_is_that_of_scipy():
    samples = streams(2).uniform(Purpose.DATA, 0, (50, 3))
    found = normality(samples).distance
    for replica in range(2):
        for k in range(3):
            x = samples[replica, :, k].numpy()
            expected = stats.kstest(x, stats.norm(x.mean(), x.std(ddof=1)).cdf).statistic
            assert found[replica, k] == pytest.approx(expected, rel=1e-12)
            assert normality(samples).kurtosis[replica, k] == pytest.approx(stats.kurtosis(x), rel=1e-10)


def test_heavy_tails_are_rejected_and_silent_coordinates_left_out():
    heavy = streams(1).normal(Purpose.DATA, 0, (800, 20)) ** 3
    samples = torch.cat([heavy, torch.full((1, 800, 20), 0.3, dtype=F64)], dim=2)
    found = normality(samples)
    assert np.isnan(found.pvalue[0, 20:]).all()
    assert np.isnan(found.kurtosis[0, 20:]).all()
    assert found.rejected().item() == 1.0
    with pytest.raises(ValueError, match="no coordinate of replica 0"):
        normality(samples[:, :, 20:]).rejected()


def test_the_false_discovery_rate_is_that_of_benjamini_and_hochberg():
    pvalues = np.array([[0.001, 0.004, 0.006, 0.5, np.nan], [0.02, 0.3, 0.4, 0.9, 0.8]])
    found = Normality(pvalues, pvalues, pvalues)
    assert found.rejected(0.01).tolist() == [0.75, 0.0]
    assert found.rejected(0.004).tolist() == [0.25, 0.0]


def test_draws_are_the_noise_of_the_batches():
    objective, source = net(), streams(2)
    params = objective.model.initial(streams(2, 7))
    found = noise_draws(objective, params, source, 6, 9)
    chosen = source.sample(Purpose.PROBE, 0, 53, 9)
    gradients = example_gradients(objective, params)
    for replica in range(2):
        for step in range(6):
            batch = gradients[replica][objective.indices(source, step)[replica]]
            expected = (batch.mean(0) - gradients[replica].mean(0))[chosen[replica]]
            torch.testing.assert_close(found[replica, step], expected, rtol=1e-10, atol=1e-14)


def test_all_coordinates_of_many_draws_have_the_variance_of_the_batch():
    objective = net()
    params = objective.model.initial(streams(1, 7))
    found = noise_draws(objective, params, streams(1), 3000, 1000)
    assert found.shape == (1, 3000, 53)
    powers = found[0].square().sum(1)
    expected = gradient_noise(objective, params).item() / 5
    assert powers.mean().item() == pytest.approx(expected, abs=4 * powers.std().item() / 3000**0.5)
    tested = normality(found)
    assert np.isnan(tested.pvalue[0]).sum() == 5  # the dark pixel's weights
    assert tested.rejected().item() > 0.5


def test_participation_is_that_of_the_covariance_spectrum():
    objective = net()
    params = objective.model.initial(streams(3, 1))
    for replica, found in enumerate(participation(objective, params)):
        gradients = example_gradients(objective, params)[replica].numpy()
        spectrum = np.linalg.eigvalsh(np.cov(gradients.T))
        assert found.item() == pytest.approx(spectrum.sum() ** 2 / (spectrum**2).sum(), rel=1e-10)
