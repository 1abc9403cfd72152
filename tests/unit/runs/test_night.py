"""Nights: a kill costs a unit at most, what is damaged or of another making is measured again, half is said so."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from descent.book.commands import night as command
from descent.book.execute import digest
from descent.book.pages import ledger, paper_scale_page
from descent.book.sources import records
from descent.book.sources.project import BookError, find_project
from descent.claims import Verdict, load_records
from descent.data.images import DataMissing
from descent.experiments.lab import Experiment, Lab, Parts, Unit
from descent.experiments.saddles.escape import ESCAPE
from descent.results import content_hash, load_table
from descent.runs import campaign, night, units
from descent.stats import draw_difference
from pandas import DataFrame

ROOT = Path(__file__).parents[3]
PACKAGE = "descent.experiments.saddles"
DRAWS = 6


@dataclass(frozen=True)
class Given:
    """A configuration of draws that last a while."""

    draws: int = DRAWS
    seconds: float = 0.0


def parts_units(config, lab, found):
    """Two units tune, and one on every draw hangs on what they found."""
    first = [Unit(f"tuning{rate}", "tuning", 1.0, ("tuning", rate)) for rate in (1, 2)]
    best = max((found[unit.name]["value"].item(), unit.given[1]) for unit in first)[1] if len(found) > 1 else None
    rest = [Unit(f"draw{d}", "draw", 1.0 + d, ("draw", d, best), waits=best is None) for d in range(config.draws)]
    return first + rest


def measure(config, lab, unit):
    time.sleep(config.seconds)
    if unit.given[0] == "tuning":
        return {"value": np.array(float(unit.given[1]))}
    value = lab.streams(1, skip=unit.given[1]).normal(3, 0, (4,))[0].numpy()
    return {"value": value + unit.given[2], "odd": np.array([np.nan, np.inf]), "title": np.array("noise")}


def merge(config, lab, found):
    there = [d for d in range(config.draws) if f"draw{d}" in found]
    return (there, np.stack([found[f"draw{d}"]["value"] for d in there]), config) if len(there) > 1 else None


def estimates(result):
    return {"P3-C3.resnet": draw_difference(50 + result[1][:, :1], 0 * result[1][:, :1])}


def partial(result):
    have, of = len(result[0]), result[2].draws
    return {"P3-C3.resnet": f"{have} of {of} draws"} if have < of else {}


def tables(result):
    return {"resnet": DataFrame({"draw": result[0], "value": result[1][:, 0].astype(float)})}


for function in (estimates, measure):
    function.__module__ = ESCAPE.estimates.__module__
TOY = Experiment(
    "resnet", Given(), Given(), lambda config, lab: None, estimates, tables, scales=("gpu",), night=Given(),
    parts=Parts(parts_units, measure, merge, partial, {"tuning": 10.0, "draw": 20.0}),
)  # fmt: skip


@pytest.fixture
def toy(monkeypatch):
    """Return a function that puts an experiment in the place of all of a chapter."""

    def put(**changes):
        units._origin.cache_clear()
        monkeypatch.setattr(campaign, "_experiments", lambda _: [replace(TOY, **changes)])

    put()
    yield put
    units._origin.cache_clear()


def state(out, say=lambda _: None, seed=0, chosen=("resnet",), **options):
    return night.Night(night.tasks(PACKAGE, Lab(seed)), out, say, set(chosen), **options)


def whole(out, say=lambda _: None, **options):
    """Measure all, write the records, and return what came of it."""
    made = state(out, say, **options)
    night.night(made, None, 1, lambda: night.merge("P3", made))
    return essence(out)


def essence(out):
    """Return what must not depend on how often a night was interrupted."""
    kept = {}
    for file in sorted((out / "units").glob("*/*.json")):
        content = json.loads(file.read_text(encoding="utf-8"))
        kept[file.name] = content["arrays"], content["made"]
    return kept, (out / "resnet.csv").read_bytes()


def record(out, id="P3-C3"):
    return next(each for each in load_records(out / "records.json") if each.claim.id == id)


def outcome(out):
    return next(each for each in record(out).outcomes if each.test.key == "resnet")


# ----------------------------------------------------------------------------------------------------------------
# Whole and in part


def test_all_units_make_a_record_and_a_table(toy, tmp_path):
    said = []
    kept, _ = whole(tmp_path, said.append)
    assert len(kept) == 2 + DRAWS
    assert record(tmp_path).provenance.scale == "night"
    assert outcome(tmp_path).verdict is Verdict.HOLDS
    assert load_table(tmp_path / "resnet.csv").frame["draw"].tolist() == list(range(DRAWS))
    assert "8 of 8 units" in said[-1]
    assert "left" in said[0]


def test_a_unit_is_told_with_the_time_it_took_also_without_processes(toy, tmp_path, monkeypatch):
    said, clock, carry_out = [], [0.0], night.carry_out

    def slow(*given):
        clock[0] += 7.0
        return carry_out(*given)

    monkeypatch.setattr(night, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(night, "carry_out", slow)
    made = state(tmp_path, said.append)
    night.night(made, None, 1, lambda: None)
    assert said
    assert all(": 7 s; " in line for line in said)


def test_longest_first_and_what_waits_comes_after_what_it_waits_for(toy, tmp_path):
    said = []
    whole(tmp_path, said.append)
    order = [line.partition(":")[0].partition("/")[2] for line in said]
    assert order[:2] == ["tuning1", "tuning2"]
    assert order[2:] == [f"draw{d}" for d in reversed(range(DRAWS))]


def test_numbers_of_any_kind_come_back_as_they_were():
    for values in (np.array([np.nan, np.inf, -np.inf, 0.1]), np.array(True), np.array("noise"), np.arange(4)[None]):
        again = units._array_from(json.loads(json.dumps(units._array_to(values))))
        assert again.dtype.kind == values.dtype.kind
        np.testing.assert_array_equal(again, values)


def test_half_of_the_draws_decide_nothing_and_say_so(toy, tmp_path):
    whole(tmp_path)
    for d in (1, 4):
        (tmp_path / "units" / "resnet" / f"draw{d}.json").unlink()
    night.merge("P3", state(tmp_path))
    found = outcome(tmp_path)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.undecided == f"4 of {DRAWS} draws"
    assert found.text.endswith(f"not decided: 4 of {DRAWS} draws")
    assert found.deciding[0].draws == 4
    assert found.replicas_to_settle is None


def test_too_few_units_for_any_estimate_are_told_as_what_is_missing(toy, tmp_path):
    whole(tmp_path)
    for file in (tmp_path / "units").glob("*/draw[1-9].json"):
        file.unlink()
    night.merge("P3", state(tmp_path))
    assert outcome(tmp_path).text == "not tested here: not yet measured: 3 of 8 units"


def test_an_experiment_that_is_not_named_keeps_its_records(toy, tmp_path):
    whole(tmp_path)
    made = state(tmp_path, chosen=())
    assert list(made.jobs()) == []
    night.merge("P3", made)
    assert outcome(tmp_path).verdict is Verdict.HOLDS


def test_a_part_of_an_experiment_is_measured_alone(toy, tmp_path):
    """By a kind of work, or by what the names of units begin with; records are made of all that is there."""
    said = []
    made = state(tmp_path, said.append, chosen=night.chosen(PACKAGE, Lab(), ["resnet:tuning"]))
    assert made.plan()["kind of work"].tolist() == ["tuning"]
    night.night(made, None, 1, lambda: night.merge("P3", made))
    assert [line.partition(":")[0] for line in said] == ["resnet/tuning1", "resnet/tuning2"]
    assert said[-1].endswith("2 of 2 units")
    assert outcome(tmp_path).text == f"not tested here: not yet measured: 2 of {2 + DRAWS} units"
    few = state(tmp_path, chosen=night.chosen(PACKAGE, Lab(), ["resnet:draw1", "P3-C3:draw4"]))
    night.night(few, None, 1, lambda: night.merge("P3", few))
    assert outcome(tmp_path).undecided == f"2 of {DRAWS} draws"


def test_a_part_that_there_is_not_is_refused_with_those_there_are(toy):
    words = r"resnet has no part 'ResNet-8': .* a kind of its work \(tuning; draw\), or .* such as tuning1$"
    with pytest.raises(ValueError, match=words):
        night.chosen(PACKAGE, Lab(), ["resnet:ResNet-8"])
    with pytest.raises(ValueError, match="neither experiment nor claim of saddles: cifar; there are resnet"):
        night.chosen(PACKAGE, Lab(), ["cifar:draw"])
    assert night.chosen(PACKAGE, Lab()) == night.chosen(PACKAGE, Lab(), ["resnet", "P3-C3"]) == {"resnet"}


def test_the_plan_tells_units_hours_and_what_is_done(toy, tmp_path):
    frame = state(tmp_path).plan()
    assert frame["units"].tolist() == [2, DRAWS]
    assert frame["waiting for others"].tolist() == [0, DRAWS]
    assert frame["core-hours"].tolist() == pytest.approx([0, 0], abs=0.01)
    whole(tmp_path)
    assert state(tmp_path).plan()["done"].tolist() == [2, DRAWS]


def test_a_unit_takes_what_a_core_gave_it_and_not_what_it_slept(toy, tmp_path):
    toy(night=Given(draws=2, seconds=0.5))
    whole(tmp_path)
    files = list((tmp_path / "units").glob("*/*.json"))
    assert len(files) == 4
    assert all(0 < json.loads(file.read_text(encoding="utf-8"))["seconds"] < 0.4 for file in files)


def test_time_left_is_learnt_from_what_units_of_that_kind_took(toy, tmp_path):
    fresh = state(tmp_path)
    job = units.Job(fresh.todo[0], fresh.units(fresh.todo[0])[3])
    assert dict(fresh.expected())[job] == pytest.approx(2 / 20)
    fresh.kept["resnet"]["draw0"] = units.Kept({}, 30.0, None)
    assert dict(fresh.expected())[job] == pytest.approx(60)
    assert fresh.left(2) > fresh.left(4)


def test_the_book_shows_a_night_as_one(toy, tmp_path):
    whole(tmp_path)
    (tmp_path / "units" / "resnet" / "draw2.json").unlink()
    night.merge("P3", state(tmp_path))
    found = record(tmp_path)
    assert "networks, by night" in ledger._at_night(found)
    assert f"not decided: 5 of {DRAWS} draws" in ledger._night(found)
    assert ledger._scales(found, None, found) == "night, night"
    assert ledger._night(None) == ledger._at_night(None) == ""
    tables = [load_table(tmp_path / "resnet.csv")]
    seen = paper_scale_page.Seen(tables, paper_scale_page._outcomes("saddles", "resnet", [found]))
    assert seen.measured.startswith("<br>night: 20")
    assert seen.verdicts == "<br>night: 1 inconclusive"
    assert 'downloads/saddles/night/resnet.csv" download>resnet (night)</a>' in paper_scale_page._link(
        "saddles", "night", tables[0]
    )


def test_records_of_nights_are_found_and_neither_units_nor_work_move_a_chapter(toy, tmp_path):
    book = find_project(ROOT)
    shutil.copytree(ROOT / "data" / "claims", tmp_path / "data" / "claims")
    for name in ("_config.yml", "_toc.yml", "chapters"):
        (tmp_path / name).symlink_to(ROOT / name)
    copy = type(book)(tmp_path)
    whole(copy.night("saddles"))
    (copy.night("saddles") / "work").mkdir(exist_ok=True)
    (copy.night("saddles") / "work" / ".lock").touch()  # as a night that goes on has it
    assert records.nights(copy)["P3-C3"].provenance.scale == "night"
    assert records.paper_scale(copy) == {}
    files = {path.name for path in digest.data_files(copy, "saddles")}
    assert {"resnet.csv", "records.json"} <= files
    assert not {"draw1.json", ".lock"} & files


# ----------------------------------------------------------------------------------------------------------------
# What goes wrong


def test_killed_at_any_moment_it_goes_on_and_ends_in_the_same_numbers(toy, tmp_path):
    toy(night=Given(seconds=0.005))
    first, context, rng = whole(tmp_path / "whole"), multiprocessing.get_context("fork"), random.Random(3)
    killed = 0
    for _ in range(10):
        child = context.Process(target=whole, args=(tmp_path / "killed",))
        child.start()
        time.sleep(rng.uniform(0.0, 0.06))
        killed += child.is_alive()
        os.kill(child.pid, signal.SIGKILL)
        child.join()
    assert killed >= 5
    said = []
    assert whole(tmp_path / "killed", said.append) == first
    assert not [line for line in said if "kept as" in line]
    assert not list((tmp_path / "killed").rglob("*.part"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"registration": "0123456789abcdef"}, "another registration: its rules or its configuration were others"),
        ({"code": "0123456789abcdef"}, "other code of the experiment"),
        ({"seed": 7}, "another seed"),
        ({"unit": "0123456789abcdef"}, "another setting"),
    ],
)
def test_a_unit_of_another_making_is_named_set_aside_and_measured_again(toy, tmp_path, change, words):
    before, file = whole(tmp_path), tmp_path / "units" / "resnet" / "draw2.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    content["made"] |= change
    content["arrays"]["value"]["values"] = [9.0] * 4
    foreign = content | {"sha256": content_hash(content)}
    file.write_text(json.dumps(foreign), encoding="utf-8")
    said = []
    assert whole(tmp_path, said.append) == before
    assert said[0] == f"resnet/draw2.json is of {words}: it is kept as aside/draw2-other.json, and measured again"
    assert json.loads((file.parent / "aside" / "draw2-other.json").read_text(encoding="utf-8")) == foreign


@pytest.mark.parametrize("damage", [lambda text: text[:-40], lambda text: text.replace("1", "2", 1), lambda _: "[]"])
def test_a_damaged_unit_is_named_set_aside_and_measured_again(toy, tmp_path, damage):
    before, file = whole(tmp_path), tmp_path / "units" / "resnet" / "draw2.json"
    for suffix in ("", "-2"):
        file.write_text(damage(file.read_text(encoding="utf-8")), encoding="utf-8")
        said = []
        assert whole(tmp_path, said.append) == before
        assert said[0].startswith("resnet/draw2.json is damaged (")
        assert said[0].endswith(f"it is kept as aside/draw2-damaged{suffix}.json, and measured again")


def test_a_look_at_the_plan_moves_no_file(toy, tmp_path):
    whole(tmp_path)
    file = tmp_path / "units" / "resnet" / "draw2.json"
    file.write_text("{", encoding="utf-8")
    said = []
    assert state(tmp_path, said.append, aside=False).plan()["done"].tolist() == [2, DRAWS - 1]
    assert "will be kept under another name" in said[0]
    assert file.read_text(encoding="utf-8") == "{"


def test_what_hangs_on_a_changed_choice_is_measured_again(toy, tmp_path):
    """The rate that was chosen is what a unit was given."""
    whole(tmp_path)

    def other(config, lab, unit):
        return {"value": np.array(-float(unit.given[1]))} if unit.given[0] == "tuning" else measure(config, lab, unit)

    for rate in (1, 2):
        (tmp_path / "units" / "resnet" / f"tuning{rate}.json").unlink()
    toy(parts=replace(TOY.parts, measure=other))
    said = []
    whole(tmp_path, said.append)
    assert sum("is of another setting" in line for line in said) == DRAWS


def test_absent_images_are_told_once_and_the_rest_is_kept(toy, tmp_path):
    def fails(config, lab, unit):
        raise DataMissing("no file of cifar10: fetch it")

    toy(parts=replace(TOY.parts, measure=fails))
    with pytest.raises(night.Failed, match="resnet: no file of cifar10: fetch it") as refused:
        whole(tmp_path)
    assert "\n" not in str(refused.value)


def test_a_unit_that_fails_stops_no_other(toy, tmp_path):
    def fails(config, lab, unit):
        if unit.name == "draw3":
            raise ValueError("broken")
        return measure(config, lab, unit)

    toy(parts=replace(TOY.parts, measure=fails))
    with pytest.raises(night.Failed, match=r"^resnet/draw3: ValueError: broken$"):
        whole(tmp_path)
    assert len(list((tmp_path / "units" / "resnet").glob("*.json"))) == 1 + DRAWS
    assert outcome(tmp_path).undecided == f"{DRAWS - 1} of {DRAWS} draws"


def test_a_full_disk_is_told_and_loses_nothing(toy, tmp_path):
    before = whole(tmp_path)
    (tmp_path / "units" / "resnet" / "draw2.json").unlink()
    usual, ignored = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, usual[1]))
        with pytest.raises(BookError, match="there is no room left; every unit that has ended is kept"):
            _ = [None for _ in [0] if not _full(tmp_path)]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
        signal.signal(signal.SIGXFSZ, ignored)
    assert not list(tmp_path.rglob("*.part"))
    assert whole(tmp_path) == before


def _full(out):
    with command._room(out):
        return whole(out)


def test_two_at_once_are_refused_by_name(toy, tmp_path):
    with command.held(tmp_path / "work" / ".lock", f"night works in {tmp_path}"):
        words = rf"another night works in .* \(process {os.getpid()}\): wait until it has ended"
        with pytest.raises(BookError, match=words):
            _twice(tmp_path)


def _twice(out):
    with command.held(out / "work" / ".lock", f"night works in {out}"):
        raise AssertionError


def test_what_is_not_cut_into_units_has_no_night(monkeypatch):
    with pytest.raises(ValueError, match="escape: has no configuration for a night"):
        night.tasks(PACKAGE, Lab(), ["escape"])


def test_nothing_of_this_is_thread_bound(toy, tmp_path):
    """Whoever watches a night from another thread sees whole files alone."""
    stop, seen = threading.Event(), []

    def watch():
        while not stop.is_set():
            texts = (file.read_text(encoding="utf-8") for file in tmp_path.rglob("units/*/*.json"))
            seen.extend(json.loads(text)["unit"] for text in texts)

    watching = threading.Thread(target=watch)
    watching.start()
    whole(tmp_path)
    stop.set()
    watching.join()
    assert seen
    assert set(seen) <= {f"draw{d}" for d in range(DRAWS)} | {"tuning1", "tuning2"}
