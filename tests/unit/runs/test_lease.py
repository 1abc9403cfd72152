"""A lease: what is worth most first, within the time of a simulated clock, and the next one goes on where it ended."""

from __future__ import annotations

import contextlib
import json
import math
import signal
import time
from pathlib import Path

import pytest
from descent.book.commands import lease as command
from descent.book.commands.cli import main, parser
from descent.book.sources.project import BookError, find_project
from descent.claims import load_records
from descent.data.images import DataMissing
from descent.experiments.lab import Experiment, Lab
from descent.results import provenance
from descent.runs import calibrate, campaign
from descent.runs.budget import Budget
from descent.runs.lease import WORTH, Step, TimeOver, alarm, by_worth, lease
from test_budget import PACKAGE, RATES, Clock, Given, calibration

ROOT = Path(__file__).parents[3]


class Machine:
    """A device on which experiments take seconds of a simulated clock; what takes too long is cut short."""

    def __init__(self, seconds, **ends):
        self.seconds, self.ends, self.clock, self.ran, self.limit = seconds, ends, Clock(), [], math.inf

    def work(self, name):
        def run(config, lab):
            self.ran.append(name)
            spent = min(self.limit, self.seconds[name])
            self.seconds[name] -= spent  # a checkpoint is gone on with
            self.clock.now += spent
            if self.seconds[name] > 0:
                raise TimeOver
            if name in self.ends:
                raise self.ends[name]

        return Experiment(name, Given(), Given(), run, lambda _: {}, lambda _: {})

    @contextlib.contextmanager
    def limited(self, seconds):
        self.limit = seconds
        yield


@pytest.fixture
def rented(monkeypatch, tmp_path):
    """Return a function that rents such a machine for a while: what it ran, what failed, and what was said."""

    def rent(machine, seconds, expected=None):
        monkeypatch.setattr(campaign, "_experiments", lambda _: [machine.work(name) for name in machine.seconds])
        monkeypatch.setattr(campaign, "library_digest", lambda _: "the same all along")
        machine.ran, said = [], []
        tasks = [campaign.Task(PACKAGE, name, Lab(replicas=20)) for name in machine.seconds]
        steps = [Step("saddles", task, tmp_path) for task in tasks]
        known = {f"saddles.{name}": value for name, value in (expected or machine.seconds).items()}
        failed = lease(steps, Budget(seconds, known, clock=machine.clock), said.append, machine.limited)
        return machine.ran, failed, said

    return rent


def test_what_is_worth_most_comes_first_and_the_rest_as_it_stands():
    names = [("saddles", "linear"), ("smoothing", "grid"), ("geometry", "width"), ("saddles", "resnet")]
    steps = [Step(chapter, campaign.Task("", name, Lab()), Path()) for chapter, name in names]
    ordered = [step.name for step in by_worth(steps)]
    assert ordered == ["saddles.resnet", "smoothing.grid", "saddles.linear", "geometry.width"]


def test_every_experiment_of_worth_is_there_and_stated_for_an_accelerator():
    for chapter, name in WORTH:
        assert name in {task.name for task in campaign.tasks(f"descent.experiments.{chapter}", Lab(), "gpu")}


def test_only_what_fits_is_run_and_the_next_lease_goes_on(rented, tmp_path):
    machine = Machine({"a": 100, "b": 100, "c": 50})
    ran, failed, said = rented(machine, 200)
    assert (ran, failed) == (["a", "c"], [])
    assert said == [
        "saddles.a: begins, 1.7 min expected, 3.0 min left",
        "saddles.a: ends, 1.3 min left",
        "saddles.b: not run: out of time, 1.7 min expected, 1.3 min left",
        "saddles.c: begins, 0.8 min expected, 1.3 min left",
        "saddles.c: ends, 0.5 min left",
    ]
    assert load_records(tmp_path / "records.json")
    machine = Machine({"a": 100, "b": 100, "c": 50})
    ran, _, said = rented(machine, 200)
    assert ran == ["b"]
    assert said[0] == "saddles.a: done already"


def test_what_is_cut_short_by_the_end_is_gone_on_with(rented):
    machine = Machine({"a": 300})
    assert rented(machine, 200)[2][-1] == "saddles.a: the time is over; the same command goes on with it, 0.0 min left"
    assert rented(machine, 200)[2][-1] == "saddles.a: ends, 1.0 min left"


def test_a_failure_or_absent_data_cost_the_others_nothing_and_teach_nothing(rented, tmp_path):
    machine = Machine({"a": 1, "b": 1, "c": 100}, a=ZeroDivisionError(), b=DataMissing("no pictures"))
    ran, failed, said = rented(machine, 200, {"a": 100, "b": 100, "c": 190})
    assert (ran, failed) == (["a", "b"], ["saddles.a"])  # c still takes what it was expected to
    assert any("ZeroDivisionError" in line for line in said)
    assert "saddles.b: no pictures, 3.0 min left" in said


def test_an_alarm_ends_what_runs():
    before = signal.getsignal(signal.SIGALRM)
    with pytest.raises(TimeOver), alarm(0.01):
        time.sleep(10)
    with alarm(60.0):
        pass
    assert signal.getsignal(signal.SIGALRM) == before
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


# ----------------------------------------------------------------------------------------------------------------
# The command


def made(device, module=calibrate.__name__):
    return provenance("cpu", device, 0, 1, modules=[module]).to_json()


@pytest.fixture
def whole(monkeypatch, tmp_path):
    """Return a function that runs the command where everything takes a minute, and gives its status and the names."""
    clock, ran = Clock(), []

    def run(task):
        clock.now += 60
        ran.append(f"{task.package.rpartition('.')[2]}.{task.name}")
        about = {"schema": campaign.SCHEMA, "task": task.name, "mark": task.mark, "lab": {}}
        return about | {"provenance": made("cpu"), "skipped": "nothing here", "seconds": 1}

    monkeypatch.setattr(campaign, "run", run)
    monkeypatch.setattr(calibrate, "calibrate", lambda device, *_: measured(device))

    def call(*arguments):
        ran.clear()
        options = parser().parse_args(["lease", "--out", str(tmp_path), "--device", "cpu", *arguments])
        return command.run(find_project(ROOT), options, lambda function, *given: function(*given), clock), list(ran)

    def measured(device):
        clock.now += 60
        fast = {name: 1e6 * rate for name, rate in RATES.items()}
        return calibration(**fast) | {"provenance": made(device)}

    return call


def test_the_command_calibrates_once_and_runs_in_the_order_of_worth(whole, tmp_path, capsys):
    status, ran = whole("--minutes", "5")
    assert (status, ran) == (0, [f"{chapter}.{name}" for chapter, name in WORTH[:4]])  # a minute goes to calibrating
    said = capsys.readouterr().out
    assert "calibrating cpu" in said
    assert "saddles.resnet: nothing here" in said
    assert said.count("not run: out of time") > 20
    assert json.loads((tmp_path / "calibration.json").read_text())["rates"]
    _, ran = whole("--minutes", "5")
    assert len(ran) == 5
    assert "calibrating" not in capsys.readouterr().out
    assert whole("--minutes", "5", "--only", "saddles.flow")[1] == ["saddles.flow"]


def test_a_calibration_that_is_damaged_or_of_other_code_is_made_anew(whole, tmp_path, capsys):
    other = calibration() | {"provenance": made("cpu", "descent.stats")}
    for content in ("{", "[]", json.dumps(calibration()), json.dumps(other)):
        (tmp_path / "calibration.json").write_text(content)
        whole("--minutes", "5", "--only", "saddles.flow")
        assert "calibrating cpu" in capsys.readouterr().out


def test_a_plan_runs_nothing(whole, capsys):
    assert whole("--minutes", "5", "--plan") == (0, [])
    said = capsys.readouterr().out
    assert said.index("saddles.resnet") < said.index("smoothing.grid") < said.index("saddles.linear")


@pytest.mark.parametrize("name", ["resnet", "sadles.resnet", "saddles.resnett", "saddles"])
def test_a_name_that_is_none_is_refused(whole, name):
    with pytest.raises(BookError, match=r"name an experiment as CHAPTER.NAME|neither experiment nor claim"):
        whole("--minutes", "5", "--only", name)


def test_minutes_and_device_are_asked_for(capsys):
    assert main(["--root", str(ROOT), "lease", "--minutes", "5", "--device", "cuda:77"]) == 2
    assert "device 'cuda:77': this machine has" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["lease"])
    assert "--minutes" in capsys.readouterr().err
