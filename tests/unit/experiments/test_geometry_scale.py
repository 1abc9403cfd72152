"""Residual networks told airplanes from automobiles, at a tiny size: the arms, what is looked at, what is concluded."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from descent.book.commands import check
from descent.book.sources.project import BookError, find_project
from descent.claims import load_paper
from descent.data.draws import fresh
from descent.data.images import ImageSet
from descent.engine import Streams, arms, replica_seeds
from descent.experiments import geometry
from descent.experiments.geometry import cycles, pictures, resnet
from descent.experiments.geometry.pictures import LIMIT, Pictures
from descent.experiments.geometry.resnet import Kind, Spectra
from descent.experiments.lab import Lab, Share
from descent.nets import Supervised
from descent.results import digest
from descent.runs import campaign
from descent.theory.linear import aligned_edge
from tidy import check_answers, still
from torch.func import functional_call, jacrev

ROOT = Path(__file__).parents[3]
LAB = Lab(replicas=2)


def drawn(name: str, split: str = "train") -> ImageSet:
    """Return noise with a pattern per class, as if it were CIFAR-10, every class in turn."""
    rng = np.random.Generator(np.random.Philox(3))
    labels = np.arange(300) % 3
    patterns = rng.integers(0, 100, (3, 4, 4, 3)).repeat(8, 1).repeat(8, 2)
    images = patterns[labels] + rng.integers(0, 150, (300, 32, 32, 3))
    classes = ("airplane", "automobile", "bird")
    return ImageSet("pictures", torch.tensor(images, dtype=torch.uint8), torch.tensor(labels), classes)


@pytest.fixture(scope="module")
def patched() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures, "load", drawn)
        yield


@pytest.fixture(scope="module")
def race(patched: Any) -> resnet.ResidualResult:
    return resnet.run(resnet.RESNET.small, LAB)


@pytest.fixture(scope="module")
def turns(patched: Any) -> cycles.CyclesResult:
    return cycles.run(cycles.CYCLES.small, LAB)


# ----------------------------------------------------------------------------------------------------------------
# The task, and what is looked at


def small_net() -> tuple[Pictures, Supervised, dict[str, torch.Tensor]]:
    """Return two tiny nets in float64 and the loss of their images."""
    task = replace(Pictures.tiny(40, 12), directions=3)
    _, _, problem = task.problem(LAB)
    problem = replace(problem, inputs=problem.inputs.double(), targets=problem.targets.double())
    return task, problem, problem.model.initial(Streams(replica_seeds(4, 2), torch.float64))


def test_the_images_are_those_of_two_classes_in_equal_parts(patched: Any) -> None:
    title, sets, problem = Pictures.tiny(90, 12).problem(LAB)
    assert title == "pictures, airplane or automobile, 8 × 8"
    assert problem.inputs.shape == (200, 3, 8, 8)
    assert sorted(problem.targets[:, 0].tolist()) == [-1.0] * 100 + [1.0] * 100
    assert sets.rows.shape == (2, 90)
    assert torch.equal(problem.rows, sets.rows)
    assert sets.overlap == 0
    assert len(set(sets.rows.flatten().tolist())) == 180
    assert problem.targets[sets.rows[:, :12], 0].mean(1).abs().max() < 0.7  # and not sorted by class
    assert (problem.precision, problem.augment) == ("float32", None)


def test_a_look_agrees_with_an_explicit_jacobian(patched: Any) -> None:
    """‖G‖_F, Tr G and the edge index from G = JᵀJ/n, (p, p), without any Gram matrix."""
    task, problem, leaves = small_net()
    lr, batch_size = torch.tensor([0.004, 0.006]).double(), torch.tensor([4.0, 9.5]).double()
    found = task.watch(problem, lr, batch_size)(leaves)
    for r in range(2):
        module = problem.model.module().double()  # type: ignore[attr-defined]
        own = problem.inputs[problem.rows[r, :12]]  # type: ignore[index]
        jacobian = jacrev(lambda p, m=module, own=own: functional_call(m, p, (own,))[:, 0])(
            {name: leaf[r] for name, leaf in leaves.items()}
        )
        rows = torch.cat([part.flatten(1) for part in jacobian.values()], dim=1)
        g = rows.T @ rows / 12
        values = torch.linalg.svdvals(rows).square() / 12
        assert float(found["frobenius"][r]) == pytest.approx(float(g.norm()), rel=1e-9)
        assert float(found["trace"][r]) == pytest.approx(float(g.trace()), rel=1e-9)
        assert found["curvature"][r].tolist() == pytest.approx(values[:3].tolist(), rel=1e-9)
        index = sum(float(lr[r] / batch_size[r] * v / (2 - lr[r] * v)) for v in values)
        assert lr[r] * values[0] < 2
        assert float(found["index"][r]) == pytest.approx(index, rel=1e-9)
    assert found["along"].shape == found["curvature"].shape == (2, 3)


def test_the_index_is_one_at_the_edge_of_aligned_noise_and_infinite_beyond_descent() -> None:
    curvature = torch.tensor([[5.0, 2.0, 1.0, 0.5]], dtype=torch.float64)
    edge, four = aligned_edge(curvature[0].numpy(), 0.0, 0.25), torch.tensor([4.0]).double()
    for factor, expected in ((1.0, 1.0), (0.5, None), (2.001 / (5 * edge), math.inf)):
        found = float(pictures.edge_index(curvature, factor * torch.tensor([edge]).double(), four))
        assert found < 1 if expected is None else found == pytest.approx(expected, rel=1e-6)


def test_a_net_that_diverged_is_not_a_number_and_its_neighbour_is_untouched(patched: Any) -> None:
    task, problem, leaves = small_net()
    one = torch.ones(2, dtype=torch.float64)
    whole = task.watch(problem, 0.001 * one, one)(leaves)
    for broken in (torch.nan, torch.inf, 10 * LIMIT):
        spoilt = {name: leaf.clone() for name, leaf in leaves.items()}
        spoilt["fc.weight"][0] = broken
        found = task.watch(problem, 0.001 * one, one)(spoilt)
        for name, value in found.items():
            assert value[0].isnan().all(), name
            assert torch.equal(value[1], whole[name][1]), name


# ----------------------------------------------------------------------------------------------------------------
# Pairs and arms


def test_momentum_trains_at_the_pair_whose_equivalent_is_plain() -> None:
    config = resnet.RESNET.large
    for pair, (lr, size) in enumerate(config.pairs):
        plain, heavy, matched = config.arms(0.9)[3 * pair : 3 * pair + 3]
        assert [plain.kind, heavy.kind, matched.kind] == list(Kind)
        assert (plain.lr, plain.batch_size, plain.momentum) == (lr, size, 0.0)
        assert (heavy.lr, heavy.batch_size, heavy.momentum) == (pytest.approx(1.9 * lr), 19 * size, 0.9)
        assert plain.equivalent == (lr, size)
        assert heavy.equivalent == pytest.approx((lr, size))
        assert matched.momentum == 0.0
        assert matched.lr == pytest.approx(heavy.lr / (1 - 0.9))
        assert matched.batch_size == heavy.batch_size


@pytest.mark.parametrize("momentum", [0.5, 0.9])
def test_equivalent_pairs_share_their_edge_under_aligned_noise(momentum: float) -> None:
    curvature = np.array([5.0, 2.0, 1.0, 0.5])
    heavy = resnet.Residual(pairs=((0.01, 8),)).arms(momentum)[Kind.HEAVY]
    edge = aligned_edge(curvature, momentum, 1 / heavy.batch_size)
    lr, batch_size = replace(heavy, lr=edge).equivalent
    assert lr == pytest.approx(aligned_edge(curvature, 0.0, 1 / batch_size), rel=1e-6)


def test_all_arms_go_through_the_same_epochs_from_the_same_start(race: resnet.ResidualResult) -> None:
    config = race.config
    assert [path.arm for path in race.paths] == list(config.arms(0.9))
    assert {path.arm.batch_size for path in race.paths} == {4, 76}
    for path in race.paths:
        assert path.course.steps.tolist() == [look * config.period(path.arm.batch_size) for look in range(3)]
        assert np.array_equal(path.course.frobenius[0], race.paths[0].course.frobenius[0])
    assert len({path.course.frobenius[-1, 0] for path in race.paths}) == len(race.paths)
    large = resnet.RESNET.large
    sizes = {arm.batch_size for arm in large.arms(0.9)}
    epochs = [large.period(size) * large.looks * size / large.pictures.examples for size in sizes]
    assert epochs == pytest.approx([200] * len(epochs), rel=0.01)


def test_work_is_counted_in_images_of_the_smaller_net(race: resnet.ResidualResult) -> None:
    config = race.config
    steps = {path.arm: int(path.course.steps[-1]) for path in race.paths}
    images = 2 * sum(steps[arm] * arm.batch_size for arm in config.arms(0.9))
    looks = 2 * sum(len(path.course.steps) for path in race.paths)
    gram = 4 * config.pictures.measured**2 * 272_000 / 74.1e6
    assert config.trained_images(LAB) == {"ResNet-8": pytest.approx(images * 244.0 / 74.1 + looks * gram)}


# ----------------------------------------------------------------------------------------------------------------
# What is concluded


def test_estimates_answer_stated_tests_and_tables_are_tidy(
    race: resnet.ResidualResult, turns: cycles.CyclesResult
) -> None:
    for module, result in ((resnet, race), (cycles, turns)):
        check_answers("P5", module, result)
        for found in module.estimates(result).values():
            several = found if isinstance(found, list) else [found]
            assert all(np.isfinite([one.value, one.low, one.high]).all() for one in several)
            assert {one.draws for one in several} == {2}


def test_the_experiments_answer_all_that_is_stated_for_paper_scale_alone(
    race: resnet.ResidualResult, turns: cycles.CyclesResult
) -> None:
    stated = {key for key, test in load_paper("P5").tests.items() if test.scales == ("gpu",)}
    assert {*resnet.estimates(race), *cycles.estimates(turns)} == stated


def made(levels: dict[int, float], loss: float = 0.001, lost: tuple[int, ...] = ()) -> resnet.ResidualResult:
    """Return a result of two pairs, four seeds, in which ‖G‖_F is a level per arm times the seed, 1.00 to 1.03."""
    config = replace(resnet.RESNET.small, fitted=0.01)
    seed, rng = 1 + np.arange(4) / 100, np.random.Generator(np.random.Philox(2))
    steps, paths = np.arange(3.0), []
    for place, arm in enumerate(config.arms(0.9)):
        size = levels[place] * seed * np.array([[9.0], [2.0], [1.0]])  # the start does not count, looks do
        values = {item.name: 1 + rng.uniform(0, 0.1, (3, 4)) for item in fields(Spectra) if item.name != "steps"}
        curvature = np.sort(rng.uniform(1, 2, (3, 4, 5)))[..., ::-1]
        values |= {"curvature": curvature, "along": np.ones_like(curvature), "frobenius": size, "index": size / 10}
        gone = np.full(4, place in lost)
        paths.append(resnet.Path(arm, Spectra(steps, **values), np.full(4, loss), gone))
    return resnet.ResidualResult(config, LAB, "p", fresh(4, 1), tuple(paths))


def test_the_bound_is_told_of_every_arm_of_plain_descent_that_finds_minima() -> None:
    levels = {0: 10.0, 1: 1e5, 2: 40.0, 3: 20.0, 4: 1e5, 5: 10.0}
    result = made(levels)
    bounds = [arm.lr * levels[i] * 1.015 / arm.batch_size**0.5 for i, arm in enumerate(result.config.arms(0.9))]
    found = resnet.estimates(result)["P5-W5.resnet"]
    assert [one.value for one in found] == pytest.approx([bounds[i] for i in (0, 2, 3, 5)])
    assert {(one.n, one.draws) for one in found} == {(4, 4)}
    unfit = replace(result.paths[2], loss=np.array([0.001, 0.001, 0.02, np.nan]))
    less = replace(result, paths=(*result.paths[:2], unfit, *result.paths[3:]))
    fewer = resnet.estimates(less)["P5-W5.resnet"][1]
    assert fewer.value == pytest.approx(bounds[2] * 1.005 / 1.015)
    assert fewer.method.endswith("draws 2, 3 lost")
    one = replace(less, paths=(*result.paths[:2], replace(unfit, loss=np.array([0.001, 1, 1, 1])), *result.paths[3:]))
    assert len(resnet.estimates(one)["P5-W5.resnet"]) == 3
    assert "P5-W5.resnet" not in resnet.estimates(made(levels, loss=0.02))
    assert resnet.tables(made(levels, loss=0.02))["resnet"]["minima"].tolist() == [0] * 6


def test_momentum_is_compared_with_its_equivalent_after_the_start() -> None:
    result = made({0: 10.0, 1: 12.0, 2: 1.0, 3: 5.0, 4: 6.0, 5: 1.0})
    found = resnet.estimates(result)
    assert found["P5-X1.resnet"].value == pytest.approx(1.2)
    assert found["P5-C10.resnet_within"].value == 1.0
    assert found["P5-C10.resnet_slope"].value == pytest.approx(1.0)
    assert len(found["P5-C9.resnet"]) == 2 * 3
    assert all(1.0 < one.value < 1.1 for one in found["P5-C9.resnet"])
    assert "P5-X1.resnet" not in still("P5", "resnet")


def test_a_pair_in_which_a_net_diverged_is_left_out_and_said_to_be() -> None:
    result = made({0: 10.0, 1: 12.0, 2: 1.0, 3: 5.0, 4: 10.0, 5: 1.0}, lost=(1, 2))
    assert resnet.estimates(result)["P5-X1.resnet"].value == pytest.approx(2.0)
    found = resnet.tables(result)
    assert found["resnet"]["diverged"].tolist() == [0, 4, 4, 0, 0, 0]
    assert found["resnet"]["replicas"].tolist() == [4, 0, 0, 4, 4, 4]
    assert np.isnan(found["resnet"]["bound"][1])
    assert len(found["resnet_course"]) == 4 * 3
    everyone = made(dict.fromkeys(range(6), 1.0), lost=tuple(range(6)))
    assert resnet.estimates(everyone) == {}
    assert len(resnet.tables(everyone)["resnet_course"]) == 0


def test_nets_that_diverge_in_training_are_an_outcome(patched: Any) -> None:
    config = replace(resnet.RESNET.small, pairs=((1e4, 4),), epochs=1, looks=1)
    result = resnet.run(config, LAB)
    assert all(path.lost.all() for path in result.paths)
    assert resnet.estimates(result) == {}
    assert resnet.tables(result)["resnet"]["diverged"].tolist() == [2, 2, 2]


def test_tables_say_what_was_measured(race: resnet.ResidualResult) -> None:
    found = resnet.tables(race)
    ends, course = found["resnet"], found["resnet_course"]
    assert len(ends) == 6
    assert len(course) == 6 * 3
    for row, path in zip(ends.to_dict("records"), race.paths, strict=True):
        lr, batch_size = path.arm.equivalent
        bound = lr * path.course.frobenius[-1] / math.sqrt(batch_size)
        assert row["bound"] == pytest.approx(bound.mean())
        assert row["bound_minima"] == pytest.approx(bound[path.loss < race.config.fitted].mean())
        assert row["minima"] == (path.loss < race.config.fitted).sum() > 0
        assert row["sharpness"] == pytest.approx(path.course.curvature[-1, :, 0].mean())
        assert row["frobenius"] >= row["sharpness"]
        mine = course[(course["arm"] == row["arm"]) & (course["pair"] == row["pair"])]
        assert mine["bound"].iloc[-1] == pytest.approx(row["bound"])
        assert mine["uncentred"].tolist() == pytest.approx(path.course.uncentred.mean(1).tolist())
        assert (mine["epoch"].diff()[1:] > 0).all()


# ----------------------------------------------------------------------------------------------------------------
# Cycles


def test_all_arms_of_a_cycle_start_alike_and_end_apart(turns: cycles.CyclesResult) -> None:
    assert turns.trace.shape == turns.loss.shape == (4, 3, 2)
    assert (turns.trace[:, 0] == turns.trace[0, 0]).all()
    assert len(np.unique(turns.trace[:, -1, 0])) == 4
    assert not turns.lost.any()
    found = cycles.tables(turns)["cycles"]
    assert found["tail"].to_numpy().reshape(4, 3) == pytest.approx((turns.trace - turns.sharpness).mean(2))
    ratio = turns.tail[cycles.Arm.SMALL, -1].mean() / turns.tail[cycles.Arm.DESCENT, -1].mean()
    assert cycles.estimates(turns)["P5-C14.cycles"].value == pytest.approx(ratio)


def test_cycles_rise_to_the_high_rate_and_the_control_has_their_mean(patched: Any, monkeypatch: Any) -> None:
    seen, real = [], arms.train

    def train(problem: Any, start: Any, hyper: Any, steps: int, streams: Any, **given: Any) -> Any:
        seen.append([float(hyper.lr[0]) * float(given["schedule"](step).lr) for step in range(steps)])
        return real(problem, start, hyper, steps, streams, **given)

    monkeypatch.setattr(arms, "train", train)
    config = replace(cycles.CYCLES.small, training=1)
    cycles.run(config, LAB)
    _, *cycled, steady = seen
    assert all(rates == cycled[0] for rates in cycled)
    assert (min(cycled[0]), max(cycled[0])) == pytest.approx((config.low, config.high))
    assert steady == pytest.approx([np.mean(cycled[0])] * config.cycles * config.period)


def test_seeds_that_diverged_are_in_no_ratio(turns: cycles.CyclesResult) -> None:
    lost = np.zeros((4, 2), bool)
    lost[cycles.Arm.DESCENT, 1] = True
    fewer = replace(turns, lost=lost)
    assert cycles.estimates(fewer) == {}
    found = cycles.tables(fewer)["cycles"]
    assert found["diverged"].tolist() == [0] * 6 + [1] * 3 + [0] * 3
    assert found["loss"].iloc[8] == pytest.approx(turns.loss[cycles.Arm.DESCENT, -1, 0])
    lost[:] = True
    assert cycles.tables(replace(turns, lost=lost))["cycles"]["loss"].isna().all()


def test_the_work_of_cycles_is_counted_in_images() -> None:
    config = cycles.CYCLES.large
    steps = 3 * 10 * (1000 // 64)
    images = 10 * (60 * (1000 // 64) * 64 + steps * (64 + 512 + 1000 + 64))
    expected = images * 244.0 / 74.1 + 10 * 4 * 4 * 4 * 1000**2 * 272_000 / 74.1e6
    assert config.trained_images(Lab()) == {"ResNet-8": pytest.approx(expected)}


# ----------------------------------------------------------------------------------------------------------------
# Stated for paper scale alone


@pytest.mark.parametrize("item", [resnet.RESNET, cycles.CYCLES])
def test_configurations_are_digestible(item: Any) -> None:
    paper, cpu = item.large, item.small
    others = [replace(paper, replicas=Share(most=9)), replace(paper, pictures=replace(paper.pictures, measured=100))]
    assert len({digest(each) for each in (paper, cpu, *others)}) == 4
    assert (Lab().count(paper.replicas), Lab().count(cpu.replicas), LAB.count(cpu.replicas)) == (10, 3, 2)
    assert (paper.pictures.blocks, paper.pictures.widths) == ((3, 3, 3), (16, 32, 64))
    assert paper.pictures.precision == "float32"


@pytest.mark.parametrize("name", ["resnet", "cycles"])
def test_the_chapter_and_checks_leave_them_out_and_campaigns_do_not(name: str) -> None:
    assert {item.name for item in geometry.EXPERIMENTS if item.scales == ("gpu",)} == {"resnet", "cycles"}
    assert len({item.name for item in geometry.EXPERIMENTS}) == len(geometry.EXPERIMENTS)
    project = find_project(ROOT)
    assert name not in check.experiments(project, "geometry")
    with pytest.raises(BookError, match=f"{name}: stated for scale gpu only; run `descent paper geometry`"):
        check.experiments(project, "geometry", [name])
    for only in ([], [name]):
        assert name in [task.name for task in campaign.tasks(geometry.__name__, Lab(), "gpu", only)]
    assert name not in [task.name for task in campaign.tasks(geometry.__name__, Lab())]
