"""Five rules of different kinds go through a trial; what is broken is named in one line, what diverges is a result."""

import csv
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from descent.book.commands import cli
from descent.stats.estimate import Estimate
from descent.trials import load, problems, report
from descent.trials.contest import Plan, compete
from descent.trials.load import TrialError, entry

TINY = {"replicas": 8, "draws": 4, "steps": 8}
PLAN = Plan((1e-3, 1e-2, 2), every=6, **TINY)
MINE = """
import torch
from dataclasses import dataclass
from descent.engine import elementwise, torch_rule, sgd
from descent.engine.rule import Rule, broadcast

@elementwise(m=0.0)
def MyLion(g, x, s, h, age):
    step = h.lr * torch.sign(h.momentum * s.m + (1 - h.momentum) * g)
    return -step, {"m": h.slow * s.m + (1 - h.slow) * g}

@dataclass(frozen=True, eq=False)
class Layered(Rule):
    @property
    def reads(self):
        return "leaf"

    def update(self, gradient, state, params, age):
        norms = {k: g.flatten(1).norm(dim=1).clamp_min(1e-12) for k, g in gradient.items()}
        return {k: -g * (self.lr.to(g) / norms[k]).view(-1, *[1] * (g.ndim - 1)) for k, g in gradient.items()}, {}

def MyLayered(lr):
    return Layered(**broadcast(lr=lr))

def Torch(lr):
    return torch_rule(lambda groups: torch.optim.RMSprop(groups), lr)

def Linear(lr, momentum):
    from descent.engine import heavy_ball
    return heavy_ball(lr, momentum)

@elementwise()
def Explodes(g, x, s, h, age):
    return 1e30 * g

@elementwise(m=0.0)
def Mixes(g, x, s, h, age):
    return -h.lr * g / g.norm(), {"m": s.m}

@elementwise(m=0.0)
def Shapes(g, x, s, h, age):
    return -h.lr * g.mean(), {"m": s.m}

@elementwise()
def Random(g, x, s, h, age):
    return -h.lr * g * torch.rand(())

@elementwise()
def Holes(g, x, s, h, age):
    return -h.lr * g / (g - g)

@dataclass(frozen=True, eq=False)
class Counted(Rule):
    def init(self, params):
        return {f"count/{name}": 0 for name in params}

def Number(lr):
    return Counted(**broadcast(lr=lr))

def Nothing(lr):
    return 7
"""


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return path


def test_five_rules_of_different_kinds_go_through_it(mine, tmp_path):
    entries = [
        entry(f"{mine}:MyLion", {"slow": 0.99}), entry(f"{mine}:MyLayered"), entry(f"{mine}:Torch"),
        entry(f"{mine}:Linear"), entry("muon"),
    ]  # fmt: skip
    found = compete(problems.problem("digits"), entries, PLAN)
    assert set(found.tuned) == {"MyLion", "MyLayered", "Torch", "Linear", "muon"}
    assert all(curve.scores.shape[:2] == (4, 2) for curve in found.curves.values())
    assert set(found.factors) == {"raw", "symmetric"}
    assert "plain at its reach, symmetric" in report.table(found)
    assert "Too few replicas" in report.reading(found)
    paths = report.write(found, tmp_path / "report")
    page = paths[0].read_text()
    assert "<svg" in page
    assert "http" not in page.replace("http-equiv", "")
    rows = list(csv.DictReader(paths[1].read_text().splitlines()))
    assert {row["rule"] for row in rows} >= {"MyLion", "muon"}
    facts = json.loads(paths[3].read_text())
    assert len(facts["rules"][0]["source"]) == 64
    assert facts["plan"]["steps"] == 8


@pytest.mark.parametrize("name", sorted({*problems.PROBLEMS} - {"mnist", "patches"}))  # which have tests of their own
def test_every_problem_can_be_tried(name):
    plan = Plan((*problems.problem(name).rates[:2], 2), match=False, **TINY)
    found = compete(problems.problem(name), [entry("sign"), entry("adam")], plan)
    assert all(np.isfinite(curve.end).all() for curve in found.curves.values())
    assert all(isinstance(found.measured(arm, one), Estimate) for arm in found.curves for one in found.measures)


def test_a_rule_that_diverges_is_a_result(mine):
    found = compete(problems.problem("quadratic"), [entry(f"{mine}:Explodes"), entry("adam")], PLAN)
    assert found.tuned["Explodes"].lost
    assert math.isnan(found.tuned["Explodes"].lr)
    assert "diverged at every rate" in report.table(found)
    assert "diverged at every rate" in report.reading(found)


def test_tuning_sees_other_draws_than_the_report_and_widens_its_grid_once():
    plan = Plan((1e-6, 1e-5, 2), match=False, **TINY)
    found = compete(problems.problem("saddle"), [entry("sign")], plan)
    assert len(found.tuned["sign"].rates) == 4
    assert found.tuned["sign"].note == "best rate at the grid's end"


def test_the_step_of_a_linear_rule_explains_all_of_its_gain():
    """Plain descent at the measured reach of heavy ball is the matched run of the book, lr/(1 − momentum)."""
    plan = Plan((1e-3, 1e-3, 1), replicas=8, draws=4, steps=200, symmetric=False, every=50)
    bowl = replace(problems.problem("quadratic"), besides=None)  # its floors are another test's
    found = compete(bowl, [entry("heavy_ball")], plan)
    assert float(np.nanmedian(found.factors["raw"])) == pytest.approx(10, rel=0.2)


@pytest.mark.parametrize("by", ["response", "rms"])
def test_what_the_control_makes_equal_is_said_by_name(by, tmp_path):
    plan = Plan((1e-2, 1e-2, 1), symmetric=False, by=by, **TINY)
    found = compete(problems.problem("rare"), [entry("heavy_ball")], plan)
    assert f"plain at its {by}, raw" in report.table(found)
    said = {"response": "measured response", "rms": "measured root mean square update"}[by]
    assert said in report.reading(found)
    report.write(found, tmp_path)
    assert json.loads((tmp_path / "report.json").read_text())["plan"]["by"] == by


def call(capsys, *words):
    status = cli.main(["compare-rule", *map(str, words)])
    return status, capsys.readouterr()


def test_the_command_writes_a_report_and_ends_on_a_reading(mine, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["--problem", "rare", "--replicas", 8, "--draws", 4, "--steps", 8, "--lr", "1e-2:3e-2:2", "--out", "found"]
    status, said = call(capsys, "mine.py:MyLion", "--against", "adam", "-p", "slow=0.99", *words)
    assert status == 0
    assert "At its own measured step" in said.out
    assert (tmp_path / "found" / "report.html").is_file()


BROKEN = [
    (["{}:Mixes"], "replicas do not mix"),
    (["{}:Nothing"], "it must give a Rule"),
    (["{}:Missing"], "defines no 'Missing'"),
    (["{}:MyLion"], "there is lr, momentum: give a setting as -p slow=NUMBER"),
    (["{}:Shapes"], r"shapes and types stay”: step of '0.weight' is"),
    (["{}:Random"], "the same call gives the same"),
    (["{}:Holes"], "numbers are finite"),
    (["{}:Number"], "is the Python number 0"),
    (["nowhere.py:It"], "descent new rule nowhere.py"),
    (["adam", "--against", "adman"], "there is no rule 'adman'"),
    (["adam", "--problem", "cats"], "there is no problem 'cats'"),
    (["adam", "--lr", "1"], "give LOW:HIGH:COUNT"),
    (["adam", "-p", "slow"], "give NAME=NUMBER"),
    (["adam", "--replicas", "9"], "take at least 2 draws"),
    (["adam", "--out", "{}"], "cannot be a folder"),
    (["adam", "--problem", "mnist", "--replicas", "62", "--draws", "31"], "give --draws 30 or fewer"),
    ([], "name a rule"),
]


@pytest.mark.parametrize(("words", "why"), BROKEN)
def test_what_is_wrong_is_one_line_and_status_two(mine, capsys, words, why):
    import re

    status, said = call(capsys, *(word.format(mine) for word in words))
    assert status == 2
    assert re.search(why, said.err)
    assert said.err.count("\n") == 1


def test_the_template_is_a_rule_and_is_not_overwritten(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["new", "rule", "mine.py"]) == 0
    assert entry("mine.py:MyRule").momentum
    assert cli.main(["new", "rule", "mine.py"]) == 2
    assert "not overwritten" in capsys.readouterr().err
    assert cli.main(["new", "rule", "mine.txt"]) == 2


def test_built_in_rules_are_listed(capsys):
    status, said = call(capsys, "--list")
    assert status == 0
    assert len(said.out.splitlines()) == len(load.BUILT_IN)
    with pytest.raises(TrialError, match="NAME=NUMBER"):
        load.settings_of(["slow=fast"])
