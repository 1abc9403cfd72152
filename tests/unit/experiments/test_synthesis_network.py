"""The synthesis chapter's nets: task, instruments against explicit gradients, made noise, batches, shrunk runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from descent.claims import load_paper
from descent.data.draws import Draws
from descent.data.images import data_root, load
from descent.engine import Arms, Streams, ema, heavy_ball, repeat, replica_seeds, train
from descent.engine.probes import Leaves
from descent.experiments.isotropic import Isotropic
from descent.experiments.lab import Lab
from descent.experiments.synthesis import batches, network, warmup
from descent.experiments.synthesis.batches import Case
from descent.experiments.synthesis.lineup import Arm
from descent.experiments.synthesis.network import Blue, Family, Kind, Look, Treatment
from descent.experiments.synthesis.task import CONTRAST, Task, sharpness
from descent.measure.curvature import gauss_newton
from descent.measure.gram import gram
from descent.measure.noise import example_gradients, flat, gradient_noise
from descent.measure.spectra import top_eigenpairs
from descent.nets import Supervised
from descent.problems.saddle import Quadratic
from descent.runs.campaign import claims_of
from descent.stats import Estimate
from numpy.testing import assert_allclose
from tidy import check_answers
from torch import Tensor

CLAIMS = claims_of("descent.experiments.synthesis")
LAB = Lab(replicas=40, seed=7)
ONE, THREE = Lab(seed=1), Lab(seed=3)
FEW = Task.of(ONE, 1, examples=40, hidden=6, flips=(0.1,))
LOGISTIC = Task.of(ONE, 1, examples=40, hidden=6, flips=(0.1,), loss="logistic")
PAIR = Task.of(ONE, 2, examples=40, hidden=6, flips=(0.1,))


def streams(replicas: int, seed: int = 3) -> Streams:
    return Streams(replica_seeds(seed, replicas))


def doubled(leaves: Leaves) -> Leaves:
    return {name: leaf.double() for name, leaf in leaves.items()}


def precise(task: Task) -> Task:
    parts = ("inputs", "targets", "test_inputs", "test_targets")
    return replace(task, **{name: getattr(task, name).double() for name in parts})


def somewhere(task: Task, replicas: int = 3, steps: int = 40) -> Leaves:
    """Return parameters a little way down, with biases that are not zero."""
    source = streams(replicas)
    hyper = repeat(heavy_ball(0.2, 0.0), replicas)
    found = train(task.objective(), task.start(source), hyper, steps, source).params
    assert not isinstance(found, Tensor)
    return found


# The task


def test_seeds_and_draws_give_other_images_and_the_same_ones_again() -> None:
    first, again, later, seed = (Task.of(Lab(seed=s), 2, skip=n) for s, n in ((1, 0), (1, 0), (1, 1), (2, 0)))
    assert torch.equal(first.inputs, again.inputs)
    assert torch.equal(first.targets, again.targets)
    assert torch.equal(first.inputs[1], later.inputs[0])
    for one, other in ((first.inputs[0], first.inputs[1]), (first.inputs[0], seed.inputs[0])):
        assert not torch.isclose(one, other).all(dim=1).any()
    assert first.inputs.shape == (2, 256, 64)
    assert first.test_inputs.shape == (2, 797, 64)
    assert first.sets.overlap == pytest.approx(256 / 1797)
    assert sum(leaf[0].numel() for leaf in first.start(streams(1)).values()) == 2113


def test_images_are_digits_once_each_and_the_test_is_of_others() -> None:
    data = load("digits")
    grey = data.images.flatten(1).float() / data.peak
    grey = grey - grey.mean(0)
    odd = torch.where(torch.as_tensor(data.labels) % 2 == 1, 1.0, -1.0)
    clean = Task.of(THREE, 2, faint=0.0, pixel_noise=0.0)
    for draw in range(2):
        rows = []
        for inputs, targets in (
            (clean.inputs[draw], clean.targets[draw]),
            (clean.test_inputs[draw], clean.test_targets[draw]),
        ):
            gap = torch.cdist(inputs, grey, compute_mode="donot_use_mm_for_euclid_dist")
            assert float(gap.amin(dim=1).max()) < 1e-5
            place = gap.argmin(dim=1)
            assert torch.equal(targets, odd[place])
            rows += place.tolist()
        assert len(set(rows)) == 256 + 797
        assert 0.4 < float((clean.test_targets[draw] > 0).float().mean()) < 0.6


def test_shares_of_faint_and_of_mislabelled_images_are_right_in_every_draw() -> None:
    plain, noisy = (Task.of(THREE, 2, faint=0.0, pixel_noise=size) for size in (0.0, 0.15))
    noise = noisy.inputs - plain.inputs
    assert float(noise.std()) == pytest.approx(0.15, rel=0.02)
    assert float(noise.mean()) == pytest.approx(0, abs=0.005)
    assert not torch.isclose(noise[0], noise[1]).all(dim=1).any()
    faint = Task.of(THREE, 2, flips=(0.1,))
    torch.testing.assert_close(faint.inputs[:, :38], CONTRAST * noisy.inputs[:, :38])  # 15 % of 256
    assert torch.equal(faint.inputs[:, 38:], noisy.inputs[:, 38:])
    wrong = faint.targets != noisy.targets
    assert wrong.sum(dim=1).tolist() == [26, 26]
    assert torch.equal(faint.targets[wrong], -noisy.targets[wrong])
    assert not torch.equal(wrong[0], wrong[1])
    assert 0 < int(wrong[0, 128:].sum()) < 26  # not the first ones
    assert torch.equal(faint.test_targets, noisy.test_targets)


def test_families_follow_one_another_with_their_shares() -> None:
    both = Task.of(THREE, 2, flips=(0.1, 0.0))
    noisy, clean = Task.of(THREE, 2, flips=(0.1,)), Task.of(THREE, 2, skip=2)
    for name in ("inputs", "targets", "test_inputs"):
        assert torch.equal(getattr(both, name), torch.cat([getattr(noisy, name), getattr(clean, name)])), name


def test_glyphs_are_fresh_and_as_large_as_digits() -> None:
    task = Task.of(ONE, 3, faint=0.0, data_set="glyphs")
    assert (task.inputs.shape, task.test_inputs.shape, task.sets.kind) == ((3, 256, 40), (3, 797, 40), "fresh")
    assert task.net.sizes == (40, 32, 1)
    digits = Task.of(ONE, 3, faint=0.0)
    size, other = (part.test_inputs.square().sum(dim=2).mean() for part in (task, digits))
    assert float(size / other) == pytest.approx(1, abs=0.1)
    assert not torch.isclose(task.test_inputs[0], task.test_inputs[1]).all(dim=1).any()
    assert 0.4 < float((task.targets > 0).float().mean()) < 0.6


def test_every_replica_has_the_images_of_its_own_draw() -> None:
    leaves = somewhere(PAIR, 4)
    for r in range(4):
        alone = Task.of(ONE, 1, skip=r % 2, examples=40, hidden=6, flips=(0.1,))
        own = {name: leaf[r : r + 1] for name, leaf in leaves.items()}
        for measure in ("outputs", "residuals", "value", "accuracy", "gram", "sharpness"):
            ours, theirs = (getattr(task, measure)(part) for task, part in ((PAIR, leaves), (alone, own)))
            torch.testing.assert_close(ours[r], theirs[0], rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="3 replicas cannot share 2 draws"):
        PAIR.outputs({name: leaf[:3] for name, leaf in leaves.items()})


def test_weights_start_with_the_stated_variances_and_differ_between_nets() -> None:
    start = Task.of(ONE, 1).start(streams(200))
    assert float(start["0.weight"].var()) == pytest.approx(4 / 64, rel=0.02)
    assert float(start["2.weight"].var()) == pytest.approx(1 / 32, rel=0.05)
    assert not start["0.bias"].any()
    assert not start["2.bias"].any()
    assert not torch.equal(start["0.weight"][0], start["0.weight"][1])
    assert start["0.bias"].data_ptr() != start["2.bias"].data_ptr()


def test_outputs_value_and_accuracy_are_those_of_the_module() -> None:
    for task in (FEW, LOGISTIC):
        leaves = somewhere(task)
        for r in range(3):
            module = task.net.module()
            module.load_state_dict({name: leaf[r] for name, leaf in leaves.items()})
            with torch.no_grad():
                outputs, tested, faint = (module(x[0]) for x in (task.inputs, task.test_inputs, 0.3 * task.test_inputs))
            target, truth = task.targets[0][:, None], task.test_targets[0][:, None]
            torch.testing.assert_close(task.outputs(leaves)[r], outputs[:, 0])
            assert float(task.value(leaves)[r]) == pytest.approx(float(task.loss(outputs, target).mean()))
            for contrast, seen in ((1.0, tested), (0.3, faint)):
                right = (torch.sign(seen) == truth).float().mean()
                assert float(task.accuracy(leaves, contrast)[r]) == pytest.approx(100 * float(right), abs=0.2)


def test_batches_are_drawn_with_replacement_and_the_whole_is_the_whole() -> None:
    assert FEW.objective(8).sampling == "with_replacement"
    assert FEW.objective(8).batch_size == 8
    assert FEW.objective().sampling == "full"


def test_the_gram_matrix_is_that_of_all_gradients() -> None:
    leaves = somewhere(FEW)
    torch.testing.assert_close(FEW.gram(leaves), gram(FEW.net, leaves, FEW.inputs[0]), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(FEW.curvature_gram(leaves), FEW.gram(leaves))


@pytest.mark.parametrize("task", [FEW, LOGISTIC], ids=["square", "logistic"])
def test_the_weighted_gram_matrix_has_the_top_curvature_of_gauss_newton(task: Task) -> None:
    task = precise(task)
    leaves = doubled(somewhere(LOGISTIC if task.loss is LOGISTIC.loss else FEW))
    matrix = task.curvature_gram(leaves)
    top = torch.linalg.eigvalsh(matrix)[:, -1] / 40
    found = top_eigenpairs(gauss_newton(task.objective(), leaves), 1, Streams(replica_seeds(5, 3), torch.float64))
    torch.testing.assert_close(top, found.values[:, 0], rtol=1e-6, atol=0)
    torch.testing.assert_close(sharpness(matrix, 300), top, rtol=1e-8, atol=0)


def test_thirty_iterations_are_enough_for_the_sharpness_and_never_too_high() -> None:
    task = Task.of(Lab(seed=2), 1)
    for steps in (0, 150):
        matrix = task.gram(somewhere(task, 4, steps))
        top = torch.linalg.eigvalsh(matrix)[:, -1] / 256
        found = sharpness(matrix)
        torch.testing.assert_close(found, top, rtol=5e-3, atol=0)
        assert bool((found <= top * (1 + 1e-5)).all())


# The instruments


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_look_equals_explicit_gradients(momentum: float) -> None:
    """Per-example gradients by autograd: C², |ω|², λ₁ and alignment; ω of the last step, at the point it left from."""
    task, source, lr = FEW, streams(3), 0.1 * (1 - momentum)
    hyper, objective = repeat(heavy_ball(lr, momentum), 3), task.objective(8)
    before, after = (train(objective, task.start(source), hyper, steps, source) for steps in (6, 7))
    found = Look(task, Arms(hyper, source), 1)(7, after.params, after.velocity)
    assert set(found) == set(network.RECORDS)
    full = task.objective()
    each = example_gradients(full, after.params).double()  # (R, n, p)
    mean = each.mean(1)
    noise = (each - mean.unsqueeze(1)).square().sum(2).mean(1)
    left = example_gradients(full, before.params).double().mean(1)
    direction = (flat(before.params) - flat(after.params)).double() / (lr / (1 - momentum))
    torch.testing.assert_close(found["gradient_noise"].double(), noise, rtol=1e-4, atol=0)
    torch.testing.assert_close(found["direction"].double(), (direction - left).square().sum(1), rtol=2e-3, atol=0)
    residual = task.residuals(after.params).double()
    jacobian = each / residual.unsqueeze(2)
    matrix = jacobian.mT @ jacobian / 40
    aligned = (each.mT @ each / 40 * matrix).sum((1, 2)) / residual.square().mean(1) / matrix.square().sum((1, 2))
    torch.testing.assert_close(found["alignment"].double(), aligned, rtol=1e-3, atol=0)
    top = torch.linalg.eigvalsh(jacobian @ jacobian.mT)[:, -1] / 40
    torch.testing.assert_close(found["sharpness"].double(), top, rtol=5e-3, atol=0)
    torch.testing.assert_close(found["loss"], task.value(after.params))
    torch.testing.assert_close(found["accuracy"], task.accuracy(after.params))
    torch.testing.assert_close(found["faint"], task.accuracy(after.params, 0.3))


def test_an_average_of_gradients_has_less_noise_in_its_direction() -> None:
    """At matched step and small curvature (1 − β)/(1 + β) of plain SGD's."""
    arms = THREE.arms(heavy_ball([1e-3, 1e-4], [0.0, 0.9]), 40)
    done = arms.run(FEW.objective(4), FEW.start, 400, probes={"": Look(FEW, arms, 10)})
    power = done[".direction"][..., 10:].mean((1, 2))
    assert float(power[1] / power[0]) == pytest.approx(0.1 / 1.9, rel=0.15)
    noise = done[".gradient_noise"][..., 10:].mean((1, 2))
    assert float(power[0]) == pytest.approx(float(noise[0]) / 4, rel=0.05)


# Made noise


def noise_of(problem: Any, leaves: Leaves, source: Streams, steps: int) -> Tensor:
    """Return what the gradients at fixed parameters have beyond the full one, (T, R, p)."""
    full = flat(FEW.objective().gradient(leaves, source, 0))
    return torch.stack([flat(problem.gradient(leaves, source, t)) - full for t in range(steps)]).double()


def test_blue_noise_adds_power_and_takes_every_push_back() -> None:
    leaves, source, size, steps = somewhere(FEW, 20), streams(20), 3.0, 60
    twins = (streams(20, 11), streams(20, 12))
    plain = noise_of(FEW.objective(4), leaves, source, steps)
    made = noise_of(Blue(FEW.objective(4), size, twins), leaves, source, steps)
    added = made - plain
    one, other = (noise_of(FEW.objective(4), leaves, twin, steps) for twin in twins)
    drawn = (one - other) / 2**0.5
    torch.testing.assert_close(added.sum(0), size * (drawn[-1] - drawn[0]), rtol=1e-3, atol=1e-4)
    assert not added[0].any()
    white = gradient_noise(FEW.objective(4), leaves).double() / 4  # C²/B
    power = made[1:].square().sum(2).mean(0)
    assert float((power / white).mean()) == pytest.approx(1 + 2 * size**2, rel=0.05)
    assert float((plain.square().sum(2).mean(0) / white).mean()) == pytest.approx(1, rel=0.05)
    drift = added.sum(0).square().sum(1)  # white noise of this power would have wandered 59 times as far
    assert float((drift / white).mean()) == pytest.approx(2 * size**2, rel=0.3)


def test_blue_noise_does_not_share_the_batches_of_the_run() -> None:
    config = network.Network(draws=2, replicas=2)
    arm = Treatment("blue", 0.04, 0.0, 4, "blue", 3.0)
    made = network.objective(FEW, arm, config, LAB)
    assert isinstance(made, Blue)
    seeds = [set(part.tolist()) for part in (replica_seeds(7, 4), made.twins[0].seeds, made.twins[1].seeds)]
    assert len(set.union(*seeds)) == 12
    assert made.size == 3.0
    assert made.remembers
    plain = network.objective(FEW, Treatment("SGD", 0.04, 0.0, 4), config, LAB)
    assert isinstance(plain, Supervised)
    assert plain.batch_size == 4
    spread = network.objective(FEW, Treatment("GD + isotropic", 0.04, 0.0, 4, "isotropic"), config, LAB)
    assert isinstance(spread, Isotropic)
    assert spread.full.batch_size is None


def test_isotropic_noise_has_the_power_of_a_batch_and_no_direction() -> None:
    leaves, source, steps = somewhere(FEW, 20), streams(20), 50
    made = noise_of(Isotropic(FEW.objective(), 4), leaves, source, steps)
    white = gradient_noise(FEW.objective(), leaves).double() / 4
    assert float((made.square().sum(2).mean(0) / white).mean()) == pytest.approx(1, rel=0.02)
    assert not torch.allclose(made[0], made[1])
    unit = made / (white / made.shape[2]).sqrt()[:, None]
    names, sizes = zip(*((name, leaf[0].numel()) for name, leaf in leaves.items()), strict=True)
    for name, part in zip(names, unit.split(sizes, dim=2), strict=True):
        assert float(part.square().mean()) == pytest.approx(1, rel=0.15), name
    wide, narrow = (unit.split(sizes, dim=2)[names.index(name)] for name in ("0.bias", "2.weight"))
    assert abs(float((wide * narrow).mean())) < 0.05  # leaves draw numbers of their own
    batch = noise_of(FEW.objective(4), leaves, source, steps)
    assert float(batch.square().sum(2).mean() / made.square().sum(2).mean()) == pytest.approx(1, rel=0.05)


# Steps and batches


def test_the_correction_is_that_of_adam() -> None:
    """x ← x − lr·m/(1 − βᵗ), m ← βm + (1 − β)g, on the very gradients of the run."""
    problem, source, lr, beta = Quadratic((1.0, 0.2), 0.5), Streams(replica_seeds(1, 5), torch.float64), 0.1, 0.9
    x = start = torch.ones(5, 2, dtype=torch.float64)
    m = torch.zeros_like(x)
    for t in range(25):
        m = beta * m + (1 - beta) * problem.gradient(x, source, t)
        x = x - lr * m / (1 - beta ** (t + 1))
    done = train(problem, start, repeat(ema(lr, beta), 5), 25, source, schedule=warmup.corrected(beta))
    assert isinstance(done.params, Tensor)
    torch.testing.assert_close(done.params, x, rtol=1e-10, atol=0)
    lagging = train(problem, start, repeat(ema(lr, beta), 5), 25, source)
    assert isinstance(lagging.params, Tensor)
    assert not torch.allclose(lagging.params, x, rtol=0.01)


CONFIG = batches.Batches()


@pytest.mark.parametrize("setting", CONFIG.settings, ids=lambda setting: setting.name.replace(" ", "_"))
def test_every_arm_of_a_setting_has_the_temperature_and_the_samples_of_the_reference(setting: batches.Setting) -> None:
    temperature = setting.lr / setting.batch
    arms = CONFIG.arms(setting)
    assert arms[0] == setting.reference == Arm(setting.lr, 0.0, batch=setting.batch)
    for arm in arms:
        assert arm.lr / (1 - arm.momentum) / arm.batch == pytest.approx(temperature)
        steps = CONFIG.samples // arm.batch
        assert CONFIG.samples - arm.batch < steps * arm.batch <= CONFIG.samples
    for m, size in zip(CONFIG.momenta, (6, 18, 38), strict=True):
        twin, plain = setting.twin(m), setting.at(0.0, size)
        assert twin.batch == size
        assert twin.lr == pytest.approx((1 + m) * setting.lr)
        assert plain.lr == pytest.approx(setting.lr * size / setting.batch)
        assert twin in arms
        assert plain in arms
    scanned = {arm.momentum for arm in arms if arm.batch == 38}
    assert scanned == {0.0, batches.HEAD, *(CONFIG.scan if setting.scan else ())}


def test_only_the_settings_that_are_scanned_are_asked_for_it() -> None:
    """Estimates take two arms of the scan of the second setting."""
    assert [setting.scan for setting in CONFIG.settings] == [False, True, False, False, False]
    assert {0.7, 0.95} <= set(CONFIG.scan)
    assert [setting.loss for setting in CONFIG.settings] == ["square"] * 3 + ["logistic", "square"]
    assert [setting.name for setting in CONFIG.settings] == [
        "square, large step", "square, large step, flips", "square, small step", "logistic",
        "square, large step, glyphs, flips",
    ]  # fmt: skip
    assert list(Case) == [0, 1, 2, 3, 4]
    assert [setting.data for setting in CONFIG.settings] == ["digits"] * 4 + ["glyphs"]
    assert [setting.family for setting in CONFIG.settings] == [0, 1, 1, 1, 1]
    assert batches.BATCHES.large.settings == CONFIG.settings


def test_settings_of_one_family_share_their_draws() -> None:
    clean, flips, small, logistic, glyphs = (setting.task(LAB, 2, 6) for setting in CONFIG.settings)
    for other in (small, logistic):
        assert torch.equal(flips.inputs, other.inputs)
        assert torch.equal(flips.targets, other.targets)
    assert not torch.isclose(clean.inputs, flips.inputs).all(dim=2).any()
    assert glyphs.inputs.shape == (2, 256, 40)


@pytest.fixture(scope="module")
def grown() -> batches.BatchesResult:
    """A step in the first setting so large that linear scaling diverges and the reference does not."""
    wild = CONFIG.settings[0]._replace(lr=0.4)
    config = batches.Batches(2, 4, samples=800, hidden=6, settings=(wild, *CONFIG.settings[1:]))
    return batches.run(config, LAB)


def test_batches_answer_their_claims_and_mark_what_diverged(grown: batches.BatchesResult) -> None:
    check_answers("S", batches, grown)
    found, config = batches.estimates(grown), grown.config
    assert {key.partition(".")[0] for key in found} == set(CLAIMS["batches"])
    wild = config.settings[0]
    lost = wild.at(0.0, 38)
    assert np.isnan(grown.of(0, lost, "loss")).all()
    assert grown.against(0, lost) is None
    assert "S-23.clean_scaling" not in found
    assert "S-23.flips_scaling" in found
    for index, setting in enumerate(config.settings):
        assert grown.ends[index]["loss"].shape == (len(config.arms(setting)), 2, 2)
        same = grown.against(index, setting.reference)
        assert same is not None
        assert (same.value, same.low, same.high) == (0, 0, 0)
    twin, plain = config.settings[1].twin(0.9), config.settings[1].reference
    for record, change in (("sharpness", np.log), ("loss", np.log), ("accuracy", np.asarray)):
        shift = grown.against(1, twin, record)
        assert shift is not None
        one, other = (change(grown.of(1, arm, record)) for arm in (twin, plain))
        assert shift.value == pytest.approx((one - other).mean())
        assert (shift.n, shift.draws) == (4, 2)
    assert_allclose(grown.edge(1), 0.05 * 19 * grown.of(1, plain, "sharpness"))
    frame = batches.tables(grown)["batches"]
    assert frame.loc[(frame["batch"] == 38) & (frame["setting"] == wild.name), "diverged"].max() == 4
    assert (frame.loc[frame["momentum"] == 0.98, "steps"] == 800 // 38).all()


def test_arms_of_a_batch_do_not_depend_on_their_neighbours(grown: batches.BatchesResult) -> None:
    config = replace(grown.config, settings=(grown.config.settings[2],), momenta=(0.5,))
    alone = batches.run(config, LAB)
    arm = config.settings[0].twin(0.5)
    assert_allclose(alone.of(0, arm, "loss"), grown.of(2, arm, "loss"), rtol=1e-5)


# The network, shrunk


@pytest.fixture(scope="module")
def watched() -> network.NetworkResult:
    config = network.Network(draws=2, replicas=4, steps=40, every=10, target=0.42, late=(0.42, 0.47))
    return network.run(config, LAB)


def test_the_network_answers_its_claims(watched: network.NetworkResult) -> None:
    check_answers("S", network, watched)
    found = network.estimates(watched)
    assert {key.partition(".")[0] for key in found} == set(CLAIMS["network"])
    assert set(found) == {key for key, test in load_paper("S").tests.items() if test.by == "network"}
    power = found["S-20.power_flips"]
    assert isinstance(power, Estimate)
    assert power.value > 5
    assert all(isinstance(one, Estimate) and one.draws == 2 for one in found.values())


def test_arms_share_data_and_weights_and_are_looked_at_as_often(watched: network.NetworkResult) -> None:
    arms = watched.config.arms
    assert len(watched.families) == len(watched.config.kinds) == len(Kind) == 4
    for family in watched.families:
        assert len(family.sets) == 2
        assert family.steps.shape == (len(arms), 5)
        assert [row[-1] for row in family.steps] == [round(40 * arm.longer) for arm in arms]
        assert all(values.shape == (len(arms), 5, 4) for values in family.records.values())
        loss = family.records["loss"]
        assert (loss[:, 0] == loss[:1, 0]).all()
        assert (loss[:, -1] < loss[:, 0]).all()
        loaded = [arm.batch > 0 and arm.kind == "minibatch" for arm in arms]
        finite = np.isfinite(family.load)
        assert finite.all(axis=1).tolist() == finite.any(axis=1).tolist() == loaded
        assert np.nanmax(family.load) < 1
    for one, other in zip(watched.families, watched.families[1:], strict=False):
        assert not np.isclose(one.records["loss"][0, 0], other.records["loss"][0, 0]).any()


def test_nets_are_given_back_to_their_family_and_draw() -> None:
    sets = Draws("fresh", torch.arange(8).view(4, 2), torch.arange(4).view(4, 1))
    nets = np.arange(8.0)  # two of each of four draws, net r of draw r mod 4
    records = np.broadcast_to(nets, (len(network.RECORDS), 1, 3, 8))
    one, other = network._apart(sets, 2, np.zeros((1, 3), dtype=np.int64), records, nets[None])
    assert one.sets.rows.tolist() == [[0, 1], [2, 3]]
    assert other.sets.rows.tolist() == [[4, 5], [6, 7]]
    assert other.sets.test.tolist() == [[2], [3]]
    assert one.seen("loss").tolist() == [[[0, 4], [1, 5]]]
    assert other.seen("loss").tolist() == [[[2, 6], [3, 7]]]
    assert other.load.tolist() == [[2, 3, 6, 7]]


def test_all_arms_run_in_stacks_of_one_batch() -> None:
    for config in (network.NETWORK.small, network.NETWORK.large):
        groups = config.groups
        assert sorted(i for group in groups for i in group) == list(range(len(config.arms)))
        for group in groups:
            own = [config.arms[i] for i in group]
            assert len({(arm.batch, arm.kind, arm.longer) for arm in own}) == 1
            assert len(own) == 1 or own[0].kind == "minibatch"
        assert len({arm.name for arm in config.arms}) == len(config.arms)
        steps = {
            arm.longer: (round(arm.longer * config.steps), round(arm.longer * config.every)) for arm in config.arms
        }
        assert len({total // every for total, every in steps.values()}) == 1
        assert all(total % every == 0 for total, every in steps.values())
    effective = {arm.name: arm.lr / (1 - arm.momentum) for arm in network.FEW}
    assert [round(e, 6) for e in effective.values()] == [0.04, 0.04, 0.4, 0.4, 0.04, 0.4, 0.4]


def hand_made(loss: list[list[float]], draws: int = 2, **records: list[list[float]]) -> Family:
    """A family of arms over looks, the same for the nets of all draws, one each."""
    given = {"loss": loss, **records}
    made = {name: np.repeat(np.array(values)[:, :, None], draws, axis=2) for name, values in given.items()}
    sets = Draws("fresh", torch.zeros(draws, 1, dtype=torch.int64), torch.zeros(draws, 0, dtype=torch.int64))
    return Family(sets, np.arange(len(loss[0])), made, np.zeros((len(loss), draws)))


def test_at_equal_loss_a_record_is_read_between_looks() -> None:
    family = hand_made(
        [[1.0, 0.5, 0.1], [1.0, 0.9, 0.8], [0.2, 0.1, 0.0], [1.0, 0.2, 0.6]],
        accuracy=[[50.0, 60.0, 80.0], [50.0, 55.0, 56.0], [90.0, 91.0, 92.0], [50.0, 70.0, 60.0]],
    )
    found = family.at_loss("accuracy", 0.3)
    assert_allclose(found[:, 0], [70.0, np.nan, 90.0, 67.5])  # never there; there from the start; there, and gone again
    assert_allclose(family.last("accuracy")[:, 1], [80, 56, 92, 60])


def test_an_order_is_that_of_both_families_together() -> None:
    arms = network.FEW[:4]
    config = network.Network(arms, target=0.5)
    loss, up = [[1.0, 0.0]] * 4, [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0], [4.0, 4.0]]
    swapped = [up[1], up[0], up[2], up[3]]
    same, partly, against = (hand_made(loss, accuracy=up, direction=values) for values in (up, swapped, up[::-1]))
    for families, expected in (
        ((same, same), 1.0),
        ((same, partly), 0.9),
        ((same, against), 0.0),
        ((against, against), 1.0),
    ):
        result = network.NetworkResult(config, LAB, families)
        assert result.order("direction").value == pytest.approx(expected)


def test_an_order_is_of_means_over_draws() -> None:
    """In every draw the noise of accuracy hides the order; in the mean it is gone."""
    family = hand_made([[1.0, 0.0]] * 3, accuracy=[[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]], direction=[[1.0, 1.0]] * 3)
    records = {name: values.copy() for name, values in family.records.items()}
    records["direction"] = records["accuracy"].copy()
    records["accuracy"] += np.array([5.0, -5.0]) * np.array([1.0, 0.0, -1.0])[:, None, None]
    noisy = replace(family, records=records)
    result = network.NetworkResult(network.Network(network.FEW[:3], target=0.5), LAB, (noisy, noisy))
    assert result.order("direction").value == pytest.approx(1.0)


def test_differences_leave_out_pairs_that_did_not_get_there() -> None:
    family = hand_made([[1.0, 0.0], [1.0, 0.0]], 4, accuracy=[[5.0, 5.0], [1.0, 1.0]])
    records = {name: values.copy() for name, values in family.records.items()}
    records["loss"][0, :, 3] = 1.0  # one net never gets there
    config = network.Network(network.FEW[:2])
    result = network.NetworkResult(config, LAB, (replace(family, records=records),))
    found = result.difference(0, "accuracy", "SGD", "average", at_loss=0.5)
    assert found is not None
    assert (found.value, found.n, found.draws) == (4, 3, 3)
    assert "draws 3 lost" in found.method
    whole = result.difference(0, "accuracy", "SGD", "average")
    assert whole is not None
    assert whole.n == 4
    records["loss"][0, :, 1:] = 1.0
    assert result.difference(0, "accuracy", "SGD", "average", at_loss=0.5) is None


def test_the_noise_of_the_last_look_is_asked_apart_from_that_of_all() -> None:
    arms = [network.FEW[0], network.FEW[4]]
    family = hand_made([[1.0] * 3] * 2, direction=[[1.0, 1.0, 3.0], [7.0, 20.0, 36.0]])
    result = network.NetworkResult(network.Network(tuple(arms)), LAB, (family,))
    assert result.bluer(0).value == pytest.approx(56 / 4)
    assert result.bluer(0, slice(-1, None)).value == pytest.approx(36 / 3)


def test_the_load_of_an_arm_is_that_of_its_own_rule() -> None:
    task, leaves = FEW, somewhere(FEW)
    plain, same = (network.load_of(task, Treatment("", lr, m, 8), leaves) for lr, m in ((0.1, 0.0), (0.01, 0.9)))
    assert (same < plain).all()  # at matched step, and not by much
    assert (same > 0.3 * plain).all()
    assert (plain > 0).all()
    assert np.isnan(network.load_of(task, Treatment("", 0.1, 0.0, 0), leaves)).all()


@pytest.mark.skipif(not (data_root() / "mnist").is_dir(), reason="MNIST is not here; set DESCENT_DATA")
def test_the_same_task_on_mnist_has_its_own_pixels() -> None:
    task = Task.of(ONE, 2, examples=40, hidden=6, data_set="mnist")
    assert task.inputs.shape == (2, 40, 196)
    assert task.net.sizes == (196, 6, 1)
    assert task.test_targets.shape == (2, 797)
    assert (task.sets.kind, task.sets.overlap) == ("disjoint", 0)
    start = task.start(streams(2))
    given = gram(task.net, start, task.inputs.flatten(0, 1), rows=torch.arange(80).view(2, 40))
    assert_allclose(task.gram(start), given, rtol=1e-5, atol=1e-5)
