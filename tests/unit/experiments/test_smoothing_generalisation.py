"""The networks of the smoothing chapter, shrunk: accuracy, sharpness and what decides them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from descent.claims import load_paper
from descent.data.draws import fresh
from descent.data.images import DataMissing, load
from descent.engine import Streams, replica_seeds
from descent.engine.arms import survivors
from descent.experiments.isotropic import Isotropic
from descent.experiments.lab import Lab, Share
from descent.experiments.smoothing import equal_steps, headline, iso, structure
from descent.experiments.smoothing.arms import Arm, over_draws, task, whole
from descent.experiments.smoothing.minima import Minima
from descent.figures.smoothing import generalisation
from descent.measure.noise import full_gradient, gradient_noise
from descent.measure.operators import flatten
from descent.stats import draw_mean, magnitude
from tidy import momentous, value_of, values_of

SMALL = Lab(replicas=60, seed=11)
STILL = Lab(replicas=60, seed=11, momentum=0.0)
SIX = Share(most=6)


def test_a_task_keeps_test_images_apart_and_their_labels_true() -> None:
    noisy, clean = (task(SMALL, "digits", share, hidden=4, draws=3) for share in (0.2, 0.0))
    assert (noisy.sets.rows.shape, noisy.sets.test.shape) == ((3, 1000), (3, 797))
    for train, test in zip(noisy.sets.rows, noisy.sets.test, strict=True):
        assert not set(train.tolist()) & set(test.tolist())
    assert torch.equal(noisy.sets.rows, clean.sets.rows)  # the same images, with other labels
    assert torch.equal(noisy.labels, load("digits").labels)
    changed = (noisy.full.targets != clean.full.targets).double().mean(dim=1)
    assert changed.tolist() == pytest.approx([0.18] * 3, abs=0.03)  # a tenth of the redrawn ones fall on the truth
    assert len({tuple(row.tolist()) for row in (noisy.full.targets != clean.full.targets)}) == 3
    assert noisy.full.inputs.square().mean().item() == pytest.approx(1, abs=1e-4)


def test_a_net_is_tested_on_what_its_draw_leaves_over() -> None:
    images = task(SMALL, "digits", 0.2, hidden=4, draws=3)
    params = images.model.initial(Streams(replica_seeds(0, 6)))
    one = {name: leaf[4:5] for name, leaf in params.items()}  # of draw 1
    rows = images.sets.test[1]
    right = images.model.forward(one, images.full.inputs[rows][None]).argmax(-1)[0] == images.labels[rows]
    assert images.accuracy(params)[4].item() == pytest.approx(100 * right.double().mean().item(), rel=1e-5)


def test_glyphs_are_made_anew_for_every_draw_and_seed() -> None:
    images, others = (task(replace(SMALL, seed=seed), "glyphs", 0.2, 4, draws=2, examples=30) for seed in (11, 12))
    assert images.full.inputs.shape == (2 * (30 + 4000), 40)
    assert images.sets.overlap == 0
    first, second = images.full.inputs.view(2, -1, 40)
    assert (first - second).abs().amax(dim=1).min() > 1e-3
    assert not torch.equal(images.full.inputs, others.full.inputs)
    accuracy = images.accuracy(images.model.initial(Streams(replica_seeds(0, 4))))
    assert ((accuracy > 0) & (accuracy < 40)).all()  # nothing is learnt yet


def test_the_seed_moves_the_draws_and_the_wrong_labels() -> None:
    one, other = (task(replace(SMALL, seed=seed), "digits", 0.2, 4, draws=2) for seed in (11, 12))
    assert not torch.equal(one.sets.rows, other.sets.rows)


def test_mnist_without_its_files_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DESCENT_DATA", str(tmp_path))
    with pytest.raises(DataMissing):
        headline.MNIST.run(headline.MNIST.small, SMALL)


def test_pairs_live_or_go_together() -> None:
    lost = np.zeros((2, 3, 4), dtype=bool)
    lost[1, 2, 0] = True
    assert survivors(lost).tolist() == [False, True, True, True]
    kept = whole(np.ones((5, 4)), lost)
    assert np.isnan(kept[:, 0]).all()
    assert over_draws(fresh(2, 1), draw_mean)(kept[0]).n == 3  # of draws 0, 1, 0, 1
    lost[0, 0, 1:3] = True
    with pytest.raises(ValueError, match="all but 1 of 4 replicas diverged in some arm"):
        survivors(lost)


def test_the_control_follows_the_heavy_ball() -> None:
    config = replace(headline.HEADLINE.small, draws=3, replicas=SIX, batch_sizes=(20, 125, 500), epochs=16)
    result = headline.run(config, SMALL)
    found = headline.estimates(result)
    assert value_of(found, "P1-C18.sgd") > 15  # points that the heavy ball is ahead at the largest batch
    assert value_of(found, "P1-C18.nshb") > value_of(found, "P1-C18.sgd")  # the average also starts slowly
    assert abs(value_of(found, "P1-X4.share")) < 0.25
    assert value_of(found, "P1-C17.fixed_epochs") > 2  # points
    assert (found["P1-C18.sgd"].n, found["P1-C18.sgd"].draws) == (6, 3)
    heavy, matched = (result.degree[0, arm].mean() for arm in (Arm.HEAVY, Arm.MATCHED))
    assert matched > 3 * heavy  # … and the control's degree of smoothing is another
    assert set(found) | set(headline.mnist_estimates(result)) <= set(load_paper("P1").tests)
    assert set(found) - momentous("P1", "headline") == {"P1-C17.fixed_epochs"}
    assert set(headline.mnist_estimates(result)) == momentous("P1", "mnist")
    twins = headline.estimates(replace(result, config=replace(config, data="glyphs")))
    assert twins == {f"{key}_glyphs": value for key, value in found.items()}
    assert set(twins) - momentous("P1", "headline_glyphs") == {"P1-C17.fixed_epochs_glyphs"}
    assert len(generalisation.headline(result, None, result).axes) == 2


def test_an_arch_is_as_high_as_its_middle_stands_above_its_ends() -> None:
    logs = np.array([-1.0, 0.0, 1.0])
    degree = np.exp(logs)[:, None, None] * np.ones((3, 4, 6))
    accuracy = (80 - 7 * logs**2)[:, None, None] + np.zeros((3, 4, 6))
    accuracy[..., 1] = np.nan
    config = replace(headline.HEADLINE.small, batch_sizes=(1, 2, 3))
    result = headline.HeadlineResult(config, SMALL, "digits, made up", fresh(3, 1), accuracy, accuracy, degree, degree)
    found = headline.arch(result)
    assert (found.value, found.n, found.draws) == (pytest.approx(7), 5, 3)


def test_a_race_on_glyphs_is_run_on_as_many_draws_as_nets() -> None:
    config = replace(
        headline.GLYPHS.small, draws=3, replicas=Share(most=3), batch_sizes=(250, 400, 500), epochs=2, looks=1
    )
    result = headline.run(config, SMALL)
    assert result.accuracy.shape == (3, 4, 3)
    assert list(headline.tables(result)) == ["headline_glyphs"]
    assert result.title == "glyphs, 20% of the labels redrawn"


def test_without_momentum_the_heavy_ball_gains_nothing_and_lacks_nothing() -> None:
    config = replace(
        headline.HEADLINE.small, draws=2, replicas=Share(most=2), batch_sizes=(125, 250, 500), epochs=2, looks=1
    )
    found = headline.estimates(headline.run(config, STILL))
    assert [value_of(found, key) for key in sorted(momentous("P1", "headline"))] == [0.0, 0.0, 0.0]


def test_the_arms_take_the_effective_rate_apart() -> None:
    rule = headline.HEADLINE.small.rule(SMALL.momentum)
    reach = rule.lr * rule.gain / (1 - rule.momentum)
    assert rule.lr.tolist() == pytest.approx([0.03, 0.03, 0.03, 0.3])
    assert reach.tolist() == pytest.approx([0.03, 0.03, 0.3, 0.3])  # lr × gain/(1 − momentum)


def test_equal_steps_equal_accuracy_and_noise_far_apart() -> None:
    small = equal_steps.EQUAL_STEPS.small
    config = replace(small, draws=3, replicas=SIX, rates=(0.05,), batch_sizes=(16,), steps=500, edges=((0.3, 8),))
    result = equal_steps.run(config, SMALL)
    found = equal_steps.estimates(result)
    ratios, sizes, gains = (values_of(found, f"P1-{key}") for key in ("C16.far_apart", "C16.accuracy", "C20.advantage"))
    assert all(8 < ratio < 25 for ratio in ratios)  # about (1 + momentum)/(1 − momentum) = 19
    assert all(0 <= size < 1 for size in sizes)
    assert (len(ratios), len(sizes), len(gains)) == (2, 2, 1)  # clean labels alone
    assert abs(gains[0]) < 0.5
    assert value_of(found, "P1-C16.accuracy_first") == max(gain.value for gain in result.grid.gains.flat)
    assert {gain.draws for gain in result.grid.gains.flat} == {3}
    assert set(found) <= set(load_paper("P1").tests)
    table = equal_steps.tables(result)["equal_steps"]
    assert table[["redrawn", "batch_size", "lr"]].values.tolist() == [[0.0, 16, 0.05], [0.2, 16, 0.05], [0.0, 8, 0.3]]
    assert set(found) == momentous("P1", "equal_steps")
    twins = equal_steps.estimates(replace(result, config=replace(config, data="glyphs")))
    assert set(twins) == momentous("P1", "equal_steps_glyphs")
    assert twins == {f"{key}_glyphs": found[key] for key in found if key != "P1-C16.accuracy_first"}


def test_a_difference_is_turned_round_with_its_interval() -> None:
    accuracy = np.array([[[3.0, 4.0, 5.5], [2.0, 3.5, 4.0]]])
    base = equal_steps.Cells(fresh(3, 1), accuracy, np.ones((1, 2, 3))).gains[0]
    turned = magnitude(base)
    assert (turned.value, turned.low, turned.high) == (-base.value, -base.high, -base.low)
    assert magnitude(turned) == turned


def test_sharpness_follows_the_temperature() -> None:
    config = replace(iso.ISO.small, draws=5, replicas=Share(most=10), flow=30.0, larger=(2, 16))
    result = iso.run(config, SMALL)
    found = iso.estimates(result)
    assert abs(value_of(found, "P1-X6.iso_temperature")) < 0.06
    assert abs(value_of(found, "P1-X6.nshb")) < 0.06
    assert value_of(found, "P1-X6.batch") > 0.01
    assert set(found) <= set(load_paper("P1").tests)
    lr, size = zip(*[arm[1:] for arm in result.config.arms], strict=True)
    temperature, degree = iso.Held.TEMPERATURE, iso.Held.DEGREE
    assert lr[temperature] / size[temperature] == pytest.approx(lr[0] / size[0])
    assert lr[degree] / size[degree] ** 0.5 == pytest.approx(lr[0] / size[0] ** 0.5)
    assert momentous("P1", "iso") == {"P1-X6.nshb"}
    assert len(generalisation.iso(result).axes) == 2


def test_the_middle_is_compared_with_the_better_end() -> None:
    accuracy = np.array([[80.0, 82], [0, 0], [0, 0], [0, 0], [85, 86], [90, 91], [88, 90.0]])
    result = Minima(iso.ISO.small, SMALL, fresh(2, 1), np.zeros_like(accuracy), accuracy, accuracy)
    assert iso.middle_gain(result).value == pytest.approx(90.5 - 89)
    assert set(iso.glyph_estimates(result)) == {"P1-C17.matched_glyphs"} <= set(load_paper("P1").tests)


def test_that_the_best_was_picked_widens_its_interval_downwards() -> None:
    rng = np.random.default_rng(3)
    accuracy = np.zeros((12, 20))
    accuracy[4:-1] = rng.normal(0, 1, (7, 20))  # nothing in the middle is better than the ends
    found = iso.middle_gain(Minima(iso.ISO.small, SMALL, fresh(20, 1), accuracy, accuracy, accuracy))
    assert found.value > 0
    assert found.draws == 20


def test_isotropic_noise_has_the_power_of_a_batch_and_no_direction() -> None:
    images = task(SMALL, "digits", 0.2, 8, 1, 200)
    full, model = images.full, images.model
    noisy = Isotropic(full, 5)
    params = {k: v[:1].expand(400, *v.shape[1:]) for k, v in model.initial(Streams(replica_seeds(3, 1))).items()}
    streams = Streams(replica_seeds(4, 400))
    gradient, power = noisy.parts(params, streams, 0)
    exact = flatten(full_gradient(full, params))
    assert torch.allclose(gradient, exact, atol=1e-6)
    assert power[0].item() == pytest.approx(gradient_noise(full, params)[0].item() / 5, rel=1e-4)
    found = noisy.gradient(params, streams, 0)
    assert isinstance(found, dict)
    noise = flatten(found) - exact
    assert noise.square().sum(1).mean().item() == pytest.approx(power[0].item(), rel=0.02)
    shares = noise.square().mean(0) * noise.shape[1] / power[0]
    assert shares.std().item() == pytest.approx((2 / 400) ** 0.5, rel=0.1)  # nothing but the spread of a variance


def test_batch_noise_flattens_and_isotropic_noise_does_not() -> None:
    config = replace(structure.STRUCTURE.small, draws=4, replicas=Share(most=8), examples=250, steps=300)
    result = structure.run(config, SMALL)
    assert value_of(structure.estimates(result), "P1-X5.sharpness") < -0.02
    shift = structure.tables(result)["structure"].set_index("arm")["shift"]
    assert shift["batch noise"] < 0 < shift["isotropic noise"]
    assert set(structure.estimates(result)) <= set(load_paper("P1").tests)
    assert len(generalisation.structure(result).axes) == 2
