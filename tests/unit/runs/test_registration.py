"""Random numbers are drawn from the rules: other rules, other numbers; whoever runs an experiment draws the same."""

from __future__ import annotations

import importlib
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
import yaml
from descent.book.commands import check
from descent.book.sources.project import Project
from descent.claims import Ledger, load_paper, load_records
from descent.claims.registry import Place, load_registry
from descent.experiments import flatness, geometry
from descent.experiments.flatness.parity import Parity
from descent.experiments.geometry.escape import ESCAPE
from descent.experiments.lab import Lab
from descent.results import compare, provenance
from descent.runs import campaign
from descent.runs.bench import Bench
from descent.stats.estimate import Estimate

ROOT = Path(__file__).parents[3]
carried_out = importlib.import_module("descent.runs.perform")


def nothing(result):
    return {}


nothing.__module__ = ESCAPE.estimates.__module__
SEEDS = replace(ESCAPE, run=lambda config, lab: lab.streams(3, apart=1).seeds, estimates=nothing, tables=nothing)
"""An experiment of a chapter, by its name and place, that gives the seeds it is handed."""


def seeds(lab=None):
    return carried_out.perform(SEEDS, lab or Lab()).result.tolist()


@pytest.fixture
def edited(tmp_path, monkeypatch):
    """Return a function that edits a claim of P5 and one of its tests, for whoever carries out experiments."""
    shutil.copy(ROOT / "data" / "claims" / "margins.yaml", tmp_path)  # a rule takes its margin from there
    file = Path(shutil.copy(ROOT / "data" / "claims" / "P5.yaml", tmp_path))
    monkeypatch.setattr(carried_out, "load_paper", lambda path: load_paper(tmp_path / path.name))

    def edit(change):
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        claim, test = next(
            (claim, test) for claim in content["claims"] for test in claim["tests"] if test["by"] == ESCAPE.name
        )
        change(claim, test)
        file.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")

    return edit


def looser(claim, test):
    test["rule"] = {"kind": "direction", "above": -1000.0}


def test_another_rule_draws_other_numbers_and_the_first_one_its_own_again(edited):
    before, kept = seeds(), {}
    edited(lambda claim, test: (kept.update(rule=test["rule"]), looser(claim, test)))
    assert set(seeds()).isdisjoint(before)
    edited(lambda claim, test: test.update(kept))
    assert seeds() == before


def test_an_experiment_of_no_chapter_draws_from_the_seed_alone(monkeypatch):
    monkeypatch.setattr(nothing, "__module__", __name__)
    assert seeds() == Lab().streams(3, apart=1).seeds.tolist()


def test_prose_draws_the_same_numbers(edited):
    before = seeds()
    edited(lambda claim, test: claim.update(statement="Quite another sentence.", place="elsewhere"))
    assert seeds() == before


@dataclass(frozen=True)
class Other:
    steps: int = 3


def test_another_configuration_draws_other_numbers():
    other = replace(SEEDS, small=Other())
    assert set(carried_out.perform(other, Lab()).result.tolist()).isdisjoint(seeds())
    assert set(carried_out.perform(SEEDS, Lab(), "gpu").result.tolist()).isdisjoint(seeds())


def test_neighbouring_seeds_and_what_is_apart_share_nothing_with_a_registration():
    plain, drawn = Lab(), Lab(registration="0123456789abcdef")
    assert torch.equal(plain.streams(3, apart=1).seeds, Lab(seed=1).streams(3).seeds)  # as ever, by hand
    found = [lab.key(apart) for lab in (drawn, replace(drawn, seed=1)) for apart in (0, 1, 10)]
    assert len(set(found)) == 6
    assert all(0 <= key < 2**64 for key in found)
    assert torch.equal(drawn.streams(2, skip=1).seeds, drawn.streams(3).seeds[1:])


def test_a_registration_is_nothing_a_reader_sets():
    assert repr(Lab(registration="0123456789abcdef")) == repr(Lab())
    with pytest.raises(TypeError):
        Lab(0, 1000, "cpu", 0.9, 5e-4, "0123456789abcdef")


def test_every_seed_has_its_own_part_of_the_images():
    labs = [Lab(seed, registration="0123456789abcdef") for seed in range(3)]
    parts = [Parity.of(lab, "digits", 100, 3, (2,)).sets.rows for lab in labs]
    assert not torch.equal(parts[0], parts[1])
    assert not torch.equal(parts[1], parts[2])


# --- whoever runs it --------------------------------------------------------------------------------------------------


def test_the_registration_of_every_experiment_is_the_one_in_the_registry():
    kept = load_registry(ROOT / "data" / "claims" / "registry.json")
    for chapter, package in (("geometry", geometry), ("flatness", flatness)):
        for item in package.EXPERIMENTS:
            for scale in item.scales:
                drawn = kept.draws[Place(chapter, item.name, scale)].registration
                assert carried_out.registration_of(item, scale) == drawn, item.name


@pytest.mark.slow
def test_chapter_campaign_and_check_draw_the_same_numbers(tmp_path):
    lab, task = Lab(replicas=40), campaign.Task("descent.experiments.saddles", "features", Lab(replicas=40))
    (content,) = campaign.campaign([task], tmp_path / "campaign", say=nothing)
    bench = Bench("P3", lab, folder=tmp_path / "chapter")
    bench.run(task.experiment)
    check.measure(task.package, task.name, lab, "cpu", tmp_path / "check.json")
    checked = json.loads((tmp_path / "check.json").read_text())["estimates"]
    measured = bench.ledger.record("P3-X7").outcomes
    here = {f"P3-X7.{outcome.test.key}": [one.value for one in outcome.estimates] for outcome in measured}
    assert here == {key: [one["value"] for one in several] for key, several in content["estimates"].items()}
    assert here == {key: [one["value"] for one in several] for key, several in checked.items()}
    assert {outcome.registration for outcome in measured} == {content["registration"]}
    assert bench.key(task.experiment) == replace(lab, registration=content["registration"]).key()
    notes = [tmp_path / where / f"{name}.json" for where in ("chapter", "campaign") for name in content["tables"]]
    assert {json.loads(note.read_text())["registration"] for note in notes} == {content["registration"]}


def test_what_was_measured_under_another_rule_is_not_used_again(edited):
    project, task = Project(ROOT), campaign.Task(geometry.__name__, ESCAPE.name, Lab())
    before = task.mark, check._folder(project, "geometry", ESCAPE, {})
    edited(looser)
    assert task.mark != before[0]
    assert check._folder(project, "geometry", ESCAPE, {}) != before[1]


# --- records ----------------------------------------------------------------------------------------------------------


def record(folder, drawn):
    ledger = Ledger("P3", provenance("cpu", "cpu", 0, 40, modules=["descent.stats.estimate"]), folder)
    estimate = Estimate(1.02, 1.0, 1.04, 40, "Student t", 39)
    ledger.add({"P3-X7.size": estimate}, experiment="features", config="c", seconds=1.0, registration=drawn)
    for key in ledger.lacking:
        ledger.skip(key, "left out of this test")
    return next(found for found in load_records(ledger.save()) if found.claim.id == "P3-X7")


def test_a_record_keeps_the_registration_and_one_from_before_has_none(tmp_path):
    kept, old = record(tmp_path, "0123456789abcdef"), record(tmp_path, "")
    (one,) = (outcome.registration for outcome in kept.outcomes if outcome.estimates)
    assert one == "0123456789abcdef"
    assert {outcome.registration for outcome in old.outcomes} == {""}
    assert "registration" not in json.dumps(old.to_json())
    assert kept.to_json()["sha256"] != old.to_json()["sha256"]


def test_runs_of_one_seed_under_other_rules_are_compared_as_other_draws(tmp_path):
    one, two = (record(tmp_path, drawn).measured()["P3-X7.size"] for drawn in ("0" * 16, "1" * 16))
    found = compare(one, two)
    assert (found.kind, found.compatible, found.remark) == ("statistical", True, "other rules, so other random numbers")
    assert compare(one, one).kind == "same"
