"""The synthesis chapter's control table: arms, exact columns of the prototype, and every experiment, shrunk."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from descent.experiments import synthesis
from descent.experiments.lab import Experiment, Lab, Share
from descent.experiments.margins.arms import Task as Patches
from descent.experiments.synthesis import (
    directions,
    features,
    hopping,
    limits,
    lineup,
    modes,
    rescaling,
    theory,
    tolerance,
    warmup,
)
from descent.experiments.synthesis.lineup import (
    COLUMNS,
    GRID,
    MOMENTA,
    Arm,
    Cell,
    Column,
    arms_at,
    cells_table,
    pair,
    rule_of,
)
from descent.measure.growth import onset
from descent.results import digest
from descent.runs.campaign import claims_of
from descent.stats import exact
from descent.theory.mode import search_noise_power, stationary_variance
from descent.theory.noise_escape import gaussian_escape, outside
from numpy.testing import assert_allclose
from tidy import check_answers

CLAIMS = claims_of("descent.experiments.synthesis")
LAB = Lab(replicas=40, seed=7)
MODES, HOPS, TOLERANCE = modes.Modes(), hopping.Hopping(), tolerance.Tolerance()

SHRUNK: dict[str, tuple[ModuleType, Experiment[Any, Any], Any]] = {
    "limits": (limits, limits.LIMITS, limits.Limits()),
    "theory": (
        theory,
        theory.THEORY,
        theory.Theory(Share(most=10), climbers=Share(most=4), climb=5, covariances=10, operators=2),
    ),
    "modes": (modes, modes.MODES, replace(MODES, leaving=Share(least=100), burn=200, watch=400)),
    "tolerance": (tolerance, tolerance.TOLERANCE, replace(TOLERANCE, steps=148, burn=100)),
    "features": (features, features.FEATURES, features.Features(Patches(6, tests=100), loss=0.05, steps=1200)),
    "directions": (
        directions,
        directions.DIRECTIONS,
        directions.Directions(5, Share(most=40), edge_walkers=Share(most=40), edge_steps=60),
    ),
    "hopping": (
        hopping,
        hopping.HOPPING,
        replace(
            HOPS,
            replicas=Share(most=12),
            height=2.0,
            starts=200,
            effective=(0.01, 0.02, 0.04),
            lams=(0.3, 1.0, 4.0),
            horizon=15.0,
        ),
    ),
    "rescaling": (rescaling, rescaling.RESCALING, rescaling.Rescaling()),
    "warmup": (warmup, warmup.WARMUP, warmup.Warmup(2, Share(most=4), budgets=(20, 40))),
}
RESULTS: dict[str, Any] = {}


def result(name: str) -> Any:
    """Run every experiment once, when it is first asked for."""
    if name not in RESULTS:
        module, _, config = SHRUNK[name]
        RESULTS[name] = module.run(config, Lab(replicas=40, seed=3) if name == "features" else LAB)
    return RESULTS[name]


# The arms


def test_every_arm_is_what_its_control_says() -> None:
    arms = arms_at(0.02)
    assert arms[0] == Arm(0.02, 0.0)
    for m in MOMENTA[1:]:
        found = {column: [arms[place] for place in pair(column, m)] for column in COLUMNS}
        for column, (arm, control) in found.items():
            assert arm.momentum == m
            assert control.momentum == 0
            assert control.noise == 1
            assert arm.noise == pytest.approx((1 + m) / (1 - m) if column == "equal_power" else 1)
            if column != "equal_lr":  # both travel as far per step
                assert arm.lr / (1 - m) == pytest.approx(control.lr)
        assert found["equal_lr"][0].lr == found["equal_lr"][1].lr == 0.02
        assert found["equal_step"][0] == found["equal_lr"][0]
        assert found["average"][1] == found["equal_power"][1] == arms[0]
        assert found["average"][0].lr == pytest.approx(0.02 * (1 - m))
    assert all(pair(column, 0.0) == (0, 0) for column in COLUMNS)
    assert len(GRID) == len(set(GRID)) == len(COLUMNS) * len(MOMENTA)


def test_rules_and_noise_are_laid_out_like_the_arms() -> None:
    arms = arms_at(0.02)
    stack = Lab().arms(rule_of(arms), 3)
    noise = stack.spread([arm.noise for arm in arms])
    assert stack.hyper.lr.tolist() == pytest.approx([a.lr for a in arms for _ in range(3)])
    assert stack.hyper.momentum.tolist() == [a.momentum for a in arms for _ in range(3)]
    assert noise.shape == (39,)
    assert noise.tolist() == pytest.approx([a.noise for a in arms for _ in range(3)])


def test_equal_step_and_average_are_one_law_at_two_steps() -> None:
    for mechanism, m in (("floor", 0.5), ("floor", 0.9), ("escape", 0.5)):
        ratios = []
        for column, lr in (("equal_step", 0.01), ("average", 0.01 / (1 - m))):
            config = replace(MODES, lr=lr)
            ratios.append(config.predicted_ratio(mechanism, column, m))  # type: ignore[arg-type]
        assert ratios[0] == pytest.approx(ratios[1], rel=1e-12)
    assert replace(MODES, lr=0.02).predicted_ratio("floor", "average", 0.5) == pytest.approx(0.9933, abs=5e-5)


def test_a_table_of_cells_leaves_blank_what_is_not_known() -> None:
    frame = cells_table([Cell("a", "average", 0.5, 2.0, exact(3.0)), Cell("b", "equal_lr", 0.9, None, None, "why")])
    assert frame["measured"].tolist()[0] == 3.0
    assert frame.loc[1, ["predicted", "measured", "low", "high"]].isna().all()
    assert frame["note"].tolist() == ["", "why"]
    assert frame["control"].tolist() == ["average", "equal_lr"]


# The exact columns


MODE_COLUMNS: dict[modes.Mechanism, dict[Column, tuple[float, float, float]]] = {
    "direction": {
        "equal_lr": (1.3361, 5.3346, 57.52),
        "equal_step": (1.3344, 5.2711, 43.19),
        "average": (0.3356, 0.0571, 0.0100),
        "equal_power": (1.0092, 1.1103, 2.639),
    },
    "escape": {
        "equal_lr": (0.4640, 0.1305, 0.0902),
        "equal_step": (1.0286, 1.849, 12.58),
        "average": (1.0142, 1.1187, 1.879),
        "equal_power": (0.8473, 0.6482, 0.695),
    },
    "floor": {
        "equal_lr": (1.9992, 10.090, 113.9),
        "equal_step": (0.9933, 0.9519, 0.4298),
        "average": (0.9967, 0.9953, 0.9950),
        "equal_power": (2.9975, 19.35, 263.2),
    },
}


@pytest.mark.parametrize("mechanism", MODE_COLUMNS)
@pytest.mark.parametrize("column", COLUMNS)
def test_one_direction_is_predicted_as_in_the_prototype(mechanism: modes.Mechanism, column: Column) -> None:
    found = [MODES.predicted_ratio(mechanism, column, m) for m in MOMENTA]
    assert found[0] == 1
    assert_allclose(found[1:], MODE_COLUMNS[mechanism][column], rtol=5e-4, atol=5e-5)


@pytest.mark.parametrize(
    ("column", "size", "expected"),
    [
        ("equal_lr", 4, (1.0714, 0.4130, 0.0490)),
        ("equal_lr", 256, (1.4884, 1.7756, 1.124)),
        ("average", 4, (2.143, 4.130, 4.901)),
        ("average", 256, (2.977, 17.76, 112.4)),
        ("equal_step", 4, (2.143, 4.130, 4.901)),
        ("equal_power", 4, (1.154, 0.260, 0.0251)),
        ("equal_power", 256, (2.909, 7.914, 1.283)),
    ],
)
def test_tolerance_is_predicted_as_in_the_prototype(column: Column, size: int, expected: tuple[float, ...]) -> None:
    assert TOLERANCE.predicted(column, 0.0, size) == 1
    assert_allclose([TOLERANCE.predicted(column, m, size) for m in MOMENTA[1:]], expected, rtol=2e-3)
    assert [TOLERANCE.edge(0.0, 4), TOLERANCE.edge(0.0, 256)] == pytest.approx([1.6, 1.992], abs=5e-4)


DIRECTION_COLUMNS: dict[Column, tuple[float, float, float]] = {
    "equal_lr": (1.49, 1.67, 1.71),
    "equal_step": (3.86, 7.26, 8.14),
    "average": (2.40, 2.79, 1.51),
    "equal_power": (1.68, 1.51, 1.21),
}


def test_directions_are_as_in_the_prototype() -> None:
    config = directions.Directions()
    arms = config.arms
    assert arms[0].lr == pytest.approx(1.1 * 1.25393, rel=1e-5)
    d1 = [float(outside(gaussian_escape(config.curvatures, a.lr, a.momentum, a.noise / 8, 30), 1)) for a in arms]
    assert d1[0] == pytest.approx(2.262, abs=5e-4)
    for column, expected in DIRECTION_COLUMNS.items():
        pairs = [pair(column, m) for m in MOMENTA[1:]]
        assert_allclose([d1[a] / d1[c] for a, c in pairs], expected, atol=6e-3)
    assert_allclose(result("directions").exact, d1, rtol=1e-12)
    table = directions.tables(result("directions"))["own_edges"].pivot(index="momentum", columns="batch_size")
    assert_allclose(table["D1"][8], [2.760, 4.790, 5.865, 6.057], atol=6e-4)
    assert_allclose(table["D1"][64], [0.214, 0.842, 4.477, 5.915], atol=6e-4)
    assert_allclose(table["critical"][8], [11.9, 35.6, 225.7, 2363.7], atol=0.06)
    assert config.collapse < 1e-9
    assert [config.equal_batch(m) for m in MOMENTA[:3]] == [6, 18, 113]


HOP_COLUMNS: dict[Column, tuple[float, float, float]] = {
    "equal_lr": (0.0708, 0.0053, 0.0028),
    "equal_step": (1.036, 1.79, 8.04),
    "average": (1.019, 1.152, 1.977),
    "equal_power": (0.0708, 0.0260, 0.037),
}


@pytest.mark.parametrize("column", COLUMNS)
def test_barriers_are_predicted_as_in_the_prototype(column: Column) -> None:
    arms = arms_at(HOPS.lr)
    for m, expected in zip(MOMENTA[1:], HOP_COLUMNS[column], strict=True):
        arm, control = (arms[place] for place in pair(column, m))
        assert HOPS.kramers(arm) / HOPS.kramers(control) == pytest.approx(expected, rel=5e-3, abs=6e-5)


def test_the_barrier_is_four_temperatures_high_for_plain_sgd_and_lower_where_noise_is_larger() -> None:
    assert HOPS.lr * HOPS.noise / 2 == pytest.approx(0.25 / 4)
    arms = arms_at(HOPS.lr)
    cold = {(column, m): HOPS.cold(arms[pair(column, m)[0]]) for column, m in GRID if m}
    assert {key for key, value in cold.items() if value} == {
        ("average", 0.5),
        ("average", 0.9),
        ("average", 0.99),
        ("equal_lr", 0.5),
        ("equal_step", 0.5),
        ("equal_power", 0.5),
    }


def test_features_have_the_arms_their_controls_ask_for() -> None:
    config = features.Features()
    arms = config.arms
    for m in MOMENTA[1:]:
        for column in COLUMNS:
            arm, control = config.pair(column, m)
            assert (arms[control].momentum, arms[control].batch) == (0.0, 0)
            if arm not in arms:
                assert (column, m) == ("equal_power", 0.99)
                continue
            lr, momentum, _, batch = arms[arm]
            assert momentum == m
            assert arms[control].lr == pytest.approx(1.0 if column != "equal_step" else lr / (1 - m))
            assert lr == pytest.approx(1.0 if column in ("equal_lr", "equal_step") else 1 - m)
            assert batch == ({0.5: 32, 0.9: 5}[m] if column == "equal_power" else 0)
    assert all(config.pair(column, 0.0) == (("plain", 1.0),) * 2 for column in COLUMNS)


# Every experiment, shrunk


def test_every_experiment_has_a_configuration_at_both_scales() -> None:
    for experiment in synthesis.EXPERIMENTS:
        assert type(experiment.small) is type(experiment.large)
        alone = experiment.name in ("limits", "rescaling")  # nothing in them is random, or can be made larger
        assert (digest(experiment.small) == digest(experiment.large)) == alone
    claims = [claim for experiment in synthesis.EXPERIMENTS for claim in CLAIMS[experiment.name]]
    twice = {"S-21", "S-39", "S-40", "S-41"}  # of one net, of small ones, of convolutional ones
    assert {claim for claim in claims if claims.count(claim) > 1} == twice
    assert len({experiment.name for experiment in synthesis.EXPERIMENTS}) == len(synthesis.EXPERIMENTS)


@pytest.mark.parametrize(
    ("share", "few", "many"),
    [
        (warmup.Warmup().replicas, 32, 160),
        (TOLERANCE.replicas, 32, 300),
        (directions.Directions().walkers, 50, 200),
        (directions.Directions().edge_walkers, 40, 1000),
        (HOPS.replicas, 32, 600),
        (MODES.replicas, 40, 1000),
        (MODES.leaving, 160, 4000),
        (theory.Theory().problems, 25, 50),
        (theory.Theory().climbers, 8, 12),
        (features.Features().task.seeds, 32, 32),
    ],
)
def test_how_many_take_part(share: Share, few: int, many: int) -> None:
    assert [Lab(replicas=replicas).count(share) for replicas in (40, 1000)] == [few, many]


@pytest.mark.parametrize("name", SHRUNK)
def test_estimates_speak_to_the_claims_and_tables_are_tidy(name: str) -> None:
    module, experiment, _ = SHRUNK[name]
    check_answers("S", module, result(name))
    found = module.estimates(result(name))
    assert {key.partition(".")[0] for key in found} == set(CLAIMS[experiment.name])


@pytest.mark.parametrize("name", ["modes", "tolerance", "directions", "hopping", "features"])
def test_every_cell_of_the_table_is_filled_or_explained(name: str) -> None:
    found = list(result(name).cells)
    for mechanism in {cell.mechanism for cell in found}:
        own = [cell for cell in found if cell.mechanism == mechanism]
        assert sorted((c.column, c.momentum) for c in own) == sorted((c, m) for c in COLUMNS for m in MOMENTA)
        for cell in own:
            assert (cell.measured is None) <= bool(cell.note)
            if cell.momentum == 0:
                assert cell.predicted == 1
                assert cell.measured is not None
                assert (cell.measured.value, cell.measured.low, cell.measured.high) == (1, 1, 1)


def test_the_whole_table_has_a_row_per_mechanism() -> None:
    names = ("modes", "tolerance", "features", "directions", "hopping")
    cells = synthesis.lineup.all_cells(*(result(name) for name in names))
    assert {cell.mechanism for cell in cells} == set(lineup.NAMES)
    assert len(cells) == len(lineup.NAMES) * len(COLUMNS) * len(MOMENTA)
    for m in MOMENTA:
        frame = synthesis.lineup.summary(cells, m)
        assert frame.shape == (len(lineup.NAMES), len(COLUMNS))
    assert frame.loc["noise floor", "average"].endswith(" (0.995)")
    assert frame.loc["tolerance, batch 4", "equal power"] == "(0.0251)"
    assert frame.loc["time over a barrier", "equal step"] == "undefined"
    still = synthesis.lineup.summary(cells, 0.0)
    assert set(still.to_numpy().ravel()) == {"1 (1)"}


def test_modes_come_out_as_predicted() -> None:
    found, arms = result("modes"), arms_at(MODES.lr)
    assert found.direction.shape == found.floor.shape == (len(arms), 40)
    assert found.escape.shape == (len(arms), 100)
    assert found.strong.shape == (3, 100)
    assert found.levels.shape == (5, 2, 40)
    assert (found.escape > 0).all()
    moving = [i for i, arm in enumerate(arms) if arm.lr / (1 - arm.momentum) > 0.09]  # these forget their start in time
    expected = [MODES.predicted("floor", arms[i]) for i in moving]
    assert_allclose(found.floor[moving].mean(1), expected, rtol=0.2)
    power = [MODES.predicted("direction", arm) for arm in arms]
    assert_allclose(found.direction.mean(1), power, rtol=0.2)
    escapes = [MODES.predicted("escape", arm) for arm in arms]
    assert_allclose(found.escape.mean(1), escapes, rtol=0.15)
    sides = modes.estimates(found)["S-5.sign"]
    assert len(sides) == 10
    assert all(e.value > 0 for e in sides)


def test_the_levels_of_averages_are_in_units_of_the_gradient_at_any_base_step() -> None:
    """At base step .05 an average of momentum .5 and effective step .1 has the base's raw rate."""
    few = Share(most=2)
    config = modes.Modes(0.05, Share(), few, sizes=(0.1,), averages=(0.5,), burn=200, watch=1000)
    levels = modes.run(config, Lab(replicas=200, seed=7)).levels
    assert levels.mean() == pytest.approx(float(search_noise_power(1.0, 0.05, 0.5, convention="ema")), rel=0.05)


def test_half_a_load_moves_the_floor_by_little() -> None:
    halves = [found.value for found in modes.estimates(result("modes"))["S-6.half"]]
    assert halves == pytest.approx([1 - m / (1 + m) * 0.01 / 0.5 for m in (0.5, 0.9)], abs=1e-3)
    spread = stationary_variance(1.0, 0.01, 0.0, 1.0, MODES.strong) / stationary_variance(1.0, 0.01, 0.0, 1.0)
    assert 1 - 1 / spread == pytest.approx(0.1, abs=0.001)  # the load that `strong` stands for


def test_where_plain_sgd_is_unstable_a_cell_says_so() -> None:
    config = replace(MODES, lr=0.03)  # SGD at .03/.01 leaves a curvature of 1, with .5 and .9 it does not
    filled = np.ones((len(arms_at(config.lr)), 4))
    found = modes.ModesResult(config, LAB, filled, filled, filled, filled, filled)
    blank = {(c.mechanism, c.column, c.momentum) for c in found.cells if c.note}
    assert blank == {("direction", "equal_step", 0.99), ("floor", "equal_step", 0.99)}  # a saddle is left by any step
    assert all(c.measured is None and c.predicted is None for c in found.cells if c.note)
    assert all("unstable" in c.note for c in found.cells if c.note)
    barrier = [c for c in result("hopping").cells if c.note == lineup.UNDEFINED]
    assert [(c.column, c.momentum) for c in barrier] == [("equal_step", 0.99)]


def test_thresholds_are_looked_for_around_their_exact_values() -> None:
    found = result("tolerance")
    config = found.config
    assert set(found.square) == set(found.single) == {(m, k) for m in MOMENTA for k in (4, 76, 256)}
    for (m, k), blocks in found.square.items():
        grid = config.grid(m, k)
        assert blocks.shape == (24, len(grid))
        assert found.single[m, k].shape == (32, len(grid))
        assert grid[:2].max() < config.edge(m, k) < grid[2:4].min()
        if m <= 0.5:  # with a longer memory the run is too short
            assert found.threshold(m, k).value == pytest.approx(config.edge(m, k), rel=0.1)
    line = np.array([1.0, 2.0, 4.0])
    assert onset(line, np.array([-1.0, 1.0, 5.0])) == pytest.approx(1.5)
    assert onset(line, np.array([[-3.0, -1.0, 1.0], [-3.0, -2.0, -1.0]])) == pytest.approx([3.0, 6.0])


def test_walkers_of_every_arm_and_edge() -> None:
    found = result("directions")
    whole = [arm.noise == 1 for arm in found.config.arms]
    assert found.measured.shape == (13, 5)
    assert np.isfinite(found.measured).all(axis=1).tolist() == whole
    assert found.edge.shape == (3, 5)
    assert_allclose(np.exp(np.log(found.measured[whole]).mean(1)), found.exact[whole], rtol=0.5)
    empty = [c for c in found.cells if c.measured is None]
    assert {(c.column, c.momentum) for c in empty} == {("equal_power", m) for m in MOMENTA[1:]}
    assert all("predicted only" in c.note and c.predicted is not None for c in empty)


def test_passages_are_counted_and_bowls_depend_on_inertia() -> None:
    found = result("hopping")
    assert found.times.shape == found.seen.shape == (13, 12)
    assert (found.times[found.seen] <= found.steps).all()
    assert (found.times[~found.seen] == found.steps).all()
    hot, plain = (found.times[place].mean() for place in pair("equal_lr", 0.9))
    assert hot < 0.5 * plain
    for home in found.home.values():
        assert home.shape == (3, 3, 200)
        assert np.isin(home, (0, 1)).all()
    bowl = found.home["rugged bowl"].mean(axis=-1)
    assert (bowl[:, 1] > bowl[:, 0] + 0.3).all()
    assert max(plain.max() for plain in found.plain.values()) == 0
    assert len(found.moved()) == 3 * 1 * 3  # three landscapes, one step between the first and 0.02, three inertias


def rolled(home: list[list[list[float]]]) -> hopping.HoppingResult:
    """A result whose one landscape has these ends, by effective step, inertia and start."""
    config = replace(HOPS, effective=(0.01, 0.02, 0.04)[: len(home)], lams=(1.0, 2.0)[: len(home[0])])
    nobody, ends = np.zeros((0, 0)), np.array(home)
    return hopping.HoppingResult(config, LAB, nobody, nobody > 0, 0, {"bowl": ends}, {"bowl": ends[:, 0]})


def test_shares_are_compared_from_equal_starts() -> None:
    half, more = [1.0, 0.0, 1.0, 0.0], [1.0, 1.0, 1.0, 0.0]
    moved, still = rolled([[half, half], [more, half], [half, half]]).moved()
    assert (moved.value, moved.n) == (0.25, 4)
    assert (still.value, still.low, still.n) == (0, 0, 4)  # nobody ends elsewhere: how many may
    assert still.high == pytest.approx(1 - 0.025 ** (1 / 4))
    assert not still.insufficient


def test_the_spread_and_the_best_share_are_those_of_all_starts() -> None:
    half, more, none = [1.0, 0.0] * 6, [1.0, 1.0, 1.0, 0.0] * 3, [0.0] * 12
    found = rolled([[half, none], [half, none], [more, none]])
    assert found.shrinks().value == pytest.approx(0.25)
    assert rolled([[half], [more], [half]]).shrinks().value == 0  # it is in the first two already
    assert found.best("bowl").value == pytest.approx((0.5 + 0.5 + 0.75) / 3)


def test_ballistic_crossing_is_as_in_the_prototype() -> None:
    config, evenly = replace(HOPS, effective=(0.04,)), np.linspace(0, 1, 2001)
    plain, *home = hopping._roll(config, hopping.LANDSCAPES["rugged bowl"], evenly)[0].mean(axis=-1)
    assert_allclose(home, [0, 0.650, 0.757, 0.801, 0.830, 0.756, 0.403], atol=6e-4)
    assert plain == 0


def test_small_margins_arms_arrive_and_cells_explain_themselves() -> None:
    found = result("features")
    assert found.error.shape == found.arrived.shape == (len(found.config.arms), 6)
    assert not any(found.lost(key) for key in found.config.arms)
    assert ((found.error >= 0) & (found.error <= 1)).all()
    notes = {(c.column, c.momentum): c.note for c in found.cells}
    assert notes["equal_power", 0.99] == features.TOO_SMALL
    assert notes["equal_step", 0.99] == features.NOBODY  # so large a step forgets the margins at once
    assert notes["average", 0.9] == ""
    assert found.gain("average", 0.9).high < -0.1
    names = list(found.config.arms)
    ruined, clean = found.arrived.copy(), found.error.copy()
    ruined[names.index(found.config.pair("equal_step", 0.9)[1])] = False
    clean[names.index(("plain", 1.0)), 1:] = 0.0  # one seed alone errs
    notes = {(c.column, c.momentum): c.note for c in replace(found, error=clean, arrived=ruined).cells}
    assert notes["equal_step", 0.9] == features.LOST
    assert notes["average", 0.9] == features.NOBODY


def test_every_formula_is_a_limit_of_the_kernel() -> None:
    found = result("limits")
    assert {paper for paper, *_ in found.rows} == {"P1", "P2", "P3", "P4", "P5"}
    assert limits.estimates(found)["S-32.limits"].value < 2e-4
    other = limits.run(limits.Limits(curvature=2.0, lr=0.1, momentum=0.6, noise=0.3, multiplicative=0.5, batch=8), LAB)
    assert limits.estimates(other)["S-32.limits"].value < 2e-4
    assert all(a[2] != b[2] for a, b in zip(found.rows[:5], other.rows, strict=False))


def test_nothing_destabilises_at_matched_step_and_identities_hold() -> None:
    found = result("theory")
    shapes = len(found.config.shapes)
    assert found.edge.shape == (shapes, 10, len(theory.LADDER))
    assert found.twin.shape == (sum(d > 1 for _, d in found.config.shapes), 10, 3)
    assert found.covariance.shape == (10,)
    assert found.covariance.max() < 1e-9
    assert found.operator.shape == (6,)
    assert found.operator.max() < 1e-8
    assert found.commuting.max() < 1e-8
    assert (np.diff(found.edge, axis=-1) > 0).all()
    assert found.load.shape == (shapes, 3)
    assert (found.load < 1).all()
    assert found.load_search.shape == (2, shapes - 1, 4, 6)  # momenta, shapes of more than one dimension, climbers
    assert found.floor_search.shape == (2, shapes - 2, 4, 6)  # and with more examples than dimensions
    assert (found.load_search < 1).all()
    assert (np.diff(found.floor_search, axis=-1) >= 0).all()
    assert found.twin.min() > 1 - 1e-9
    assert found.twin.max() > 1.001
    answers = theory.estimates(found)
    assert all(abs(one.value - 1) < 0.03 for one in answers["S-9.curve"])
    counts = {"random": 3 * shapes, "load": 3 * shapes, "search": 2 * (shapes - 1)}
    assert {key: len(answers[f"S-3.{key}"]) for key in counts} == counts
    assert answers["S-25.search"].n == 4  # a party for each climber
    assert answers["S-26.gap"].n == 2  # sets of five problems of every shape
    assert_allclose(
        found.efficiency[[0, 2, 3]],
        [  # momenta .9, .99, .999
            [0.99068, 0.91964, 0.62654, 0.27477, 0.09348],
            [0.99024, 0.91643, 0.61889, 0.27072, 0.09531],
            [0.9902, 0.91612, 0.61812, 0.27021, 0.09515],
        ],
        atol=6e-6,
    )


def test_stiffness_delays_and_lag_are_as_in_the_prototype() -> None:
    found = result("rescaling")
    config = found.config
    slow = found.matched[0]
    assert slow[:3].tolist() == pytest.approx([691, 678, 664], abs=1)
    assert slow[config.momenta.index(0.9)] == pytest.approx(538, abs=1)
    assert found.best < 120
    assert_allclose(found.gain, [3.26, 31.6, 100.0, 10.03], rtol=2e-3)
    assert_allclose(found.delay_ratio[0], [1.82, 1.74, 1.55, 1.42, 1.38], atol=6e-3)
    assert_allclose(rescaling.growth_ratio(config, config.strong), [1.913, 1.820, 1.622, 1.481, 1.435], atol=6e-4)
    assert_allclose(found.lag, [0, 1, 9, 99, 999], atol=1e-6)
    assert_allclose(found.coast, found.lag, atol=1e-6)


def test_short_budgets() -> None:
    found = result("warmup")
    assert found.accuracy.shape == (len(warmup.ARMS), 2, 2, 2)
    assert (found.gain("average", 20).n, found.gain("average", 20).draws) == (4, 2)
    assert ((found.accuracy > 0) & (found.accuracy <= 100)).all()
    assert found.gain("plain", 20).value == 0
    lagging, mended = (found.gain(arm, 20).value for arm in ("strong average", "strong corrected"))
    assert lagging < -5
    assert mended > lagging + 5
