"""The experiments on small margins, shrunk: keys, what must come out, and figures that draw."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from descent.data.image_patches import ImagePatches
from descent.data.images import load, pair
from descent.engine import ema
from descent.engine.streams import Streams, replica_seeds
from descent.experiments import margins
from descent.experiments.lab import Lab
from descent.experiments.margins import (
    coast,
    heterogeneity,
    images,
    kick,
    linear,
    networks,
    noise,
    phase,
    race,
    sizes,
    surgery,
    teacher,
)
from descent.experiments.margins.arms import LARGE, MANY, Task, best_gap, compete, of_sets, tuned_gap
from descent.figures import margins as draw
from descent.problems.glyphs import glyphs
from descent.problems.patches import Patches
from descent.results import digest
from descent.stats import Estimate
from pandas import DataFrame
from tidy import check_answers, still

TASK = Task(6, tests=200)
LAB = Lab(replicas=40, seed=3, momentum=0.95)
SHRUNK = {
    "race": (race, replace(race.RACE.small, task=TASK, momentum=(0.0,))),
    "surgery": (surgery, replace(surgery.SURGERY.small, task=TASK, many=4)),
    "coast": (
        coast,
        replace(
            coast.COAST.small,
            task=TASK,
            seeds=8,
            arms=((1.0, 0.9), (1.0, 0.0)),
            large_margins=(1.5, 3.0),
            small_margins=(0.15, 0.3),
        ),
    ),
    "phase": (
        phase,
        replace(
            phase.PHASE.small, task=TASK, lrs=(1.0, 2.0, 4.0), momenta=(0.0, 0.8, 0.9), many=8, tuned_lrs=(16.0, 64.0)
        ),
    ),
    "kick": (kick, replace(kick.KICK.small, task=TASK, multiples=(0.5, 1.0, 2.0))),
    "noise": (noise, replace(noise.NOISE.small, task=TASK, batch_sizes=(10, None), watch=40, patience=500.0)),
    "heterogeneity": (
        heterogeneity,
        replace(heterogeneity.HETEROGENEITY.small, task=TASK, small=(10, 100), large_margins=(0.15, 0.3), steps=700),
    ),
    "linear": (linear, replace(linear.LINEAR.small, task=TASK, targets=(0.1, 0.03, 0.01), practical=0.03, steps=2000)),
    "sizes": (sizes, replace(sizes.SIZES.small, sizes=(50, 150), seeds=(6, 4), task=TASK, steps=500)),
    "teacher": (teacher, replace(teacher.TEACHER.small, seeds=4, examples=200, tests=300)),
    "images": (
        images,
        replace(
            images.DIGITS.small,
            pairs=(images.Pair("4", "9", 4.0),),
            seeds=4,
            plain_lrs=(4.0,),
            strong_lrs=(4.0,),
            examples=100,
        ),
    ),
    "glyphs": (
        images,
        replace(
            images.GLYPHS.small, pairs=images.GLYPH_PAIRS[:1], seeds=4, plain_lrs=(2.0,), strong_lrs=(4.0,), steps=600
        ),
    ),
}


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    return {name: module.run(config, LAB) for name, (module, config) in SHRUNK.items()}


@pytest.mark.parametrize("name", SHRUNK)
def test_estimates_answer_stated_tests_and_tables_are_tidy(results: dict[str, Any], name: str) -> None:
    check_answers("P4", SHRUNK[name][0], results[name])


def test_momentum_learns_what_descent_memorises(results: dict[str, Any]) -> None:
    found = results["race"]
    plain, strong = found.arm(0.0), found.arm(0.99)
    assert 250 <= np.median(found.equal.step[plain]) <= 400
    assert found.equal.err2[plain].mean() > 0.35
    assert found.equal.err2[strong].max() < 0.02
    assert (found.equal.accuracy > 0.999).all()
    assert found.equal.noise[plain].mean() > 10 * found.equal.signal[plain].mean()
    assert found.crossed[strong] > found.crossed[plain]


def test_only_large_margins_along_the_feature_matter(results: dict[str, Any]) -> None:
    found = results["surgery"]
    for name in (*surgery.KEPT, surgery.ALL, surgery.COAST):
        assert found.err2(name).mean() < 0.05, name
    for name in (*surgery.WITHOUT, surgery.PLAIN, surgery.DROPPED):
        assert found.err2(name).mean() > 0.3, name


def test_without_momentum_there_is_nothing_to_operate_on() -> None:
    none = replace(LAB, momentum=0.0)
    assert still("P4", "surgery") == set()
    assert surgery.estimates(surgery.run(replace(SHRUNK["surgery"][1], task=replace(TASK, seeds=2), steps=8), none))
    plain = race.estimates(race.run(SHRUNK["race"][1], none))
    assert {key.split(".")[0] for key in still("P4", "race") & set(plain)} == {"P4-C5", "P4-C9", "P4-C15"}
    assert set(plain) - still("P4", "race") == {"P4-C6.fits", "P4-C6.gap", "P4-C6.small", "P4-C13.error"}


def test_seeds_are_as_many_as_the_replicas_ask_for_and_sizes_are_digested() -> None:
    few, many = Lab(replicas=40), Lab(replicas=1000)
    task = race.RACE.small.task
    assert task.seeds == MANY
    assert [lab.count(MANY) for lab in (few, Lab(replicas=850), many, Lab(replicas=5000))] == [32, 204, 240, 240]
    assert [lab.count(LARGE.seeds) for lab in (few, many)] == [64, 125]
    assert [lab.count(coast.COAST.small.seeds) for lab in (few, many)] == [32, 100]
    assert [lab.count(teacher.TEACHER.small.seeds) for lab in (few, many, Lab(replicas=5000))] == [32, 64, 64]
    assert [lab.count(teacher.TEACHER.large.seeds) for lab in (few, many)] == [64, 200]
    configs = [config for item in margins.EXPERIMENTS for config in (item.small, item.large)]
    assert len({digest(config) for config in configs}) == len(configs)
    assert digest(race.RACE.small) != digest(replace(race.RACE.small, task=replace(task, noise=2.0)))


def test_the_feature_coasts_as_computed(results: dict[str, Any]) -> None:
    found = results["coast"]
    assert found.distance[0].mean() == pytest.approx(found.law[0], rel=0.04)
    assert found.distance[1].mean() < found.law[1]


def test_collapse_and_best_rates() -> None:
    inertia = np.array([1.0, 3.0, 10.0])
    height = 0.45
    exact = height * phase.fall(inertia, 3.2, 3.0)
    drawn = np.repeat(np.concatenate([[height], exact])[None, None], 5, axis=1)
    assert phase.apart(inertia, drawn)[0] == pytest.approx(np.zeros(3), abs=1e-6)
    assert phase.fitted(inertia, exact / height) == pytest.approx([3.2, 3.0], rel=1e-4)
    errors = np.array([[[0.4, 0.1], [0.3, 0.2]]])[None]  # one draw, one seed, two rates, plain and momentum
    assert best_gap(errors)[0] == pytest.approx(0.2)


def test_every_cell_within_reach_is_held_against_the_curve() -> None:
    config = replace(phase.PHASE.small, lrs=(0.5, 1.0, 2.0, 4.0), momenta=(0.0, 0.8, 0.9), task=TASK)
    inertia = np.array(config.lrs)[:, None] / (1 - np.array(config.momenta))
    grain = np.random.default_rng(0).normal(0, 0.002, (4, 3, 12))
    err2 = 0.45 * phase.fall(inertia, 3.2, 3.0)[..., None] + grain
    err2[0, 0] = 0.45

    def cells(err2: Any) -> list[Estimate]:
        return phase.collapse(phase.PhaseResult(config, LAB, err2, err2, err2[:, :2]))

    found = cells(err2)
    assert len(found) == int((inertia[:, 1:] <= config.reach).sum())
    assert all(one.low < 0.003 and one.high > -0.003 and one.n == 12 for one in found)
    err2[1, 2] += 0.2  # a cell of its own
    assert max(one.low for one in cells(err2)) > 0.05


def test_where_no_set_errs_the_number_of_sets_bounds_the_best_gap() -> None:
    errors = np.full((60, 3, 2), 0.4)
    errors[:, 1] = 0.0
    found = tuned_gap(errors, 0)
    assert (found.value, found.high) == pytest.approx((0.0, 1 - 0.05 ** (1 / 60)))
    assert found.low == -found.high
    errors[:2, 1, 0] = 0.1  # two sets
    assert found.high < tuned_gap(errors, 0).high < 0.2
    errors[:, 1, 0] = np.linspace(0, 0.2, 60)
    found = tuned_gap(errors, 0)
    assert found.low < 0.1 < found.high
    assert found.method == "bootstrap"


def test_estimates_say_that_every_replica_has_its_own_data() -> None:
    one = Estimate(0.5, 0.4, 0.6, 8, "Student t", 7)
    found = of_sets({"a": one, "b": [one, one]})
    assert found["a"].source == "8 draws × 1"  # type: ignore[union-attr]
    assert [each.draws for each in found["b"]] == [8, 8]  # type: ignore[union-attr]


def test_a_linear_net_is_one_neuron_on_the_sum_of_its_patches() -> None:
    """At as many times the rate as there are neurons: the first steps of both, and the errors."""
    config = replace(SHRUNK["linear"][1], task=replace(TASK, seeds=2), targets=(0.3,), practical=0.3, steps=200, look=1)
    found, task = linear.run(config, LAB), config.task
    whole = Patches(task.data(LAB), 2, power=1)
    rule = ema(config.lr, (0.0, LAB.momentum))
    (stand,), _ = compete(task, LAB, whole, rule, config.steps, config.targets, look=1)
    assert (found.step[0] == stand.step).all()
    assert found.err2[0] == pytest.approx(stand.err2, abs=0.011)


def test_a_gap_that_falls_as_one_over_the_logarithm_ends_at_nothing() -> None:
    config = linear.LINEAR.small
    grain = np.random.default_rng(0).normal(0, 0.003, (3, 2, 20))
    law = 0.6 / np.log(1 / np.array(config.targets))
    errors = np.stack([0.1 + law, 0 * law + 0.1], axis=1)[..., None] + grain
    found = linear.estimates(linear.LinearResult(config, LAB, errors, errors))
    limit = found["P4-C12.limit"]
    assert isinstance(limit, Estimate)
    assert limit.low < 0 < limit.high < 0.03
    assert all(one.low > 0 for one in found["P4-C12.falls"])  # type: ignore[union-attr]
    errors[:, 0] += 0.2  # a gap that stays
    stays = linear.estimates(linear.LinearResult(config, LAB, errors, errors))["P4-C12.limit"]
    assert isinstance(stays, Estimate)
    assert stays.low > 0.15


def test_memorising_keeps_its_pace_as_problems_grow(results: dict[str, Any]) -> None:
    config = sizes.SIZES.small
    for size, seeds in zip(config.sizes, config.seeds, strict=True):
        task = config.at(size, seeds)
        assert (task.examples, task.dimension, task.seeds) == (size, size, seeds)
        assert task.share == pytest.approx(config.task.share)
        assert task.noise**2 / size == pytest.approx(config.task.noise**2 / 100)
        assert task.noise * task.scale == pytest.approx(config.task.noise * config.task.scale)
    small, large = (np.median(stand.step[0]) for stand in results["sizes"].stands)
    assert 0.6 < large / small < 1.6


def test_half_way_of_a_kick_is_interpolated() -> None:
    drawn = np.array([[0.4, 0.4, 0.3, 0.1]])[None]  # plain, then kicks of 0.5, 1, 2
    assert kick.half_way((0.5, 1.0, 2.0), drawn)[0] == pytest.approx(2**0.5)


def test_one_push_replaces_momentum_and_noise_does_not(results: dict[str, Any]) -> None:
    assert results["kick"].kicked[-1].mean() < 0.05
    assert results["kick"].kicked[0].mean() > 0.3
    plain, momentum = results["noise"].by_batch
    assert (plain.mean(axis=-1) > 0.3).all()
    assert (momentum.mean(axis=-1) < 0.05).all()
    assert results["noise"].size > 0
    assert results["noise"].replaced[1].mean() > 0.3


def test_no_gap_without_heterogeneity(results: dict[str, Any]) -> None:
    found = results["heterogeneity"]
    assert np.diff(found.by_share.mean(axis=-1), axis=1)[0] < -0.3
    assert np.abs(np.diff(found.by_share.mean(axis=-1), axis=1)[1]) < 0.1
    assert np.abs(np.diff(found.by_margin.mean(axis=-1), axis=1)[0]) < 0.1
    assert np.abs(np.diff(results["teacher"].error.mean(axis=-1), axis=1)).max() < 0.05


def test_images_as_patches_are_centred_scaled_and_turned() -> None:
    streams = Streams(replica_seeds(1, 3))
    split = ImagePatches(examples=100, amplitude=2.0, tests=50).split(pair(load("digits"), "0", "1"), streams)
    images_ = split.train.noise[:, :, 0]
    large = images_[:, ~split.train.small]
    assert float(large.norm(dim=-1).mean()) == pytest.approx(2.0, rel=0.02)
    assert float(images_[:, split.train.small].norm(dim=-1).mean()) == pytest.approx(0.2, rel=0.1)
    assert split.train.labels.abs().eq(1).all()
    assert torch.allclose(split.large[:, :, 0] * 0.1, split.small[:, :, 0])
    labels = split.train.labels[:, ~split.train.small].unsqueeze(-1)
    towards = (split.large[:, :, 0] * (labels * large).mean(1, True)).sum(-1)
    assert float((towards > 0).float().mean()) > 0.95
    assert split.gap > 0.8
    assert split.overlap == pytest.approx(100 / 360)


def test_pairs_without_an_effect_to_expect_are_left_out_unless_all_are() -> None:
    two = replace(images.GLYPHS.small, pairs=images.GLYPH_PAIRS)
    errors = np.random.default_rng(0).uniform(0.3, 0.4, (2, 2, 12))
    err1, none = np.full((2, 2, 12), 0.05), np.zeros(2)

    def asked(gaps: list[float]) -> int:
        result = images.ImagesResult(two, LAB, errors, err1, np.array(gaps), none, errors)
        return len(images.estimates(result)["P4-C14.glyphs"])  # type: ignore[arg-type]

    assert [asked(gaps) for gaps in ([1.0, 1.0], [1.0, 0.5], [0.5, 0.5])] == [2, 1, 2]


def test_every_seed_has_glyphs_of_its_own(results: dict[str, Any]) -> None:
    streams = LAB.streams(3, apart=1)
    inputs, labels = images._glyphs(streams, images.GLYPH_PAIRS[0], 60)
    assert inputs.shape == (3, 60, 40)
    assert ((labels.sum(1) > 15) & (labels.sum(1) < 45)).all()
    assert not torch.isclose(inputs[0], inputs[1]).all(-1).any()
    first, all_classes = glyphs(streams, 480)
    place = int((all_classes[0] == 2).nonzero()[0])
    assert (inputs[0] == first[0, place]).all(-1).any()
    assert results["glyphs"].overlap[0] == 0
    assert results["images"].overlap[0] > 0.2


def test_a_table_of_networks_counts_draws_once() -> None:
    rows = [
        {
            "seed": seed,
            "draw": seed % 2,
            "lr": lr,
            "momentum": momentum,
            "accuracy": 0.4 + 0.1 * (seed % 2) + 0.01 * seed,
        }
        for seed in range(4)
        for lr, momentum in ((0.2, 0.0), (0.5, 0.98))
    ]
    found = networks.accuracies(DataFrame(rows))
    assert found[(0.0, 0.2)].tolist() == pytest.approx([41.0, 52.0])
    assert len(networks.accuracies(DataFrame(rows).drop(columns="draw"))) == 4


def test_figures_draw(results: dict[str, Any]) -> None:
    r = results
    figures = [
        draw.race(r["race"]),
        draw.portrait(r["race"]),
        draw.histories(r["surgery"]),
        draw.coast(r["coast"]),
        draw.phase(r["phase"]),
        draw.kick_and_noise(r["kick"], r["noise"]),
        draw.images(r["images"]),
        draw.images(r["images"], r["glyphs"]),
        draw.limits(r["sizes"], r["linear"]),
        draw.transfer(r["race"], r["teacher"], r["heterogeneity"], (r["images"], r["glyphs"])),
    ]
    assert all(axis.lines or axis.collections for figure in figures for axis in figure.axes)
