"""Runs of others: packed as one file, refused where anything in it was edited, counted where they are independent."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import replace

import pytest
from descent.claims import Ledger, load_paper, save_records
from descent.claims.registry import Draw, EarlierDraw, Place, Registry
from descent.claims.reruns import bundle_name, counts, load_bundle, pack_bundle, require_registered, reruns
from descent.results import content_hash, provenance
from descent.stats.estimate import Estimate

CLAIMS = """\
schema: 1
paper: T1
chapter: alpha
title: A toy
claims:
  - id: T1-C1
    place: nowhere
    known: derived
    statement: The value is near one.
    scales: [cpu]
    tests:
      - {key: size, by: toy, quantity: the value, rule: {kind: equivalence, target: 1.0, tolerance: 0.1}}
"""
DRAWN = "0123456789abcdef"


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    path = tmp_path_factory.mktemp("claims") / "T1.yaml"
    path.write_text(CLAIMS)
    return load_paper(path)


@pytest.fixture(scope="module")
def made():
    return provenance("cpu", "cpu", 0, 32, modules=["descent.stats.estimate"])


@pytest.fixture
def run(paper, made, tmp_path):
    """Return a function that makes the records of a run, and packs them."""

    def make(seed=0, value=1.0, half=0.01, drawn=DRAWN):
        ledger = Ledger(paper, replace(made, seed=seed), tmp_path)
        number = Estimate(value, value - half, value + half, 32, "Student t", 31)
        ledger.add({"T1-C1.size": number}, experiment="toy", config="c0ffee", seconds=0.1, registration=drawn)
        save_records(tmp_path / "records.json", ledger.records)
        packed = pack_bundle("alpha", "1.0.0", {"seed": seed}, (tmp_path / "records.json").read_bytes(), "as told\n")
        path = tmp_path / bundle_name("alpha", packed)
        path.write_bytes(packed)
        return ledger.records[0], path

    return make


def repack(path, **changed):
    """Change files of a bundle as an editor would; None takes one away."""
    with zipfile.ZipFile(path) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    files |= {name.replace("_", "."): content for name, content in changed.items()}
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in files.items():
            if content is not None:
                archive.writestr(name, content)
    path.write_bytes(packed.getvalue())


def read(path, name):
    with zipfile.ZipFile(path) as archive:
        return archive.read(name).decode()


def test_a_bundle_brings_back_what_was_packed_and_one_run_makes_the_same_bytes(run):
    record, path = run(seed=7)
    bundle = load_bundle(path)
    assert (bundle.records, bundle.chapter, bundle.parameters) == ((record,), "alpha", {"seed": 7})
    assert run(seed=7)[1] == path  # named by its bytes


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        (lambda p: repack(p, comparison_md="all hold"), "comparison.md in it was edited after it was written"),
        (lambda p: repack(p, records_json=read(p, "records.json").replace("1.01", "1.02")), "T1-C1: "),
        (lambda p: repack(p, records_json=read(p, "records.json").replace("seconds", "second")), "T1-C1: incomplete"),
        (lambda p: repack(p, records_json=read(p, "records.json") + " "), "records.json in it was edited"),
        (
            lambda p: repack(p, bundle_json=read(p, "bundle.json").replace("1.0.0", "2.0.0")),
            "sha256 in its bundle.json",
        ),
        (
            lambda p: repack(p, bundle_json=read(p, "bundle.json").replace('"seed": 7', '"seed": 8')),
            "conditions in its",
        ),
        (lambda p: repack(p, bundle_json="[]"), "list"),
        (lambda p: repack(p, comparison_md=None), "it holds 'bundle.json', 'records.json', not"),
        (lambda p: repack(p, **{"../evil": "x"}), "it holds '../evil'"),
        (lambda p: p.write_bytes(p.read_bytes()[:-40]), "no whole zip file"),
        (lambda p: p.write_bytes(b""), "no whole zip file"),
    ],
    ids=["told", "number", "field", "space", "version", "seed", "list", "missing", "stray", "cut", "empty"],
)
def test_a_bundle_that_was_edited_is_refused_by_name(run, fault, named):
    _, path = run(seed=7)
    fault(path)
    with pytest.raises(ValueError, match=rf"^{path.name} in ") as refused:
        load_bundle(path)
    assert named in str(refused.value)
    assert str(refused.value).endswith("or remove the file")


def test_no_file_of_a_bundle_may_be_huge(run, monkeypatch):
    _, path = run()
    monkeypatch.setattr("descent.claims.reruns.MOST", 100)
    with pytest.raises(ValueError, match=r"bundle.json in it has more than 100 bytes"):
        load_bundle(path)


def test_a_note_that_vouches_for_itself_must_still_follow_from_the_records(run):
    _, path = run(seed=7)
    note = json.loads(read(path, "bundle.json")) | {"registrations": {"toy": "f" * 16}}
    repack(path, bundle_json=json.dumps(note | {"sha256": content_hash(note)}))
    with pytest.raises(ValueError, match=r"registrations in its bundle\.json was edited"):
        load_bundle(path)


def registry(today, *earlier):
    left = tuple(EarlierDraw(each, "c", "2026-01-01", "other rules") for each in earlier)
    return Registry(draws={Place("alpha", "toy", "cpu"): Draw(today, "c", "2026-01-02", left)})


def test_foreign_rules_are_refused_and_rules_that_changed_since_are_set_aside(run):
    bundle = load_bundle(run(seed=7)[1])
    require_registered(bundle, registry(DRAWN))
    with pytest.raises(
        ValueError, match=r"T1-C1.size was drawn under registration 01234567, which .* \(today ffffffff\)"
    ):
        require_registered(bundle, registry("f" * 16))
    with pytest.raises(ValueError, match=r"every rule that it was drawn under has changed since.*data/reruns/earlier"):
        require_registered(bundle, registry("f" * 16, DRAWN))
    with pytest.raises(ValueError, match=r"never had for alpha.toy \(cpu\) \(today none\)"):
        require_registered(bundle, Registry())


def test_independent_runs_are_counted_by_whether_they_agree(run):
    published, first = run()
    others = [run(seed=7)[1], run(seed=8, value=2.0)[1], run(seed=9, half=0.2)[1]]
    found = reruns(published, [load_bundle(path) for path in (first, *others, others[0])])
    assert [(one.record.provenance.seed, one.same, one.suit) for one in found] == [
        (7, True, 1),
        (8, False, 0),
        (9, False, 1),
    ]
    assert counts(found) == "1 of 3 independent re-runs agree, 1 inconclusive"
    assert counts(found[:1]) == "1 of 1 independent re-run agrees"
    assert counts(()) == ""


def test_what_was_drawn_under_another_registration_counts_for_nothing(run):
    published, _ = run()
    assert reruns(published, [load_bundle(run(seed=7, drawn="f" * 16)[1])]) == ()
