"""Ordinary networks on small margins, stated for an accelerator, at a tiny size: equal loss, pairs, dimmed images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from descent.book.commands import check
from descent.book.sources.project import find_project
from descent.claims import load_paper
from descent.data import images
from descent.data.images import DataDamaged, ImageSet
from descent.engine import ArmRun, Arms, Run, Series, Streams, ema, every, heavy_ball, repeat, replica_seeds, sgd, train
from descent.engine.checkpoint import Checkpoint, Keeping, keeping
from descent.experiments import margins
from descent.experiments.lab import Lab
from descent.experiments.margins import cifar, dimmed, normed
from descent.experiments.margins.classifiers import at_targets, errors, gain, objective, read_off, stand
from descent.nets.dense import CrossEntropy
from descent.nets.supervised import Supervised
from descent.results import digest
from descent.runs import campaign
from tidy import check_answers, still
from torch.utils.flop_counter import FlopCounterMode

ROOT = Path(__file__).parents[3]
LAB = Lab(replicas=3, seed=5)
ALONE = (cifar.CIFAR, dimmed.DIMMED, normed.NORMED)


def coloured(name, split="train", labels=None):
    """Return noise with a pattern per class, as if it were CIFAR-10."""
    rng = np.random.Generator(np.random.Philox([3, split == "test"]))
    labels = np.arange(400) % 10 if labels is None else labels
    patterns = np.random.Generator(np.random.Philox(4)).integers(0, 100, (10, 8, 8, 3)).repeat(4, 1).repeat(4, 2)
    pixels = patterns[labels] + rng.integers(0, 150, (400, 32, 32, 3))
    return ImageSet("pictures", torch.tensor(pixels, dtype=torch.uint8), torch.tensor(labels), tuple("0123456789"))


@pytest.fixture(scope="module")
def patched():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "load", coloured)
        yield


@pytest.fixture(scope="module")
def race(patched):
    return cifar.run(cifar.CIFAR.small, LAB)


@pytest.fixture(scope="module")
def darkened(patched):
    return dimmed.run(dimmed.DIMMED.small, LAB)


@pytest.fixture(scope="module")
def table(patched):
    return normed.run(normed.NORMED.small, LAB)


def shown(config):
    return images.pictures("cifar10", getattr(config, "images", config.examples), config.tests, config.pool)


def drawn(config):
    """Return which images every draw has, (D, n)."""
    return LAB.draws(config.images, config.examples, config.draws).rows


# ----------------------------------------------------------------------------------------------------------------
# At equal loss


def test_a_score_is_the_mean_of_the_looks_from_the_first_below_the_target():
    loss = np.array([2.0, 0.9, 1.5, 0.8, 0.4, 0.6, 0.3, 0.1])[:, None]
    scores = np.arange(8.0)[:, None, None] ** 2
    step, found = at_targets(5 * np.arange(8.0), loss, scores, (1.0, 0.5, 0.2, 0.01), looks=3)
    assert step[:, 0].tolist() == [5, 20, -1, -1]  # the third was met too late to look three times
    assert found[:2, 0, 0] == pytest.approx([(1 + 4 + 9) / 3, (16 + 25 + 36) / 3])
    assert np.isnan(found[2:]).all()


def test_who_is_lost_while_being_looked_at_has_no_score():
    loss = np.array([[2.0, 0.9, np.nan, np.nan], [2.0, 0.9, 0.8, 0.7]]).T
    step, found = at_targets(np.arange(4.0), loss, np.ones((4, 2, 1)), (1.0,), looks=2)
    assert step.tolist() == [[-1, 1]]
    assert np.isnan(found[0, 0, 0])
    assert found[0, 1, 0] == 1


def test_who_diverges_has_no_score_from_then_on():
    """However small the loss of what it left behind."""

    arms = Arms(sgd(1.0), Streams(replica_seeds(0, 2)))

    def leg(steps, losses, diverged_at, before=None):
        values, nothing = torch.tensor(losses).T, torch.zeros(2, 1)
        records = {".loss": values, ".accuracy": values.unsqueeze(2)}
        series = {name: Series(torch.tensor(steps), each) for name, each in records.items()}
        whole = Run(nothing, nothing, torch.tensor(diverged_at), series, steps[-1], 0.0)
        return ArmRun(arms, None, whole, {}, None, {}, before)

    course = replace(cifar.CIFAR.small, targets=(1.0,), looks=2)
    first = leg([0, 5, 10], [[2.0, 2.0, 0.1], [2.0, 2.0, 0.3]], [7, -1])
    rest = leg([10, 15], [[0.1, 0.1], [0.3, 0.5]], [-1, -1], before=torch.tensor([7, -1]))
    found = read_off(course, first, rest)
    assert found.step.tolist() == [[-1, 10]]
    assert found.lost.tolist() == [True, False]
    assert found.accuracy[0, 0, 1] == pytest.approx(0.4)


def test_who_fails_counts_as_chance_and_the_best_rates_are_chosen_anew():
    accuracy = np.full((2, 2, 6), 50.0)  # rates, momenta, seeds
    accuracy[1, 0], accuracy[1, 1], accuracy[0, 1] = 60.0, 65.0, 40.0
    found = gain(accuracy, (0, 1), 0, 6)
    assert (found.value, found.low, found.high, found.source) == (5.0, 5.0, 5.0, "6 draws × 1")
    accuracy[1, 0, :2] = np.nan
    assert errors(accuracy)[1, 0].tolist() == [90.0, 90.0, 40.0, 40.0, 40.0, 40.0]
    worse = gain(accuracy, (0, 1), 0, 6)
    assert worse.value == pytest.approx(65 - 50)  # (2 · 10 + 4 · 60)/6 < 50: the other rate is the better one
    assert worse.low == pytest.approx(5.0)  # in resamples without the two seeds it is not
    assert gain(accuracy, (1, 0), 0, 6).value == pytest.approx(-15)


def test_a_draw_counts_once_whatever_its_replicas():
    """Replica r is of draw r mod D: replicas that repeat their draw's numbers add nothing."""
    accuracy = np.random.default_rng(0).uniform(20, 80, (2, 2, 12))
    once, twice = gain(accuracy, (0, 1), 0, 12), gain(np.tile(accuracy, 2), (0, 1), 0, 12)
    assert (twice.value, twice.low, twice.high) == pytest.approx((once.value, once.low, once.high))
    assert twice.source == "12 draws × 2"


@pytest.mark.slow
@pytest.mark.parametrize(("m", "rule"), [(0, sgd(0.9)), (1, ema(0.9, 0.9))], ids=["plain", "momentum"])
def test_an_arm_is_one_long_run_read_off_by_hand(race, m, rule):
    """EMA at momentum 0 is SGD; steps and scores as one would take them without stopping, seed by seed."""
    config, found = race.config, race.nets[0]
    data, net = shown(config), config.nets[0]
    rows = drawn(config)
    assert len(rows.unique()) == rows.numel() == 3 * 80
    problem = Supervised(net.model, CrossEntropy(), data.inputs, data.labels, sampling="full", rows=rows)
    tests, streams = (data.test_inputs, data.test_labels), Streams(replica_seeds(5, 3))
    both = every(6, lambda net: {"loss": problem.value(net), "score": 100 * problem.accuracy(net, *tests)})
    done = train(
        problem,
        net.model.initial(streams),
        repeat(rule, 3),
        int(found.step[0, 1, m].max()) + 6,
        streams,
        probes={"": both},
    )
    loss, score = (done.records[f".{name}"].values.double().numpy() for name in ("loss", "score"))
    for t, target in enumerate(config.targets):
        for seed in range(3):
            first = next(k for k, value in enumerate(loss[:, seed]) if value < target)
            assert found.step[0, 1, m, t, seed] == 6 * first
            assert found.accuracy[0, 1, m, t, seed] == pytest.approx(score[first : first + 2, seed].mean())


@pytest.mark.parametrize("size", [None, 40])
def test_a_seed_does_not_know_its_neighbours_nor_the_other_arms(race, size):
    config, found = race.config, race.nets[0]
    data, net = shown(config), replace(config.nets[0], replicas=2)
    rows, b = drawn(config)[:2], config.batch_sizes.index(size)
    problem = objective(net, data.inputs, data.labels, size, rows)
    tests = [(data.test_inputs, data.test_labels)]
    for m, momentum in enumerate((0.0, 0.9)):
        alone = stand(config, LAB, net, problem, (0.3, momentum), tests)
        look = config.between(size)  # fewer nets, perhaps other kernels: a loss may be met a look later
        np.testing.assert_allclose(alone.step, found.step[b, 0, m, :, :2], atol=look)
        np.testing.assert_allclose(alone.accuracy[0], found.accuracy[b, 0, m, :, :2], atol=2)  # of 120, two
    assert not np.array_equal(found.accuracy[b, 0, 0], found.accuracy[b, 0, 1])


def test_the_last_looks_go_on_with_the_same_run_in_full_precision(race, monkeypatch):
    config, data, runs = race.config, shown(race.config), []
    net = replace(config.nets[1], steps=10)
    monkeypatch.setattr("descent.engine.arms.train", lambda *a, **k: runs.append(train(*a, **k)) or runs[-1])
    for size in config.batch_sizes:
        problem = objective(net, data.inputs, data.labels, size, drawn(config))
        assert (problem.precision, problem.compiled, problem.augment) == ("float32", False, None)
        stand(config, LAB, net, problem, (0.9, 0.9), [(data.test_inputs, data.test_labels)])
        whole = train(
            problem,
            net.model.initial(Streams(replica_seeds(5, 3))),
            repeat(ema(0.9, 0.9), 3),
            10 + config.between(size),
            Streams(replica_seeds(5, 3)),
        )
        assert all(torch.equal(whole.params[name], leaf) for name, leaf in runs[-1].params.items())


def test_an_arm_cut_short_anywhere_ends_in_the_same_numbers(race, tmp_path, monkeypatch):
    config, net = race.config, race.config.nets[0]
    data, saves, count = shown(config), Checkpoint.save, iter(range(1000))
    problem, tests = (
        objective(net, data.inputs, data.labels, rows=drawn(config)),
        [(data.test_inputs, data.test_labels)],
    )

    def fragile(self, mark, meta, tensors):
        saves(self, mark, meta, tensors)
        if next(count) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "save", fragile)
    for expectation in (pytest.raises(KeyboardInterrupt), keeping(Keeping(None))):
        with expectation, keeping(Keeping(tmp_path, seconds=0.0)):
            again = stand(config, LAB, net, problem, (0.9, 0.0), tests)
    assert np.array_equal(again.accuracy[0], race.nets[0].accuracy[0, 1, 0])


def test_a_rate_that_diverges_is_an_outcome(patched, race):
    config = replace(race.config, batch_sizes=(None,), nets=(replace(race.config.nets[1], lrs=(0.9, 1e9), steps=40),))
    result = cifar.run(replace(config, targets=(2.2, 0.9)), LAB)
    (found,) = result.nets
    assert found.lost[0, 1].all()
    assert not found.lost[0, 0].any()
    assert np.isnan(found.accuracy[0, 1]).all()
    rows = cifar.tables(result)["cifar"].query("lr > 1")
    assert rows["diverged"].tolist() == [3] * 4
    assert rows["reached"].tolist() == [0] * 4
    assert rows["accuracy"].isna().all()
    estimate = cifar.estimates(result)["P4-C1.accuracy"]
    assert np.isfinite([estimate.low, estimate.high]).all()


# ----------------------------------------------------------------------------------------------------------------
# Plain and momentum, full batch and small ones


def test_targets_are_met_and_estimates_are_those_stated(race):
    check_answers("P4", cifar, race)
    first = race.nets[0]
    assert (first.step >= 0).all()
    assert (np.diff(first.step, axis=-2) >= 0).all()
    assert (first.accuracy > 20).mean() > 0.9  # twice chance: patterns are learnt
    found = cifar.estimates(race)
    assert set(found) == {"P4-C1.accuracy", "P4-C2.accuracy"}
    assert len(found["P4-C2.accuracy"]) == len(race.config.batch_sizes)
    for estimate in (found["P4-C1.accuracy"], *found["P4-C2.accuracy"]):
        assert np.isfinite([estimate.value, estimate.low, estimate.high]).all()
        assert estimate.source == "3 draws × 1"
    assert still("P4", "cifar") == set()
    assert set(cifar.estimates(replace(race, lab=replace(LAB, momentum=0.0)))) == set(found)


def test_verdicts_are_those_of_the_judged_target_at_every_batch_size(race):
    accuracy = race.nets[0].accuracy.copy()  # (B, E, M, L, S)
    accuracy[0, :, 1, 1] += 3.0
    accuracy[1, :, 1, 1] -= 20.0
    result = replace(race, nets=(replace(race.nets[0], accuracy=accuracy), race.nets[1]))
    best = accuracy[..., 1, :].mean(-1).max(axis=1)
    gains = best[:, 1] - best[:, 0]
    found = cifar.estimates(result)
    assert race.config.targets[1] == race.config.judged
    assert found["P4-C1.accuracy"].value == pytest.approx(gains[0])
    assert [one.value for one in found["P4-C2.accuracy"]] == pytest.approx(gains.tolist())
    rows = cifar.tables(result)["cifar_gains"].query("net == 'ResNet-8' and loss == @race.config.judged")
    assert rows["gain"].tolist() == pytest.approx(gains.tolist())
    assert rows["batch_size"].tolist() == ["full", "40"]


def test_a_row_says_what_the_seeds_did(race):
    frame = cifar.tables(race)["cifar"]
    assert len(frame) == 2 * 2 * 2 * 2 * 2
    for n, found in enumerate(race.nets):
        for (b, e, m, t), _ in np.ndenumerate(found.step[..., 0]):
            (row,) = frame[
                (frame["net"] == race.config.nets[n].name)
                & (frame["batch_size"] == ("full", "40")[b])
                & (frame["lr"] == (0.3, 0.9)[e])
                & (frame["momentum"] == (0.0, 0.9)[m])
                & (frame["loss"] == race.config.targets[t])
            ].to_dict("records")
            scores = [x for x in found.accuracy[b, e, m, t] if not np.isnan(x)]
            assert row["reached"] == len(scores) == (found.step[b, e, m, t] >= 0).sum()
            if scores:
                assert row["accuracy"] == pytest.approx(sum(scores) / len(scores))
                assert row["step"] == np.median(found.step[b, e, m, t][found.step[b, e, m, t] >= 0])
            if len(scores) > 1:
                spread = sum((x - row["accuracy"]) ** 2 for x in scores) / (len(scores) - 1)
                assert row["accuracy_error"] == pytest.approx((spread / len(scores)) ** 0.5)


def test_images_sorted_by_class_are_refused(monkeypatch):
    monkeypatch.setattr(images, "load", lambda name, split="train": coloured(name, split, np.arange(400) // 40))
    with pytest.raises(DataDamaged, match="sorted by class"):
        cifar.run(cifar.CIFAR.small, LAB)


# ----------------------------------------------------------------------------------------------------------------
# Dimmed images


def test_a_tenth_of_every_class_is_dimmed_and_nothing_else(patched):
    config = replace(dimmed.DIMMED.small, examples=200, draws=1)
    data = shown(config)
    chosen = dimmed.first_of_each(data.labels, config.share)
    assert torch.bincount(data.labels[chosen], minlength=10).tolist() == [2] * 10
    (inputs, _), (plain, dark) = dimmed.prepared(replace(config, noise=0.0), LAB, data)
    assert torch.equal(inputs[~chosen], data.inputs[~chosen])
    assert torch.equal(inputs[chosen], 0.15 * data.inputs[chosen])
    assert torch.equal(plain[0], data.test_inputs)
    assert torch.equal(dark[0], 0.15 * data.test_inputs)
    (noisy, _), (_, other) = dimmed.prepared(config, LAB, data)
    assert float((noisy - inputs).std()) == pytest.approx(0.5, rel=0.02)
    assert float((other[0] - dark[0]).std()) == pytest.approx(0.5, rel=0.02)
    assert abs(float((noisy - inputs)[:60].flatten() @ (other[0] - dark[0]).flatten()) / 60 / 192) < 0.02


def test_uneven_classes_are_dimmed_in_equal_numbers():
    labels = torch.tensor([0, 0, 0, 0, 0, 1, 1, 2, 2, 2])
    assert dimmed.first_of_each(labels, 0.5).nonzero().squeeze(1).tolist() == [0, 1, 5, 6, 7]
    assert int(dimmed.first_of_each(labels, 0.34).sum()) == 3


def test_dimmed_images_are_harder_and_answer_their_claim(darkened):
    check_answers("P4", dimmed, darkened)
    assert darkened.stand.accuracy.shape == (2, 2, 2, 2, 3)
    clean, dark = darkened.stand.accuracy
    assert np.nanmean(clean) > np.nanmean(dark) + 5
    ((key, estimate),) = dimmed.estimates(darkened).items()
    assert key == "P4-C14.dimmed"
    wrong = errors(dark[..., 1, :]).mean(-1).min(axis=0)
    assert estimate.value == pytest.approx(wrong[0] - wrong[1])
    frame = dimmed.tables(darkened)["dimmed"]
    assert len(frame) == 2 * 2 * 2 * 2
    (row,) = frame[
        (frame["tests"] == "dimmed") & (frame["lr"] == 0.9) & (frame["momentum"] == 0.9) & (frame["loss"] == 1.5)
    ].to_dict("records")
    assert row["accuracy"] == pytest.approx(dark[1, 1, 0].mean())
    assert still("P4", "dimmed") == set()
    assert set(dimmed.estimates(replace(darkened, lab=replace(LAB, momentum=0.0)))) == {key}


# ----------------------------------------------------------------------------------------------------------------
# With batch norm and without


def test_the_table_has_its_matched_control(table):
    lr, momentum = map(np.array, normed.NORMED.large.arms)
    assert lr / (1 - momentum) == pytest.approx([0.02, 0.2, 0.2])
    assert normed.estimates(table) == {}
    frame = normed.tables(table)["normed"]
    assert len(frame) == 2 * 3 * 3
    assert frame["epoch"].unique().tolist() == [0, 2, 4]
    first = frame[frame["epoch"] == 0].groupby("norm")["loss"]
    assert (first.max() == first.min()).all()  # all arms start from the same weights
    last = frame[frame["epoch"] == 4].set_index(["norm", "arm"])
    assert (last["loss"] < np.log(10)).any()
    for (n, a), _ in np.ndenumerate(table.loss[..., 0, 0]):
        row = last.loc[(table.config.norms[n], normed.NAMES[a])]
        assert row["accuracy"] == pytest.approx(table.accuracy[n, a, :, -1].mean())
        assert (row["replicas"], row["diverged"]) == (2, 0)


def test_batch_norm_is_looked_at_with_settled_statistics(patched, table):
    config = table.config
    data = shown(config)
    model = normed.ResNet(blocks=config.blocks, widths=config.widths, norm="batch")
    problem = Supervised(model, CrossEntropy(), data.inputs, data.labels, sampling="full")
    start = model.initial(LAB.arms(heavy_ball(*config.arms), config.replicas).streams)
    found = normed._look(problem, config.watched, data, start)
    settled = model.settled(start, data.inputs[:80])
    one = torch.cat(
        [
            model.forward(settled, data.test_inputs[i : i + 1].expand(6, 1, *data.test_inputs.shape[1:]))
            for i in range(config.tests)
        ],
        dim=1,
    )
    alone = 100 * (one.argmax(-1) == data.test_labels).double().mean(1)  # one image at a time: no batch to lean on
    assert found["accuracy"].tolist() == pytest.approx(alone.tolist())
    assert table.accuracy[0, :, :, 0].ravel() == pytest.approx(alone.numpy())
    watched = problem.value(settled, data.inputs[:80], data.labels[:80])
    assert table.loss[0, :, :, 0].ravel() == pytest.approx(watched.numpy(), rel=1e-5)


def test_a_lost_seed_of_the_table_is_counted_and_left_out(table):
    lost = table.lost.copy()
    lost[1, 2, 0] = True
    accuracy = table.accuracy.copy()
    accuracy[1, 2, 0] = np.nan
    frame = normed.tables(replace(table, lost=lost, accuracy=accuracy))["normed"]
    assert frame["diverged"].sum() == 3
    assert frame.iloc[-1]["accuracy"] == accuracy[1, 2, 1, -1]


# ----------------------------------------------------------------------------------------------------------------
# Stated for paper scale alone


@pytest.mark.parametrize("item", ALONE, ids=lambda item: item.name)
def test_configurations_are_digestible(item):
    small, large = item.small, item.large
    assert len({digest(each) for each in (small, large, replace(large, pool=4), replace(large, examples=60))}) == 4
    assert getattr(large, "precision", "float32") == ("bf16" if item is normed.NORMED else "float32")


def test_replicas_are_few():
    nets = (*cifar.CIFAR.large.nets, dimmed.DIMMED.large.net)
    assert [Lab().per_draw(net.replicas) for net in nets] == [10, 10, 10]
    assert [Lab(replicas=2).per_draw(net.replicas) for net in nets] == [10, 10, 10]
    assert [Lab().count(net.replicas) for net in cifar.CIFAR.small.nets] == [3, 3]
    assert [lab.count(normed.NORMED.large.replicas) for lab in (Lab(), Lab(replicas=2))] == [2, 2]


def test_work_is_counted_as_it_is_done():
    for config, lab in ((cifar.CIFAR.large, Lab()), (cifar.CIFAR.small, LAB)):
        total = 0.0
        for net in config.nets:
            for _arm in range(len(net.lrs) * len(lab.momenta(net.momenta))):
                for size in config.batch_sizes:
                    steps = config.usual * net.steps
                    looks = steps / (config.look_batches if size else config.look)
                    trained = steps * (size or config.examples) + looks * (config.examples + config.tests) / 3
                    total += lab.per_draw(net.replicas, config.draws) * trained * net.mflop / 74.1
        assert config.trained_images(lab) == {"ResNet-8": pytest.approx(total)}
    dark = dimmed.DIMMED.large
    steps, net = dark.usual * dark.net.steps, dark.net
    trained = steps * dark.examples + steps / dark.look * (dark.examples + 2 * dark.tests) / 3
    assert dark.trained_images(Lab()) == {"ResNet-8": pytest.approx(10 * 6 * trained * net.mflop / 74.1)}
    assert normed.NORMED.large.trained_images(Lab()) == {"ResNet-18": 2 * 3 * 2 * 60 * 78 * 128}


@pytest.mark.parametrize("net", cifar.CIFAR.large.nets, ids=lambda net: net.name)
def test_the_cost_of_an_image_is_the_counted_one(net):
    module, counter = net.model.module(), FlopCounterMode(display=False)
    with counter:
        module(torch.randn(2, 3, 16, 16)).sum().backward()
    assert counter.get_total_flops() / 2e6 == pytest.approx(net.mflop, rel=0.02)


def test_the_chapter_leaves_them_out_and_campaigns_do_not():
    alone = [item for item in margins.EXPERIMENTS if item.scales == ("gpu",)]
    assert [item.name for item in alone] == ["cifar", "dimmed", "normed"]
    assert len({item.name for item in margins.EXPERIMENTS}) == len(margins.EXPERIMENTS)
    stated = {key for key, test in load_paper("P4").tests.items() if test.scales == ("gpu",)}
    assert stated == {"P4-C1.accuracy", "P4-C2.accuracy", "P4-C14.dimmed"}
    assert not {item.name for item in alone} & set(check.experiments(find_project(ROOT), "margins"))
    package = margins.__name__
    assert [task.name for task in campaign.tasks(package, Lab(), "gpu", ["P4-C1", "P4-C14"])] == [
        "cifar",
        "dimmed",
        "digits",
        "mnist",
        "glyphs",
    ]
    assert [task.name for task in campaign.tasks(package, Lab(), only=["P4-C14"])] == ["digits", "mnist", "glyphs"]
