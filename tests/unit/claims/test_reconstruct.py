"""The history of rules, reconstructed from a small repository; and that edition 1's history and its notes agree."""

from __future__ import annotations

import json
import os
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from descent.claims.moves import KINDS, Moves, load_moves
from descent.claims.reconstruct import LAST, covers, reconstruct
from descent.claims.verdict import rule_from
from descent.results import read_json, read_yaml

CLAIMS = Path(__file__).parents[3] / "data" / "claims"
ABOVE_ONE, ABOVE_HALF = ({"kind": "direction", "above": x} for x in (1.0, 0.5))
NEAR = {"kind": "equivalence", "target": 1.0, "tolerance": 0.1}


def claim(id, *tests, statement="Red is faster.", scales=("cpu", "gpu")):
    rows = [{"key": key, "quantity": quantity, "rule": dict(rule)} for key, quantity, rule in tests]
    return {"id": id, "statement": statement, "scales": list(scales), "tests": rows}


class Repository:
    """A repository in which every commit comes an hour after the last one."""

    def __init__(self, root):
        self.root, self.hour = root, 0
        self.git("init", "-q")

    def git(self, *arguments, **more):
        who = {f"GIT_{role}_{what}": "nobody" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        alone = {"PATH": os.environ["PATH"], "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        command = ["git", "-C", self.root, *arguments]
        return subprocess.run(command, env=who | alone | more, check=True, capture_output=True, text=True)

    def commit(self, subject, files, minutes=60):
        for name, text in files.items():
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).write_text(text)
        self.hour += minutes
        date = f"2026-01-01T{self.hour // 60:02d}:{self.hour % 60:02d}:00+0000"
        self.git("add", "-A")
        self.git("commit", "-q", "-m", subject, GIT_AUTHOR_DATE=date, GIT_COMMITTER_DATE=date)


def stated(*claims):
    return {"data/claims/P9.yaml": yaml.safe_dump({"claims": list(claims)}, allow_unicode=True)}


def experiment(*keys):
    return {"lib/descent/experiments/race.py": "\n".join(f'FOUND["{key}"] = measure()' for key in keys)}


def published(id, key, quantity, rule, text, verdict):
    test = {"key": key, "quantity": quantity, "rule": rule, "text": text, "verdict": verdict, "estimates": [{}]}
    return {"data/published/records/race.json": json.dumps({"records": [{"id": id, "tests": [test]}]})}


@pytest.fixture
def repository(tmp_path):
    return Repository(tmp_path)


def test_a_rule_loosened_after_a_record_is_found_with_what_it_had(repository):
    test = ("faster", "speed", ABOVE_ONE)
    repository.commit("State the claims", stated(claim("P9-C1", test)))
    repository.commit("Measure", published("P9-C1", *test, "0.8 [0.7, 0.9]", "fails"))
    repository.commit("Speed, more modestly", stated(claim("P9-C1", ("faster", "speed", ABOVE_HALF))))
    first, last = reconstruct(repository.root)["tests"]["P9-C1.faster"]
    assert first["form"] == {"key": "P9-C1.faster", "quantity": "speed", "rule": ABOVE_ONE, "scales": ["cpu", "gpu"]}
    assert (first["end"], first["after_measurement"], first["evidence"]) == ("replaced", True, "published")
    assert (first["estimate"], first["verdict"]) == ("0.8 [0.7, 0.9]", "fails")
    assert first["loosened"] is True
    assert first["why"] == "Speed, more modestly"
    assert first["end_commit"] == last["commit"] == repository.git("rev-parse", "HEAD").stdout[:8]
    assert (last["end"], last["after_measurement"]) == ("", False)
    assert (last["estimate"], last["verdict"]) == ("", "")  # the record judged the earlier rule


def test_a_change_before_any_record_and_any_experiment_is_not_held_against_it(repository):
    repository.commit("State", stated(claim("P9-C1", ("faster", "speed", ABOVE_HALF))))
    repository.commit("Think again", stated(claim("P9-C1", ("faster", "speed", ABOVE_ONE))))
    repository.commit("Measure", experiment("P9-C1.faster"), minutes=31)
    first, last = reconstruct(repository.root)["tests"]["P9-C1.faster"]
    assert (first["after_measurement"], first["evidence"], first["loosened"]) == (False, "", False)
    assert not last["after_code"]


@pytest.mark.parametrize(("minutes", "known"), [(0, True), (30, True), (31, False)])
def test_an_experiment_that_comes_soon_after_a_change_could_be_seen(repository, minutes, known):
    repository.commit("State", stated(claim("P9-C1", ("faster", "speed", ABOVE_ONE))))
    moved = stated(claim("P9-C1", ("faster", "speed in metres", ABOVE_ONE), ("new", "time", NEAR)))
    if minutes:
        repository.commit("Move", moved)
        repository.commit("Measure", experiment("P9-C1.faster"), minutes)
    else:
        repository.commit("Move and measure", moved | experiment("P9-C1.faster"))
    tests = reconstruct(repository.root)["tests"]
    first, _ = tests["P9-C1.faster"]
    assert first["evidence"] == ("computed" if known else "")
    assert first["loosened"] is None  # the quantity is worded anew: rules cannot tell
    (born,) = tests["P9-C1.new"]
    assert born["after_code"] is known


def test_an_experiment_may_name_the_claim_alone(repository):
    code = {"lib/descent/experiments/race.py": 'found = {f"{claim}.faster": time for claim in ("P9-C1",)}'}
    repository.commit("Measure", code)
    repository.commit("State", stated(claim("P9-C1", ("faster", "speed", ABOVE_ONE))))
    (born,) = reconstruct(repository.root)["tests"]["P9-C1.faster"]
    assert born["after_code"]


def test_what_is_stated_for_paper_scale_alone_counts_by_records(repository):
    repository.commit("State", stated(claim("P9-C1", ("faster", "speed", ABOVE_ONE), scales=["gpu"])))
    repository.commit("Measure", experiment("P9-C1.faster"))
    repository.commit("Move", stated(claim("P9-C1", ("faster", "speed", ABOVE_HALF), scales=["gpu"])))
    first, _ = reconstruct(repository.root)["tests"]["P9-C1.faster"]
    assert not first["after_measurement"]


def test_a_dropped_test_is_listed_with_its_last_form_and_verdict(repository):
    tests = ("faster", "speed", ABOVE_ONE), ("near", "ratio", NEAR)
    repository.commit("State", stated(claim("P9-C1", *tests)))
    repository.commit("Measure", published("P9-C1", *tests[1], "1.5 [1.4, 1.6]", "fails"))
    repository.commit("Drop what fails", stated(claim("P9-C1", tests[0])))
    (only,) = reconstruct(repository.root)["tests"]["P9-C1.near"]
    assert (only["end"], only["why"], only["verdict"]) == ("dropped", "Drop what fails", "fails")
    assert only["form"]["rule"] == NEAR
    assert only["loosened"] is True


def test_a_renamed_test_is_one_test(repository):
    repository.commit("State", stated(claim("P9-C1", ("faster", "speed", ABOVE_ONE))))
    repository.commit("Rename", stated(claim("P9-C1", ("quicker", "speed", ABOVE_ONE))))
    tests = reconstruct(repository.root)["tests"]
    assert list(tests) == ["P9-C1.quicker"]
    assert [stand["form"]["key"] for stand in tests["P9-C1.quicker"]] == ["P9-C1.faster", "P9-C1.quicker"]


def test_what_a_notebook_prints_counts_as_published_and_what_it_did_not_test_does_not(repository):
    def glued(text):
        output = {"metadata": {"scrapbook": {"name": "P9-C1.faster"}}, "data": {"text": text}}
        return {"tests/notebooks/race.ipynb": json.dumps({"cells": [{"outputs": [output]}, {}]})}

    repository.commit("State", stated(claim("P9-C1", ("faster", "speed", ABOVE_ONE))))
    repository.commit("Skip", glued("not tested here: data missing"))
    repository.commit("Move", stated(claim("P9-C1", ("faster", "speed, mean", ABOVE_ONE))))
    repository.commit("Measure", glued("0.8 [0.7, 0.9]"))
    repository.commit("Move again", stated(claim("P9-C1", ("faster", "speed, best", ABOVE_ONE))))
    evidence = [stand["evidence"] for stand in reconstruct(repository.root)["tests"]["P9-C1.faster"]]
    assert evidence == ["", "published", ""]


def test_reworded_sentences_are_kept_and_other_files_beside_the_claims_are_none(repository):
    test = ("faster", "speed", ABOVE_ONE)
    beside = {"data/claims/margins.yaml": "- no claims\n"}
    repository.commit("State", stated(claim("P9-C1", test), claim("P9-C2", test)) | beside | experiment("P9-C1.faster"))
    changed = claim("P9-C1", test, statement="Red is no slower.")
    repository.commit("Say less", stated(changed, claim("P9-C2", test)))
    wordings = reconstruct(repository.root)["wordings"]
    assert list(wordings) == ["P9-C1"]
    assert [(each["statement"], each["after_measurement"]) for each in wordings["P9-C1"]] == [
        ("Red is faster.", False),
        ("Red is no slower.", True),
    ]


def test_without_a_history_it_says_so(tmp_path, repository):
    with pytest.raises(ValueError, match="the history is needed"):
        reconstruct(repository.root)  # no commit yet
    repository.commit("Nothing", {"README": "none"})
    with pytest.raises(ValueError, match="no commit up to HEAD touched data/claims"):
        reconstruct(repository.root)


@pytest.mark.parametrize(
    ("outer", "inner", "contains"),
    [
        (ABOVE_HALF, ABOVE_ONE, True),
        (ABOVE_ONE, ABOVE_HALF, False),
        ({"kind": "direction", "above": 0.9}, NEAR, True),  # whether an end counts in makes no difference
        (NEAR, NEAR | {"tolerance": 0.05}, True),
        (NEAR, NEAR | {"target": 1.02}, False),
    ],
)
def test_regions_that_contain_others(outer, inner, contains):
    assert covers(rule_from(outer).region, rule_from(inner).region) is contains


@pytest.mark.slow
def test_the_history_of_edition_1_is_what_git_remembers():
    root = CLAIMS.parents[1]
    if subprocess.run(["git", "-C", root, "cat-file", "-e", f"{LAST}^{{commit}}"], capture_output=True).returncode:
        pytest.skip("no git, or not its whole history")
    assert reconstruct(root, LAST) == read_json(CLAIMS / "edition1.json")


def test_every_move_of_edition_1_has_its_note_and_no_note_is_without_one():
    history, notes = read_json(CLAIMS / "edition1.json"), read_yaml(CLAIMS / "edition1_notes.yaml")
    moved = {
        (key, stand["end_commit"])
        for key, stands in history["tests"].items()
        for stand in stands
        if stand["after_measurement"]
    }
    noted = [(key, note["commit"]) for note in notes["moves"] for key in note["tests"]]
    assert len(noted) == len(set(noted))
    assert set(noted) == moved
    reworded = {
        (id, after["commit"])
        for id, entries in history["wordings"].items()
        for before, after in pairwise(entries)
        if after["after_measurement"] and after["statement"] != before["statement"]
    }
    assert {(id, note["commit"]) for note in notes["wordings"] for id in note["claims"]} == reworded
    assert {note["moved"] for part in ("moves", "wordings") for note in notes[part]} <= set(KINDS)
    assert all(note["why"].endswith(".") for part in ("moves", "wordings") for note in notes[part])


def test_a_dropped_or_loosened_rule_is_not_called_anything_milder():
    notes = {
        (key, note["commit"]): note["moved"]
        for note in read_yaml(CLAIMS / "edition1_notes.yaml")["moves"]
        for key in note["tests"]
    }
    for key, stands in read_json(CLAIMS / "edition1.json")["tests"].items():
        for stand in stands:
            if stand["after_measurement"] and stand["loosened"]:
                expected = "dropped" if stand["end"] == "dropped" else "easier"
                assert notes[key, stand["end_commit"]] == expected


KNOWN = (
    "S-28.flips", "S-28.clean", "S-22.clean", "S-20.flips_loss", "S-20.clean_loss", "S-12.large_step", "P5-C11.bound",
    "P5-C12.descent", "P5-C14.aligned", "P5-X5.corrected", "P5-X1.edge", "P5-C8.leverage", "P4-C11.near",
)  # fmt: skip


def test_the_moves_that_were_known_before_are_among_those_found():
    past = load_moves(CLAIMS).past
    assert [key for key in KNOWN if not past[key].moved] == []
    assert [form.rule.tolerance for form in past["P5-X1.edge"].earlier] == [0.05, 0.05, 0.08]  # the last by edition 2
    assert not past["P5-C1.quadratic"].moved


def copied(tmp_path, name, change):
    """Return a folder with edition 1's files, one of them changed."""
    for file in ("edition1.json", "edition1_notes.yaml"):
        (tmp_path / file).write_bytes((CLAIMS / file).read_bytes())
    text = (tmp_path / name).read_text(encoding="utf-8")
    (tmp_path / name).write_text(change(text), encoding="utf-8")
    return tmp_path


def test_a_move_without_a_note_is_named(tmp_path):
    folder = copied(tmp_path, "edition1_notes.yaml", lambda text: text.replace("[P4-C11.near]", "[P4-C11.far]"))
    with pytest.raises(ValueError, match=r"edition1_notes\.yaml does not say why P4-C11\.near moved in 5d6e55cf"):
        load_moves(folder)


def test_a_history_of_another_shape_is_refused(tmp_path):
    folder = copied(tmp_path, "edition1.json", lambda text: text.replace('"wordings"', '"words"'))
    with pytest.raises(ValueError, match="has another shape"):
        load_moves(folder)


def test_without_files_nothing_moved(tmp_path):
    assert load_moves(tmp_path) == Moves({}, {})


def test_registered_forms_come_after_those_of_edition_1(tmp_path):
    folder = copied(tmp_path, "edition1.json", str)
    form = {"key": "bound", "quantity": "ratio", "rule": ABOVE_HALF, "scales": ["cpu"], "needs": []}
    left = {
        "form": form, "rule": "0123", "date": "2026-12-01", "version": "2.0.0", "basis": "theory",
        "why": "A better one.", "estimate": "0.8 [0.7, 0.9]", "verdict": "holds",
    }  # fmt: skip
    entry = left | {"date": "2026-12-24", "withdrawn": False, "earlier": [left]}
    gone = left | {"withdrawn": True, "earlier": []}
    (folder / "registry.json").write_text(json.dumps({"tests": {"P5-C11.bound": entry, "P5-C1.network": gone}}))
    past = load_moves(folder).past
    *_, last = past["P5-C11.bound"].earlier
    assert (last.kind, last.why, last.date, last.left) == ("registered", "A better one.", "2026-12-01", "2026-12-24")
    assert (last.estimate, last.verdict, last.published) == ("0.8 [0.7, 0.9]", "holds", True)
    assert past["P5-C1.network"].dropped
    assert past["P5-C1.network"].anew is past["P5-C1.network"].moved is False
