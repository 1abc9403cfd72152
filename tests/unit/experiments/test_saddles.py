"""The low-dimensional experiments of the saddle chapter, shrunk: keys, shapes, pairing, outcomes, limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, FrozenInstanceError, fields, replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from descent.claims import load_paper
from descent.engine import Arms, FirstPassage, Series, column, every, heavy_ball, train
from descent.experiments import saddles
from descent.experiments.lab import Experiment, Lab, Share
from descent.experiments.saddles import annealing, escape, hopping, ladder, limits, linear, optimum, stiff, tradeoff
from descent.experiments.saddles.arms import Arm, rule
from descent.figures import saddles as draw
from descent.problems.pca import StreamingPCA
from descent.problems.saddle import Quadratic
from descent.results import digest
from descent.runs.campaign import claims_of
from descent.stats import paired_ratio, variance_ratio
from descent.stats.intervals import blocks
from tidy import still

SMALL = Lab(replicas=40, lr=4e-3, momentum=0.8)

SHRUNK: dict[str, tuple[ModuleType, Experiment[Any, Any], Callable[[], Any]]] = {
    "linear": (
        linear,
        linear.LINEAR,
        lambda: linear.Linear((linear.Saddle(0.1, 3.0, Share(least=500)), linear.Saddle(0.03, 1.5, Share(least=500)))),
    ),
    "escape": (escape, escape.ESCAPE, escape.Escape),
    "ladder": (
        ladder,
        ladder.LADDER,
        lambda: ladder.Ladder(
            early=((0.5, (0.064, 0.016)), (0.9, (0.256, 0.032))),
            late=((0.5, (0.05,)), (0.95, (0.4, 0.1))),
            early_replicas=Share(least=2000),
            replicas=Share(least=200),
        ),
    ),
    "flow": (limits, limits.FLOW, lambda: limits.Flow(effective=(3.2e-2, 1.6e-2, 8e-3, 4e-3))),
    "optimum": (optimum, optimum.OPTIMUM, optimum.Optimum),
    "tradeoff": (tradeoff, tradeoff.TRADEOFF, lambda: tradeoff.Tradeoff(large=(0.03, 0.08), large_steps=1000)),
    "annealing": (annealing, annealing.ANNEALING, annealing.Annealing),
    "stiff": (stiff, stiff.STIFF, lambda: stiff.Stiff(replicas=Share(times=2), watched=Share(over=2))),
    "hopping": (hopping, hopping.HOPPING, lambda: hopping.Hopping(effective=(0.2,), hops=3.0)),
}
RESULTS: dict[str, Any] = {}


def result_of(name: str) -> Any:
    module, _, config = SHRUNK[name]
    if name not in RESULTS:
        RESULTS[name] = module.run(config(), SMALL)
    return RESULTS[name]


@pytest.mark.parametrize("name", SHRUNK)
def test_estimates_carry_the_keys_of_the_claims(name: str) -> None:
    module, experiment, _ = SHRUNK[name]
    assert experiment.name == name
    tests = load_paper("P3").tests
    assert set(module.estimates(result_of(name))) == {key for key, test in tests.items() if test.by == name}


@pytest.mark.parametrize("name", SHRUNK)
def test_tables_are_tidy_and_finite(name: str) -> None:
    module, _, _ = SHRUNK[name]
    for frame in module.tables(result_of(name)).values():
        assert len(frame) > 0
        assert frame.columns.is_unique
        assert not any("Unnamed" in str(column) for column in frame.columns)
        numbers = frame.select_dtypes("number").drop(columns=["ks", "ks_critical"], errors="ignore")
        assert np.isfinite(numbers.drop(columns="median_below_twice_floor", errors="ignore")).all().all()


def test_every_test_of_the_paper_is_answered_by_one_experiment() -> None:
    claims = {claim.id for claim in load_paper("P3").claims if claim.tests}
    spoken = claims_of("descent.experiments.saddles")
    assert claims == {claim for several in spoken.values() for claim in several}
    names = [experiment.name for experiment in saddles.EXPERIMENTS]
    assert len(set(names)) == len(names) == 16
    assert set(names) == set(spoken)


@pytest.mark.parametrize("experiment", saddles.EXPERIMENTS, ids=lambda experiment: experiment.name)
def test_configurations_exist_at_both_scales_frozen_and_digestible(experiment: Experiment[Any, Any]) -> None:
    small, large = experiment.small, experiment.large
    required = [item.name for item in fields(small) if item.default is MISSING and item.default_factory is MISSING]
    assert not required or experiment.scales == ("gpu",)  # defaults are the chapter's, where one runs it
    again = replace(small) if required else type(small)()
    assert small == again
    assert digest(small) == digest(again)
    assert digest(small) != digest(large)
    name = fields(small)[0].name
    with pytest.raises(FrozenInstanceError):
        setattr(small, name, 3)
    assert not {"seed", "device", "headline", "seconds"} & {field.name for field in fields(small)}


def test_replicas_are_shares_of_what_a_reader_asks_for() -> None:
    def counts(experiment: Experiment[Any, Any], field: str = "replicas") -> list[int]:
        configs = (experiment.small, experiment.large)
        return [Lab(replicas=replicas).count(getattr(config, field)) for config in configs for replicas in (10, 1000)]

    assert counts(escape.ESCAPE) == [10, 1000, 1000, 100_000]
    assert counts(escape.ESCAPE, "early_replicas") == [200, 20_000, 200, 20_000]
    assert counts(ladder.LADDER) == [30, 3000, 1000, 100_000]
    assert counts(ladder.LADDER, "early_replicas") == [400, 40_000, 4000, 400_000]
    assert counts(limits.FLOW) == [40, 4000, 1000, 100_000]
    assert counts(optimum.OPTIMUM) == [10, 1000, 200, 20_000]
    assert counts(optimum.OPTIMUM, "grid_replicas") == [20, 2000, 200, 20_000]
    assert counts(tradeoff.TRADEOFF) == [10, 1000, 1000, 100_000]
    assert counts(annealing.ANNEALING) == [32, 500, 1000, 100_000]
    assert counts(stiff.STIFF) == [40, 4000, 2000, 200_000]
    assert counts(stiff.STIFF, "watched") == [10, 1000, 500, 50_000]
    assert counts(hopping.HOPPING) == [20, 1000, 200, 20_000]
    for config, times in ((linear.LINEAR.small, (20, 20, 2)), (linear.LINEAR.large, (1000, 1000, 100, 10))):
        assert [Lab(replicas=7).count(saddle.replicas) for saddle in config.saddles] == [7 * n for n in times]


def test_a_second_learning_rate_is_watched_where_no_arm_blows_up() -> None:
    assert optimum.Optimum().rates(Lab()) == (5e-4, 2e-3)
    assert optimum.Optimum().rates(Lab(momentum=0.99)) == (5e-4,)


def test_every_figure_is_drawn() -> None:
    result = result_of
    figures = [
        draw.speedup(result("linear")), draw.escape_paths(result("escape")), draw.flow(result("flow")),
        draw.ladder(result("ladder")), draw.tradeoff(result("tradeoff")), draw.annealing(result("annealing")),
        draw.stiff_and_hopping(result("stiff"), result("hopping")),
    ]  # fmt: skip
    assert [len(figure.axes) for figure in figures] == [1, 3, 1, 2, 2, 2, 2]
    assert tradeoff.blow_ups(result("tradeoff")).shape == (4, 6)


def test_same_seed_same_result_other_seed_other_result() -> None:
    config, lab = annealing.Annealing(end=6.0, late=3.0, window=1.0), replace(SMALL, replicas=8)
    first, again, other = (annealing.run(config, lab).final for lab in (lab, lab, replace(lab, seed=1)))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_linear_saddle_follows_its_law_and_noise_scales_the_radius() -> None:
    result = result_of("linear")
    for times, exact in zip(result.times, result.exact, strict=True):
        spread = times.std(axis=1, ddof=1) / len(times[0]) ** 0.5
        assert (np.abs(times.mean(axis=1) - exact) < 4.5 * spread + 0.01 * exact).all()
    main = result.times[result.config.main]
    assert np.array_equal(result.quiet[0], main[0])
    assert (result.quiet[1:] >= main[1:]).all()
    assert (result.loud <= main).all()


def test_cutting_the_noise_leaves_the_ratio_of_growth_rates() -> None:
    result = result_of("linear")
    head = result.arm(result.lab.momentum)
    found = linear.estimates(result)
    share, size = found["P3-X8.share"], found["P3-X8.size"]
    assert 0 < share.low < share.high < 0.5
    assert size.low < 1 < size.high
    assert share.value / size.value == pytest.approx(
        linear.share_of_noise(*result.exact[result.config.main, [[0], [head]]], result.exact_quiet[[head]])[0]
    )
    assert result.quiet[head].mean() < result.times[result.config.main][0].mean()


def test_escape_levels_are_passed_in_order_and_momentum_is_faster() -> None:
    result = result_of("escape")
    assert (np.diff(result.times, axis=1) >= 0).all()
    assert (np.diff(result.times[:, escape.HALF].mean(axis=1)) < 0).all()
    assert result.paths.shape == (len(result.momentum), 40, len(result.path_steps))
    assert (np.abs(result.law - np.arange(0.01, 1, 0.01)) < 0.06).all()
    assert 0 < result.positive < result.sided == 4 * 40


def test_flow_exponents_are_one_and_one_half() -> None:
    found = limits.estimates(result_of("flow"))
    assert found["P3-C5.bias"].value == pytest.approx(1.0, abs=0.1)
    assert found["P3-C5.spread"].value == pytest.approx(0.5, abs=0.15)
    assert found["P3-C15.stays"].value == 0.0
    assert found["P3-C15.reaches"].value < 1e-4


def test_mean_path_is_the_mean_of_the_paths() -> None:
    result = result_of("flow")
    deviation = result.deviation[0].mean(axis=0).reshape(-1, 4)
    assert result.mean_path[0] == pytest.approx(np.linalg.norm(deviation, axis=1).max())
    assert (result.mean_path < result.spread.mean(axis=0)).all()


def test_noise_ratio_of_the_grid_is_the_exact_one() -> None:
    result = result_of("optimum")
    for s in range(len(result.config.sharpness)):
        for m in range(len(result.config.grid_momentum)):
            plain, moving = result.grid[s, [0, 1 + m]]
            ratio = variance_ratio(moving, plain, seed=0).widened(100)
            assert ratio.low < result.grid_exact[s, m] < ratio.high
    assert result.grid_exact[result.config.sharpness.index(1.5), 0] == pytest.approx(1.0)


def test_matched_arms_share_the_effective_step() -> None:
    config = result_of("tradeoff").config
    for effective in config.effective:
        rates = config.arms(SMALL, effective).rule
        assert (rates.lr / (1 - rates.momentum)).numpy() == pytest.approx(effective)


def test_blow_ups_are_counted_and_spare_bounded_samples() -> None:
    lost = result_of("tradeoff").lost
    assert lost[0, 1, 0] > 0
    assert lost[0, 1, 0] >= lost[0, 1, -1]
    assert (lost[1] == 0).all()
    assert (lost[0, 0] == 0).all()


def test_annealed_arms_coalesce_after_the_switch() -> None:
    result = result_of("annealing")
    plain, momentum = (result.final[annealing.ARMS.index(arm)].mean() for arm in (Arm.PLAIN, Arm.HEAD))
    assert momentum > 3 * plain
    for arm in (Arm.SWITCHED, Arm.MATCHED):
        assert annealing.ratio(result, arm).value == pytest.approx(1.0, abs=0.1)


def test_schedules_keep_the_matched_arm_at_the_effective_step_of_the_annealed_one() -> None:
    config, lab = annealing.Annealing(), Lab()
    base, schedules = rule(annealing.ARMS, lab.lr, lab.momentum), config.schedules(lab)
    at = config.steps(lab, config.switch)

    def effective(arm: Arm, step: int) -> float:
        index, factors = annealing.ARMS.index(arm), schedules[arm](step)
        return float(base.lr[index] * factors.lr / (1 - base.momentum[index] * factors.momentum))

    for step in (0, at - 1, at, at + 10_000):
        assert effective(Arm.STEP, step) == pytest.approx(effective(Arm.MATCHED, step))
        assert effective(Arm.SWITCHED, step) == pytest.approx(effective(Arm.MATCHED, step))
        assert effective(Arm.PLAIN, step) == pytest.approx(lab.lr)
    decayed = [effective(Arm.DECAYED, step) for step in range(at, at + 2000, 50)]
    assert (np.diff(decayed) <= 0).all()
    assert decayed[0] == pytest.approx(10 * lab.lr)
    assert decayed[-1] == pytest.approx(lab.lr)


def test_stiff_saddle_follows_its_law() -> None:
    result = result_of("stiff")
    error = result.times.std(axis=2, ddof=1) / result.times.shape[2] ** 0.5
    assert (np.abs(result.times.mean(axis=2) - result.exact) < 4.5 * error + 0.02 * result.exact).all()
    measured = (result.stiff**2).mean(axis=(2, 3))
    assert measured == pytest.approx(result.stiff_exact, rel=0.25)


def test_hopping_is_slower_with_momentum_and_near_the_rate_formula() -> None:
    result = result_of("hopping")
    times = np.array([found.value for found in hopping.hopping_times(result)[0]])
    assert times[-1] > 1.5 * times[0]
    assert times / result.kramers[0] == pytest.approx(1.0, abs=0.6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": -1}, "seed must be a whole number of at least 0"),
        ({"seed": 1.5}, "seed must be a whole number"),
        ({"replicas": 1}, "at least 2, since an interval needs a spread"),
        ({"replicas": True}, "replicas must be"),
        ({"momentum": 1.0}, "0 <= momentum < 1"),
        ({"momentum": -0.1}, "0 <= momentum < 1"),
        ({"momentum": float("nan")}, "0 <= momentum < 1"),
        ({"lr": 0.0}, "lr must be a positive number"),
        ({"lr": float("inf")}, "lr must be a positive number"),
        ({"device": "abacus"}, "torch device"),
        ({"device": "meta"}, "nothing can be computed on it here"),
        ({"replicas": 1_000_001}, "replicas must be at most 1000000"),
    ],
)
def test_a_lab_names_the_valid_values(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Lab(**change)


def test_a_scale_is_one_of_those_there_are() -> None:
    with pytest.raises(ValueError, match="escape has no configuration for scale 'tpu'"):
        escape.ESCAPE.config("tpu")


def test_the_defaults_of_a_lab_are_valid_and_frozen() -> None:
    lab = Lab()
    assert [f.name for f in fields(lab) if not f.kw_only] == ["seed", "replicas", "device", "momentum", "lr"]
    with pytest.raises(FrozenInstanceError):
        lab.lr = 1.0  # type: ignore[misc]


def test_headline_momentum_moves_arms_and_predictions() -> None:
    lab, config = Lab(momentum=0.99, lr=1e-3), escape.Escape()
    assert lab.momenta(config.momentum)[-1] == lab.momentum == 0.99
    assert config.law(lab.lr, lab.momentum).lr == 1e-3
    assert Lab(momentum=0.5).momenta((0.0, 0.5)) == (0.0, 0.5)
    assert Lab(momentum=0.75).momenta((0.5,)) == (0.0, 0.5, 0.75)


def test_headline_zero_leaves_out_what_it_cannot_define() -> None:
    config = linear.Linear((linear.Saddle(0.1, 3.0, Share(least=50)),), main=0)
    found = linear.estimates(linear.run(config, Lab(replicas=2, momentum=0.0)))
    assert found["P3-X8.share"].value == found["P3-X8.share"].high == 0  # without a speed-up nothing to share out
    assert "P3-X8.size" not in found
    assert still("P3", "linear") == {"P3-X9.law", "P3-X9.law_first", "P3-X2.saturates", "P3-X2.size"}


def test_the_law_is_judged_in_every_setting_outside_the_noise() -> None:
    result = result_of("linear")
    level = result.level.copy()
    level[0, :2] = 5.0, 3.0
    result = replace(result, level=level)
    found = linear.estimates(result)
    for key, least in (("P3-X9.law", 7.0), ("P3-X9.law_first", 4.0)):
        assert len(found[key]) == (level >= least).sum()
    assert len(found["P3-X9.law_first"]) == len(found["P3-X9.law"]) + 1 == level.size - 1
    shifted = replace(result, times=tuple(1.3 * times for times in result.times))
    assert all(one.value > 1 for one in linear.estimates(shifted)["P3-X9.law"])


def test_a_ladder_comes_closer_to_its_limit() -> None:
    result = result_of("ladder")
    found = ladder.estimates(result)
    assert [len(found[f"P3-{claim}.approach"]) for claim in ("C7", "C8")] == [2, 1]
    for several in (found["P3-C7.approach"], found["P3-C8.approach"]):
        assert all(one.value > 0 for one in several)
    frame = ladder.tables(result)["ladder"]
    lr, momentum = frame["lr"], frame["momentum"]
    assert (lr / (1 - momentum) ** 2).to_numpy() == pytest.approx(frame["inertia"].to_numpy())
    first = frame[(frame["quantity"] == "variance") & (frame["momentum"] == 0.9)]
    assert first["value"].to_numpy() == pytest.approx(first["exact"].to_numpy(), rel=0.2)


def test_rows_of_arms_share_random_numbers_unless_told_otherwise() -> None:
    lab, pair = Lab(seed=4), heavy_ball([0.1, 0.2], [0.0, 0.5])
    shared = lab.arms(pair, 3)
    draws = shared.streams.normal(1, 0, (4,)).view(2, 3, 4)
    assert torch.equal(draws[0], draws[1])
    apart = lab.arms(pair, 3, shared=False).streams.normal(1, 0, (4,)).view(2, 3, 4)
    assert not torch.equal(apart[0], apart[1])
    assert shared.hyper.lr.tolist() == pytest.approx([0.1] * 3 + [0.2] * 3)


def arms_of(lr: list[float], momentum: list[float], replicas: int, seed: int = 0) -> Arms:
    return Lab(seed=seed).arms(heavy_ball(lr, momentum), replicas)


def test_split_is_arm_major() -> None:
    pair = arms_of([1e-9, 1e-9], [0.0, 0.5], 3)
    assert pair.split(torch.arange(6)).tolist() == [[0, 1, 2], [3, 4, 5]]
    start = torch.arange(6.0).view(6, 1)
    done = pair.run(Quadratic((0.0,), noise=0.0), start, 2, probes={"x": every(1, lambda x: x)})
    series = done.first("x", 2)
    assert series.shape == (2, 2, 3, 1)
    assert series[1, :, 0, 0].tolist() == [3, 4]


def test_a_run_gone_on_with_equals_one_uninterrupted_run() -> None:
    pair, bowl = arms_of([0.1, 0.2], [0.0, 0.9], 3, seed=2), Quadratic((1.0,))
    late = pair.run(bowl, torch.zeros(1, 1), 7).then(17, probes={"": every(5, column(0))})
    whole = train(bowl, torch.zeros(6, 1), pair.hyper, 17, pair.streams)
    assert torch.equal(late.params, whole.params)
    assert late.at("").tolist() == [10, 15, 17]


def test_a_fork_goes_on_as_its_parents_would_have_and_by_its_own_rules() -> None:
    pair, bowl = arms_of([0.1, 0.2], [0.0, 0.9], 3, seed=2), Quadratic((1.0,))
    begun = pair.run(bowl, torch.zeros(1, 1), 7)
    three = begun.fork(heavy_ball([0.1, 0.2, 0.1], [0.0, 0.9, 0.9]), (0, 1, 1))
    assert np.array_equal(three.end(), begun.end()[[0, 1, 1]])
    straight, forked = begun.then(17).end(), three.then(17).end()
    assert np.array_equal(forked[:2], straight)
    assert not np.array_equal(forked[2], straight[1])
    lost = replace(begun, before=torch.tensor([-1, -1, -1, 4, -1, -1])).fork(pair.rule, (1, 0)).then(17).lost
    assert lost.tolist() == [[True, False, False], [False, False, False]]


def test_passage_times_take_off_the_delay_and_enter_the_censored() -> None:
    looks = FirstPassage(lambda x: x[:, 0] > 0, every=5)
    done = arms_of([0.1], [0.0], 2).run(Quadratic((1.0,)), torch.zeros(1, 1), 1, probes={"half": looks})
    found = {"half": Series(torch.empty(0), torch.tensor([10, -1]))}
    done = replace(done, whole=replace(done.whole, records=found, steps=100))
    assert done.passed("half").tolist() == [[8.0, 100.0]]


def test_survivors_are_kept_in_pairs_and_their_lack_is_explained() -> None:
    pair = arms_of([0.08, 1e-4], [0.0, 0.0], 100)
    run = pair.run(StreamingPCA(), StreamingPCA().at(0), 1000)
    assert 0 < run.alive.sum() < 100
    lost = replace(run, before=torch.zeros(200, dtype=torch.int64))
    with pytest.raises(ValueError, match="choose a smaller lr or momentum"):
        _ = lost.alive


def test_blocks_keep_the_mean_and_the_pairing() -> None:
    x = np.arange(12.0)
    assert blocks(x, most=4).tolist() == [1.0, 4.0, 7.0, 10.0]
    assert blocks(x, most=50).tolist() == x.tolist()
    estimate = paired_ratio(3 * x + 3, x + 1, seed=0, most=4)
    assert (estimate.low, estimate.value, estimate.high) == pytest.approx((3.0, 3.0, 3.0))
