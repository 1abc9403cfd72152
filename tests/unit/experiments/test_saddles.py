"""The low-dimensional experiments of the saddle chapter, shrunk: keys, shapes, pairing, outcomes, limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields, replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from descent.claims import load_paper
from descent.engine.train import every, train
from descent.experiments import arms, saddles
from descent.experiments.arms import Arms
from descent.experiments.common import Experiment, Settings
from descent.experiments.saddles import annealing, escape, hopping, limits, linear, optimum, stiff, tradeoff
from descent.problems.pca import StreamingPCA
from descent.problems.saddle import Quadratic
from descent.results import digest

SMALL = Settings(replicas=40, lr=4e-3, momentum=0.8)

SHRUNK: dict[str, tuple[ModuleType, Experiment, Callable[[], Any]]] = {
    "linear": (
        linear,
        saddles.LINEAR,
        lambda: replace(
            linear.Linear.cpu(SMALL), saddles=(linear.Saddle(0.1, 3.0, 500), linear.Saddle(0.03, 1.5, 500))
        ),
    ),
    "escape": (escape, saddles.ESCAPE, lambda: escape.Escape.cpu(SMALL)),
    "flow": (limits, saddles.FLOW, lambda: replace(limits.Flow.cpu(SMALL), effective=(3.2e-2, 1.6e-2, 8e-3, 4e-3))),
    "optimum": (optimum, saddles.OPTIMUM, lambda: optimum.Optimum.cpu(SMALL)),
    "tradeoff": (
        tradeoff,
        saddles.TRADEOFF,
        lambda: replace(tradeoff.Tradeoff.cpu(SMALL), large=(0.03, 0.08), large_steps=1000),
    ),
    "annealing": (annealing, saddles.ANNEALING, lambda: annealing.Annealing.cpu(SMALL)),
    "stiff": (stiff, saddles.STIFF, lambda: replace(stiff.Stiff.cpu(SMALL), replicas=80)),
    "hopping": (hopping, saddles.HOPPING, lambda: replace(hopping.Hopping.cpu(SMALL), effective=(0.2,), hops=3.0)),
}
RESULTS: dict[str, Any] = {}


def result_of(name: str) -> Any:
    module, _, config = SHRUNK[name]
    if name not in RESULTS:
        RESULTS[name] = module.run(config())
    return RESULTS[name]


@pytest.mark.parametrize("name", SHRUNK)
def test_estimates_carry_the_keys_of_the_claims(name: str) -> None:
    module, experiment, _ = SHRUNK[name]
    assert experiment.name == name
    found = module.estimates(result_of(name))
    tests = {f"{claim.id}.{test.key}" for claim in load_paper("P3").claims for test in claim.tests}
    assert set(found) <= tests
    assert tuple(sorted({key.split(".")[0] for key in found})) == tuple(sorted(experiment.claims))


@pytest.mark.parametrize("name", SHRUNK)
def test_tables_are_tidy_and_finite(name: str) -> None:
    module, _, _ = SHRUNK[name]
    for frame in module.tables(result_of(name)).values():
        assert len(frame) > 0
        assert not any("Unnamed" in str(column) for column in frame.columns)
        numbers = frame.select_dtypes("number").drop(columns=["ks", "ks_critical"], errors="ignore")
        assert np.isfinite(numbers.drop(columns="median_below_twice_floor", errors="ignore")).all().all()


def test_every_test_of_the_paper_is_answered_by_one_experiment() -> None:
    claims = [claim.id for claim in load_paper("P3").claims if claim.tests]
    spoken = {claim for experiment in saddles.EXPERIMENTS for claim in experiment.claims}
    assert set(claims) == spoken
    names = [experiment.name for experiment in saddles.EXPERIMENTS]
    assert len(set(names)) == len(names) == 14


@pytest.mark.parametrize("name", SHRUNK)
def test_configurations_exist_at_both_scales_frozen_and_digestible(name: str) -> None:
    kind = type(SHRUNK[name][2]())
    cpu, paper = kind.cpu(Settings()), kind.paper(Settings())
    assert digest(cpu) == digest(kind.cpu(Settings()))
    assert len({digest(cpu), digest(paper), digest(kind.cpu(Settings(seed=1)))}) == 3
    with pytest.raises(FrozenInstanceError):
        cpu.seed = 3


def test_same_seed_same_result_other_seed_other_result() -> None:
    config = replace(annealing.Annealing.cpu(replace(SMALL, replicas=8)), end=6.0, late=3.0, window=1.0)
    first, again, other = (annealing.run(c).final for c in (config, config, replace(config, seed=1)))
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
    head = result.row(result.config.headline)
    share = linear.estimates(result)["P3-C12.share"]
    assert 0 < share.low < share.high < 0.5
    assert result.quiet[head].mean() < result.times[result.config.main][0].mean()


def test_escape_levels_are_passed_in_order_and_momentum_is_faster() -> None:
    result = result_of("escape")
    assert (np.diff(result.times, axis=1) >= 0).all()
    assert (np.diff(result.times[:, escape.HALF].mean(axis=1)) < 0).all()
    assert result.paths.shape == (len(result.config.momentum), 40, len(result.path_steps))
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
            ratio = optimum.grid_ratio(result, s, m).widened(100)
            assert ratio.low < result.grid_exact[s, m] < ratio.high
    assert result.grid_exact[result.config.sharpness.index(1.5), 0] == pytest.approx(1.0)


def test_matched_arms_share_the_effective_step() -> None:
    config = result_of("tradeoff").config
    for effective in config.effective:
        rates = config.arms(effective)
        assert np.array(rates.lr) / (1 - np.array(rates.momentum)) == pytest.approx(effective)


def test_blow_ups_are_counted_and_spare_bounded_samples() -> None:
    lost = result_of("tradeoff").lost
    assert lost[0, 1, 0] > 0
    assert lost[0, 1, 0] >= lost[0, 1, -1]
    assert (lost[1] == 0).all()
    assert (lost[0, 0] == 0).all()


def test_annealed_arms_coalesce_after_the_switch() -> None:
    result = result_of("annealing")
    plain, momentum = (result.final[annealing.ARMS.index(a)].mean() for a in (annealing.PLAIN, annealing.MOMENTUM))
    assert momentum > 3 * plain
    for arm in (annealing.SWITCHED, annealing.MATCHED):
        assert annealing.ratio(result, arm, annealing.PLAIN).value == pytest.approx(1.0, abs=0.1)


def test_schedules_keep_the_matched_arm_at_the_effective_step_of_the_annealed_one() -> None:
    config = annealing.Annealing.cpu(Settings())
    lr, momentum = config.base
    at = config.steps(config.switch)

    def effective(arm: str, step: int) -> float:
        index, factors = annealing.ARMS.index(arm), config.schedules[arm](step)
        return float(lr[index] * factors.lr / (1 - momentum[index] * factors.momentum))

    for step in (0, at - 1, at, at + 10_000):
        assert effective(annealing.STEP, step) == pytest.approx(effective(annealing.MATCHED, step))
        assert effective(annealing.SWITCHED, step) == pytest.approx(effective(annealing.MATCHED, step))
        assert effective(annealing.PLAIN, step) == pytest.approx(config.lr)
    decayed = [effective(annealing.DECAYED, step) for step in range(at, at + 2000, 50)]
    assert (np.diff(decayed) <= 0).all()
    assert decayed[0] == pytest.approx(10 * config.lr)
    assert decayed[-1] == pytest.approx(config.lr)


def test_stiff_saddle_follows_its_law() -> None:
    result = result_of("stiff")
    error = result.times.std(axis=2, ddof=1) / result.times.shape[2] ** 0.5
    assert (np.abs(result.times.mean(axis=2) - result.exact) < 4.5 * error + 0.02 * result.exact).all()
    measured = (result.stiff**2).mean(axis=(2, 3))
    assert measured == pytest.approx(result.stiff_exact, rel=0.25)


def test_hopping_is_slower_with_momentum_and_near_the_rate_formula() -> None:
    result = result_of("hopping")
    mean = np.array([hopping.hopping_time(result, 0, a).value for a in range(len(result.config.momentum))])
    assert mean[-1] > 1.5 * mean[0]
    assert mean / result.kramers[0] == pytest.approx(1.0, abs=0.6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": "tpu"}, '"cpu" or "gpu"'),
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
def test_settings_name_the_valid_values(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings(**change)


def test_settings_defaults_are_valid_and_frozen() -> None:
    settings = Settings()
    assert [f.name for f in fields(settings)] == ["scale", "seed", "replicas", "device", "momentum", "lr"]
    with pytest.raises(FrozenInstanceError):
        settings.lr = 1.0  # type: ignore[misc]


def test_headline_momentum_moves_arms_and_predictions() -> None:
    config = escape.Escape.cpu(Settings(momentum=0.99, lr=1e-3))
    assert config.momentum[-1] == config.headline == 0.99
    assert config.mode[1] == 1e-3
    assert arms.momenta((0.0, 0.5), 0.5) == (0.0, 0.5)
    assert arms.momenta((0.5,), 0.75) == (0.0, 0.5, 0.75)


def test_headline_zero_leaves_out_what_it_cannot_define() -> None:
    plain = linear.Linear.cpu(Settings(replicas=2, momentum=0.0))
    config = replace(plain, saddles=(linear.Saddle(0.1, 3.0, 50),), main=0)
    assert "P3-C12.share" not in linear.estimates(linear.run(config))


def test_rows_of_arms_share_random_numbers_unless_told_otherwise() -> None:
    shared = Arms((0.1, 0.2), (0.0, 0.5), 3, seed=4)
    draws = shared.streams().normal(1, 0, (4,)).view(2, 3, 4)
    assert torch.equal(draws[0], draws[1])
    apart = replace(shared, shared=False).streams().normal(1, 0, (4,)).view(2, 3, 4)
    assert not torch.equal(apart[0], apart[1])
    assert shared.hyper.lr.tolist() == pytest.approx([0.1] * 3 + [0.2] * 3)


def test_split_is_arm_major() -> None:
    pair = Arms((0.1, 0.2), (0.0, 0.5), 3, seed=0)
    assert pair.split(torch.arange(6)).tolist() == [[0, 1, 2], [3, 4, 5]]
    start = torch.arange(6.0).view(6, 1)
    still = replace(pair, lr=(1e-9, 1e-9))
    probes = {"x": every(1, lambda x: x)}
    run = train(Quadratic((0.0,), noise=0.0), start, still.hyper, 2, still.streams(), probes=probes)
    series = still.split_series(run.records["x"], keep=2)
    assert series.shape == (2, 2, 3, 1)
    assert series[1, :, 0, 0].tolist() == [3, 4]


def test_settle_equals_one_uninterrupted_run() -> None:
    pair = Arms((0.1, 0.2), (0.0, 0.9), 3, seed=2)
    start, bowl = torch.zeros(6, 1), Quadratic((1.0,))
    end, series = arms.settle(bowl, start, pair, 7, 10, every(5, arms.column(0)))
    whole = train(bowl, start, pair.hyper, 17, pair.streams())
    assert torch.equal(end.params, whole.params)
    assert series.steps.tolist() == [10, 15, 17]


def test_passage_times_take_off_the_delay_and_enter_the_censored() -> None:
    assert arms.passage_times(np.array([10.0, -1.0]), 100, 5).tolist() == [8.0, 100.0]


def test_survivors_are_kept_in_pairs_and_their_lack_is_explained() -> None:
    pair = Arms((0.08, 1e-4), (0.0, 0.0), 100, seed=0)
    run = train(StreamingPCA(), StreamingPCA().at(0, 200), pair.hyper, 1000, pair.streams())
    alive = arms.survivors(pair, run)
    assert 0 < alive.sum() < 100
    lost = replace(run, diverged_at=torch.zeros(200, dtype=torch.int64))
    with pytest.raises(ValueError, match="choose a smaller lr or momentum"):
        arms.survivors(pair, lost)


def test_blocks_keep_the_mean_and_the_pairing() -> None:
    x = np.arange(12.0)
    assert arms.blocks(x, most=4).tolist() == [1.0, 4.0, 7.0, 10.0]
    assert arms.blocks(x, most=50).tolist() == x.tolist()
    estimate = arms.paired_ratio(3 * x + 3, x + 1, seed=0, most=4)
    assert (estimate.low, estimate.value, estimate.high) == pytest.approx((3.0, 3.0, 3.0))
