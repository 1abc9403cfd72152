"""The noise experiments of the smoothing chapter, shrunk: levels, parts, bounds, laws and shapes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from descent.claims import load_paper
from descent.engine import Arms, Streams, ema, heavy_ball, repeat, replica_seeds, sgd, train
from descent.experiments.lab import Lab, Share
from descent.experiments.smoothing import noise, normality, quadratic
from descent.experiments.smoothing.arms import Arm, search_noise, task
from descent.figures.smoothing import crossing, direction, shape
from descent.measure.normality import participation
from descent.theory.search_noise import beta_hat, shuffled_power, stationary_moments, stationary_ratio
from tidy import momentous, value_of, values_of

SMALL = Lab(replicas=60, seed=11)
STILL = Lab(replicas=60, seed=11, momentum=0.0)


@pytest.fixture(scope="module")
def networks() -> noise.NoiseResult:
    config = replace(
        noise.NOISE.small,
        draws=5,
        replicas=Share(most=10),
        rates=(0.01,),
        batch_sizes=(8, 32),
        examples=150,
        hidden=16,
        burn=80,
        steps=200,
        every=6,
        dissected=5,
        window=60,
    )
    return noise.run(config, SMALL)


def every(found, key: str, value: float, **about: float) -> bool:
    """Tell whether all of a test's estimates are about a value."""
    return values_of(found, key) == pytest.approx([value] * len(found[key]), **about)


def test_levels_of_the_three_rules(networks: noise.NoiseResult) -> None:
    found = noise.estimates(networks)
    assert every(found, "P1-C1.power", 1, abs=0.15)
    assert every(found, "P1-X2.network", 1, abs=0.2)
    assert max(values_of(found, "P1-C15.nshb")) < 0.08
    assert min(values_of(found, "P1-C4.larger")) > 4
    assert value_of(found, "P1-C4.larger_first") == min(values_of(found, "P1-C4.larger"))  # full batch adds nothing
    assert every(found, "P1-C14.direct", 1, abs=0.1)
    foretold = values_of(found, "P1-C7.momentum")
    assert min(foretold) == pytest.approx(0.9, abs=0.05)  # momentum, where the objective is flat
    assert max(foretold) < 1
    assert {(one.n, one.draws) for one in found["P1-C6.equal"]} == {(10, 5)}
    assert set(found) == {key for key, test in load_paper("P1").tests.items() if test.by == "noise"}


def test_the_bounds_hold_and_how_far(networks: noise.NoiseResult) -> None:
    found = noise.estimates(networks)
    assert every(found, "P1-X1.nshb", 190, rel=0.3)  # (1 + momentum)/(1 − momentum)²
    assert min(values_of(found, "P1-X1.shb")) > 5
    assert 1 < values_of(found, "P1-C2.bound")[-1] < 3  # the tightest is full batch
    assert noise.slack(networks, Arm.HEAVY)[0, -1].value == values_of(found, "P1-C2.bound")[-1]
    assert every(found, "P1-C5.shb_floor", 81, rel=0.25)  # (momentum/(1 − momentum))²
    assert 1e-4 < values_of(found, "P1-C5.nshb_vanishes")[0] < 0.05
    assert min(values_of(found, "P1-X1.scale")) > 0.85


def test_several_batches_of_a_look_are_those_of_later_steps() -> None:
    images = task(SMALL, "digits", 0.2, 8, 3, 100)
    problem, streams = images.batches(10), Streams(replica_seeds(2, 6))
    params, arms = images.model.initial(streams), Arms.paired(sgd(0.1), streams)
    probe = search_noise(problem, arms, 1)
    powers = [probe(step, params, params)["power"] for step in (4, 54)]
    found = noise._fresh(problem, params, streams, probe.parts(0, params, params).gradient, range(4, 104, 50))
    torch.testing.assert_close(found, torch.stack(powers).mean(dim=0))


def test_both_readings_of_the_formula_for_the_average(networks: noise.NoiseResult) -> None:
    found = noise.estimates(networks)
    assert max(values_of(found, "P1-C23.covariant")) < 0.5
    assert not set(values_of(found, "P1-C23.covariant")) & set(values_of(found, "P1-C25.covariant"))
    s2, k2 = networks.noise[:, :, Arm.AVERAGED], networks.peaks(Arm.AVERAGED)
    np.testing.assert_allclose(networks.bound(Arm.AVERAGED), 10 * s2)
    np.testing.assert_allclose(networks.bound(Arm.AVERAGED, "repository"), s2 + 3.24 * (s2 + k2))
    assert len(found["P1-C24.bound"]) == len(found["P1-C3.ordinary"]) + 1  # it does not vanish at full batch


def test_the_gradient_bound_is_that_of_a_draw(networks: noise.NoiseResult) -> None:
    assert networks.peak.shape == (1, 3, 3, 5)
    np.testing.assert_array_equal(networks.peaks(Arm.HEAVY)[..., 7], networks.peak[:, :, Arm.HEAVY, 2])
    assert (networks.sets.by_draw(networks.gradient).mean(axis=-1) <= networks.peak).all()


def test_full_batch_leaves_nothing_but_lag(networks: noise.NoiseResult) -> None:
    assert np.abs(networks.power[:, -1, Arm.PLAIN]).max() < 1e-12
    np.testing.assert_allclose(networks.memory[:, -1], networks.power[:, -1], rtol=1e-5, atol=1e-12)
    fresh, carried, lag, power = np.moveaxis(networks.parts[-1, 1:], 1, 0)
    assert max(fresh.max(), carried.max()) < 1e-12
    np.testing.assert_allclose(lag, power, rtol=1e-4)


def test_carried_noise_outweighs_the_fresh_as_the_weights_say(networks: noise.NoiseResult) -> None:
    fresh, carried = networks.parts[0, Arm.AVERAGED, :2].mean(axis=-1)
    assert carried / fresh == pytest.approx(0.81 / 0.19, rel=0.6)  # momentum²/(1 − momentum²), one snapshot
    assert networks.parts.shape == (3, 3, 4, 5)


def test_a_path_is_the_same_in_both_conventions_and_the_formulas_are_not(networks: noise.NoiseResult) -> None:
    images = task(SMALL, "digits", 0.0, 8, 3, 100)
    problem, streams = images.batches(10), Streams(replica_seeds(2, 3))
    start = images.model.initial(streams)
    ends = [
        train(problem, start, repeat(rule, 3), 60, streams).params for rule in (ema(0.05, 0.9), heavy_ball(0.005, 0.9))
    ]
    for name in start:
        assert torch.allclose(ends[0][name], ends[1][name], atol=1e-5)  # type: ignore[index]
    s2, k2 = networks.noise[0, 0, Arm.AVERAGED].mean(), networks.peak[0, 0, Arm.AVERAGED].mean()
    exact = 0.1 * np.sqrt(((1 + beta_hat(0.9)) * s2 + beta_hat(0.9) * k2) / (10 * s2))
    assert noise.conventions(networks, "submission")[0, 0].value == pytest.approx(float(exact))


def test_without_momentum_only_plain_descent_is_judged(networks: noise.NoiseResult) -> None:
    assert set(noise.estimates(networks)) - momentous("P1", "noise") == {"P1-C1.power"}
    config = replace(networks.config, draws=2, replicas=Share(most=2), batch_sizes=(32,), steps=100, dissected=2)
    still = noise.estimates(noise.run(config, STILL))
    assert every(still, "P1-C14.direct", 1)  # the three rules are one
    assert every(still, "P1-C5.shb_floor", 0)
    assert every(still, "P1-X1.scale", 0)
    table = noise.tables(networks)
    assert {name: len(rows) for name, rows in table.items()} == {"noise": 9, "noise_parts": 9}
    assert np.isnan(table["noise"].query("batch_size == 150")["level"]).all()


@pytest.fixture(scope="module")
def parabola() -> quadratic.ParabolaResult:
    config = replace(quadratic.QUADRATIC.small, looks=150, samplers=Share(most=20), epochs=20, batch_sizes=(10, 50))
    return quadratic.run(config, replace(SMALL, replicas=500))


def test_parabola_and_shuffled_epochs_follow_their_laws(parabola: quadratic.ParabolaResult) -> None:
    np.testing.assert_allclose(parabola.power.mean(axis=1), parabola.law, rtol=0.05)
    np.testing.assert_allclose(parabola.resting.mean(axis=2), parabola.resting_law, rtol=0.03)
    found = quadratic.estimates(parabola)
    assert every(found, "P1-X2.boundary", 1, abs=0.05)
    assert every(found, "P1-X2.law", 1, abs=0.05)
    assert len(found["P1-X2.law"]) == len(parabola.cells)
    assert value_of(found, "P1-X10.curved") == pytest.approx(10 / 19, rel=0.05)
    assert value_of(found, "P1-X7.less") == pytest.approx(0.1195, rel=0.05)
    assert set(found) <= set(load_paper("P1").tests)


def test_the_law_is_that_of_lyapunov() -> None:
    cells = quadratic.Parabola().cells((0.5, 0.9))
    z, momentum = zip(*cells, strict=True)
    exact = stationary_moments(ema(list(z), list(momentum)), [1.0]).power[:, 0]
    np.testing.assert_allclose(stationary_ratio(z, momentum), exact, rtol=1e-9)
    np.testing.assert_allclose(stationary_ratio([0.1, 2, 14], 0.9), [0.097625, 1, 10], rtol=1e-5)
    assert float(shuffled_power(ema(1.0, 0.9), 64, 1000)[0]) == pytest.approx(0.02075, abs=5e-6)


def test_unstable_cells_are_left_out_and_other_momenta_come_in() -> None:
    config = quadratic.Parabola()
    cells = {momentum: config.cells(Lab(momentum=momentum).momenta(config.momenta)) for momentum in (0.9, 0.8, 0.0)}
    assert (20.0, 0.5) not in cells[0.9]
    assert (4.0, 0.8) in cells[0.8]
    assert all(momentum > 0 for _, momentum in cells[0.0])
    assert config.burn(cells[0.9]) == 200


def test_without_momentum_shuffling_is_not_judged(parabola: quadratic.ParabolaResult) -> None:
    left = set(quadratic.estimates(parabola)) - momentous("P1", "quadratic")
    assert left == {"P1-X10.curved", "P1-X2.law", "P1-X2.boundary"}


def test_the_noise_is_neither_normal_nor_isotropic() -> None:
    config = replace(
        normality.NORMALITY.small,
        draws=3,
        replicas=Share(most=6),
        steps=200,
        examples=150,
        hidden=16,
        batches=1000,
        coordinates=40,
    )
    result = normality.run(config, SMALL)
    found = normality.estimates(result)
    assert value_of(found, "P1-C19.normal") > 0.5
    assert value_of(found, "P1-C19.isotropic") < 0.5
    assert result.most == 149  # the mean takes one of 150 examples
    assert result.participation.max() < 149
    assert set(found) <= set(load_paper("P1").tests)
    np.testing.assert_allclose(result.spectrum.sum(axis=-1), 1)
    assert (np.diff(result.spectrum, axis=-1) <= 0).all()
    np.testing.assert_allclose(result.sample.std(axis=1), 1)
    assert result.parameters == 64 * 16 + 16 + 16 * 10 + 10
    assert len(normality.tables(result)["normality"]) == 2
    assert len(shape(result).axes) == 2


def test_a_spectrum_knows_the_participation_of_the_instrument() -> None:
    images = task(SMALL, "digits", 0.0, 4, 2, 60)
    problem, params = images.batches(5), images.model.initial(Streams(replica_seeds(0, 2)))
    spectrum = normality.spectrum(problem, params)
    np.testing.assert_allclose(1 / (spectrum**2).sum(axis=1), participation(problem, params).numpy(), rtol=1e-3)


def test_figures_are_drawn(networks: noise.NoiseResult, parabola: quadratic.ParabolaResult) -> None:
    assert len(direction(networks).axes) == 2
    assert len(crossing(parabola, networks).axes) == 2
    assert len(crossing(parabola).axes) == 1
