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
from descent.book.sources.records import paper_scale, read
from descent.claims import Ledger, load_paper, restated
from descent.claims.verdict import Direction
from descent.experiments import saddles, smoothing
from descent.experiments.lab import Lab
from descent.experiments.saddles import resnet
from descent.experiments.saddles.arms import SIX, Arm, rule
from descent.experiments.smoothing import grid
from descent.measure.noise import flat
from descent.nets.dense import CrossEntropy
from descent.nets.supervised import Supervised
from descent.results import digest, provenance
from descent.runs import campaign
from descent.runs.bench import Bench
from descent.stats.estimate import Estimate
from tidy import pictures, still

ROOT = Path(__file__).parents[3]
LAB = Lab(replicas=2)


@pytest.fixture(scope="module")
def race(patched):
    return resnet.run(resnet.Residual(), LAB)


def stated(paper, key="resnet"):
    return {f"{claim.id}.{key}" for claim in load_paper(paper).claims for test in claim.tests if test.key == key}


# ----------------------------------------------------------------------------------------------------------------
# Six arms


def test_three_arms_fork_into_six(race):
    main, config = race.main, race.config
    assert main.steps.tolist() == [10, 20, 30]
    before = dict(zip(SIX, main.curve[..., main.steps <= config.switch * 10], strict=True))
    assert np.array_equal(before[Arm.HEAD], before[Arm.STEP])
    assert np.array_equal(before[Arm.HEAD], before[Arm.SWITCHED])
    assert np.array_equal(before[Arm.MATCHED], before[Arm.ANNEALED])
    assert not np.array_equal(before[Arm.PLAIN], before[Arm.HEAD])
    assert len(np.unique(main.loss.mean(1))) == 6
    assert np.array_equal(main.curve[..., -1], main.loss)
    assert np.array_equal(main.early, main.curve[:2, :, 0])  # the early look is the end of the first epoch


def test_they_learn_and_the_tables_say_so(race):
    found = resnet.tables(race)
    assert set(found) == {"resnet", "resnet_check", "resnet_curve"}
    for name in ("resnet", "resnet_check"):
        assert (found[name]["loss"] < np.log(10)).any()
        assert np.isfinite(found[name].select_dtypes("number")).all().all()
    assert set(found["resnet_check"]["weight_decay"]) == {5e-4}
    assert len(found["resnet_curve"]) == 2 * 6 * 3


def test_estimates_are_the_stated_ones(race):
    assert set(resnet.estimates(race)) == stated("P3")
    assert still("P3", "resnet") == set()


def test_arms_are_matched_and_decay():
    config = resnet.RESNET.large
    late = rule(SIX, config.lr, 0.9, annealed=True)
    assert (late.lr / (1 - late.momentum)).numpy() == pytest.approx([0.02, 0.2, 0.02, 0.02, 0.2, 0.02])
    assert (config.second.weight_decay, config.main.weight_decay) == (5e-4, 0.0)
    assert config.legs == (195, 3900, 5850)
    assert config.nets(Lab(), config.main) == (10, 10)
    assert config.nets(Lab(), config.second) == (4, 4)


def test_a_net_decays_by_its_own_weight_decay(race, patched, monkeypatch):
    seen = []
    monkeypatch.setattr(resnet, "rule", lambda *args, **options: seen.append(options) or rule(*args, **options))
    resnet.run(replace(race.config, epochs=2, switch=1), LAB)
    assert [options["weight_decay"] for options in seen] == [0.0, 0.0, 5e-4, 5e-4]


def test_the_excess_is_that_over_the_mean_weights(patched):
    config, images = resnet.Residual(), pictures("cifar10")
    inputs, labels = images.images[:40].permute(0, 3, 1, 2).float() / 255, images.labels[:40]
    exact = Supervised(config.main.model, CrossEntropy(), inputs, labels, None, "full")
    start = exact.model.initial(LAB.arms(rule(SIX, config.lr, 0.9), config.main.replicas).streams)
    path = torch.stack([flat(start) * scale for scale in (9.0, 0.8, 1.2)])  # the first look is not one of the last two
    whole = SimpleNamespace(records={"weights": SimpleNamespace(values=path)})
    done = SimpleNamespace(last=SimpleNamespace(whole=whole, params=start), alive=np.ones(2, bool))
    low, high, mean = (exact.value({k: s * v for k, v in start.items()}).view(6, 2) for s in (0.8, 1.2, 1.0))
    expected = ((low + high) / 2 - mean)[:2]
    assert resnet._excess(config, done, exact.value) == pytest.approx(expected.double().numpy(), abs=1e-5)
    assert expected.abs().max() > 1e-3
    whole.records.clear()
    assert np.isnan(resnet._excess(config, done, exact.value)).all()  # batch norm: there is no mean to speak of


# ----------------------------------------------------------------------------------------------------------------
# Stated for paper scale alone


def test_configurations_are_digestible_and_know_their_precision():
    for experiment in (resnet.RESNET, grid.GRID):
        paper, cpu = experiment.large, experiment.small
        assert (paper.precision, cpu.precision) == ("bf16", "float32")
        others = [
            replace(paper, **{name: value}) for name, value in (("precision", "tf32"), ("compiled", not paper.compiled))
        ]
        assert len({digest(each) for each in (paper, cpu, *others)}) == 4


def test_their_work_is_counted_in_images():
    counted = {"ResNet-8": 10 * 120 * 25e3, "ResNet-18": 4 * 120 * 25e3}
    assert resnet.RESNET.large.trained_images(Lab()) == counted
    stage = grid.Stage("a", 0.1, (100, 250), 3, epochs=2)
    config = replace(grid.Grid(), examples=1000, stages=(stage, replace(stage, steps=7)))
    assert config.trained_images(Lab()) == {"ResNet-8": 4 * 3 * (2 * 2 * 1000 + 7 * 350)}


SCALED = [(saddles, "resnet", "P3"), (saddles, "residual_edge", "P3"), (smoothing, "grid", "P1")]


@pytest.mark.parametrize(("package", "name", "paper"), SCALED)
def test_chapters_and_checks_leave_them_out_and_campaigns_do_not(package, name, paper):
    alone = {item.name: item for item in package.EXPERIMENTS if item.scales == ("gpu",)}
    assert set(alone) == {other for home, other, _ in SCALED if home is package}
    tests = load_paper(paper).tests
    assert {test.scales for test in tests.values() if test.by == name} == {("gpu",)}
    chapter, project = package.__name__.rpartition(".")[2], find_project(ROOT)
    assert name not in check.experiments(project, chapter)
    with pytest.raises(BookError, match=f"{name}: stated for scale gpu only; run `descent paper {chapter}`"):
        check.experiments(project, chapter, [name])
    assert f"{package.__name__}.{name}".upper() not in (ROOT / "chapters" / f"{chapter}.md").read_text().upper()
    claim = campaign.claims_of(package.__name__)[name][0]
    chosen = {
        scale: [
            [task.name for task in campaign.tasks(package.__name__, Lab(), scale, only)]
            for only in ([], [claim], [name])
        ]
        for scale in ("cpu", "gpu")
    }
    assert [name in names for names in chosen["gpu"]] == [True, True, True]
    assert [name in names for names in chosen["cpu"]] == [False, False, True]


def test_a_chapter_run_at_paper_scale_can_close_its_ledger(tmp_path):
    for scale, reason in (("gpu", "not run by the chapter, see `descent paper`"), ("cpu", "stated for scale gpu only")):
        bench = Bench("P3", Lab(), scale, tmp_path / scale)
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
    family = paper.family_at("gpu")
    today = restated(record, claim, family)
    assert [(o.test.key, str(o.verdict), o.reason) for o in today.outcomes] == [
        ("faster", "holds", ""),
        ("cifar", "not tested here", "not run at this scale"),
        ("resnet", "not tested here", "not yet measured"),
    ]
    assert {o.family for o in today.outcomes} == {family}
    assert today.outcomes[0].family_estimates[0].low < record.outcomes[0].family_estimates[0].low
    harder = replace(claim.tests[0], rule=Direction(above=20.0))
    assert restated(record, replace(claim, tests=(harder, *claim.tests[1:])), family) is record
    assert restated(record, replace(claim, statement="Another."), family) is record


def test_what_edition_1_measured_at_this_scale_is_kept_and_judges_no_claim_of_today():
    project = find_project(ROOT)
    kept = {record.claim.id: record for file in project.published.glob("*/gpu/edition1.json") for record in read(file)}
    assert kept["P3-C2"].headline.estimates
    assert not any(record.outcomes == kept.get(id, record).outcomes for id, record in paper_scale(project).items())
