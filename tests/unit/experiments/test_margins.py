"""The experiments on small margins, shrunk: keys, what must come out, and figures that draw."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from descent.data.image_patches import ImagePatches
from descent.data.images import load, pair
from descent.engine.streams import Streams, replica_seeds
from descent.experiments import margins
from descent.experiments.lab import Lab
from descent.experiments.margins import coast, heterogeneity, images, kick, noise, phase, race, surgery, teacher
from descent.experiments.margins.arms import LARGE, Task, best_gap
from descent.figures import margins as draw
from descent.results import digest
from tidy import check_answers, still

TASK = Task(6, tests=200)
LAB = Lab(replicas=40, seed=3, momentum=0.95)
SHRUNK = {
    "race": (race, replace(race.RACE.small, task=TASK, momentum=(0.0,))),
    "surgery": (surgery, replace(surgery.SURGERY.small, task=TASK)),
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
    "phase": (phase, replace(phase.PHASE.small, task=TASK, lrs=(1.0, 2.0, 4.0), momenta=(0.0, 0.8, 0.9))),
    "kick": (kick, replace(kick.KICK.small, task=TASK, multiples=(0.5, 1.0, 2.0))),
    "noise": (noise, replace(noise.NOISE.small, task=TASK, batch_sizes=(10, None), watch=40, patience=500.0)),
    "heterogeneity": (
        heterogeneity,
        replace(
            heterogeneity.HETEROGENEITY.small,
            task=TASK,
            small=(10, 100),
            large_margins=(0.15, 0.3),
            steps=700,
            linear_steps=300,
            linear_targets=(0.05, 0.02),
        ),
    ),
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
    assert [lab.count(task.seeds) for lab in (few, Lab(replicas=850), many)] == [32, 34, 40]
    assert [lab.count(LARGE.seeds) for lab in (few, many)] == [64, 125]
    assert [lab.count(coast.COAST.small.seeds) for lab in (few, many)] == [32, 100]
    assert [lab.count(teacher.TEACHER.small.seeds) for lab in (few, many, Lab(replicas=5000))] == [32, 33, 64]
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
    assert phase.residual(inertia, drawn)[0] == pytest.approx(0, abs=1e-6)
    assert phase.fitted(inertia, exact / height) == pytest.approx([3.2, 3.0], rel=1e-4)
    errors = np.array([[[0.4, 0.1], [0.3, 0.2]]])[None]  # one draw, one seed, two rates, plain and momentum
    assert best_gap(errors)[0] == pytest.approx(0.2)


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
        draw.images(r["images"], r["images"]),
        draw.transfer(r["race"], r["images"], r["teacher"], r["heterogeneity"], r["images"]),
    ]
    assert all(axis.lines or axis.collections for figure in figures for axis in figure.axes)
