"""The network experiments of the saddle chapter: their measuring functions, and a small run of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from descent.data import images
from descent.engine import ArmRun
from descent.experiments.lab import Experiment, Lab
from descent.experiments.saddles import annealed_networks, cifar, features, initial_saddle, logistic
from descent.experiments.saddles.arms import SIX, Arm, rule
from descent.runs.perform import perform
from numpy.typing import NDArray

SMALL = Lab(replicas=4)


def of(arms: Sequence[Arm], values: NDArray[Any], axis: int = 0) -> dict[Arm, NDArray[Any]]:
    """Return values by arm."""
    return dict(zip(arms, np.moveaxis(values, axis, 0), strict=True))


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
    config = logistic.LogisticFloor(steps=100, discard=50, every=25, draws=2)
    result = logistic.run(config, SMALL)
    found = logistic.estimates(result)
    assert set(found) == {"P3-C2.logistic", "P3-C11.logistic"}
    assert {one.source for one in found.values()} == {"2 draws × 2"}
    assert result.excess.shape == (4, 2, 2)
    assert result.path.shape == (4, len(result.steps))
    np.testing.assert_allclose(result.path[:, 0], 0, atol=1e-7)  # every draw starts at its own minimum
    ratio = result.predicted / result.predicted[0]
    np.testing.assert_allclose(ratio, np.array([[1, 2, 10, 10]] * 2).T)
    assert result.predicted[0, 0] != result.predicted[0, 1]
    assert len(logistic.tables(result)["logistic"]) == 4
    other = logistic.run(config, replace(SMALL, seed=1000))
    assert not np.array_equal(other.predicted, result.predicted)  # the seed moves the draws


def test_the_net_at_its_saddle_reports_its_claims() -> None:
    config = initial_saddle.Departure(images=500, draws=2, hidden=8, lr=0.05, batch_size=64, efolds=13.0)
    result = initial_saddle.run(config, SMALL)
    found = initial_saddle.estimates(result)
    assert set(found) == {"P3-C11.network", "P3-C16.faster", "P3-X1.network", "P3-X9.network"}
    assert {one.source for one in found.values()} == {"2 draws × 2"}
    np.testing.assert_allclose((result.growth / result.predicted).mean(1), 1, atol=0.15)
    plain, head = (initial_saddle.ARMS.index(arm) for arm in (Arm.PLAIN, Arm.HEAD))
    assert result.diffusion[head] > 1.5 * result.predicted[head].mean()
    assert np.array_equal(result.predicted[:, :2], result.predicted[:, 2:])  # nets 0 and 2 are of the first draw
    assert not np.array_equal(result.predicted[:, 0], result.predicted[:, 1])
    frame = initial_saddle.tables(result)["initial_saddle"]
    assert (frame["arrival"].iloc[head]) < frame["arrival"].iloc[plain]


def test_the_modes_report_their_claim() -> None:
    departure = replace(features.Features().departure, hidden=8, lr=0.05, batch_size=64, images=500, draws=2)
    result = features.run(features.Features(departure), SMALL)
    assert set(features.estimates(result)) == {"P3-X7.compresses", "P3-X7.size"}
    assert result.growth.shape == (4, 4, 4)
    assert result.instability.shape == (2, 4)
    assert (np.diff(result.instability) < 0).all()
    ratio = of(features.ARMS, result.predicted_ratio.mean(1))
    assert ratio[Arm.PLAIN] > ratio[Arm.MATCHED] > ratio[Arm.HEAD] > ratio[Arm.STRONG]


def test_every_net_has_the_saddle_of_its_draw() -> None:
    config = initial_saddle.Departure(images=60, draws=3)
    sets, inputs, labels = initial_saddle.drawn(config, SMALL)
    assert len(set(sets.rows.flatten().tolist())) == 180
    assert float(inputs.mean(1).abs().max()) < 1e-5  # centred draw by draw
    saddles = initial_saddle.Saddles.of(inputs, labels, 10)
    net = saddles.start(5, 0.1, SMALL.streams(6))
    amplitudes = saddles.amplitudes(net, 2)
    for r in range(6):
        one = {name: leaf[r : r + 1] for name, leaf in net.items()}
        alone = saddles.of_draw[r % 3]
        torch.testing.assert_close(amplitudes[r : r + 1], alone.amplitudes(one, 2))
        np.testing.assert_allclose(net["2.bias"][r], alone.bias, rtol=1e-6)


def test_late_losses_report_their_claim() -> None:
    config = annealed_networks.LateLoss(steps=200, switch=100, tail=100, every=5, draws=2)
    result = annealed_networks.run(config, SMALL)
    found = annealed_networks.estimates(result)
    assert set(found) == {"P3-X4.clean", "P3-X4.noisy"}
    assert {one.source for one in found.values()} == {"2 draws × 2"}
    before = result.steps <= config.switch
    losses = of(annealed_networks.ARMS, result.losses, axis=1)
    head, annealed = losses[Arm.HEAD], losses[Arm.STEP]
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
    config = cifar.Cifar(early=10, switch=60, steps=120, every=20, watched=100, images=150, draws=2)
    result = cifar.run(config, SMALL)
    found = cifar.estimates(result)
    assert set(found) == {"P3-C3.cifar", "P3-C4.cifar", "P3-C16.cifar", "P3-X1.cifar"}
    assert {one.source for one in found.values()} == {"2 draws × 2"}
    assert result.steps.tolist() == [20, 40, 60, 80, 100, 120]
    before = of(SIX, result.curve[:, result.steps <= config.switch])
    assert np.array_equal(before[Arm.HEAD], before[Arm.STEP])
    assert np.array_equal(before[Arm.MATCHED], before[Arm.ANNEALED])
    assert len(np.unique(result.loss.mean(1))) == 6  # and six different ends
    assert set(cifar.tables(result)["cifar"]["data"]) == {"pictures"}
    assert ((result.accuracy >= 0) & (result.accuracy <= 1)).all()


def test_a_replica_that_diverged_keeps_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "project", _pretend)
    monkeypatch.setattr(ArmRun, "alive", np.array([True, False, True, True]))
    result = cifar.run(cifar.Cifar(early=5, switch=10, steps=20, every=5, watched=50, images=150, draws=2), SMALL)
    assert np.isnan(result.loss[:, 1]).all()
    assert np.isfinite(result.loss[:, [0, 2, 3]]).all()
    assert np.isfinite(result.curve).all()
    assert cifar.estimates(result)["P3-C16.cifar"].source == "2 draws, 3 replicas"


def test_cifar_without_images_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DESCENT_DATA", str(tmp_path))
    with pytest.raises(images.DataMissing, match="CIFAR-10 is not here"):
        cifar.run(cifar.Cifar(), SMALL)
    assert "CIFAR-10 is not here" in perform(cifar.CIFAR, SMALL).missing


@pytest.mark.parametrize(
    "experiment",
    [logistic.LOGISTIC, initial_saddle.INITIAL, features.FEATURES, annealed_networks.ANNEALED_NETWORKS, cifar.CIFAR],
    ids=lambda experiment: experiment.name,
)
def test_both_scales_follow_the_lab(experiment: Experiment[Any, Any]) -> None:
    replicas = [getattr(config, "departure", config).replicas for config in (experiment.small, experiment.large)]
    assert [Lab(replicas=20).count(share) for share in replicas] == [20, 20]
    assert [Lab().count(share) for share in replicas] == [30, 60]
    draws = [getattr(config, "departure", config).draws for config in (experiment.small, experiment.large)]
    assert draws == [10, 10]


def test_arms_are_named_matched_and_annealed() -> None:
    early, late = (rule(tuple(Arm), 0.05, 0.8, annealed=annealed) for annealed in (False, True))
    effective = [of(tuple(Arm), (rates.lr / (1 - rates.momentum)).numpy()) for rates in (early, late)]
    for at in effective:
        assert at[Arm.PLAIN] == at[Arm.SLOWED] == pytest.approx(0.05)
        assert at[Arm.HEAD] == at[Arm.MATCHED] == pytest.approx(0.25)
        assert (at[Arm.HALF], at[Arm.STRONG]) == pytest.approx((0.1, 5.0))
    for arm in (Arm.STEP, Arm.SWITCHED, Arm.ANNEALED):
        assert [at[arm] for at in effective] == pytest.approx([0.25, 0.05])
    assert dict(zip(Arm, late.momentum.tolist(), strict=True))[Arm.SWITCHED] == 0.0
    assert rule(SIX, 0.1, 0.9, weight_decay=5e-4).weight_decay.unique().tolist() == [5e-4]
