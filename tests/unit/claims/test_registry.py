"""What is registered: the repository's rules are, whatever moves them is found, and nothing registered is lost."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import yaml
from descent.book.commands.register import configurations
from descent.book.sources.project import Project
from descent.claims import Direction, load_papers, verdict
from descent.claims.registering import Step, chosen, registered
from descent.claims.registry import (
    BASES,
    Place,
    Registry,
    config_digest,
    form,
    form_digest,
    load_registry,
    pending,
    registration,
    registrations,
    save_registry,
    unregistered,
)
from descent.results import digest

ROOT = Path(__file__).parents[3]
CLAIMS = ROOT / "data" / "claims"
KEY = "P5-C11.bound"


@pytest.fixture(scope="module")
def configs():
    return configurations(Project(ROOT))


@pytest.fixture(scope="module")
def kept():
    return load_registry(CLAIMS / "registry.json")


@pytest.fixture
def edited(tmp_path):
    """Return a function that edits the claim and the test of KEY in a copy, and gives the papers of the copy."""
    folder = Path(shutil.copytree(CLAIMS, tmp_path / "claims"))
    claim_id, _, name = KEY.partition(".")
    file = folder / f"{claim_id.partition('-')[0]}.yaml"

    def edit(change):
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
        claim = next(item for item in content["claims"] if item["id"] == claim_id)
        change(claim, next((item for item in claim["tests"] if item["key"] == name), None))
        file.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
        return load_papers(folder)

    return edit


def step(day="2030-01-01", **given):
    return Step(day, "9.9", **given)


def looser(claim, test):
    test["rule"] = {"kind": "direction", "above": -1000.0}


# --- the repository ---------------------------------------------------------------------------------------------------


def test_every_rule_and_configuration_of_the_repository_is_registered(kept, configs):
    """Red after an edit of a rule, a quantity, scales, needs or a configuration: `descent register` says what to do."""
    assert unregistered(kept, load_papers(), configs) == []


def test_every_entry_says_where_its_numbers_come_from(kept):
    bases = {entry.basis for entry in kept.tests.values()}
    assert bases <= set(BASES)
    assert len(bases) > 1, "one word for all rules says nothing"


def test_no_two_experiments_share_their_random_numbers(kept):
    """Of those that have tests: their forms hold keys that no other experiment has."""
    drawn = [draw.registration for place, draw in kept.draws.items() if place.scale == "cpu" and draw.registration]
    assert len(set(drawn)) == len(drawn)


# --- what moves a registration ----------------------------------------------------------------------------------------


def test_a_loosened_rule_is_found_with_the_experiment_that_it_judges(kept, configs, edited):
    lines = unregistered(kept, edited(looser), configs)
    assert lines[0] == f'{KEY}: its rule is not the registered one; descent register {KEY} --why "…"'
    assert [line.partition(" ")[0] for line in lines[1:]] == ["geometry.escape"]
    assert "for its tests are others" in lines[1]


@pytest.mark.parametrize(
    "change",
    [
        lambda claim, test: test.update(quantity=test["quantity"] + ", median"),
        lambda claim, test: test.update(needs=["momentum"]),
        lambda claim, test: test.update(scales=["gpu"]),
    ],
    ids=["quantity", "needs", "scales"],
)
def test_whatever_is_measured_and_where_is_part_of_the_form(kept, configs, edited, change):
    assert any(line.startswith(f"{KEY}: its rule is not") for line in unregistered(kept, edited(change), configs))


def test_prose_moves_nothing(kept, configs, edited):
    def retold(claim, test):
        claim.update(statement="Quite another sentence.", place="elsewhere", conditions="Always.", paper_shape="1")

    assert unregistered(kept, edited(retold), configs) == []


def test_the_order_of_scales_and_a_default_that_is_written_out_move_nothing():
    plain = verdict.Test("a", "time", Direction(above=1.0), ("cpu", "gpu"), "race", ("mnist", "momentum"))
    assert form_digest(plain) == form_digest(replace(plain, scales=("gpu", "cpu"), needs=("momentum", "mnist")))
    assert form_digest(plain) == form_digest(replace(plain, rule=Direction(above=1.0, margin=0.0)))
    assert form_digest(plain) == digest(json.loads(json.dumps(form(plain))))


def test_a_changed_configuration_is_found_by_scale(kept, configs):
    other = {**configs, Place("geometry", "width", "cpu"): "0" * 16}
    (line,) = unregistered(kept, load_papers(), other)
    assert line.startswith("geometry.width (cpu): its configuration is not the registered one; descent register")


@dataclass(frozen=True)
class Setup:
    root: float
    steps: int = 3


def test_the_last_digits_of_a_configuration_are_the_machine_s():
    assert config_digest(Setup(2**0.5)) == config_digest(Setup(2**0.5 * (1 + 2e-16))) != config_digest(Setup(1.41421))
    assert config_digest(Setup(2.0)) != config_digest(Setup(2.0, steps=4))


def test_a_test_by_another_experiment_moves_the_registrations_of_both(kept, configs, edited):
    lines = unregistered(kept, edited(lambda claim, test: test.update(by="edge")), configs)
    assert sorted(line.partition(" ")[0] for line in lines) == ["geometry.edge", "geometry.escape"]


def test_a_registration_hangs_on_all_tests_by_key_and_on_the_configuration():
    one, two = (verdict.Test(key, "time", Direction(above=1.0), ("cpu",)) for key in ("a", "b"))
    found = {
        registration({"P9-C1.a": one, "P9-C1.b": two}, "c"),
        registration({"P9-C1.a": one}, "c"),
        registration({"P9-C2.a": one}, "c"),
        registration({"P9-C1.a": one}, "d"),
    }
    assert len(found) == 4
    assert registration({"b": two, "a": one}, "c") == registration({"a": one, "b": two}, "c")


# --- what stays -------------------------------------------------------------------------------------------------------


def test_a_changed_rule_leaves_its_form_with_what_it_said(kept, configs, edited):
    papers, before = edited(looser), kept.tests[KEY]
    after = registered(kept, papers, configs, {KEY}, step(why="too strict"), lambda key, left: ("1.2 [1, 2]", "fails"))
    assert unregistered(after, papers, configs) == []
    left = after.tests[KEY].earlier[-1]
    assert (left.form, left.rule, left.date, left.basis) == (before.form, before.rule, before.date, before.basis)
    assert (left.estimate, left.verdict, left.why) == ("1.2 [1, 2]", "fails", "too strict")
    place = Place("geometry", "escape", "cpu")
    assert after.draws[place].earlier[-1].registration == kept.draws[place].registration
    assert after.draws[place].registration != kept.draws[place].registration
    assert {key for key in kept.tests if after.tests[key] != kept.tests[key]} == {KEY}


def test_a_rule_changed_and_changed_back_has_its_draw_again_and_both_entries(kept, configs, edited):
    there = registered(kept, edited(looser), configs, {KEY}, step(why="too strict"))
    back = registered(there, load_papers(), configs, {KEY}, step("2030-01-02", why="it was right"))
    places = [place for place in configs if place.key == "geometry.escape"]
    assert [back.draws[place].registration for place in places] == [kept.draws[place].registration for place in places]
    assert [left.why for left in back.tests[KEY].earlier[-2:]] == ["too strict", "it was right"]
    assert [left.why for left in back.draws[places[0]].earlier[-2:]] == ["too strict", "it was right"]


def withdrawn(claim, test):
    claim["tests"] = [item for item in claim["tests"] if item is not test]


def test_a_withdrawn_test_stays_with_its_last_form_and_verdict(kept, configs, edited):
    papers = edited(withdrawn)
    assert f"{KEY}: is no longer stated" in unregistered(kept, papers, configs)[0]
    after = registered(kept, papers, configs, {KEY}, step(why="cannot be had"), lambda key, left: ("3", "fails"))
    assert unregistered(after, papers, configs) == []
    entry = after.tests[KEY]
    assert (entry.withdrawn, entry.form, entry.date) == (True, kept.tests[KEY].form, "2030-01-01")
    assert (entry.earlier[-1].verdict, entry.earlier[-1].why) == ("fails", "cannot be had")
    assert "withdrawn" in unregistered(after, load_papers(), configs)[0]  # it is stated again
    again = registered(after, load_papers(), configs, {KEY}, step(why="it can"))
    assert (again.tests[KEY].withdrawn, len(again.tests[KEY].earlier)) == (False, len(entry.earlier) + 1)


def test_an_experiment_follows_once_all_its_tests_are_registered(kept, configs, edited):
    def two(claim, test):
        looser(claim, test)
        other = next(item for item in claim["tests"] if item is not test)
        other["quantity"] += ", median"

    papers, other = edited(two), "P5-C11.simulated"
    once = registered(kept, papers, configs, {KEY}, step(why="one"))
    assert once.draws == kept.draws
    with pytest.raises(ValueError, match=rf"geometry\.escape \(cpu\): its tests come first: {other}"):
        registered(once, papers, configs, {"geometry.escape"}, step(why="one"))
    assert unregistered(registered(once, papers, configs, {other}, step(why="two")), papers, configs) == []


def test_a_configuration_is_registered_by_name_and_never_on_the_way(kept, configs, edited):
    place = Place("geometry", "escape", "cpu")
    moved, papers = {**configs, place: "0" * 16}, edited(looser)
    rule = registered(kept, papers, moved, {KEY}, step(why="too strict"))
    assert [(item.key, item.scales) for item in pending(rule, papers, moved)] == [("geometry.escape", ("cpu",))]
    both = registered(rule, papers, moved, {"geometry.escape"}, step(why="more steps"))
    assert unregistered(both, papers, moved) == []
    assert both.draws[place].earlier[-1].why == "more steps"


def test_an_experiment_that_is_gone_says_so(kept, configs):
    papers = load_papers()
    fewer = {place: config for place, config in configs.items() if place.key != "geometry.width"}
    assert len(fewer) < len(configs)
    after = registered(kept, papers, fewer, {"geometry.width"}, step(why="merged"))
    assert unregistered(after, papers, fewer) == []
    assert after.draws[Place("geometry", "width", "cpu")].registration == ""


def test_what_lacks_a_reason_or_a_basis_is_named_and_nothing_is_registered(kept, configs, edited):
    papers = edited(looser)
    with pytest.raises(ValueError, match=rf"{KEY}: registered before; say what has moved with --why"):
        registered(kept, papers, configs, {KEY}, step(basis="margin"))
    with pytest.raises(ValueError, match=r"and \d+ more: new; say where the numbers come from with --basis theory"):
        registered(Registry(), papers, configs, {item.key for item in pending(Registry(), papers, configs)}, step())
    with pytest.raises(ValueError, match="basis must be one of theory, paper, margin, pilot, got 'guess'"):
        step(basis="guess")


def test_a_basis_is_corrected_with_a_reason_and_the_other_one_stays(kept, configs):
    other = next(basis for basis in BASES if basis != kept.tests[KEY].basis)
    after = registered(kept, load_papers(), configs, {KEY}, step(why="misread", basis=other))
    assert (after.tests[KEY].basis, after.tests[KEY].earlier[-1].basis) == (other, kept.tests[KEY].basis)
    assert after.draws == kept.draws
    assert registered(kept, load_papers(), configs, {KEY}, step()) == kept


def test_keys_name_tests_claims_papers_experiments_and_chapters(kept, configs):
    papers = load_papers()
    assert chosen([KEY], kept, papers, configs) == {KEY}
    claim = chosen(["P5-C1"], kept, papers, configs)
    assert claim
    assert all(key.startswith("P5-C1.") for key in claim)
    assert chosen(["P5"], kept, papers, configs) == {key for key in kept.tests if key.startswith("P5-")}
    assert chosen(["geometry.width"], kept, papers, configs) == {"geometry.width"}
    assert "geometry.width" in chosen(["geometry"], kept, papers, configs)
    with pytest.raises(ValueError, match="'P5-C' is neither a test"):
        chosen(["P5-C"], kept, papers, configs)


# --- the file ---------------------------------------------------------------------------------------------------------


def test_a_registry_is_read_as_it_was_written(kept, configs, edited, tmp_path):
    after = registered(kept, edited(looser), configs, {KEY}, step(why="too strict"))
    save_registry(tmp_path / "registry.json", after)
    assert load_registry(tmp_path / "registry.json") == after
    assert registrations(load_papers(), configs) == {place: kept.draws[place].registration for place in configs}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["tests"][KEY]["form"]["rule"].update(above=0.0), rf"{KEY}: its form is not .* by hand; restore"),
        (lambda c: c["tests"][KEY].update(date="1999-01-01"), "was changed by hand, an entry or its hash; restore"),
        (lambda c: c["tests"].pop(KEY), "was changed by hand"),
        (lambda c: c["tests"][KEY].update(basis="taste"), rf"{KEY}: basis 'taste' is none of theory"),
        (lambda c: c["tests"][KEY].pop("version"), rf"{KEY}: .*version.*; restore the file"),
        (lambda c: c["tests"].update({KEY: 3}), rf"registry\.json: {KEY}: .*restore the file"),
        (lambda c: c["experiments"]["geometry"]["width"]["cpu"].pop("config"), r"geometry\.width \(cpu\): .*config"),
        (lambda c: c["experiments"]["geometry"].update(width=3), r"geometry\.width: .*; restore"),
        (lambda c: c.pop("experiments"), "experiments: .*; restore"),
        (lambda c: c.update(schema=2), r"registry\.json: schema 2, this library reads 1; use the version"),
    ],
    ids=["rule", "date", "removed", "basis", "no version", "no entry", "no config", "no scales", "half", "later"],
)
def test_a_registry_that_was_edited_or_is_damaged_or_later_is_refused(tmp_path, change, message):
    content = json.loads((CLAIMS / "registry.json").read_text(encoding="utf-8"))
    change(content)
    file = tmp_path / "registry.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        load_registry(file)


def test_half_a_registry_is_refused(tmp_path):
    file = tmp_path / "registry.json"
    file.write_bytes((CLAIMS / "registry.json").read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"registry\.json is damaged .*restore the file"):
        load_registry(file)
