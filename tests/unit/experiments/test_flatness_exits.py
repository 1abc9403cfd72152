"""Exits from one minimiser: first passages, the chance to leave, and the figure drawn from them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from descent.engine.streams import Streams, replica_seeds
from descent.experiments.flatness import exits
from descent.experiments.lab import Lab
from descent.figures.flatness.exits import chance_to_leave
from descent.measure.passages import Passages, first_passages
from descent.problems.exponents import Walk
from descent.theory.weights import Gamma, TwoPoint

RADII = np.array([2.0, 5.0, 20.0])


@pytest.fixture(scope="module")
def result() -> exits.ExitsResult:
    config = dataclasses.replace(
        exits.EXITS.small, between=((1, 0.5), (4, 0.5)), above=((4, 1.1), (4, 1.5)), head=(0, 1)
    )
    return exits.run(config, Lab(replicas=200))


def passages(walk: Walk, rows: slice = slice(None), floor: float = 0.0) -> Passages:
    streams = Streams(replica_seeds(0, 300), torch.float64).subset(rows)
    return first_passages(walk, 1.0, RADII, 60, streams, floor)


def test_first_passages_are_those_of_the_whole_path() -> None:
    walk = Walk(Gamma(1.0), 2.2, 4, jitter=0.1)
    streams = Streams(replica_seeds(0, 300), torch.float64)
    x, path = torch.ones(300, 1, dtype=torch.float64), []
    for step in range(60):
        x = x - 2.2 * walk.minimum.gradient(x, streams, step)
        path.append(x[:, 0].abs())
    out = (torch.stack(path)[:, :, None] >= torch.from_numpy(RADII)).cummax(0).values
    found = passages(walk)
    assert np.array_equal(found.seen, out[-1].numpy())
    waited = 60 - out.sum(0).numpy() + found.seen
    assert np.array_equal(found.times[:, -1], waited[:, -1])
    assert np.array_equal(found.times, waited)
    assert 0.05 < found.seen[:, -1].mean() < 1


def test_a_run_does_not_depend_on_its_neighbours() -> None:
    walk = Walk(Gamma(1.0), 2.2, 4)
    every, some = passages(walk, floor=1e-3), passages(walk, slice(40, 70), floor=1e-3)
    assert np.array_equal(every.times[40:70], some.times)
    assert np.array_equal(every.seen[40:70], some.seen)


def test_runs_that_never_step_too_far_stay() -> None:
    found = passages(Walk(TwoPoint(0.0), 2.2, 1), floor=1e-9)  # |1 − 2.2| = 1.2: every run leaves
    assert found.seen.all()
    assert (found.times == np.ceil(np.log(RADII) / np.log(1.2))).all()


def test_single_runs_shrink_between_the_thresholds_and_the_chance_to_leave_is_a_power(result) -> None:
    found = exits.estimates(result)
    assert found["P2-C11.between"].high < -0.2
    assert found["P2-C12.between"].value == pytest.approx(result.between[1].exponent, rel=0.2)
    assert len(found["P2-X2.power"]) == len(result.between)
    for power in found["P2-X2.power"]:
        assert power.low < 1.1
        assert power.high > 0.9
    tilted = exits.leaving_exponent(result, 0, result.between[0].exponent)
    assert tilted.value == pytest.approx(exits.leaving_exponent(result, 0).value / result.between[0].exponent)


def test_every_run_leaves_well_above_the_thresholds(result) -> None:
    found = exits.estimates(result)
    assert [one.value for one in found["P2-C11.above"]] == pytest.approx([1, 1], abs=0.2)
    (clear,) = found["P2-C12.above"]
    assert clear.value == 0
    assert clear.high < 0.02
    assert found["P2-C12.above_first"] == [exits.stayed(result, 0), clear]


def test_growth_that_is_slow_is_measured_on_more_runs(result) -> None:
    lab = result.lab
    few, many = lab.count(result.config.replicas), lab.count(result.config.many)
    assert [len(runs) for runs in result.growth] == [few, few, many, few]


def test_a_run_above_the_threshold_is_followed_until_it_comes_back(result) -> None:
    """No matter how far down a walk goes on its way: it rises on average, so that almost every one leaves."""
    (walk,) = dataclasses.replace(result.config, above=((1, 1.1),)).settings()[1]
    streams, radii = Lab().streams(100, torch.float64), np.array([1e6])
    shallow, deep = (
        first_passages(walk, 1.0, radii, 5000, streams, np.exp(-depth)) for depth in (10.0, result.config.deep)
    )
    assert shallow.seen.mean() < 0.95
    assert deep.seen.all()


def test_tables_hold_what_the_estimates_say(result) -> None:
    tables = exits.tables(result)
    row = tables["exits"].iloc[1]
    assert row.measured_exponent == exits.estimates(result)["P2-C12.between"].value
    assert (tables["exit_chance"].groupby("lr").chance.diff().dropna() < 0).all()
    far = tables["exit_times"].query("decades == 12")
    assert far["mean"].to_numpy() == pytest.approx(far["drift_alone"].to_numpy(), rel=0.15)
    assert far["spread"].to_numpy() == pytest.approx(far["spread_limit"].to_numpy(), rel=0.25)


def test_the_figure_shows_every_setting(result) -> None:
    chances, times = chance_to_leave(result).axes
    drawn = [text.get_text() for text in chances.texts]
    assert all(any(f"{setting.exponent:.2f}" in text for text in drawn) for setting in result.between)
    assert len(times.containers) == 1


def test_the_chance_is_followed_only_as_far_down_as_walks_reach() -> None:
    config = exits.EXITS.large
    few, many = (Lab(replicas=n).count(config.walks) for n in (4, 1000))
    assert max(config.followed(few)) < max(config.followed(many)) == 8
    assert few * np.exp(-max(config.followed(few))) > 20
    small = exits.EXITS.small
    assert small.followed(Lab(replicas=2).count(small.walks)) == small.decays
