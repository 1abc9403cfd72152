"""Budgets of time: rates of a device, the plan they give, and what fits into a simulated clock's minutes."""

from __future__ import annotations

import contextlib
import json
import math
import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from descent.book.commands.cli import main
from descent.data.images import DataMissing
from descent.experiments.lab import Experiment, Lab
from descent.results import provenance
from descent.runs import campaign, forecast
from descent.runs.budget import CORE, Budget, rates, unfit
from descent.runs.sweep import SweepError

ROOT = Path(__file__).parents[3]
PACKAGE = "descent.experiments.saddles"
SMALL = Lab(replicas=400)


@dataclass(frozen=True)
class Given:
    """A configuration of nothing."""

    steps: int = 1


RATES = {
    "copy, read and write": 4e3,
    "stack, 64-64-10, 256 replicas, batch 32": 4 * CORE["64-64-10"],
    "stack, 64-64-10, 64 replicas, batch 256": 16 * CORE["64-64-10"],
    "one net, 64-64-10, 256 replicas, batch 32": 1.0,
    "ResNet-8, stack of 1, batch 32": 1e5,
    "ResNet-8, stack of 16, batch 32": 2e5,
    "ResNet-8, stack of 16, batch 32, bf16": 3e5,
    "ResNet-8, one module, batch 32": 9e9,
    "ResNet-18, stack of 1, batch 128": 4e4,
}


def calibration(shut=False, **changes):
    rows = [{"name": name, "value": value} for name, value in (RATES | changes).items()]
    made = {"device_class": "a large one", "date": "2026-01-01"}
    return {"provenance": made, "gates": [{"name": "words", "open": not shut}], "rates": rows}


def test_rates_are_those_of_stacks_at_the_precision_asked_for():
    assert rates(calibration()) == pytest.approx({"64-64-10": 8 * CORE["64-64-10"], "ResNet-8": 2e5, "ResNet-18": 4e4})
    assert rates(calibration(), "bf16")["ResNet-8"] == 3e5
    assert rates(calibration(), "bf16")["ResNet-18"] == 4e4  # measured in float32 alone
    assert unfit(calibration()) == ""
    assert "errs (words)" in unfit(calibration(shut=True))
    assert "not what `descent calibrate --out` writes" in unfit({"rates": []})


def test_a_calibration_rescales_the_plan():
    todo = campaign.tasks(PACKAGE, Lab(), "gpu", ["escape", "resnet"])
    assert forecast.kinds(todo) == {"escape": "64-64-10", "resnet": "ResNet-18"}
    core, device = (forecast.expected(todo, {"escape": 6.0}, each) for each in (None, calibration()))
    assert device["escape"] == pytest.approx(core["escape"] / 8)
    assert device["resnet"] == pytest.approx(10 * 120 * 2.5e4 / 3e5 + 4 * 120 * 2.5e4 / 4e4)
    assert core["resnet"] == pytest.approx(10 * 3e6 / CORE["ResNet-8"] + 4 * 3e6 / CORE["ResNet-18"])
    table = forecast.plan(todo, {"escape": 6.0}, calibration())
    assert table["minutes as calibrated"].tolist() == [f"{device[name] / 60:.1f}" for name in ("escape", "resnet")]
    assert math.isnan(forecast.expected(todo, {})["escape"])


def test_the_command_plans_with_a_calibration(tmp_path, capsys):
    file = tmp_path / "calibration.json"
    file.write_text(json.dumps(calibration()))
    call = ["--root", str(ROOT), "paper", "saddles", "--only", "P3-C16", "--device", "cpu", "--plan"]
    assert main([*call, "--out", str(tmp_path), "--calibration", str(file)]) == 0
    said = capsys.readouterr().out
    assert re.search(r"^ *resnet +6\.7 ", said, re.MULTILINE)  # 30 million images at 3e5, 12 million at 4e4 per second
    assert "minutes rescaled by the calibration of a large one, 2026-01-01; one core = 1: 64-64-10 8 ×" in said
    file.write_text(json.dumps(calibration(shut=True)))
    assert main([*call, "--out", str(tmp_path), "--calibration", str(file)]) == 2
    assert "is of a device that errs (words)" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["gates", "rates", "provenance"])
@pytest.mark.parametrize("content", [None, 3, [1], {"a": 1}, [{"name": "stack, 64-64-10", "value": "fast"}]])
def test_a_calibration_of_another_shape_is_refused(name, content):
    assert unfit(calibration()) == ""
    assert "not what `descent calibrate --out` writes" in unfit(calibration() | {name: content})


# ----------------------------------------------------------------------------------------------------------------
# A budget of time


FAULTS = {"broken": ZeroDivisionError(), "absent": DataMissing("no pictures")}


class Clock:
    """A clock that is moved by hand."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def timetable(monkeypatch, seconds, budget, took):
    """Return tasks that take some seconds of a simulated clock, and the budget that expects `seconds` of them."""
    clock = Clock()

    def work(name):
        def run(config, lab):
            clock.now += took.get(name, seconds[name])
            if name in FAULTS:
                raise FAULTS[name]

        return Experiment(name, Given(), Given(), run, lambda _: {}, lambda _: {})

    monkeypatch.setattr(campaign, "_experiments", lambda _: [work(name) for name in seconds])
    monkeypatch.setattr(campaign, "library_digest", lambda _: "the same all along")
    tasks = [campaign.Task(PACKAGE, name, replace(SMALL, replicas=20)) for name in seconds]
    return tasks, Budget(budget, seconds, clock=clock)


@pytest.mark.parametrize(
    ("seconds", "budget", "took", "expected"),
    [
        ({"a": 100, "b": 100, "c": 50}, 200, {}, "ac"),  # 200 − 100 − 20 is too little for b, enough for c
        ({"a": 100, "b": 60, "c": 10}, 200, {}, "abc"),
        ({"a": 50, "b": 60, "c": 10}, 200, {"a": 100}, "ac"),  # a took twice as long: 80 s left for b's 120 or c's 20
        ({"a": 100, "b": 180, "c": 10}, 200, {"a": 50, "b": 90}, "abc"),  # a took half as long: 130 s left for b's 90
        ({"a": 900, "b": 10}, 200, {}, "a"),  # longer than all of it: begun, to be gone on with
        ({"b": 10, "a": 900}, 200, {}, "b"),  # but not after another
        ({"a": float("nan"), "b": 10}, 200, {"a": 5}, "ab"),  # of unknown length
        ({"a": float("nan"), "b": float("nan")}, 200, {"a": 190, "b": 1}, "a"),  # no time at all is left
        ({"broken": 100, "b": 50}, 200, {}, "b"),
    ],
)
def test_only_what_fits_is_begun(tmp_path, monkeypatch, seconds, budget, took, expected):
    tasks, time_left = timetable(monkeypatch, seconds, budget, took)
    said = []
    with pytest.raises(SweepError) if "broken" in seconds else contextlib.nullcontext():
        campaign.campaign(tasks, tmp_path, say=said.append, budget=time_left)
    assert "".join(task.name for task in tasks if campaign.done(task, tmp_path)) == expected
    late = [task.name for task in tasks if task.name not in (*expected, "broken")]
    assert [line.partition(":")[0] for line in said if "not run: out of time" in line] == late


def test_a_kind_of_work_says_nothing_about_another():
    clock = Clock()
    budget = Budget(1000, {"law": 10, "net": 300, "other": 10}, clock=clock, kinds={"net": "ResNet-8"})

    def work():
        clock.now += 100
        return True

    budget.run("law", work)
    assert (budget.need("net"), budget.need("other")) == (300, 100)


def test_what_lacked_its_data_teaches_nothing(tmp_path, monkeypatch):
    tasks, time_left = timetable(monkeypatch, {"absent": 100, "b": 190}, 200, {"absent": 1})
    campaign.campaign(tasks, tmp_path, say=lambda _: None, budget=time_left)
    assert time_left.started == ["absent"]


def test_what_was_late_is_run_by_the_next_command(tmp_path, monkeypatch):
    tasks, first = timetable(monkeypatch, {"a": 100, "b": 100}, 200, {})
    campaign.campaign(tasks, tmp_path, say=lambda _: None, budget=first)
    tasks, second = timetable(monkeypatch, {"a": 100, "b": 100}, 200, {})
    campaign.campaign(tasks, tmp_path, say=lambda _: None, budget=second)
    assert second.started == ["b"]
    assert all(campaign.done(task, tmp_path) for task in tasks)


def test_records_say_what_there_was_no_time_for(tmp_path):
    (task,) = campaign.tasks(PACKAGE, SMALL, only=["linear"])
    made = provenance("gpu", "cpu", 0, 9, modules=["descent.stats.estimate"]).to_json()
    content = {"task": task.name, "provenance": made, "estimates": {}, "seconds": 1.0, "lab": {}}
    late = campaign.tasks(PACKAGE, Lab(), "gpu", ["resnet", "flow"])
    path = campaign.write_records("P3", [content], tmp_path, late)
    tests = {
        f"{record['id']}.{test['key']}": test["reason"]
        for record in json.loads(path.read_text())["records"]
        for test in record["tests"]
    }
    assert tests["P3-C3.resnet"] == tests["P3-C5.bias"] == "not run: out of time"
    assert tests["P3-C3.cifar"] == tests["P3-C9.plain"] == "not run at this scale"
