"""Weight laws: drawn against their exact distribution, averaged against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.stats.intervals import ks_distance
from descent.theory.weights import Gamma, TwoPoint, lyapunov, moment, spread_of_logs
from scipy import special, stats

EXPONENTIAL, SQUARES, COIN = Gamma(1.0), Gamma(0.5), TwoPoint(0.8)


def streams(count: int, dtype: torch.dtype = torch.float64, seed: int = 3) -> Streams:
    return Streams(replica_seeds(seed, count), dtype)


@pytest.mark.parametrize("law", [EXPONENTIAL, SQUARES, Gamma(0.1), Gamma(3.0)])
@pytest.mark.parametrize("batch_size", [1, 2, 16, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gamma_means_follow_their_law(law: Gamma, batch_size: int, dtype: torch.dtype) -> None:
    drawn = law.batch_mean(streams(50_000, dtype), 5, batch_size).numpy()
    shape = law.shape * batch_size
    found = ks_distance(drawn, lambda q: special.gammainc(shape, shape * q), comparisons=32)
    assert found.distance < found.critical
    assert (drawn >= 0).all()


@pytest.mark.parametrize("shape", [0.5, 1.0, 8.0, 1000.0])
def test_the_quantile_table_is_right_to_ten_digits(shape: float) -> None:
    z = np.linspace(-9.5, 9.5, 20_001)
    table = Gamma(shape).mean_of(torch.from_numpy(z), 1).numpy()
    below, above = special.gammaincinv(shape, special.ndtr(z)), special.gammainccinv(shape, special.ndtr(-z))
    np.testing.assert_allclose(table, np.where(z < 0, below, above) / shape, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("batch_size", [1, 2, 5, 64, 1000])
def test_two_point_means_count_heads(batch_size: int) -> None:
    drawn = COIN.batch_mean(streams(50_000), 2, batch_size).numpy()
    heads = (drawn - 0.2) * batch_size / 1.6
    np.testing.assert_allclose(heads, np.round(heads), atol=1e-9)
    law = stats.binom(batch_size, 0.5).cdf
    found = ks_distance(np.round(heads), law, lattice=True, comparisons=5)
    assert found.distance < found.critical


@pytest.mark.parametrize("law", [EXPONENTIAL, SQUARES, COIN])
def test_mean_and_variance_of_a_batch(law: Gamma | TwoPoint) -> None:
    drawn = law.batch_mean(streams(20_000), 0, 4, (5,)).numpy()
    assert drawn.shape == (20_000, 5)
    assert drawn.mean() == pytest.approx(1, abs=5 * math.sqrt(law.variance / 4 / drawn.size))
    assert drawn.var() == pytest.approx(law.variance / 4, rel=0.05)
    assert abs(np.corrcoef(drawn[:, 0], drawn[:, 1])[0, 1]) < 0.03


def test_a_draw_depends_on_seed_and_step_alone() -> None:
    every = EXPONENTIAL.batch_mean(streams(100), 7, 4)
    some = EXPONENTIAL.batch_mean(streams(100).subset(slice(30, 60)), 7, 4)
    assert torch.equal(every[30:60], some)
    assert not torch.equal(every, EXPONENTIAL.batch_mean(streams(100), 8, 4))


def test_blocks_of_replicas_may_have_batch_sizes_of_their_own() -> None:
    seeds = replica_seeds(0, 50).repeat(4)
    means = EXPONENTIAL.batch_mean(Streams(seeds, torch.float64), 1, (1, 16, None, 1)).view(4, 50)
    assert torch.equal(means[0], means[3])
    assert torch.equal(means[2], torch.ones(50, dtype=torch.float64))
    order = means[0].argsort()
    assert (means[1][order].diff() > 0).all()  # the same luck: means of all batch sizes rise together
    with pytest.raises(ValueError, match="200 replicas cannot be cut into 3 equal blocks"):
        EXPONENTIAL.batch_mean(Streams(seeds), 1, (1, 2, 3))


def test_full_batches_have_weight_one() -> None:
    assert torch.equal(SQUARES.batch_mean(streams(3), 0, None), torch.ones(3, dtype=torch.float64))
    assert lyapunov(SQUARES, 2.5, None) == pytest.approx(math.log(1.5))


@pytest.mark.parametrize("lr", [0.1, 0.7, 1.0, 2.684510, 40.0])
def test_growth_under_exponential_weights_is_an_exponential_integral(lr: float) -> None:
    assert lyapunov(EXPONENTIAL, lr) == pytest.approx(-math.exp(-1 / lr) * special.expi(1 / lr), abs=1e-12)


def test_growth_oracles() -> None:
    found = [lyapunov(EXPONENTIAL, lr, k) for k, lr in ((1, 1.0), (1, 3.0), (4, 3.0), (16, 2.5))]
    assert found == pytest.approx([-0.697175, 0.113278, 0.333583, 0.301647], abs=6e-7)


@pytest.mark.parametrize("law", [EXPONENTIAL, SQUARES, COIN, Gamma(0.05)])
@pytest.mark.parametrize("batch_size", [1, 3, 200])
def test_the_second_moment_is_the_mean_square_growth(law: Gamma | TwoPoint, batch_size: int) -> None:
    for lr in (0.01, 1.0, 1.7, 5.0):
        expected = (1 - lr) ** 2 + lr**2 * law.variance / batch_size
        assert moment(law, lr, batch_size, 2.0) == pytest.approx(expected, abs=1e-12, rel=1e-12)


@pytest.mark.parametrize("law", [EXPONENTIAL, COIN])
def test_averages_agree_with_draws(law: Gamma | TwoPoint) -> None:
    size = np.abs(1 - 1.9 * law.batch_mean(streams(400_000), 0, 4).numpy())
    error = np.log(size).std() / math.sqrt(len(size))
    assert lyapunov(law, 1.9, 4) == pytest.approx(np.log(size).mean(), abs=4 * error)
    assert spread_of_logs(law, 1.9, 4) == pytest.approx(np.log(size).std(), rel=0.01)
    assert moment(law, 1.9, 4, 0.7) == pytest.approx((size**0.7).mean(), rel=0.01)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="shape must be a positive number"):
        Gamma(0.0)
    with pytest.raises(ValueError, match="no weight is negative"):
        TwoPoint(1.2)
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        EXPONENTIAL.batch_mean(streams(3), 0, 0)


def test_gamma_draws_are_monotone_images_of_the_normals_of_the_stream() -> None:
    normals = streams(1000).normal(Purpose.BATCH, 3, ())
    means = SQUARES.batch_mean(streams(1000), 3, 2)
    levels = special.gammainc(1.0, means.numpy())
    np.testing.assert_allclose(special.ndtr(normals.numpy()), levels, rtol=1e-8, atol=1e-12)
