"""Floors and passages of a trial against exact laws, with a fault that they would show."""

from __future__ import annotations

import csv
import json
import math

import pytest
from descent.engine import sgd
from descent.problems.noisy import Bowl
from descent.stats.estimate import Estimate
from descent.trials import problems, report, rest
from descent.trials.contest import compete
from descent.trials.load import Entry, entry
from descent.trials.plan import Plan, Progress

PLAN = Plan((1e-2, 1e-2, 1), replicas=32, draws=8, seed=1000, match=False)
HUSH = Progress(lambda text: None, 1)


def rows(side):
    return [dict(zip(side.head, row, strict=True)) for row in side.rows]


def row(entries, law="normal", rate=0.1, name=""):
    found = rows(rest.floors(entries, PLAN, 200, HUSH, (law,)))
    return next(r for r in found if (r["rate"], r["rule"]) == (rate, name or entries[0].name))


def holds(cell, value, slack=0.03):
    """Tell whether an estimate has a value in its interval, widened by what theory leaves out."""
    assert isinstance(cell, Estimate)
    return cell.low - slack * value <= value <= cell.high + slack * value


def test_the_laws_are_those_of_the_chapter():
    unit = rest.descent_floor(0.1)
    sign, averaged = (rest.known(entry("sign", {"momentum": mu})) for mu in (0.0, 0.9))
    assert sign.at(0.1, "normal")[0] == pytest.approx(6.4648240969 * 0.01 / unit)
    assert averaged.at(0.1, "normal")[0] == pytest.approx(19.06278399 * 0.01 / unit, rel=1e-6)
    assert sign.skewed == pytest.approx(1 - math.log(2))
    assert averaged.at(0.01, "normal")[1] / sign.at(0.01, "normal")[1] == pytest.approx(0.6988878263, rel=1e-2)
    assert rest.known(entry("sgd")).at(0.1, "exponential") == pytest.approx((1.0, 1.0))
    assert rest.known(entry("heavy_ball")).response == pytest.approx(10)
    assert rest.known(entry("adam")).skewed == pytest.approx(2 * 0.00049554, rel=1e-4)
    assert rest.known(Entry("sign", entry("sign").make, {"momentum": 0.9}, True, "a digest")) == rest.Known()


def test_floors_are_those_of_theory_and_noise_that_is_a_third_less_would_be_seen(monkeypatch):
    monkeypatch.setattr(rest, "RINGS", 2)
    plain = [entry("sign", {"momentum": 0.0})]
    found = row(plain)
    assert holds(found["floor"], found["in theory"])
    assert holds(found["at equal response"], found["in theory there"])
    assert holds(found["at equal response"], math.pi / 2)
    monkeypatch.setattr(rest, "Bowl", lambda law="normal": Bowl(law, size=0.7))
    assert not holds(row(plain)["floor"], found["in theory"])


def test_the_floor_of_any_rule_is_the_temperature_of_its_step():
    """A reader's rule: no law is known, and what its step says of the floor holds."""
    mine = Entry("Mine", entry("sign").make, {"momentum": 0.5}, True, "a digest")
    found = row([mine])
    plain = row([mine], name="Mine, plain")
    assert found["in theory"] is None
    assert holds(found["by its step"], found["at equal response"].value, slack=0.1)
    assert not holds(found["by its step"], 2 * found["at equal response"].value, slack=0.1)
    assert plain["at equal response"].low > found["at equal response"].high  # averaging first returns information


def test_under_skewed_noise_a_plain_sign_rests_at_the_median_and_heavy_ball_at_the_mean(monkeypatch):
    monkeypatch.setattr(rest, "RINGS", 2)
    rules = [entry("sign", {"momentum": 0.0}), entry("ema")]
    found = {r["rule"]: r for r in rows(rest.floors(rules, PLAN, 400, HUSH, ("exponential",))) if r["rate"] == 0.01}
    assert found["sign"]["rests at"].value == pytest.approx(found["sign"]["rests in theory"], abs=0.03)
    assert abs(found["ema"]["rests at"].value) < 0.03 < found["sign"]["rests at"].low
    assert holds(found["ema"]["at equal response"], found["ema"]["in theory there"])


def test_signs_leave_a_saddle_faster_at_an_equal_rate_and_slower_at_an_equal_response():
    found = {r["rule"]: r for r in rows(rest.passages([entry("sign")], PLAN, 200, HUSH))}
    own, plain = found["sign"], found["sign, plain"]
    assert own["to 0.2"].high < plain["to 0.2"].low
    assert own["to 0.2, equal response"].low > plain["to 0.2, equal response"].high
    assert plain["to 0.2"].value == pytest.approx(184.6, rel=0.1)
    assert own["to 1"].value == pytest.approx(127.4, rel=0.1)


def test_the_table_is_in_the_terminal_the_page_a_csv_and_the_json(tmp_path):
    plan = Plan((1e-2, 1e-2, 1), replicas=8, draws=4, steps=20, match=False)
    found = compete(problems.problem("quadratic"), [entry("sign"), entry("sgd")], plan)
    paths = {path.name: path for path in report.write(found, tmp_path)}
    assert found.side is not None
    told = json.loads(paths["report.json"].read_text())["floors"]
    lines = list(csv.DictReader(paths["floors.csv"].read_text().splitlines()))
    assert len(lines) == len(told) == len(found.side.rows) == 2 * 2 * 3
    for line, cells, given in zip(lines, told, found.side.rows, strict=True):
        floor = given[found.side.head.index("floor")]
        assert isinstance(floor, Estimate)
        assert float(line["floor"]) == cells["floor"]["value"] == floor.value
        assert line["floor, low"] == ""  # too few for an interval
        assert f"{floor.value:.3g}" in report.table(found)
        assert f"{floor.value:.3g}" in paths["report.html"].read_text()
    assert "sign, plain" in report.table(found)


def test_a_rule_without_response_is_said_to_have_none():
    still = Entry("Still", lambda lr: sgd([0.0] * len(lr) if isinstance(lr, list) else 0.0), {}, False, "x")
    plan = Plan((1e-2, 1e-2, 1), replicas=4, draws=2, match=False)
    found = rest.passages([still], plan, 8, HUSH)
    assert set(found.rows[0][1:]) == {"not reached", "unknown"}
