"""Campaigns: what is killed is taken up, what is damaged is measured again, and nothing depends on who ran it."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from descent.book.commands.cli import main
from descent.book.execute import lock
from descent.book.sources import records
from descent.book.sources.project import BookError, find_project
from descent.claims import load_records
from descent.data.images import DataMissing
from descent.engine.checkpoint import Checkpoint, Keeping, keeping
from descent.engine.rules import sgd
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.engine.train import every, train
from descent.experiments import saddles
from descent.experiments.lab import Experiment, Lab, Share
from descent.experiments.saddles.linear import Saddle
from descent.results import load_table, save_table
from descent.runs import campaign, forecast
from descent.runs.sweep import SweepError
from descent.stats.estimate import Estimate
from forked import forked
from pandas import DataFrame

ROOT = Path(__file__).parents[3]
PACKAGE = "descent.experiments.saddles"
SMALL = Lab(replicas=400)


@dataclass(frozen=True)
class Given:
    """A configuration of nothing."""

    steps: int = 1


def given(name, run, estimates=lambda _: {}, tables=lambda _: {}):
    """Return an experiment of that name, at any scale the same."""
    return Experiment(name, Given(), Given(), run, estimates, tables)


def essence(content):
    """Return what must not depend on where and how often a task was run."""
    return {key: content[key] for key in ("task", "mark", "config", "estimates", "lab")}


def tables(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.csv"))}


@pytest.fixture(scope="module")
def raw():
    """Return what a task gives before it is written."""
    return campaign.run(campaign.tasks(PACKAGE, SMALL, only=["linear"])[0])


@pytest.fixture(scope="module")
def plain(raw, tmp_path_factory):
    """Return a finished task and the folder it was run into."""
    out = tmp_path_factory.mktemp("plain")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(campaign, "run", lambda _: raw)
        todo = campaign.tasks(PACKAGE, SMALL, only=["linear"])
        return campaign.campaign(todo, out, say=lambda _: None)[0], out


# ----------------------------------------------------------------------------------------------------------------
# A run that is kept


@dataclass(frozen=True)
class Walk:
    """Noise alone."""

    largest: float = float("inf")
    real: bool = False  # ask the CPU's allocator for what no machine has

    def gradient(self, params, streams, step):
        return streams.normal(Purpose.NOISE, step, params.shape[1:])

    def chunks(self, replicas, budget):
        rows = max(1, min(replicas, budget >> 20))
        if rows > self.largest:
            if self.real:
                torch.empty(1 << 60, dtype=torch.int8)
            raise torch.OutOfMemoryError(f"no room for {rows} rows")
        return [slice(begin, min(begin + rows, replicas)) for begin in range(0, replicas, rows)]

    def subset(self, rows):
        return self


def walk(steps, objective=None, replicas=6):
    look = every(7, lambda params: params.square().sum(-1))
    streams = Streams(replica_seeds(3, replicas), torch.float64)
    start = torch.zeros(replicas, 4, dtype=torch.float64)
    return train(objective or Walk(), start, sgd([0.1] * replicas), steps, streams, probes={"far": look}, check=5)


def same(a, b):
    return torch.equal(a.params, b.params) and torch.equal(a.records["far"].values, b.records["far"].values)


@pytest.mark.parametrize("stop", [1, 3, 8])
def test_calls_cut_short_go_on_and_finished_ones_are_not_run_again(tmp_path, monkeypatch, stop):
    whole = [walk(200), walk(300)]
    saves, written = Checkpoint.save, []

    def fragile(self, mark, meta, tensors):
        saves(self, mark, meta, tensors)
        written.append(meta["step"])
        if len(written) == stop:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "save", fragile)
    with pytest.raises(KeyboardInterrupt), keeping(Keeping(tmp_path, seconds=0.001)):
        _ = [walk(200), walk(300)]
    assert 0 <= written[-1] < 300
    with keeping(Keeping(tmp_path, seconds=0.001)):
        again = [walk(200), walk(300)]
    assert all(same(a, b) for a, b in zip(whole, again, strict=True))
    assert len(list(tmp_path.glob("call-*.npz"))) == 2


def test_what_remembers_is_not_kept(tmp_path):
    class Remembering(Walk):
        remembers = True

    with keeping(Keeping(tmp_path, seconds=0.0)):
        walk(50, Remembering())
    assert not list(tmp_path.iterdir())


def damaged(path):
    """Return a file's content spoiled in several ways."""
    whole = path.read_bytes()
    with np.load(path) as file:
        some = io.BytesIO()
        np.savez(some, **{name: file[name] for name in file.files[:-1]})
    middle = len(whole) // 2
    return [
        b"",
        whole[:middle],
        b"garbage" * 100,
        whole[:middle] + b"\xff" * 9 + whole[middle + 9 :],
        b"\x93NUMPY" + whole[6:],
        b"PK\x03\x04" + b"\x00" * 40,
        some.getvalue(),
    ]


def test_a_damaged_checkpoint_is_deleted_with_a_sentence_and_its_run_starts_over(tmp_path):
    whole = [walk(20), walk(30)]
    with keeping(Keeping(tmp_path, seconds=0.0)):
        _ = [walk(20), walk(30)]
    second = tmp_path / "call-0002.npz"
    for content in damaged(second):
        said = []
        second.write_bytes(content)
        with keeping(Keeping(tmp_path, seconds=0.0, say=said.append)):
            again = [walk(20), walk(30)]
        assert all(same(a, b) for a, b in zip(whole, again, strict=True))
        assert [f"checkpoint {second} cannot be read" in line for line in said] == [True]


def test_checkpoints_of_another_mark_are_deleted_with_one_sentence(tmp_path):
    class Loud(Walk):
        def gradient(self, params, streams, step):
            return 2 * super().gradient(params, streams, step)

    Loud.__name__, Loud.__qualname__, Loud.__module__ = Walk.__name__, Walk.__qualname__, Walk.__module__
    said = []
    for objective, mark in ((Walk(), "old"), (Loud(), "new"), (Loud(), "new")):
        with keeping(Keeping(tmp_path, seconds=0.0, mark=mark, say=said.append)):
            found = [walk(20, objective), walk(30, objective)]
    assert all(same(a, b) for a, b in zip(found, [walk(20, Loud()), walk(30, Loud())], strict=True))
    assert len(said) == 1
    assert "call-0001.npz was written by a run with other arguments or by other code: it is deleted" in said[0]


SHORTER = {
    "linear": {"saddles": (Saddle(0.1, 3.0, Share()), Saddle(0.02, 1.0, Share()), Saddle(0.01, 1.0, Share()))},
    "flow": {},
    "tradeoff": {"relaxations": 2.0, "large_steps": 300},
    "annealing": {"late": 2.0, "end": 3.0, "window": 0.5, "frames": 30},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SHORTER)
def test_an_experiment_cut_short_anywhere_ends_in_the_same_numbers(tmp_path, monkeypatch, name):
    experiment = next(item for item in saddles.EXPERIMENTS if item.name == name)
    lab, config = Lab(replicas=64), replace(experiment.small, **SHORTER[name])
    whole = experiment.estimates(experiment.run(config, lab))
    saves, count = Checkpoint.save, iter(range(1, 10**6))

    def fragile(self, mark, meta, tensors):
        saves(self, mark, meta, tensors)
        if next(count) in (2, 5):
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "save", fragile)
    for _ in range(3):
        try:
            with keeping(Keeping(tmp_path, seconds=0.05)):
                again = experiment.estimates(experiment.run(config, lab))
        except KeyboardInterrupt:
            continue
    assert again == whole


# ----------------------------------------------------------------------------------------------------------------
# Tasks


def test_chosen_by_experiment_or_by_claim():
    assert [task.name for task in campaign.tasks(PACKAGE, SMALL, only=["linear"])] == ["linear"]
    named = campaign.tasks(PACKAGE, SMALL, only=["P3-X6"])
    assert [task.name for task in named] == ["hopping"]
    assert len(campaign.tasks(PACKAGE, SMALL)) == len(saddles.EXPERIMENTS) - 2  # two are stated for scale gpu alone
    assert len(campaign.tasks(PACKAGE, Lab(), "gpu")) == len(saddles.EXPERIMENTS)
    ordered = campaign.tasks(PACKAGE, SMALL, only=["hopping", "P3-X8", "escape", "hopping"])
    assert [task.name for task in ordered] == ["hopping", "linear", "escape"]
    with pytest.raises(
        ValueError, match=r"neither experiment nor claim of saddles: P9-C1; there are annealed_networks"
    ):
        campaign.tasks(PACKAGE, SMALL, only=["P9-C1"])


def test_the_plan_says_what_grows_and_how_long_it_may_take():
    todo = campaign.tasks(PACKAGE, Lab(), "gpu", ["escape"])
    (row,) = forecast.plan(todo, {"escape": 6.0}).to_dict("records")
    assert "replicas 1000 → 100000" in row["against the CPU run"]
    assert float(row["minutes on one core"]) == pytest.approx(10.0, rel=0.3)


@pytest.mark.slow
def test_a_finished_task_is_not_run_again(plain, monkeypatch):
    content, out = plain
    monkeypatch.setattr(campaign, "run", lambda _: pytest.fail("it was run again"))
    (again,) = campaign.campaign(campaign.tasks(PACKAGE, SMALL, only=["linear"]), out, say=lambda _: None)
    assert again == content


@pytest.mark.parametrize("damage", ["cut", "edit", "schema", "other seed"])
def test_a_damaged_result_is_measured_again(raw, plain, tmp_path, monkeypatch, damage):
    (content, out), ran = plain, []
    monkeypatch.setattr(campaign, "run", lambda task: ran.append(task) or raw)  # what it gives is tried above
    text = (out / "linear.result.json").read_text()
    broken = {
        "cut": text[: len(text) // 2],
        "edit": text.replace('"n": ', '"n": 1'),
        "schema": "[]",
        "other seed": json.dumps(json.loads(text) | {"mark": "another"}),
    }[damage]
    (tmp_path / "linear.result.json").write_text(broken)
    (task,) = campaign.tasks(PACKAGE, SMALL, only=["linear"])
    assert campaign.done(task, tmp_path) is None
    campaign.campaign([task], tmp_path, say=lambda _: None)
    assert ran == [task]
    assert essence(campaign.done(task, tmp_path)) == essence(content)
    assert tables(tmp_path) == tables(out)


def test_other_settings_are_another_task(plain):
    _, out = plain
    assert campaign.done(campaign.tasks(PACKAGE, Lab(replicas=401), only=["linear"])[0], out) is None


def test_records_are_judged_and_the_rest_is_said_not_to_have_been_run(plain, tmp_path):
    content, _ = plain
    path = campaign.write_records("P3", [content], tmp_path)
    records = {record["id"]: record for record in json.loads(path.read_text())["records"]}
    assert records["P3-X2"]["verdict"] in ("holds", "fails")
    assert records["P3-C5"]["verdict"] == "not tested here"
    assert "not run at this scale" in records["P3-C5"]["notes"]


def test_one_experiment_after_the_other_adds_up_in_one_folder(plain, tmp_path):
    content, out = plain
    shutil.copytree(out, tmp_path / "both")
    (later,) = campaign.tasks(PACKAGE, SMALL, only=["stiff"])
    campaign.campaign([later], tmp_path / "both", say=lambda _: None)
    assert campaign.others([later], tmp_path / "both") == [content]
    assert campaign.others([replace(later, lab=replace(SMALL, seed=9))], tmp_path / "both") == []
    (tmp_path / "both" / "linear.result.json").write_text("{}")
    assert campaign.others([later], tmp_path / "both") == []


def test_earlier_records_that_say_more_are_set_aside_not_lost(plain, tmp_path):
    content, _ = plain
    path = campaign.write_records("P3", [content], tmp_path)
    before = path.read_bytes()
    campaign.write_records("P3", [content], tmp_path)
    assert [each.name for each in tmp_path.glob("records*.json")] == ["records.json"]  # nothing is lost by the same
    less = content | {"estimates": {"P3-X9.law": content["estimates"]["P3-X9.law"]}}
    campaign.write_records("P3", [less], tmp_path)
    (aside,) = set(tmp_path.glob("records*.json")) - {path}
    assert aside.read_bytes() == before
    assert "cpu" in aside.name
    assert path.read_bytes() != before


@pytest.mark.parametrize("real", [False, True])
def test_out_of_memory_it_goes_on_in_smaller_chunks_to_the_same_numbers(monkeypatch, real):
    seen = []

    def narrow(largest):
        def run(config, lab):
            seen.append(largest)
            return walk(40, Walk(largest, real), replicas=700)

        return given("narrow", run)

    found = []
    for largest in (float("inf"), 100):
        monkeypatch.setattr(campaign, "_experiments", lambda _, size=largest: [narrow(size)])
        found.append(campaign._kept(campaign.Task(PACKAGE, "narrow", SMALL), Given(), SMALL, ()))
    assert same(*found)
    assert len(seen) > 2  # it took several tries
    monkeypatch.setattr(campaign, "_experiments", lambda _: [narrow(1)])
    with pytest.raises(MemoryError, match="lower `replicas`"):
        campaign._kept(campaign.Task(PACKAGE, "narrow", SMALL), Given(), SMALL, ())


def test_absent_pictures_are_a_result_too(tmp_path, monkeypatch):
    monkeypatch.setenv("DESCENT_DATA", str(tmp_path / "nothing"))
    (task,) = campaign.tasks(PACKAGE, SMALL, only=["cifar"])
    (content,) = campaign.campaign([task], tmp_path, say=lambda _: None)
    assert "no train.parquet" in content["skipped"]
    assert "estimates" not in content


def test_one_failure_does_not_lose_the_others(tmp_path, monkeypatch):
    broken, estimate = given("broken", lambda config, lab: 1 / 0), Estimate(1, 0, 2, 3, "exact")
    fine = given("fine", lambda config, lab: 1, lambda _: {"k": estimate}, lambda _: {"t": DataFrame({"a": [1]})})
    monkeypatch.setattr(campaign, "_experiments", lambda _: [broken, fine])
    todo = [campaign.Task(PACKAGE, name, SMALL) for name in ("broken", "fine")]
    with pytest.raises(SweepError, match="ZeroDivisionError"):
        campaign.campaign(todo, tmp_path, say=lambda _: None)
    assert campaign.done(todo[1], tmp_path) is not None


def walking(monkeypatch, tmp_path):
    """Return a task that walks under checkpoints, and the list of what ends it then, which is empty at first."""
    ends = []

    def measured(config, lab):
        run = walk(60)
        if ends:
            raise ends[0]
        return run.params.square().mean().item()

    item = given("walk", measured, lambda size: {"size": Estimate(size, 0, 99, 2, "exact")})
    monkeypatch.setattr(campaign, "_experiments", lambda _: [item])
    return campaign.Task(PACKAGE, "walk", SMALL, seconds=0.0, work=str(tmp_path / "work")), ends


@pytest.mark.parametrize("end", [KeyboardInterrupt, ZeroDivisionError])
def test_what_other_code_has_left_is_not_gone_on_with(tmp_path, monkeypatch, capsys, end):
    task, ends = walking(monkeypatch, tmp_path)
    ends.append(end)
    with pytest.raises((KeyboardInterrupt, SweepError)):
        campaign.campaign([task], tmp_path, say=lambda _: None)
    assert list((tmp_path / "work" / "walk").glob("call-*.npz"))
    draw = Walk.gradient
    monkeypatch.setattr(Walk, "gradient", lambda *given: 2 * draw(*given))  # the code is edited
    monkeypatch.setattr(campaign, "library_digest", lambda _: "of the edited code")
    ends.clear()
    (content,) = campaign.campaign([task], tmp_path, say=lambda _: None)
    assert content["estimates"]["size"][0]["value"] == walk(60).params.square().mean().item()
    assert "call-0001.npz was written by a run with other arguments or by other code" in capsys.readouterr().out
    assert not (tmp_path / "work" / "walk").exists()


def test_what_other_kernels_have_left_is_not_gone_on_with(tmp_path, monkeypatch, capsys):
    task, ends = walking(monkeypatch, tmp_path)
    ends.append(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        campaign.run(task)
    monkeypatch.setattr("descent.dispatch.kernels", lambda capability: "other")
    ends.clear()
    assert "other kernels" in campaign.run(task)["provenance"]["instructions"]
    assert "was written by a run with other arguments or by other code" in capsys.readouterr().out


def test_what_lacked_its_data_is_tried_again(tmp_path, monkeypatch):
    def measured(config, lab):
        if absent:
            raise DataMissing("no pictures")

    monkeypatch.setattr(campaign, "_experiments", lambda _: [given("one", measured)])
    task, absent = campaign.Task(PACKAGE, "one", SMALL), True
    campaign.campaign([task], tmp_path, say=lambda _: None)
    assert campaign.done(task, tmp_path) is None
    absent = False
    campaign.campaign([task], tmp_path, say=lambda _: None)
    assert campaign.done(task, tmp_path) is not None


@pytest.mark.parametrize("spoilt", ["linear_saddle.csv", "linear_saddle.json"])
@pytest.mark.parametrize("how", ["gone", "cut", "another"])
def test_a_task_without_its_whole_tables_is_not_done(plain, tmp_path, spoilt, how):
    _, out = plain
    shutil.copytree(out, tmp_path / "out")
    (task,) = campaign.tasks(PACKAGE, SMALL, only=["linear"])
    assert campaign.done(task, tmp_path / "out") is not None
    path = tmp_path / "out" / spoilt
    if how == "gone":
        path.unlink()
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-20])
    else:  # a table with a note that fits it, of another run
        made = load_table(out / "linear_saddle.csv").provenance
        save_table("linear_saddle", DataFrame({"a": [1]}), made, path.parent)
    assert campaign.done(task, tmp_path / "out") is None


def test_a_table_that_was_damaged_is_measured_again(tmp_path, monkeypatch):
    ran = []
    frame = DataFrame({"a": [1.5]})
    item = given("one", lambda config, lab: ran.append(config), tables=lambda _: {"t": frame})
    monkeypatch.setattr(campaign, "_experiments", lambda _: [item])
    task = campaign.Task(PACKAGE, "one", SMALL)
    for name in ("t.csv", "t.json"):
        campaign.campaign([task], tmp_path, say=lambda _: None)
        (tmp_path / name).write_text("{")
    campaign.campaign([task], tmp_path, say=lambda _: None)
    campaign.campaign([task], tmp_path, say=lambda _: None)
    assert len(ran) == 3
    assert load_table(tmp_path / "t.csv").frame["a"].tolist() == [1.5]


@pytest.mark.parametrize("content", [b"", b"[]", b'{"schema": 1, "records": [', b"\xff\xfe", b'{"schema": 1}'])
def test_records_that_cannot_be_read_are_kept_under_another_name(plain, tmp_path, content):
    finished, _ = plain
    said = []
    for _ in range(2):
        (tmp_path / "records.json").write_bytes(content)
        campaign.write_records("P3", [finished], tmp_path, say=said.append)
    for name in ("damaged-records.json", "damaged-records-2.json"):
        assert (tmp_path / name).read_bytes() == content
    assert "records.json cannot be used" in said[0]
    assert "it is kept as damaged-records.json; restore it from there, or delete that file" in said[0]
    assert len(said) == 2
    assert load_records(tmp_path / "records.json")


def test_of_two_earlier_records_of_one_day_both_are_kept(plain, tmp_path):
    content, _ = plain
    keys = list(content["estimates"])
    for kept in ([keys[0]], [keys[1]], keys[2:3]):
        some = {key: content["estimates"][key] for key in kept}
        campaign.write_records("P3", [content | {"estimates": some}], tmp_path)
    found = {
        key for path in tmp_path.glob("records*.json") for record in load_records(path) for key in record.measured()
    }
    assert set(keys[:3]) <= {key.partition("[")[0] for key in found}


# ----------------------------------------------------------------------------------------------------------------
# The command


def call(*arguments):
    return ["--root", str(ROOT), "paper", *map(str, arguments)]


RUN = ("saddles", "--only", "flow", "--only", "stiff", "--scale", "cpu", "--replicas", "300", "--every", "0.1")


@pytest.mark.slow
def test_a_kill_loses_no_number(tmp_path, capsys):
    assert main(call(*RUN, "--out", tmp_path / "whole")) == 0
    assert capsys.readouterr().out.count("records:") == 1
    out, killed = tmp_path / "killed", 0
    for _ in range(2):
        running = forked(main, call(*RUN, "--out", out))
        seen = len(list(out.rglob("call-*.npz")))
        until = time.monotonic() + 60
        while running.is_alive() and len(list(out.rglob("call-*.npz"))) <= seen and time.monotonic() < until:
            time.sleep(0.02)
        time.sleep(0.1)
        killed += running.is_alive()
        running.kill()
        running.join()
    assert killed
    last = forked(main, call(*RUN, "--out", out))
    last.join(300)
    assert last.exitcode == 0
    assert tables(out) == tables(tmp_path / "whole")
    for name in ("flow", "stiff"):
        files = (folder / f"{name}.result.json" for folder in (tmp_path / "whole", out))
        first, second = (json.loads(file.read_text()) for file in files)
        assert essence(first) == essence(second)
    assert not list(out.rglob("call-*.npz"))


@pytest.mark.slow
def test_no_notebook_tool_is_needed(tmp_path):
    names = ("jupytext", "papermill", "nbformat", "nbclient", "myst_nb", "jupyter_book", "IPython", "matplotlib")
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nfor name in {names}: sys.modules[name] = None\n")
    run = call("saddles", "--only", "features", "--scale", "cpu", "--replicas", "40", "--out", tmp_path / "out")
    shown = subprocess.run(
        [sys.executable, "-m", "descent", *run],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert shown.returncode == 0, shown.stdout + shown.stderr
    assert (tmp_path / "out" / "features.result.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere",), "unknown chapter 'nowhere': the chapters are"),
        (("saddles", "--only", "nothing", "--scale", "cpu"), "neither experiment nor claim of saddles: nothing"),
        (("saddles", "--device", "cuda:77"), "device 'cuda:77': this machine has"),
        (
            ("saddles", "--scale", "cpu", "--dask", "tcp://127.0.0.1:9"),
            "no dask scheduler answers at tcp://127.0.0.1:9",
        ),
        (("saddles", "--scale", "cpu", "--budget", "8", "--jobs", "2"), "--budget runs one experiment after the other"),
        (("saddles", "--scale", "cpu", "--calibration", __file__), "make one with `descent calibrate"),
    ],
)
def test_what_was_wrong_is_said(tmp_path, capsys, arguments, message):
    assert main(call(*arguments, "--out", tmp_path)) in (1, 2)
    said = "".join(capsys.readouterr())
    assert message in said
    assert "Traceback" not in said


@pytest.mark.parametrize("option", ["--every", "--budget"])
@pytest.mark.parametrize("amount", ["nan", "inf", "0", "-1", "much"])
def test_seconds_and_minutes_are_numbers_above_nothing(capsys, option, amount):
    with pytest.raises(SystemExit) as refused:
        main(["paper", "saddles", "--out", "nowhere", f"{option}={amount}"])
    assert refused.value.code == 2
    assert f"argument {option}: {amount} is not a number above 0" in capsys.readouterr().err


def plainly(out):
    what = ["--scale", "cpu", "--only", "linear", "--replicas", str(SMALL.replicas)]
    return ["--root", str(ROOT), "paper", "saddles", *what, "--out", str(out)]


@pytest.mark.skipif(lock.fcntl is None, reason="this system has no such locks")
def test_a_second_campaign_in_the_same_folder_is_refused(plain, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(campaign, "run", lambda _: plain[0] | {"tables": {}})
    with lock.held(tmp_path / "work" / ".lock", "campaign works in it"):
        assert main(plainly(tmp_path)) == 1
    assert (
        f"another campaign works in {tmp_path} (process {os.getpid()}): wait until it has ended, or stop it"
        in capsys.readouterr().err
    )
    assert not list(tmp_path.glob("*.json"))
    assert main(plainly(tmp_path)) == 0  # the lock goes with whoever held it
    assert (tmp_path / "records.json").is_file()


def test_a_folder_that_cannot_be_is_refused_before_anything_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(campaign, "run", lambda _: pytest.fail("it was run"))
    (tmp_path / "file").write_text("")
    assert main(plainly(tmp_path / "file")) == 1
    assert f"{tmp_path / 'file' / 'work'} cannot be written" in capsys.readouterr().err


def test_published_records_that_are_damaged_are_named(tmp_path):
    project = find_project(ROOT)
    assert records.known_seconds(project, "saddles")["escape"] > 0
    (tmp_path / "data" / "published" / "records").mkdir(parents=True)
    (tmp_path / "data" / "published" / "records" / "saddles.json").write_text("{")
    with pytest.raises(BookError, match=r"saddles.json is not a file of records"):
        records.known_seconds(replace(project, root=tmp_path), "saddles")


@pytest.mark.parametrize("chapter", ["smoothing", "flatness", "saddles", "margins", "geometry"])
def test_every_chapter_has_a_plan(chapter):
    todo = campaign.tasks(f"descent.experiments.{chapter}", Lab(), "gpu")
    table = forecast.plan(todo, {})
    assert len(table) == len(todo) >= 10
    assert (table["against the CPU run"] != "nothing").sum() > len(todo) / 2


def test_a_table_named_like_its_experiment_keeps_its_note(tmp_path, monkeypatch):
    frame = DataFrame({"a": [1.5, 2.0]})
    twin = given("twin", lambda config, lab: 1, tables=lambda _: {"twin": frame})
    monkeypatch.setattr(campaign, "_experiments", lambda _: [twin])
    task = campaign.Task(PACKAGE, "twin", SMALL)
    campaign.campaign([task], tmp_path, say=lambda _: None)
    assert load_table(tmp_path / "twin.csv").frame["a"].tolist() == [1.5, 2.0]
    assert campaign.done(task, tmp_path) is not None
