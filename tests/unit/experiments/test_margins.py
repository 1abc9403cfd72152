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
from descent.experiments.common import Settings
from descent.experiments.margins import coast, heterogeneity, images, kick, noise, phase, race, surgery, teacher
from descent.experiments.margins.arms import Task
from descent.figures import margins as draw
from tidy import check_answers

TASK = Task(6, 3, "cpu", tests=200)
SMALL = Settings(replicas=40, seed=7, momentum=0.95)


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    pairs = (images.Pair("4", "9", 4.0),)
    few = replace(images.Images.cpu(SMALL), pairs=pairs, seeds=4, plain_lrs=(4.0,), strong_lrs=(4.0,), examples=100)
    sweep = replace(
        heterogeneity.Heterogeneity.cpu(SMALL),
        task=TASK,
        small=(10, 100),
        large_margins=(0.15, 0.3),
        steps=700,
        linear_steps=300,
        linear_targets=(0.05, 0.02),
    )
    return {
        "race": race.run(replace(race.RaceSettings.cpu(SMALL), task=TASK, momenta=(0.0,))),
        "surgery": surgery.run(replace(surgery.SurgerySettings.cpu(SMALL), task=TASK)),
        "coast": coast.run(
            replace(
                coast.Coast.cpu(SMALL),
                task=TASK,
                seeds=8,
                arms=((1.0, 0.9), (1.0, 0.0)),
                large_margins=(1.5, 3.0),
                small_margins=(0.15, 0.3),
            )
        ),
        "phase": phase.run(replace(phase.Phase.cpu(SMALL), task=TASK, lrs=(1.0, 2.0, 4.0), momenta=(0.0, 0.8, 0.9))),
        "kick": kick.run(replace(kick.KickSettings.cpu(SMALL), task=TASK, multiples=(0.5, 1.0, 2.0))),
        "noise": noise.run(
            replace(noise.Noise.cpu(SMALL), task=TASK, batch_sizes=(10, None), watch=40, patience=500.0)
        ),
        "heterogeneity": heterogeneity.run(sweep),
        "teacher": teacher.run(replace(teacher.Teacher.cpu(SMALL), seeds=4, examples=200, tests=300)),
        "images": images.run(few),
    }


MODULES = {
    "race": race,
    "surgery": surgery,
    "coast": coast,
    "phase": phase,
    "kick": kick,
    "noise": noise,
    "heterogeneity": heterogeneity,
    "teacher": teacher,
    "images": images,
}


@pytest.mark.parametrize("name", MODULES)
def test_estimates_answer_stated_tests_and_tables_are_tidy(results: dict[str, Any], name: str) -> None:
    check_answers("P4", MODULES[name], results[name])


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
    none = replace(surgery.SurgerySettings.cpu(SMALL), task=replace(TASK, seeds=2), momentum=0.0, steps=8)
    assert surgery.estimates(surgery.run(none)) == {}
    plain = race.run(replace(race.RaceSettings.cpu(SMALL), task=TASK, momentum=0.0, momenta=(0.0,)))
    assert {key.split(".")[0] for key in race.estimates(plain)} == {"P4-C5", "P4-C9", "P4-C15"}


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
    assert phase.best_gap(errors)[0] == pytest.approx(0.2)


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
        draw.histories(r["surgery"]),
        draw.coast(r["coast"]),
        draw.phase(r["phase"]),
        draw.kick_and_noise(r["kick"], r["noise"]),
        draw.images(r["images"]),
        draw.images(r["images"], r["images"]),
        draw.transfer(r["race"], r["images"], r["teacher"], r["heterogeneity"], r["images"]),
    ]
    assert all(axis.lines or axis.collections for figure in figures for axis in figure.axes)
