"""Nights of P1 and P3 at a tiny size: a draw alone is what it is in company, and draws put together are the whole."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from descent.data import images
from descent.experiments.lab import Lab, Share
from descent.experiments.saddles import resnet
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
