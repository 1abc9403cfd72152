"""`descent register` on a toy book: it starts a registry, lists what is open, and keeps what a rule said."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace

import jsonschema
import pytest
import toybook
from descent.book.commands import cli
from descent.book.pages import ledger
from descent.book.sources.provenance import Home
from descent.claims import Verdict, load_records, save_records
from descent.claims.registry import Place, beside, load_registry
from descent.claims.schema import ledger_schema
from toybook import edit

SIZE = "T1-C1.size"


@pytest.fixture
def book(tmp_path):
    """Return a toy book that nobody has built, with records of record of alpha."""
    project = toybook.make(tmp_path / "book")
    made = project.library / "toy" / "alpha.records.json"
    kept = project.published / "records" / "alpha.json"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(made.read_bytes())
    return project


@pytest.fixture
def register(book, capsys):
    """Return a function that calls the command on that book."""

    def call(*arguments: str) -> tuple[int, str, str]:
        status = cli.main(["--root", str(book.root), "register", *arguments])
        return (status, *capsys.readouterr())

    return call


def loosened(book):
    edit(book.claims / "T1.yaml", "tolerance: 0.1", "tolerance: 0.5")


def test_a_book_without_a_registry_is_told_how_to_start_one(register):
    status, _, error = register()
    assert status == 1
    assert error == "descent: data/claims/registry.json does not exist; start one with `descent register --start`\n"


def test_a_registry_is_started_filled_and_never_started_again(book, register):
    assert register("--start")[:2] == (0, "as registered already\n")
    status, text, _ = register()
    assert status == 1
    assert f"{SIZE}: has no entry; descent register {SIZE} --basis …" in text.splitlines()
    assert "alpha.steady (cpu, gpu): has no entry; descent register alpha.steady" in text.splitlines()
    assert register("T1")[0] == 2
    status, text, _ = register("--all", "--basis", "theory")
    assert status == 0
    assert f"{SIZE}: 1 ± 0.1, basis theory" in text.splitlines()
    assert register()[:2] == (0, "all rules and configurations are registered\n")
    status, _, error = register("--start")
    assert status == 2
    assert "rename it first, for example to registry-before.json" in error
    (book.registry).rename(book.claims / "registry-before.json")
    assert register("--start")[0] == 0


def test_a_changed_rule_is_entered_with_what_it_said(book, register):
    register("--start", "--all", "--basis", "theory")
    loosened(book)
    assert register()[0] == 1
    assert register(SIZE)[0] == 2  # without a reason
    status, text, _ = register(SIZE, "--why", "the old one was too strict")
    (line,) = [line for line in text.splitlines() if line.startswith(SIZE)]
    assert status == 0
    assert line.startswith(f"{SIZE}: 1 ± 0.5, basis theory; before: 1 ± 0.1, basis theory, which said ")
    (left,) = load_registry(book.registry).tests[SIZE].earlier
    assert left.estimate
    assert left.verdict in set(Verdict)
    assert register()[0] == 0


def test_what_was_published_under_another_rule_is_not_taken_for_what_this_one_said(book, register):
    loosened(book)
    register("--start", "--all", "--basis", "theory")
    edit(book.claims / "T1.yaml", "tolerance: 0.5", "tolerance: 0.6")
    register("--all", "--why", "wider still")
    (left,) = load_registry(book.registry).tests[SIZE].earlier
    assert (left.estimate, left.verdict) == ("", "")


def test_a_test_that_is_gone_stays_as_withdrawn(book, register):
    register("--start", "--all", "--basis", "margin")
    edit(book.claims / "T1.yaml", "key: size", "key: width")
    status, text, _ = register("--all", "--why", "another name", "--basis", "margin")
    assert status == 0
    assert any(line.startswith(f"{SIZE}: withdrawn: 1 ± 0.1") for line in text.splitlines())
    entries = load_registry(book.registry).tests
    assert (entries[SIZE].withdrawn, entries["T1-C1.width"].withdrawn) == (True, False)
    assert register()[0] == 0


def test_an_unknown_key_and_an_edited_file_are_refused_in_one_line(book, register):
    register("--start", "--all", "--basis", "margin")
    assert "'T7' is neither a test" in register("T7")[2]
    edit(book.registry, '"basis": "margin"', '"basis": "theory"')
    status, _, error = register()
    assert status == 1
    assert error.startswith("descent: registry.json was changed by hand")


def test_a_published_ledger_says_what_is_registered_and_loads_as_ever(book, register):
    register("--start", "--all", "--basis", "margin")
    loosened(book)
    register("--all", "--why", "wider")
    (made,) = load_records(book.library / "toy" / "alpha.records.json")
    save_records(book.root / "ledger.json", [made], beside(load_registry(book.registry)))
    published = json.loads((book.root / "ledger.json").read_text().replace("c0ffee", "0" * 16))
    (test,) = published["records"][0]["tests"]
    assert (test["basis"], [left["why"] for left in test["earlier"]]) == ("margin", ["wider"])
    jsonschema.validate(published, json.loads(ledger_schema()))
    assert load_records(book.root / "ledger.json") == (made,)


def test_the_ledger_shows_the_registration_beside_the_seed(book):
    (made,) = load_records(book.library / "toy" / "alpha.records.json")
    drawn = replace(made, outcomes=tuple(replace(one, registration="0123456789abcdef") for one in made.outcomes))
    old, new = ("".join(ledger._facts(record, Home("alpha.html", "Alpha"))) for record in (made, drawn))
    assert "master seed 0 of registration 01234567, " in new
    assert "master seed 0, " in old


def git(book, *arguments):
    who = ("-c", "user.name=Somebody", "-c", "user.email=somebody@example.org")
    subprocess.run(["git", "-C", str(book.root), *who, *arguments], check=True, capture_output=True)


def test_what_is_not_committed_and_a_detached_head_are_named(book, register):
    assert "note" not in register("--start", "--all", "--basis", "margin")[1]
    git(book, "init")
    git(book, "add", ".")
    git(book, "commit", "-m", "all")
    assert "note" not in register("--all")[1]
    loosened(book)
    text = register("--all", "--why", "wider")[1]
    assert "note: not committed: data/claims/T1.yaml; commit them together with the registry" in text
    assert "detached" not in text
    git(book, "checkout", "--detach")
    assert "make one first: git switch -c NAME" in register("--all")[1]
    assert load_registry(book.registry).draws[Place("alpha", "steady", "cpu")].config
