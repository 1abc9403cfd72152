"""The network experiment of the flatness chapter: a small run, and the figures of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from descent.claims import load_paper
from descent.data import images
from descent.experiments.flatness import networks
from descent.experiments.lab import Lab
from descent.figures.flatness import network_bounds, network_loads, network_sharpness
from descent.stats import Estimate
from descent.theory.linear import gram_rows
from descent.theory.moments import growth_rate
from torch import nn

KEYS = {
    "P2-C3.necessary", "P2-C8.networks", "P2-C8.edge", "P2-X1.network", "P2-X6.rejects", "P2-X6.sharpness_silent",
    "P2-X6.simulated", "P2-X11.flattens", "P2-X11.far_below", "P2-X11.flattens_first", "P2-X11.below_first",
}  # fmt: skip


LAB = Lab(replicas=6)


def small() -> networks.Networks:
    groups = (
        networks.Group(1, (0.1, 0.2), 2500),
        networks.Group(4, (0.3,), 1500),
        networks.Group(None, (0.8, 2.0), 800),
    )
    return replace(
        networks.NETWORKS.small, examples=32, draws=3, groups=groups, fitted=1e-3, pause=500, patience=1500, copies=60
    )


@pytest.fixture(scope="module")
def result() -> networks.NetworksResult:
    return networks.run(small(), LAB)


def test_the_constant_input_makes_the_biases_of_the_first_layer() -> None:
    task = small().task(LAB)
    leaves = task.start(LAB.streams(6))
    module = nn.Sequential(nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 1, bias=False))
    first = leaves["0.weight"]
    named = {"0.weight": first[:, :, :64], "0.bias": first[:, :, 64], "2.weight": leaves["2.weight"]}
    assert float(named["0.bias"].abs().max()) == 0
    same = torch.func.functional_call(module, {name: leaf[1] for name, leaf in named.items()}, (task.inputs[:, :64],))
    torch.testing.assert_close(task.net.forward(leaves, task.inputs.expand(6, -1, -1))[1], same)
    assert float(named["0.weight"].var()) == pytest.approx(4 / 64, rel=0.05)
    np.testing.assert_allclose(task.inputs[:, :64].mean(0), 0, atol=1e-6)


def test_draws_have_no_image_in_common_and_another_master_seed_has_others() -> None:
    first, second = (small().task(Lab(seed=seed)).sets for seed in (0, 1))
    assert first.rows.shape == (3, 32)
    assert len(first.rows.unique()) == 96
    assert first.overlap == 0
    assert not torch.equal(first.rows, second.rows)


def test_every_key_has_an_estimate_over_draws(result: networks.NetworksResult) -> None:
    found = networks.estimates(result)
    assert set(found) == KEYS == {key for key, test in load_paper("P2").tests.items() if test.by == "networks"}
    for estimate in found.values():
        for one in [estimate] if isinstance(estimate, Estimate) else estimate:
            assert np.isfinite(one.value)
            assert one.draws == 3


def test_a_net_fits_the_images_of_its_own_draw_and_no_others(result: networks.NetworksResult) -> None:
    task = small().task(LAB)
    done = networks.fit(task, small(), LAB, result.of(None).group, {})
    leaves = {name: leaf[4, None] for name, leaf in done.params.items()}  # of draw 1
    misses = [
        float((task.net.forward(leaves, task.inputs[own][None])[0] - task.targets[own]).square().mean())
        for own in task.sets.rows
    ]
    assert misses[1] < 2e-3 < 0.1 < min(misses[0], misses[2])
    with pytest.raises(ValueError, match="do not interpolate"):
        replace(task, sets=replace(task.sets, rows=task.sets.rows.flip(0))).interpolating(
            done.params, torch.tensor([3])
        )


def test_values_of_nets_are_pooled_by_draw(result: networks.NetworksResult) -> None:
    value = np.arange(6) % 3 + np.zeros((4, 6))
    assert result.pooled(value, value[:1]).tolist() == [[0.0] * 10, [1.0] * 10, [2.0] * 10]
    found = result.largest(np.array([[0.0, 1.0, 2.0, 5.0, np.nan, -1.0]]))
    assert found.value == pytest.approx((5 + 1 + 2) / 3)
    assert found.n == found.draws == 3


def test_descent_settles_at_its_edge_and_small_batches_below_theirs(result: networks.NetworksResult) -> None:
    found = networks.estimates(result)
    assert found["P2-C8.edge"].value == pytest.approx(1, abs=0.02)
    assert found["P2-C3.necessary"].value < 0.2
    assert found["P2-X6.rejects"].value == 1
    assert found["P2-X6.sharpness_silent"].value < 0.6
    assert found["P2-X11.flattens"].high < 0


def test_loads_are_rates_over_thresholds(result: networks.NetworksResult) -> None:
    full, one = result.of(None), result.of(1)
    np.testing.assert_allclose(full.load[full.found], (full.lr * full.sharpness / 2)[full.found])
    np.testing.assert_array_equal(one.threshold, one.single)
    assert np.isnan(one.sharpness[~one.found]).all()
    assert (one.lower[one.found] < one.single[one.found]).all()
    assert (full.single[full.found] < full.threshold[full.found]).all()
    np.testing.assert_array_equal(one.initial, one.initial[:1].repeat(2, axis=0))


def test_runs_of_the_linearised_net_grow_as_the_operator_says(result: networks.NetworksResult) -> None:
    config = replace(small(), around=(1.15, 1.3), copies=200, horizon=150)
    few = result.of(4)
    task = config.task(LAB)
    done = networks.fit(task, config, LAB, few.group, {})
    mean_square, single = networks.grow(task, config, LAB, done, few)
    rows = few.found[0].nonzero()[0]
    assert np.isnan(mean_square[:, ~few.found[0]]).all()
    mean_square, single = mean_square[:, rows], single[:, rows]
    k = task.interpolating(done.params, torch.from_numpy(rows)).numpy()
    exact = [
        [growth_rate(gram_rows(one), m * lr, 4) for m in config.around]
        for one, lr in zip(k, few.threshold[0][rows], strict=True)
    ]
    np.testing.assert_allclose(mean_square.mean(1), np.mean(exact, axis=0), rtol=0.1)
    assert (single.mean(1) < mean_square.mean(1)).all()


@pytest.mark.parametrize(("growth", "expected"), [
    ((-0.04, -0.01, 0.03, 0.09), 1.01), ((-0.02, 0.02, 0.03, 0.04), 0.98), ((-0.05, -0.04, -0.03, -0.01), 1.1),
])  # fmt: skip
def test_onset_is_a_straight_line_between_the_steps_around_it(
    result: networks.NetworksResult, growth: tuple[float, ...], expected: float
) -> None:
    other = replace(result, growth=np.tile(np.array(growth)[:, None], (2, 1, 6)))
    assert networks.onset(other, "mean square").value == pytest.approx(expected)


def test_a_group_in_which_nobody_interpolates_is_named() -> None:
    config = small()
    groups = (*config.groups[:2], networks.Group(None, (0.8,), 3))
    with pytest.raises(ValueError, match=r"batch size all reached a loss of 0\.001 within 3 steps"):
        networks.run(replace(config, groups=groups, patience=10), LAB)


def test_tables_and_figures_show_every_net(result: networks.NetworksResult) -> None:
    frames = networks.tables(result)
    assert set(frames) == {"networks", "network_arms", "network_tracks", "network_bounds", "network_onset"}
    assert len(frames["networks"]) == sum(int(t.found.sum()) for t in result.groups)
    assert set(frames["networks"]["draw"]) == {0, 1, 2}
    assert set(frames["networks"]["replica"]) == {0, 1}
    assert frames["network_arms"]["interpolate"].sum() == len(frames["networks"])
    assert (frames["network_bounds"]["lower"] < frames["network_bounds"]["threshold"]).all()
    marks = network_loads(result).axes[0].lines[: len(result.groups)]
    assert sum(len(mark.get_xdata()) for mark in marks) == len(frames["networks"])
    assert len(network_sharpness(result).axes) == 2
    assert len(network_bounds(result).axes[0].lines) == 6


@pytest.mark.parametrize("scale", ["cpu", "gpu"])
def test_both_scales_follow_the_lab(scale: str) -> None:
    config = networks.NETWORKS.config(scale)
    assert config.groups[0].batch_size == 1
    assert {networks.FEW, None} <= {group.batch_size for group in config.groups}
    assert [config.nets(Lab(replicas=n)) for n in (20, 1000)] == [32, 32]
    assert config.draws >= 10


def test_the_digits_are_enough_for_draws_apart() -> None:
    config = networks.NETWORKS.small
    assert config.draws * config.examples <= len(images.load("digits"))


def test_the_objective_is_half_the_mean_square_over_the_own_images() -> None:
    task = small().task(LAB)
    leaves = task.start(LAB.streams(6))
    own = task.sets.rows.repeat(2, 1)
    outputs = task.net.forward(leaves, task.inputs[own])
    expected = (outputs - task.targets[own]).square().mean((1, 2)) / 2
    torch.testing.assert_close(task.objective(None).value(leaves), expected)
