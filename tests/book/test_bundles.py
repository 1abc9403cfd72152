"""A run of somebody else's, from the command that makes it to the ledger that counts it."""

from __future__ import annotations

import getpass
import platform
import shutil
import zipfile
from pathlib import Path

import pytest
from descent.book.commands import cli, reruns
from descent.book.commands.compare import published
from descent.book.pages import reruns_told
from descent.book.sources import records
from descent.book.sources.project import SourceError, find_project
from descent.claims.reruns import load_bundle, require_registered
from toybook import REPOSITORY

REAL = Path(__file__).with_name("geometry-f4b24c58.zip")
"""What `descent run geometry -p seed=1001 -p replicas=64 --bundle` wrote on a common machine."""


@pytest.fixture(scope="module")
def book():
    return find_project(REPOSITORY)


def contents(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def alter(path, old, new):
    """Write a bundle anew with another text in its records."""
    files = contents(path)
    assert old in files["records.json"]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content.replace(old, new))


def test_a_real_run_is_accepted_and_counted(book):
    bundle = load_bundle(REAL)
    require_registered(bundle, records.registry(book))
    again = reruns_told.by_claim(published(book, "geometry"), [bundle])
    assert len(again) >= 10
    assert {one.record.provenance.seed for found in again.values() for one in found} == {1001}
    row = reruns_told.fact(next(iter(again.values())))
    assert "master seed 1001, 64 replicas" in row
    assert f'href="downloads/reruns/{REAL.name}"' in row


def test_the_same_run_with_one_digit_changed_is_refused(tmp_path):
    path = tmp_path / REAL.name
    shutil.copy(REAL, path)
    alter(path, b'"seed": 1001', b'"seed": 1002')
    with pytest.raises(ValueError, match=rf"^{path.name} in .*ask for one that"):
        load_bundle(path)


def test_counts_stand_beside_what_other_seeds_said(book):
    again = reruns_told.by_claim(published(book, "geometry"), [load_bundle(REAL)])
    claim = next(id for id, found in again.items() if found[0].same)
    said = reruns_told.beside({claim: "4 of 5 other seeds agree", "S-1": "2 of 5 other seeds agree"}, again)
    assert said[claim] == "4 of 5 other seeds agree; 1 of 1 independent re-run agrees"
    assert said["S-1"] == "2 of 5 other seeds agree"


def test_a_bundle_names_no_path_host_or_user(book):
    secrets = (str(REPOSITORY), str(Path.home()), platform.node(), "/tmp", "/home")
    for content in contents(REAL).values():
        assert [secret for secret in secrets if secret.encode() in content] == []
        assert getpass.getuser() == "root" or getpass.getuser().encode() not in content


@pytest.mark.slow
def test_a_run_leaves_its_bundle_and_the_ledger_takes_it_up(project, capsys):
    out = project.root / "mine"
    assert cli.main(["--root", str(project.root), "run", "alpha", "-p", "seed=5", "--bundle", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    (made,) = out.glob("alpha-*.zip")
    assert said.splitlines()[-1] == f"to attach to an issue, or for data/reruns: mine/{made.name}"
    assert sorted(contents(made)) == ["bundle.json", "comparison.md", "records.json"]
    assert str(project.root).encode() not in b"".join(contents(made).values())
    project.reruns.mkdir()
    shutil.copy(made, project.reruns)
    assert "no independent run of today's rules" in reruns.table(project)  # the toy has the same records for any seed
    alter(project.reruns / made.name, b"c0ffee", b"c0ffe0")
    with pytest.raises(SourceError, match=rf"{made.name} in reruns: "):
        records.bundles(project)


def test_other_settings_make_no_bundle(project, capsys):
    assert cli.main(["--root", str(project.root), "run", "alpha", "-p", "lr=0.7", "--bundle"]) == 2
    assert "lr would be another setting; give seed, replicas, device alone" in capsys.readouterr().err
    assert not (project.root / "runs").exists()
