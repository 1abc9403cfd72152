"""Laws of the exit time: fitted to times that follow them exactly, and to runs."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from descent.experiments.flatness import mechanisms
from descent.experiments.flatness.mechanisms import Case
from descent.experiments.lab import Lab
from descent.figures.flatness.exits import exit_laws
from descent.measure.exit_laws import BARRIER, LAWS, LOGARITHM, POWER, prediction_error, slope_of
from descent.theory.weights import lyapunov

RADII = np.array([1.0, 1.5, 2.5, 4.0])
TIMES = {BARRIER: np.exp(1 + 0.3 * RADII**2), POWER: 7 * RADII**1.3, LOGARITHM: 12 + 5 * np.log(RADII)}


@pytest.fixture(scope="module")
def result() -> mechanisms.MechanismsResult:
    config = mechanisms.MECHANISMS.small
    small = dataclasses.replace(config, mechanisms=config.mechanisms[:3], steps=3000)
    return mechanisms.run(small, Lab(replicas=100))


@pytest.mark.parametrize("law", LAWS)
def test_a_law_predicts_what_follows_it_and_nothing_else(law: str) -> None:
    errors = {other: float(prediction_error(other, TIMES[law][None], RADII)[0]) for other in LAWS}
    assert errors[law] < 1e-12
    assert min(error for other, error in errors.items() if other != law) > 0.003


def test_slopes_of_the_laws() -> None:
    slopes = {law: float(slope_of(law, TIMES[law][None], RADII)[0]) for law in LAWS}
    assert slopes == pytest.approx({BARRIER: 0.3, POWER: 1.3, LOGARITHM: 5.0})


def test_exact_slopes_of_the_mechanisms() -> None:
    additive, between, above = mechanisms.MECHANISMS.small.mechanisms[:3]
    assert additive.walk.variance == pytest.approx(1 / 3)
    assert additive.unit == pytest.approx(1.5)
    assert np.array(additive.radii) ** 2 * additive.unit == pytest.approx([1.5, 2.25, 3.25, 4.25, 5.5, 6.75])
    assert between.unit == pytest.approx(1.0)
    assert above.unit * lyapunov(above.walk.law, above.walk.lr, above.walk.batch_size) == pytest.approx(1)


def test_each_mechanism_follows_its_own_law(result) -> None:
    found = mechanisms.estimates(result)
    for key in ("barrier", "power", "logarithm"):
        assert found[f"P2-X10.{key}"].value == pytest.approx(1, abs=0.2)
    assert found["P2-C2.above"].low > 0.5
    assert found["P2-C2.between"].low > 5
    assert found["P2-X10.additive"].high < 0


def test_tables_carry_censoring(result) -> None:
    frames = mechanisms.tables(result)
    laws, errors = frames["exit_laws"], frames["exit_law_errors"]
    censored = laws[laws.share_left < 1]
    assert len(censored)
    assert censored.spread.isna().all()
    assert (laws.low <= laws["mean"]).all()
    best = errors[list(LAWS)].to_numpy().argmin(1)
    assert [list(LAWS)[i] for i in best[list(Case)]] == [BARRIER, POWER, LOGARITHM]


def test_a_radius_nobody_reaches_is_refused_by_name(result) -> None:
    config = dataclasses.replace(result.config, mechanisms=result.config.mechanisms[:1], steps=20)
    short = mechanisms.run(config, result.lab)
    with pytest.raises(ValueError, match="the statistic is not finite"):
        mechanisms.slope(short, Case.ADDITIVE, BARRIER)
    assert mechanisms.tables(short)["exit_law_errors"].empty
    assert np.isinf(mechanisms.tables(short)["exit_laws"]["mean"].iloc[-1])


def test_the_figure_draws_three_laws_per_mechanism(result) -> None:
    figure = exit_laws(result)
    assert [axis.get_yscale() for axis in figure.axes] == ["log", "log", "linear"]
    for axis in figure.axes:
        assert {f"{law} law" for law in LAWS} <= {drawn.get_label() for drawn in axis.lines}
