"""The chapter on normalised rules: every experiment, shrunk, answers its claims, and is right where that is known."""

from dataclasses import replace

import numpy as np
import pytest
from descent.claims import load_paper
from descent.experiments import normalised
from descent.experiments.lab import Lab
from descent.experiments.normalised import adam, batches, classes, control, events, floors, leaving, means, stalled
from descent.experiments.normalised.nets import Net
from descent.figures import normalised as figures
from descent.results import paper_table
from descent.theory.signs import ema
from pandas import RangeIndex
from tidy import check_answers

LAB = Lab(seed=1000, replicas=32)
NET = Net(draws=3, examples=64, hidden=8)
CASES = tuple(replace(case, steps=6) for case in control.CASES)
SMALL = {
    means: means.Means(steps=100, burn=50, coordinates=16, size=12, memory=60),
    floors: floors.Floors(steps=20, burn=5, skewed_steps=20, skewed_burn=5, coordinates=2, chain_noise=(2.0,)),
    leaving: leaving.Leaving(noise=5.0, levels=(3.0, 5.0, 10.0)),
    events: events.Rare(batches=(1, 8), plain_steps=400, steps=40, adam_steps=40),
    classes: classes.Classes(classes=6, steps=30, adam_steps=(20,) * 4),
    batches: batches.Batches(net=NET, steps=10, batch_size=2),
    adam: adam.AdamFirst(net=NET, steps=5),
    stalled: stalled.Stalled(net=NET, steps=10, blocks=4, block=20, burn=20),
    control: control.Control(net=NET, cases=CASES, look=3, burn=3, frozen=8),
}


@pytest.fixture(scope="module")
def results():
    return {module: module.run(config, LAB) for module, config in SMALL.items()}


def test_every_experiment_answers_its_claims(results):
    for module, result in results.items():
        check_answers("N", module, result)
        assert all(isinstance(frame.index, RangeIndex) for frame in module.tables(result).values())


def test_every_test_of_a_claim_is_answered_once(results):
    answered = [key for module, result in results.items() for key in module.estimates(result)]
    assert sorted(answered) == sorted(key for key, test in load_paper("N").tests.items() if "cpu" in test.scales)
    named = {experiment.name for experiment in normalised.EXPERIMENTS}
    assert named == {test.by for test in load_paper("N").tests.values()}


def test_the_figures_are_drawn(results):
    drawn = (
        figures.overlaps(results[means]), figures.floors(results[floors]), figures.control(results[control]),
        figures.classes(results[events], results[classes]), figures.adam(results[adam], results[classes]),
        figures.control(results[control], paper_table("normalised", "wider", "night")),
    )  # fmt: skip
    for figure in drawn:
        assert all(axis.lines or axis.containers for axis in figure.axes)


def test_mean_signs_lie_on_the_error_function_at_the_larger_batch(results):
    result = results[means]
    measured, law = result.signs.mean(-1), result.sign_law
    assert np.allclose(measured, law, atol=0.03)
    assert not np.allclose(measured[1], law[0], atol=0.03)
    weak, strong = result.overlaps.mean(-1)
    assert np.all(strong > weak)


def test_a_matched_sign_has_the_rate_that_makes_its_response_plain(results):
    config, laws = SMALL[floors], []
    for law in floors.NOISES:
        slopes = [floors.centre_density(law, ema(m)) for m in config.momenta]
        laws.append(slopes[-1] / slopes[0])
    assert laws[0] == pytest.approx(19**0.5)
    assert laws[1] < laws[2] < laws[0]  # heavy tails: a plain sign follows more steeply already
    assert results[floors].medians[0] == pytest.approx(1 - np.log(2))


def test_a_common_event_is_held_and_a_rare_one_is_not(results):
    drift = results[events].drift.mean(-1)
    assert np.all(drift[:, 0] < -0.15)
    assert np.all(drift[:, -1] > drift[:, 0] + 0.1)


def test_the_second_moment_forgets_after_as_many_examples_at_any_batch():
    config = classes.Classes()
    examples = [size / (1 - config.forgetting(size)) for size in config.batches]
    assert examples == pytest.approx([examples[0]] * 4)
    assert config.forgetting(config.meeting) == config.second


def test_families_of_draws_share_no_replica():
    first, other = (NET.arms(LAB, SMALL[control].cases[0].rule(0.9), skip=skip) for skip in (0, NET.draws))
    assert not set(first.streams.seeds.tolist()) & set(other.streams.seeds.tolist())
    tasks = [NET.task(LAB, skip=skip) for skip in (0, NET.draws)]
    assert not np.array_equal(*(task.sets.rows.numpy() for task in tasks))


def test_a_plain_arm_and_a_matched_one_part_only_by_the_factor(results):
    found = results[control].found[0]
    assert found.factors.shape[:2] == (NET.draws, 1)
    assert np.array_equal(found.losses[control.MATCHED, ..., 0], found.losses[control.PLAIN, ..., 0])
    assert not np.array_equal(found.losses[control.MATCHED, ..., -1], found.losses[control.PLAIN, ..., -1])


def test_symmetric_noise_leaves_the_power_of_a_plain_sign_near_one(results):
    plain, fair, before = results[stalled].power[0].mean((1, 2))
    assert plain == pytest.approx(fair, rel=0.5)
    assert before > 3 * plain
