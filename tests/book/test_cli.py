"""The command line: what it prints, and what it refuses in one line before anything runs."""

from __future__ import annotations

import json
import re
import shutil
import threading
import urllib.request

import pytest
from descent.book.commands import cli, compare
from descent.book.sources import source
from descent.book.sources.project import find_project
from toybook import REPOSITORY, edit


@pytest.fixture
def descent(project, capsys):
    """Return a function that calls the command line on the toy book."""

    def call(*arguments: str) -> tuple[int, str, str]:
        status = cli.main(["--root", str(project.root), *arguments])
        return (status, *capsys.readouterr())

    return call


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["run", "gamma"], "the chapters are alpha, beta"),
        (["run", "alpha", "-p", "momentun=0.9"], "seed (int, default 0), replicas (int, default 32), lr"),
        (["run", "alpha", "-p", "seed=many"], "seed must be of type int"),
        (["run", "alpha", "-p", "replicas=0"], "replicas must be a whole number of at least 2, got 0"),
        (["run", "alpha", "-p", "lr=-1"], "lr must be a positive number, got -1.0"),
        (["build", "-p", "lr=0"], "lr must be a positive number"),
        (["build", "-p", "speed=9"], "unknown parameter 'speed=9'"),
        (["check", "alpha", "--only", "escape"], "it has steady, moody, pictures"),
        (["compare", "nowhere", "nowhere"], "no records at nowhere"),
        (["reference", "gamma"], "unknown chapter 'gamma'"),
        (["claims", "P9-C1"], "no claim 'P9-C1'; name one such as T1-C1, or a paper: T1 (alpha), T2 (beta)"),
        (["claims", "T1-C1.speed"], "no claim 'T1-C1.speed'"),
        (["claims", "T1-C1", "--json"], "--json prints every claim; leave out the keys"),
    ],
)
def test_wrong_calls_are_refused_in_one_line(descent, project, arguments, named):
    def files():
        return sorted(path for path in project.root.rglob("*") if "__pycache__" not in str(path))

    before = files()
    status, out, err = descent(*arguments)
    assert status == cli.USAGE_FAULT
    assert named in err
    assert err.count("\n") == 1
    assert out == ""
    assert files() == before


def test_wrong_options_are_refused_by_the_parser(descent):
    with pytest.raises(SystemExit) as exit:
        descent("check", "alpha", "--seeds", "0")
    assert exit.value.code == 2


def test_outside_a_book_the_command_says_so(tmp_path, capsys):
    assert cli.main(["--root", str(tmp_path), "claims"]) == 1
    assert "no book here" in capsys.readouterr().err


@pytest.mark.slow
def test_run_compares_with_the_published_intervals(descent, project):
    folder = project.root / "mine"
    status, out, _ = descent("run", "alpha", "-p", "lr=0.6", "--out", str(folder))
    assert status == 0
    assert out.startswith("alpha with lr 0.6 (published: 0.5)")
    assert "T1-C1 holds, as published: The alpha value is near its prediction." in out
    assert "verdicts that moved: none" in out
    assert "T1-C1.size" in (folder / "comparison.md").read_text()
    assert json.loads((folder / "stamp.json").read_text())["parameters"] == {"lr": 0.6}
    assert "value 1.200" in (folder / "alpha.ipynb").read_text()
    assert "value 1.000" in (project.executed / "alpha.ipynb").read_text()


@pytest.mark.slow
def test_failing_run_ends_with_status_one(descent, project):
    edit(project.library / "toy" / "law.py", "return 2 * lr", "return 1 / 0")
    status, _, err = descent("run", "alpha")
    assert status == 1
    assert "ZeroDivisionError" in err


@pytest.mark.parametrize("command", [["run", "alpha", "-p", "lr=0.6"], ["build"], ["check", "alpha"], ["claims"]])
def test_a_fault_of_the_book_is_not_one_of_the_call(descent, project, command):
    with (project.root / "_toc.yml").open("a") as file:
        file.write("root: chapters/alpha\n")
    status, out, err = descent(*command)
    assert (status, out) == (1, "")
    assert err.startswith("descent: _toc.yml, line ")
    assert err.count("\n") == 1


def test_a_syntax_error_is_a_fault_of_the_book(descent, project):
    edit(project.source("alpha"), "value = law", "value = = law")
    status, _, err = descent("run", "alpha", "-p", "lr=0.6")
    assert status == 1
    assert err == "descent: alpha.md: code cell 2, line 4: invalid syntax: value = = law.value(lr)\n"


def test_a_folder_of_runs_that_cannot_be_one_is_named_before_anything_runs(descent, project):
    (project.root / "runs").write_text("a file")
    status, _, err = descent("run", "alpha")
    assert status == 1
    assert "make runs/ a folder that you may write to" in err
    assert err.count("\n") == 1


def test_a_folder_of_runs_without_permission_is_named_before_anything_runs(descent, monkeypatch):
    def forbidden(path, *_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("pathlib.Path.mkdir", forbidden)
    status, _, err = descent("run", "alpha")
    assert status == 1
    assert "cannot be written (Permission denied); make runs/ a folder that you may write to" in err


def test_claims_are_listed_with_verdicts(descent):
    status, out, _ = descent("claims")
    assert status == 0
    assert "T2-C1.size | holds" in out
    assert "1 ± 0.1" in out


@pytest.mark.parametrize("key", ["T1-C1", "T1-C1.size", "T1", "alpha"])
def test_a_claim_is_told_whole(descent, key):
    status, out, _ = descent("claims", key)
    assert status == 0
    sentence, where, quantity, demanded, found = out.splitlines()
    assert sentence == "T1-C1 holds: The alpha value is near its prediction."
    assert (where, quantity, demanded) == ("  where: nowhere", "  T1-C1.size: the value", "      demanded 1 ± 0.1")
    assert found.startswith("      holds: 1.00")


def test_a_claim_is_told_by_the_published_records_where_nothing_is_built(descent, project):
    for chapter in project.notebooks:
        compare.published_file(project, chapter).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(project.results(chapter) / "records.json", compare.published_file(project, chapter))
        (project.results(chapter) / "records.json").unlink()
    assert "T2-C1 holds: " in descent("claims", "T2-C1")[1]


def test_help_lists_every_parameter_with_its_default_and_calls_that_parse(capsys):
    book = find_project(REPOSITORY)
    for command in ("run", "check", "build"):
        with pytest.raises(SystemExit):
            cli.main([command, "--help"])
        said = capsys.readouterr().out
        assert f"examples:\n  {cli.EXAMPLES[command]}" in said
        assert max(map(len, said.splitlines())) <= 100
        listed = dict(re.findall(r"^  (\w+)   +(.*(?:\n {13}.*)*)", said.partition("-p NAME=VALUE:")[2], re.M))
        for chapter in book.notebooks:
            for name, default in source.parameters(book.source(chapter)).items():
                values = [float(value) for value in re.findall(r"\d[\d.e-]*", listed[name])]
                assert str(default) in listed[name] if isinstance(default, str) else float(default) in values
    for call in (line for lines in cli.EXAMPLES.values() for line in lines.split("\n")):
        assert cli.parser().parse_args(call.split()[1:])


def test_faulty_claims_are_named(descent, project):
    edit(project.claims / "T1.yaml", "kind: equivalence", "kind: equivalent")
    status, _, err = descent("claims")
    assert status == 1
    assert "T1-C1" in err


def test_compare_two_folders(descent, project):
    folder = str(project.results("alpha"))
    status, out, _ = descent("compare", folder, folder)
    assert status == 0
    assert "| yes         | same" in out


def test_serve_listens_on_this_machine_only(project):
    options = cli.parser().parse_args(["serve"])
    assert options.host == "127.0.0.1"
    with cli.server(project, options.host, 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/") as page:
            assert b"A toy book" in page.read()
        server.shutdown()
