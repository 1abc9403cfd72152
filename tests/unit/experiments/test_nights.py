"""Nights of P1 and P3 at a tiny size: a draw alone is what it is in company, and draws put together are the whole."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from descent.data import images
from descent.experiments.lab import Lab, Share
from descent.experiments.saddles import residual_edge, resnet
from descent.experiments.saddles.arms import SIX, Arm
from descent.experiments.smoothing import grid
from descent.runs import campaign
from tidy import pictures

LAB = Lab(replicas=40, seed=5)
RACE = replace(
    resnet.RESNET.small, main=replace(resnet.RESNET.small.main, replicas=Share(most=3)), second=None, images=40,
    draws=3, test_examples=40, epochs=2, switch=1, pool=4, watched=40, examples=120, batch_size=20,
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def patched():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "load", pictures)
        yield


def found(experiment, config):
    todo = experiment.parts.units(config, LAB, {})
    return {unit.name: experiment.parts.measure(config, LAB, unit) for unit in todo}


TINY = replace(
    grid.GRID.small, stages=(replace(grid.GRID.small.stages[0], batch_sizes=(16, 40), replicas=Share(most=3)),),
    examples=80, test_examples=60, pictures=240, watched=60, gradients=60, squares=20, curved=20,
)  # fmt: skip


@pytest.fixture(scope="module")
def cells():
    return found(grid.GRID, TINY)


def test_draws_of_a_grid_put_together_are_the_whole_grid(cells):
    (whole,), (together,) = grid.run(TINY, LAB).stages, grid.merge(TINY, LAB, cells).stages
    assert len(cells) == 6
    for name in ("loss", "degree", "variance"):
        np.testing.assert_allclose(getattr(whole, name), getattr(together, name), rtol=2e-2, atol=1e-4)
    assert grid.estimates(grid.merge(TINY, LAB, cells))["P1-C18.resnet"].draws == 3
    assert not grid.lacking(grid.merge(TINY, LAB, cells))


def test_a_draw_counts_when_all_batch_sizes_have_it(cells):
    some = grid.merge(TINY, LAB, {name: one for name, one in cells.items() if name != "batch40-draw1"})
    assert grid.lacking(some)["P1-C20.resnet"] == "2 of 3 draws"
    assert set(grid.tables(some)) == {"grid", "grid_ranks"}


@pytest.fixture(scope="module")
def races():
    return found(resnet.RESNET, RACE)


def test_draws_of_a_race_put_together_are_the_whole_race(races):
    whole, together = resnet.run(RACE, LAB), resnet.merge(RACE, LAB, races)
    for name in ("loss", "early", "curve", "norm"):
        a, b = (getattr(each.main, name) for each in (whole, together))
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4)
    assert whole.main.sets.rows.equal(together.main.sets.rows)
    assert resnet.estimates(together)["P3-C3.resnet"].draws == 3
    assert not resnet.partial(together)
    assert set(resnet.tables(together)) == {"resnet", "resnet_curve"}


def test_a_race_with_some_of_its_draws_says_so(races):
    some = resnet.merge(RACE, LAB, {name: races[name] for name in ("draw0", "draw2")})
    assert resnet.partial(some)["P3-X1.resnet"] == "2 of 3 draws"
    assert resnet.estimates(some)["P3-X1.resnet"].draws == 2
    assert resnet.merge(RACE, LAB, {"draw1": races["draw1"]}) is None


def test_a_night_has_ten_draws_that_share_no_image_and_the_rules_of_paper_scale():
    night = resnet.RESNET.night
    assert night.draws == 10
    assert night.draws * night.images <= night.examples
    at = {scale: campaign.tests_at("descent.experiments.saddles", "resnet", scale) for scale in ("night", "gpu")}
    assert at["night"] == at["gpu"]
    assert set(at["night"]) == {"P3-C2.resnet", "P3-C3.resnet", "P3-C16.resnet", "P3-X1.resnet"}


EDGE = residual_edge.Edge(RACE, before=1, curved=30, products=8)


@pytest.fixture(scope="module")
def edge():
    return found(residual_edge.RESIDUAL_EDGE, EDGE)


def test_two_arms_end_where_they_do_among_six(edge):
    six = resnet.RESNET.parts.measure(RACE, LAB, resnet.RESNET.parts.units(RACE, LAB, {})[1])["loss"][:, 0]
    expected = [six[SIX.index(arm)] for arm in (Arm.STEP, Arm.ANNEALED)]
    np.testing.assert_allclose(edge["step1-draw1"]["loss"], expected, rtol=1e-3)


def test_the_edge_is_two_over_the_effective_step(edge):
    whole = residual_edge.merge(EDGE, LAB, edge)
    assert edge["step1-draw0"]["sharpness"].shape == (2, 2)  # at the beginning and at the end of the epoch
    said, late = residual_edge.estimates(whole), whole.sharpness[0]
    assert late[0, 0] == pytest.approx(edge["step1-draw0"]["sharpness"][0].mean())
    assert said["P3-X11.beyond"].value == pytest.approx(RACE.lr / (1 - LAB.momentum) * late[0].mean())
    assert said["P3-X11.held"].value == pytest.approx(RACE.lr / (1 - LAB.momentum) * late[1].mean())
    momentum, plain = whole.loss[1]
    assert said["P3-X11.inside"].value == pytest.approx((momentum - plain).mean())
    table = residual_edge.tables(whole)["residual_edge"]
    assert table.effective.tolist() == pytest.approx([0.2, 0.025])
    assert table.gap[1] == said["P3-X11.inside"].value


def test_a_diverged_arm_takes_its_neighbour_with_it(monkeypatch):
    wild, ends, trained = replace(EDGE, race=replace(RACE, lr=560.0)), [], residual_edge._trained

    def kept(*given):
        before, end = trained(*given)
        ends.append(end)
        return before, end

    monkeypatch.setattr(residual_edge, "_trained", kept)
    one = residual_edge.measure(wild, LAB, residual_edge.units(wild, LAB, {})[0])
    assert ends[0].lost.sum() == 1
    assert np.isnan(one["loss"]).all()
    assert np.isnan(one["sharpness"]).all()


def test_a_step_without_two_draws_says_nothing_and_some_draws_say_how_many(edge):
    few = {name: one for name, one in edge.items() if name not in ("step0.125-draw1", "step0.125-draw2")}
    assert residual_edge.merge(EDGE, LAB, few) is None
    some = residual_edge.merge(EDGE, LAB, {**few, "step0.125-draw2": edge["step0.125-draw2"]})
    assert set(residual_edge.partial(some).values()) == {"2 of 3 draws"}
