"""The grid of the smoothing chapter, which only an accelerator can run in full, at a tiny size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from descent.book.commands import check
from descent.book.sources.project import BookError, find_project
from descent.claims import load_paper
from descent.experiments import smoothing
from descent.experiments.lab import Lab, Share
from descent.experiments.smoothing import grid
from descent.experiments.smoothing.arms import Arm
from descent.figures.smoothing.residual import SHOWN, residual
from descent.results import digest
from descent.runs import campaign

ROOT = Path(__file__).parents[3]
SMALL = Lab(replicas=2)


@pytest.fixture(scope="module")
def field(patched):
    config = grid.GRID.small
    return grid.run(replace(config, stages=config.stages[:1], gradients=320), SMALL)


def stated():
    return {key: test for key, test in load_paper("P1").tests.items() if test.by == "grid"}


def test_estimates_are_the_stated_ones(field):
    assert set(grid.estimates(field)) == set(stated())
    assert all("momentum" in test.needs and test.scales == ("gpu",) for test in stated().values())


@pytest.mark.slow
def test_without_momentum_there_are_estimates_all_the_same(patched, field):
    config = replace(field.config, stages=(replace(field.stages[0].stage, epochs=1),))
    found = grid.estimates(grid.run(config, replace(SMALL, momentum=0.0)))
    assert found["P1-C18.resnet"].value == found["P1-C20.resnet"].value == 0


def test_the_noise_of_plain_descent_is_that_of_its_batches(field):
    (found,) = field.stages
    sizes = np.array(found.stage.batch_sizes)[:, None]
    level = (found.degree[:, Arm.PLAIN] / found.stage.lr) ** 2 * sizes / found.variance[:, Arm.PLAIN]
    assert 0.5 < level.mean() < 1.7
    assert (found.degree[:, Arm.AVERAGED] < 0.6 * found.degree[:, Arm.PLAIN]).all()
    assert (found.degree[:, Arm.HEAVY] > found.degree[:, Arm.PLAIN]).all()
    assert (found.sharpness > 0).all()


@pytest.mark.slow
def test_full_gradients_from_some_images_are_freed_of_what_they_lack(patched, field):
    config = replace(field.config, gradients=80)
    few = grid.run(config, SMALL).stages[0]
    missed = few.variance * (1 / 80 - 1 / 320)  # of the 320 images of a draw
    lr = few.stage.lr * np.array([1, 1, 1, 1 / (1 - SMALL.momentum)])[:, None]
    power = (few.degree / lr) ** 2
    full = (field.stages[0].degree / lr) ** 2
    assert abs((power - full)[:, Arm.AVERAGED].mean()) < 0.5 * missed[:, Arm.AVERAGED].mean()
    assert (
        missed[:, Arm.AVERAGED].mean() > full[:, Arm.AVERAGED].mean()
    )  # uncorrected, it would be mostly what is missed
    assert np.array_equal(few.accuracy, field.stages[0].accuracy)


def synthetic(degree, other, lost=None):
    """Return a result of one stage: cells × seeds, four arms at two batch sizes."""
    shape = (2, 4, 5)
    spread = np.random.Generator(np.random.Philox(1)).normal(0, 1e-3, shape)
    values = [np.reshape(x, (2, 4, 1)) + spread for x in (degree, other)]
    stage = grid.Stage("epochs", 0.02, (32, 128), Share(most=5), 1)
    lost = np.zeros(shape, bool) if lost is None else lost
    found = grid.StageResult(stage, values[1], values[1], lost, values[0], values[0], values[1])
    return grid.GridResult(replace(grid.GRID.small, stages=(stage,)), SMALL, "p", (found,))


def test_every_net_has_a_draw_of_its_own(patched, field, monkeypatch):
    seen = []
    monkeypatch.setattr(grid, "_stack", lambda config, lab, stage, problem, test: seen.append(problem.rows) or {})
    monkeypatch.setattr(grid, "StageResult", lambda stage: stage)
    grid.run(replace(field.config, stages=grid.GRID.small.stages[:1]), Lab(replicas=3))
    assert [rows.shape for rows in seen] == [(3, 320), (3, 320)]
    assert len({tuple(row.tolist()) for row in seen[0]}) == 3


@pytest.mark.parametrize(("other", "rho"), [(np.arange(8.0), 1.0), (-np.arange(8.0), -1.0)])
def test_rank_correlation(other, rho):
    result = synthetic(np.arange(8.0) ** 3, other)
    found = grid.estimates(result)
    assert found["P1-C21.resnet"].value == pytest.approx(rho)
    assert found["P1-C16.resnet"].value == pytest.approx(1.0)  # its size
    assert found["P1-C16.resnet"].low <= found["P1-C16.resnet"].high


def test_the_heavy_ball_meets_its_control_at_the_middle_batch():
    accuracy = np.array([[1.0, 0, 5, 3], [10, 0, 70, 30]])
    found = grid.estimates(synthetic(np.arange(8.0), accuracy))
    assert found["P1-C18.resnet"].value == pytest.approx(60, abs=0.01)  # largest batch, over plain descent
    assert found["P1-C20.resnet"].value == pytest.approx(40, abs=0.01)  # batch 128, over the matched step


def test_a_seed_that_diverged_anywhere_is_in_no_difference_and_in_the_table():
    lost = np.zeros((2, 4, 5), bool)
    lost[1, 3, 2] = True
    result = synthetic(np.arange(8.0), np.arange(8.0), lost)
    assert result.stages[0].alive.tolist() == [True, True, False, True, True]
    assert grid.estimates(result)["P1-C18.resnet"].n == 4
    rows = grid.tables(result)["grid"]
    assert rows["diverged"].tolist() == [0] * 7 + [1]
    assert rows["replicas"].tolist() == [5] * 7 + [4]
    lost[1, 3, :4] = True
    with pytest.raises(ValueError, match="diverged"):
        grid.estimates(synthetic(np.arange(8.0), np.arange(8.0), lost))


def test_tables_of_the_grid(field):
    found = grid.tables(field)
    assert len(found["grid"]) == 2 * 4
    assert np.isfinite(found["grid"].select_dtypes("number")).all().all()
    assert found["grid_ranks"]["accuracy"].between(-1, 1).all()


def test_the_grid_is_drawn_where_its_table_says():
    table = grid.tables(synthetic(np.arange(1.0, 9), np.arange(40.0, 48)))["grid"]
    for axis, (x, y) in zip(residual(table).axes, SHOWN, strict=True):
        arms = [(line.get_label(), *line.get_xydata().ravel()) for line in axis.lines if line.get_label()[0] != "_"]
        assert arms == [
            (name, *rows[[x, y]].to_numpy().ravel()) for name, rows in table.groupby("arm", sort=False)
        ]  # fmt: skip


def test_configurations_are_digestible_and_know_their_precision():
    assert (grid.GRID.large.precision, grid.GRID.small.precision) == ("bf16", "float32")
    others = [
        replace(grid.GRID.large, **change) for change in ({"precision": "tf32"}, {"compiled": True}, {"looks": 3})
    ]
    assert len({digest(each) for each in (grid.GRID.large, grid.GRID.small, *others)}) == 5


def test_its_work_is_counted_in_images():
    stage = grid.Stage("a", 0.1, (100, 250), Share(most=3), epochs=2)
    config = replace(grid.GRID.small, examples=1000, stages=(stage, replace(stage, steps=7)))
    assert config.trained_images(Lab()) == {"ResNet-8": 4 * 3 * (2 * 2 * 1000 + 7 * 350)}


def test_no_more_seeds_are_trained_than_asked_for():
    stages = grid.GRID.large.stages
    assert [Lab().count(stage.replicas) for stage in stages] == [10, 4, 4, 4]
    assert [SMALL.count(stage.replicas) for stage in stages] == [2, 2, 2, 2]


def test_chapters_and_checks_leave_it_out_and_campaigns_do_not():
    (experiment,) = [item for item in smoothing.EXPERIMENTS if item.scales == ("gpu",)]
    assert experiment.name == "grid"
    project, claim = find_project(ROOT), next(iter(stated())).partition(".")[0]
    assert "grid" not in check.experiments(project, "smoothing")
    with pytest.raises(BookError, match="grid: stated for scale gpu only; run `descent paper smoothing`"):
        check.experiments(project, "smoothing", ["grid"])
    assert f"{smoothing.__name__}.grid".upper() not in (ROOT / "chapters" / "smoothing.md").read_text().upper()
    chosen = {
        scale: [
            [task.name for task in campaign.tasks(smoothing.__name__, Lab(), scale, only)]
            for only in ([], [claim], ["grid"])
        ]
        for scale in ("cpu", "gpu")
    }
    assert ["grid" in names for names in chosen["gpu"]] == [True, True, True]
    assert ["grid" in names for names in chosen["cpu"]] == [False, False, True]
