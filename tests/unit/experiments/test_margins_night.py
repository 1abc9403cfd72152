"""Nights of small margins at a tiny size: a draw alone is what it is in company, and rates have tuning draws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from descent.claims import Verdict
from descent.data import images
from descent.experiments import margins
from descent.experiments.lab import Lab, Share
from descent.experiments.margins import cifar, dimmed, tuned
from descent.experiments.margins.classifiers import objective, stand
from descent.figures.margins import ordinary
from descent.nets import CNN, ResNet
from descent.results import load_table
from descent.runs import campaign, night, units
from nights import instead, outcome, state
from pandas import DataFrame
from tidy import pictures

PACKAGE = "descent.experiments.margins"
LAB = Lab(replicas=40, seed=5)
RESNET = replace(tuned.plain_cnn(8, 20), name="ResNet", model=ResNet(blocks=(1, 1), widths=(8, 8)), lrs=(0.3, 0.9))
PLAIN = replace(tuned.plain_cnn(8, 20), model=CNN(widths=(8, 8), dense=(16,), size=8), lrs=(0.3, 0.9))
TINY = tuned.Contests(
    contests=(
        tuned.Contest(RESNET, None, 3, pool=4), tuned.Contest(PLAIN, None, 3, pool=4),
        tuned.Contest(RESNET, 16, 2, pool=4),
    ),
    targets=(2.2, 1.9), judged=1.9, examples=40, tests=30, look=4, look_batches=4, looks=2, tuning=1,
)  # fmt: skip
DARK = dimmed.Night(
    contests=(replace(TINY.contests[1], draws=2),), targets=(2.2, 1.9), judged=1.9, examples=40, tests=30, look=4,
    looks=2, tuning=1,
)  # fmt: skip
JUDGED = {"P4-C1.accuracy": (0,), "P4-C2.accuracy": (0, 1, 2)}
EXPERIMENTS = [
    replace(cifar.CIFAR, night=TINY, parts=tuned.parts(tuned.pooled_pictures, JUDGED, {})),
    replace(dimmed.DIMMED, night=DARK),
]


@pytest.fixture(scope="module")
def patched():
    with instead(images, pictures, EXPERIMENTS):
        yield


@pytest.fixture(scope="module")
def measured(patched, tmp_path_factory):
    """Return a night with all units, and its folder."""
    out = tmp_path_factory.mktemp("night")
    made = state(PACKAGE, LAB, out)
    night.night(made, None, 1, lambda: night.merge("P4", made))
    return made, out


@pytest.mark.parametrize("place", [0, 2])
def test_a_draw_alone_is_what_it_is_in_company(patched, place):
    contest = TINY.contests[place]
    title, train, tests = tuned.pooled_pictures(TINY, LAB, contest)
    rows = tuned.sets(TINY, LAB, contest).rows
    crowd = replace(contest.net, replicas=Share(least=len(rows), most=len(rows)))
    together = stand(TINY, LAB, crowd, objective(crowd, *train, contest.size, rows), (0.3, 0.9), tests)
    for draw in range(len(rows)):
        alone = tuned.measured(tuned.pooled_pictures, TINY, LAB, tuned._unit(TINY, place, draw, 0.9, 0.3))
        np.testing.assert_allclose(alone["step"], together.step[:, draw])
        np.testing.assert_allclose(alone["accuracy"], together.accuracy[..., draw], atol=4)
        assert alone["title"] == title


def test_draws_share_no_image_and_arms_share_draws(patched):
    rows = tuned.sets(TINY, LAB, TINY.contests[0]).rows
    assert len(rows.unique()) == rows.numel() == 4 * 40
    whole = tuned.units(TINY, LAB, {})
    assert {unit.given[1] for unit in whole if unit.given[2]} == {unit.given[1] for unit in whole if not unit.given[2]}


def test_rates_are_chosen_on_tuning_draws_alone():
    first = tuned._unit(TINY, 0, 0, 0.9, 0.3)
    score = {"accuracy": np.array([[30.0, 40.0]]), "step": np.array([4.0, 8.0]), "title": np.array("")}
    assert tuned.best_rate(TINY, 0, 0.9, {first.name: score}) is None
    second = tuned._unit(TINY, 0, 0, 0.9, 0.9).name
    found = {first.name: score, second: score | {"accuracy": np.array([[50.0, 39.0]])}}
    assert tuned.best_rate(TINY, 0, 0.9, found) == 0.3
    found[first.name] = score | {"accuracy": np.array([[np.nan, np.nan]])}
    found[second] = score | {"accuracy": np.array([[12.0, np.nan]])}
    assert tuned.best_rate(TINY, 0, 0.9, found) == 0.9  # both as bad as chance: this one comes further


def test_no_unit_of_a_judged_draw_is_known_before_its_rate(patched):
    waiting = [unit for unit in tuned.units(TINY, LAB, {}) if unit.waits]
    assert {unit.given[1] for unit in waiting} == {1, 2, 3}
    assert all(unit.given[3] is None for unit in waiting)
    assert len({unit.name for unit in tuned.units(TINY, LAB, {})}) == 3 * 4 + 2 * (3 + 3 + 2)


def test_whole_nights_give_verdicts_and_tables(measured):
    made, out = measured
    assert not list(made.jobs())
    assert outcome(out, "P4-C1.accuracy").estimates[0].draws == 3
    assert len(outcome(out, "P4-C2.accuracy").estimates) == 3
    assert outcome(out, "P4-C14.dimmed").estimates[0].draws == 2
    assert not outcome(out, "P4-C1.accuracy").reason
    names = {"cifar", "cifar_gains", "cifar_rates", "dimmed", "dimmed_gains", "dimmed_rates"}
    assert {path.stem for path in out.glob("*.csv")} == names


def test_networks_of_record_are_drawn_where_their_tables_say(measured):
    usual, dark = (load_table(measured[1] / f"{name}_gains.csv").frame for name in ("cifar", "dimmed"))
    small = DataFrame([(s, 0.5, m, 0.3 + m / 50 + s / 100) for s in range(4) for m in (0, 0.98)])
    small.columns = ["seed", "lr", "momentum", "accuracy"]
    panels = ordinary(small, usual, dark).axes
    drawn = [[marks[0].get_ydata() for marks in panel.containers] for panel in panels]
    assert np.concatenate(drawn[0][1:]).tolist() == usual["gain"].tolist()
    assert np.concatenate(drawn[1]).tolist() == dark["gain"].tolist()
    assert drawn[0][0].tolist() == pytest.approx([1.96])  # of the small net, in points


def test_the_tuning_draws_are_in_no_verdict(measured):
    made, _ = measured
    task = made.todo[0]
    result = tuned.merged(TINY, units.drawn(task), made.found(task))
    assert result.stood[0].draws == (0, 1, 2)
    assert result.stood[0].tried["draw"].unique().tolist() == [0]
    plain, heavy = (100 - np.nan_to_num(each[1], nan=10.0) for each in result.stood[0].accuracy[0])
    assert result.stood[0].gain(1).value == pytest.approx((plain - heavy).mean())


def test_half_a_draw_counts_for_nothing(measured, tmp_path):
    made, _ = measured
    task = made.todo[0]
    found = dict(made.found(task))
    del found["cifar10-ResNet-full-draw1-m0"]
    result = tuned.merged(TINY, units.drawn(task), found)
    assert result.stood[0].draws == (0, 2)
    said = tuned.lacking(result, JUDGED)
    assert said["P4-C1.accuracy"] == "ResNet, full batch: 2 of 3 draws"
    kept = {name: one for name, one in made.kept["cifar"].items() if name in found}
    partly = state(PACKAGE, LAB, tmp_path)
    partly.kept["cifar"] |= kept
    night.merge("P4", partly)
    assert outcome(tmp_path, "P4-C1.accuracy").verdict is Verdict.INCONCLUSIVE
    assert outcome(tmp_path, "P4-C1.accuracy").undecided == "ResNet, full batch: 2 of 3 draws"


@pytest.mark.parametrize("experiment", [item for item in margins.EXPERIMENTS if item.parts], ids=lambda item: item.name)
def test_nights_judge_with_ten_draws_and_no_rule_is_another(experiment):
    contests = experiment.night.contests
    assert contests[0].draws == 10
    assert experiment.night.judged in experiment.night.targets
    assert [contest.net.lrs for contest in contests] == [experiment.large.nets[0].lrs if experiment.name == "cifar"
                                                         else experiment.large.net.lrs] * len(contests)  # fmt: skip
    at = {scale: campaign.tests_at(PACKAGE, experiment.name, scale) for scale in ("night", "gpu", "cpu")}
    assert at["night"] == at["gpu"]
    assert not at["cpu"]
