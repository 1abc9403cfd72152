"""Experiments that only an accelerator can run in full, at a tiny size: who is paired with whom, what is measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from descent.book.commands import check
from descent.book.sources.project import BookError, find_project
from descent.book.sources.records import paper_scale
from descent.claims import Ledger, load_paper, restated
from descent.claims.verdict import Direction
from descent.data import images
from descent.data.images import ImageSet
from descent.experiments import saddles, smoothing
from descent.experiments.common import Settings
from descent.experiments.saddles import resnet
from descent.experiments.saddles.cifar import HEAD, MATCHED, MATCHED_ANNEALED, MOMENTUM, PLAIN, STEP
from descent.experiments.smoothing import grid
from descent.experiments.smoothing.headline import AVERAGED, HEAVY
from descent.measure.noise import flat
from descent.nets.dense import CrossEntropy
from descent.nets.supervised import Supervised
from descent.results import digest, provenance
from descent.runs import campaign
from descent.runs.bench import Bench
from descent.stats.estimate import Estimate

ROOT = Path(__file__).parents[3]
SMALL = Settings(replicas=2)


def pictures(name, split="train"):
    """Return noise with a pattern per class, as if it were CIFAR-10."""
    rng = np.random.Generator(np.random.Philox(3))
    labels = np.arange(400) % 10
    patterns = rng.integers(0, 100, (10, 8, 8, 3)).repeat(4, 1).repeat(4, 2)
    images = patterns[labels] + rng.integers(0, 150, (400, 32, 32, 3))
    return ImageSet("pictures", torch.tensor(images, dtype=torch.uint8), torch.tensor(labels), tuple("0123456789"))


@pytest.fixture(scope="module")
def patched():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "load", pictures)
        yield


@pytest.fixture(scope="module")
def race(patched):
    return resnet.run(resnet.Residual.cpu(SMALL))


@pytest.fixture(scope="module")
def field(patched):
    config = grid.Grid.cpu(SMALL)
    return grid.run(replace(config, stages=config.stages[:1], gradients=320))


def stated(paper, key="resnet"):
    return {f"{claim.id}.{key}" for claim in load_paper(paper).claims for test in claim.tests if test.key == key}


# ----------------------------------------------------------------------------------------------------------------
# Six arms


def test_three_arms_fork_into_six(race):
    main, config = race.main, race.config
    assert main.steps.tolist() == [10, 20, 30]
    before = main.curve[..., main.steps <= config.switch * 10]
    assert np.array_equal(before[HEAD], before[STEP])
    assert np.array_equal(before[HEAD], before[MOMENTUM])
    assert np.array_equal(before[MATCHED], before[MATCHED_ANNEALED])
    assert not np.array_equal(before[PLAIN], before[HEAD])
    assert len(np.unique(main.loss.mean(1))) == 6
    assert np.array_equal(main.curve[..., -1], main.loss)
    assert np.array_equal(main.early, main.curve[[PLAIN, HEAD], :, 0])  # the early look is the end of the first epoch


def test_they_learn_and_the_tables_say_so(race):
    found = resnet.tables(race)
    assert set(found) == {"resnet", "resnet_check", "resnet_curve"}
    for name in ("resnet", "resnet_check"):
        assert (found[name]["loss"] < np.log(10)).any()
        assert np.isfinite(found[name].select_dtypes("number")).all().all()
    assert set(found["resnet_check"]["weight_decay"]) == {5e-4}
    assert len(found["resnet_curve"]) == 2 * 6 * 3


def test_estimates_are_the_stated_ones(race, field):
    assert set(resnet.estimates(race)) == stated("P3")
    assert set(grid.estimates(field)) == stated("P1")
    still = replace(race, config=replace(race.config, momentum=0.0))
    assert resnet.estimates(still) == {}


def test_arms_are_matched_and_decay():
    config = resnet.Residual.paper(Settings())
    course = resnet.Course(config, config.second)
    effective = np.array(course.after.lr) / (1 - np.array(course.after.momentum))
    assert effective == pytest.approx([0.02, 0.2, 0.02, 0.02, 0.2, 0.02])
    assert course.after.hyper.weight_decay.unique().tolist() == pytest.approx([5e-4])
    assert resnet.Course(config, config.main).after.hyper.weight_decay.unique().tolist() == [0.0]
    assert (course.early, course.switch, course.steps) == (390, 3900, 5850)


def test_the_excess_is_that_over_the_mean_weights(patched):
    config = resnet.Residual.cpu(SMALL)
    course, images = resnet.Course(config, config.main), pictures("cifar10")
    inputs, labels = images.images[:40].permute(0, 3, 1, 2).float() / 255, images.labels[:40]
    exact = Supervised(config.main.model, CrossEntropy(), inputs, labels, None, "full")
    start = exact.model.initial(course.after.streams())
    path = torch.stack([flat(start) * scale for scale in (9.0, 0.8, 1.2)])  # the first look is not one of the last two
    run = SimpleNamespace(params=start, records={"weights": SimpleNamespace(values=path)})
    low, high, mean = (exact.value({k: s * v for k, v in start.items()}).view(6, 2) for s in (0.8, 1.2, 1.0))
    expected = ((low + high) / 2 - mean)[:2]
    assert resnet._excess(exact, run, course, inputs, labels) == pytest.approx(expected.double().numpy(), abs=1e-5)
    assert expected.abs().max() > 1e-3


# ----------------------------------------------------------------------------------------------------------------
# The grid


def test_the_noise_of_plain_descent_is_that_of_its_batches(field):
    (found,) = field.stages
    sizes = np.array(found.stage.batch_sizes)[:, None]
    level = (found.degree[:, PLAIN] / found.stage.lr) ** 2 * sizes / found.variance[:, PLAIN]
    assert 0.5 < level.mean() < 1.7
    assert (found.degree[:, AVERAGED] < 0.6 * found.degree[:, PLAIN]).all()
    assert (found.degree[:, HEAVY] > found.degree[:, PLAIN]).all()
    assert (found.sharpness > 0).all()


def test_full_gradients_from_some_images_are_freed_of_what_they_lack(patched, field):
    config = replace(field.config, gradients=80)
    few = grid.run(config).stages[0]
    missed = few.variance * (1 / 80 - 1 / 320)
    lr = few.stage.lr * np.array([1, 1, 1, 1 / (1 - config.momentum)])[:, None]
    power = (few.degree / lr) ** 2
    full = (field.stages[0].degree / lr) ** 2
    assert abs((power - full)[:, AVERAGED].mean()) < 0.5 * missed[:, AVERAGED].mean()
    assert missed[:, AVERAGED].mean() > full[:, AVERAGED].mean()  # uncorrected, it would be mostly what is missed
    assert np.array_equal(few.accuracy, field.stages[0].accuracy)


def synthetic(degree, other, lost=None, momentum=0.9):
    """Return a result of one stage: cells × seeds, four arms at two batch sizes."""
    shape = (2, 4, 5)
    spread = np.random.Generator(np.random.Philox(1)).normal(0, 1e-3, shape)
    values = [np.reshape(x, (2, 4, 1)) + spread for x in (degree, other)]
    stage = grid.Stage("epochs", 0.02, (32, 128), 5, 1)
    lost = np.zeros(shape, bool) if lost is None else lost
    found = grid.StageResult(stage, values[1], values[1], lost, values[0], values[0], values[1])
    return grid.GridResult(replace(grid.Grid.cpu(SMALL), stages=(stage,), momentum=momentum), "p", (found,), 0.0)


@pytest.mark.parametrize(("other", "rho"), [(np.arange(8.0), 1.0), (-np.arange(8.0), -1.0)])
def test_rank_correlation(other, rho):
    result = synthetic(np.arange(8.0) ** 3, other)
    found = grid.estimates(result)
    assert found["P1-C21.resnet"].value == pytest.approx(rho)
    assert found["P1-C16.resnet"].value == pytest.approx(1.0)  # its size
    assert found["P1-C16.resnet"].low <= found["P1-C16.resnet"].high
    assert grid.estimates(synthetic(np.arange(8.0), other, momentum=0.0)) == {}


def test_the_heavy_ball_meets_its_control_at_the_middle_batch():
    accuracy = np.array([[1.0, 0, 5, 3], [10, 0, 70, 30]])
    found = grid.estimates(synthetic(np.arange(8.0), accuracy))
    assert found["P1-C18.resnet"].value == pytest.approx(60, abs=0.01)  # largest batch, over plain descent
    assert found["P1-C20.resnet"].value == pytest.approx(40, abs=0.01)  # batch 128, over the matched step


def test_a_seed_that_diverged_anywhere_is_in_no_difference_and_in_the_table():
    lost = np.zeros((2, 4, 5), bool)
    lost[1, 3, 2] = True
    result = synthetic(np.arange(8.0), np.arange(8.0), lost)
    assert result.alive.tolist() == [True, True, False, True, True]
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


# ----------------------------------------------------------------------------------------------------------------
# Stated for paper scale alone


@pytest.mark.parametrize("kind", [resnet.Residual, grid.Grid])
def test_configurations_are_digestible_and_know_their_precision(kind):
    paper, cpu = kind.paper(Settings()), kind.cpu(Settings())
    assert (paper.precision, cpu.precision) == ("bf16", "float32")
    others = [
        replace(paper, **{name: value})
        for name, value in (("precision", "tf32"), ("compiled", not paper.compiled), ("seed", 1))
    ]
    assert len({digest(each) for each in (paper, cpu, *others)}) == 5


def test_their_work_is_counted_in_images():
    assert resnet.Residual.paper(Settings()).trained_images == {"ResNet-8": 16 * 60 * 5e4, "ResNet-18": 4 * 60 * 5e4}
    stage = grid.Stage("a", 0.1, (100, 250), 3, epochs=2)
    config = replace(grid.Grid.cpu(SMALL), examples=1000, stages=(stage, replace(stage, steps=7)))
    assert config.trained_images == {"ResNet-8": 4 * 3 * (2 * 2 * 1000 + 7 * 350)}


@pytest.mark.parametrize(("package", "name", "paper"), [(saddles, "resnet", "P3"), (smoothing, "grid", "P1")])
def test_chapters_and_checks_leave_them_out_and_campaigns_do_not(package, name, paper):
    (experiment,) = [item for item in package.EXPERIMENTS if item.scales == ("gpu",)]
    assert experiment.name == name
    tests = {f"{claim.id}.{test.key}": test.scales for claim in load_paper(paper).claims for test in claim.tests}
    assert {tests[f"{claim}.resnet"] for claim in experiment.claims} == {("gpu",)}
    chapter, project = package.__name__.rpartition(".")[2], find_project(ROOT)
    assert name not in check.experiments(project, chapter)
    with pytest.raises(BookError, match=f"{name}: stated for scale gpu only; run `descent paper {chapter}`"):
        check.experiments(project, chapter, [name])
    assert f"{package.__name__}.{name}".upper() not in (ROOT / "chapters" / f"{chapter}.md").read_text().upper()
    chosen = {
        scale: [
            [task.name for task in campaign.tasks(package.__name__, Settings(scale), only)]
            for only in ([], [experiment.claims[0]], [name])
        ]
        for scale in ("cpu", "gpu")
    }
    assert [name in names for names in chosen["gpu"]] == [True, True, True]
    assert [name in names for names in chosen["cpu"]] == [False, False, True]


def test_a_chapter_run_at_paper_scale_can_close_its_ledger(tmp_path):
    for scale, reason in (("gpu", "not run by the chapter, see `descent paper`"), ("cpu", "stated for scale gpu only")):
        bench = Bench("P3", Settings(scale), tmp_path / scale)
        for key in set(bench.ledger.lacking) - stated("P3"):
            bench.ledger.skip(key, "left out of this test")
        bench.save()
        (outcome,) = [o for o in bench.ledger.record("P3-C16").outcomes if o.test.key == "resnet"]
        assert outcome.reason == reason


def test_a_test_added_later_leaves_a_record_valid(tmp_path):
    paper = load_paper("P3")
    old = replace(
        paper,
        claims=tuple(
            replace(claim, tests=tuple(test for test in claim.tests if test.key != "resnet")) for claim in paper.claims
        ),
    )
    ledger = Ledger(old, provenance("gpu", "cpu", 0, 9, modules=["descent.stats.estimate"]), tmp_path)
    ledger.add({"P3-C16.faster": Estimate(9.0, 8.0, 10.0, 32, "Student t", 31)}, experiment="a", config={}, seconds=1)
    ledger.skip("P3-C16.cifar", "not run at this scale")
    record, claim = ledger.record("P3-C16"), paper.claim("P3-C16")
    today = restated(record, claim, paper.family)
    assert [(o.test.key, str(o.verdict), o.reason) for o in today.outcomes] == [
        ("faster", "holds", ""),
        ("cifar", "not tested here", "not run at this scale"),
        ("resnet", "not tested here", "not yet measured"),
    ]
    assert {o.family for o in today.outcomes} == {paper.family}
    assert today.outcomes[0].family_estimates[0].low < record.outcomes[0].family_estimates[0].low
    harder = replace(claim.tests[0], rule=Direction(above=20.0))
    assert restated(record, replace(claim, tests=(harder, *claim.tests[1:])), paper.family) is record
    assert restated(record, replace(claim, statement="Another."), paper.family) is record


def test_what_was_measured_before_is_judged_under_todays_claims():
    found = paper_scale(find_project(ROOT))
    assert [o.test.key for o in found["P3-C2"].outcomes if not o.estimates] == ["logistic", "resnet"]
    assert {o.family for record in found.values() if record.paper == "P3" for o in record.outcomes} == {
        load_paper("P3").family
    }
