"""The network experiments of the saddle chapter: their measuring functions, and a small run of each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from descent.data import images
from descent.experiments.common import Settings
from descent.experiments.saddles import annealed_networks, cifar, features, initial_saddle, logistic

SMALL = Settings(replicas=4)


def test_rates_recover_exponential_growth() -> None:
    steps, rates = np.arange(400), np.array([[0.02, 0.01], [0.03, 0.015]])
    amplitudes = np.exp(steps[None, :, None] * rates[:, None])
    np.testing.assert_allclose(initial_saddle.rates(amplitudes, 2.0, 5.0), rates, rtol=1e-12)
    with pytest.raises(ValueError, match="1 of 2 replicas grew less than 9"):
        initial_saddle.rates(amplitudes, 2.0, 9.0)


def test_crossing_interpolates_between_looks() -> None:
    steps, values = np.array([0.0, 10.0, 20.0]), np.array([[4.0, 3.0, 1.0], [4.0, 1.0, 5.0]])
    np.testing.assert_allclose(initial_saddle.crossing(steps, values, 2.0), [15.0, 10 * 2 / 3])
    with pytest.raises(ValueError, match="2 of 2 replicas never"):
        initial_saddle.crossing(steps, values, 0.5)


def test_fluctuation_ignores_a_quadratic_trend_and_measures_the_rest() -> None:
    rng = np.random.Generator(np.random.Philox(0))
    noise, x = rng.standard_normal((200, 50)), np.linspace(0, 1, 50)
    found = annealed_networks.fluctuation(3 * noise + 100 - 40 * x + 7 * x**2)
    np.testing.assert_allclose(found, annealed_networks.fluctuation(3 * noise), rtol=1e-9)
    assert abs(float((found**2).mean()) / 9 - 1) < 5 * (2 / 47 / 200) ** 0.5  # unbiased variance


def test_logistic_regression_reports_its_claims() -> None:
    config = replace(logistic.LogisticFloor.cpu(SMALL), steps=100, discard=50, every=25)
    result = logistic.run(config)
    assert set(logistic.estimates(result)) == {"P3-C2.logistic", "P3-C11.logistic"}
    assert result.excess.shape == (4, 4)
    assert result.path.shape == (4, len(result.steps))
    np.testing.assert_allclose(result.path[:, 0], 0, atol=1e-7)  # it starts at the minimum
    ratio = result.predicted / result.predicted[0]
    np.testing.assert_allclose(ratio, [1, 2, 10, 10])
    assert len(logistic.tables(result)["logistic"]) == 4


def test_the_net_at_its_saddle_reports_its_claims() -> None:
    config = replace(initial_saddle.Departure.cpu(SMALL), examples=500, hidden=8, lr=0.05, batch_size=64, efolds=13.0)
    result = initial_saddle.run(config)
    assert set(initial_saddle.estimates(result)) == {"P3-C11.network", "P3-C16.faster", "P3-X1.network"}
    np.testing.assert_allclose(result.growth.mean(1) / result.predicted, 1, atol=0.15)
    assert result.diffusion[initial_saddle.HEAD] > 1.5 * result.predicted[initial_saddle.HEAD]
    frame = initial_saddle.tables(result)["initial_saddle"]
    assert (frame["arrival"].iloc[initial_saddle.HEAD]) < frame["arrival"].iloc[initial_saddle.PLAIN]


def test_the_modes_report_their_claim() -> None:
    config = features.Features.cpu(SMALL)
    config = replace(config, departure=replace(config.departure, hidden=8, lr=0.05, batch_size=64))
    result = features.run(config)
    assert set(features.estimates(result)) == {"P3-X7.compresses", "P3-X7.size"}
    assert result.growth.shape == (4, 4, 4)
    assert (np.diff(result.instability) < 0).all()
    falling = result.predicted_ratio[[features.PLAIN, features.MATCHED, features.HEAD, features.STRONG]]
    assert (np.diff(falling) < 0).all()


def test_late_losses_report_their_claim() -> None:
    config = replace(annealed_networks.LateLoss.cpu(SMALL), steps=200, switch=100, tail=100, every=5)
    result = annealed_networks.run(config)
    assert set(annealed_networks.estimates(result)) == {"P3-X4.clean", "P3-X4.noisy"}
    before = result.steps <= config.switch
    head, annealed = result.losses[:, annealed_networks.HEAD], result.losses[:, annealed_networks.ANNEALED]
    assert np.array_equal(head[..., before], annealed[..., before])  # one path until the switch
    assert not np.array_equal(head, annealed)
    assert len(annealed_networks.tables(result)["late_loss"]) == 8


def _pretend(*sizes: object) -> images.Projected:
    generator = np.random.Generator(np.random.Philox(3))
    labels = np.arange(400) % 10
    inputs = generator.standard_normal((400, 64)) + 3 * generator.standard_normal((10, 64))[labels]
    x, y = torch.tensor(inputs, dtype=torch.float32), torch.tensor(labels)
    return images.Projected("pictures", x[:300], y[:300], x[300:], y[300:], 1.0, "0")


def test_cifar_forks_three_arms_into_six(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "project", _pretend)
    config = replace(cifar.Cifar.cpu(SMALL), early=10, switch=60, steps=120, every=20, watched=100)
    result = cifar.run(config)
    assert set(cifar.estimates(result)) == {"P3-C3.cifar", "P3-C4.cifar", "P3-C16.cifar", "P3-X1.cifar"}
    assert result.steps.tolist() == [20, 40, 60, 80, 100, 120]
    before = result.curve[:, result.steps <= config.switch]
    assert np.array_equal(before[cifar.HEAD], before[cifar.STEP])
    assert np.array_equal(before[cifar.MATCHED], before[cifar.MATCHED_ANNEALED])
    assert len(np.unique(result.loss.mean(1))) == 6  # and six different ends
    assert set(cifar.tables(result)["cifar"]["data"]) == {"pictures"}
    assert ((result.accuracy >= 0) & (result.accuracy <= 1)).all()


def test_cifar_without_images_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DESCENT_DATA", str(tmp_path))
    with pytest.raises(images.DataMissing, match="CIFAR-10 is not here"):
        cifar.CIFAR.run(SMALL)


@pytest.mark.parametrize(
    "kind",
    [logistic.LogisticFloor, initial_saddle.Departure, features.Features, annealed_networks.LateLoss, cifar.Cifar],
)
def test_both_scales_follow_the_settings(kind: type) -> None:
    settings = Settings(seed=7, replicas=20, momentum=0.8)
    for config in (kind.cpu(settings), kind.paper(settings)):
        config = getattr(config, "departure", config)
        assert (config.seed, config.replicas, config.momentum, config.device) == (7, 20, 0.8, "cpu")
    large = [getattr(c, "departure", c).replicas for c in (kind.cpu(Settings()), kind.paper(Settings()))]
    assert large == [32, 64]
