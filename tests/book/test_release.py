"""Archives of the book: the same bytes each time, of nobody's, and only of a finished site."""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
import tarfile
import tomllib
from datetime import date
from pathlib import Path

import descent as library
import pytest
import yaml
from descent.book.commands import cli, release
from descent.book.commands.build import build, site_inputs
from descent.book.execute.stamps import read_site_stamp, write_site_stamp
from toybook import REPOSITORY, edit


@pytest.fixture
def ready(project):
    """Return the toy book with everything a release takes."""
    (project.root / "LICENSE").write_text("Do as you like.\n")
    (project.published / "records").mkdir(parents=True)
    (project.published / "records" / "earlier.json").write_text("{}")
    (project.published / "records" / ".earlier.json.part").write_text("{")
    return project


def call(project, capsys):
    status = cli.main(["--root", str(project.root), "release"])
    return (status, *capsys.readouterr())


def members(project, kind):
    with tarfile.open(project.root / "dist" / f"what-momentum-does-1.2.3-{kind}.tar.gz") as archive:
        return {entry.name: (entry, archive.extractfile(entry).read()) for entry in archive.getmembers()}


def test_release_packs_the_site_and_what_it_publishes(ready, capsys):
    status, out, _ = call(ready, capsys)
    assert status == 0
    assert out.splitlines() == [
        f"dist/what-momentum-does-1.2.3-{kind}.tar.gz{suffix}"
        for kind in ("site", "published")
        for suffix in ("", ".sha256")
    ]
    site, root = members(ready, "site"), "what-momentum-does-1.2.3-site/"
    assert site[f"{root}ledger.json"][1] == (ready.html / "ledger.json").read_bytes()
    assert {f"{root}index.html", f"{root}downloads/alpha.ipynb", f"{root}ledger.schema.json"} <= set(site)
    root = "what-momentum-does-1.2.3-published/"
    names = (
        "CITATION.cff",
        "LICENSE",
        "data/claims/T1.yaml",
        "data/claims/T2.yaml",
        "data/ledger.schema.json",
        "data/published/records/earlier.json",
        "datapackage.json",
        "forrt.json",
        "ro-crate-metadata.json",
    )
    assert sorted(members(ready, "published")) == [root + name for name in names]


def test_two_releases_are_the_same_bytes_and_the_checksums_hold(ready, capsys, monkeypatch):
    call(ready, capsys)
    dist = ready.root / "dist"
    first = {path.name: path.read_bytes() for path in dist.iterdir()}
    shutil.rmtree(dist)
    for path in ready.html.rglob("*"):
        path.touch()
    monkeypatch.setattr("time.time", lambda: 4e9)
    call(ready, capsys)
    assert {path.name: path.read_bytes() for path in dist.iterdir()} == first
    for checksum in dist.glob("*.sha256"):
        subprocess.run(["sha256sum", "-c", checksum.name], cwd=dist, check=True, capture_output=True)


def test_nothing_tells_who_packed_it_and_where(ready, capsys):
    call(ready, capsys)
    for kind in ("site", "published"):
        found = members(ready, kind)
        assert list(found) == sorted(found)
        for entry, content in found.values():
            assert (entry.uid, entry.gid, entry.uname, entry.gname, entry.mode) == (0, 0, "", "", 0o644)
            assert str(ready.root).encode() not in content, entry.name
            assert str(Path.home() / "").encode() + b"/" not in content, entry.name
        packed = (ready.root / "dist" / f"what-momentum-does-1.2.3-{kind}.tar.gz").read_bytes()
        assert packed[3] == 0  # no name of a file in the head of the compressed stream


def test_order_date_and_content_make_the_bytes(tmp_path):
    (tmp_path / "a").write_text("1")
    (tmp_path / "b").write_text("2")
    files = {Path("b"): tmp_path / "b", Path("a"): tmp_path / "a"}
    packed = release.pack("x", files, date(2026, 1, 2))
    assert packed == release.pack("x", dict(reversed(files.items())), date(2026, 1, 2))
    assert packed != release.pack("x", files, date(2026, 1, 3))
    assert gzip.decompress(packed).index(b"x/a") < gzip.decompress(packed).index(b"x/b")


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        (lambda book: shutil.rmtree(book.html), "no finished site in _build/html to release; run `make book` first"),
        (lambda book: (book.build / "site.json").unlink(), "no finished site"),
        (lambda book: (book.executed / "alpha.json").unlink(), "no finished site"),
        (lambda book: edit(book.source("index"), "A toy", "A"), "since: chapters/index.md; run `make book` first"),
        (lambda book: edit(book.library / "toy" / "law.py", "2 * lr", "3 * lr"), "alpha: library toy.law, value"),
        (lambda book: (book.root / "LICENSE").unlink(), "LICENSE is missing from the book"),
        (lambda book: shutil.rmtree(book.published), "data/published is missing from the book"),
        (lambda book: edit(book.root / "CITATION.cff", "2026-11-21", "soon"), "must state a version and date-released"),
    ],
)
def test_what_cannot_be_released_is_refused(ready, capsys, fault, named):
    fault(ready)
    status, out, err = call(ready, capsys)
    assert status == 1
    assert named in err
    assert out == ""
    assert not (ready.root / "dist").exists()


def lead_out(path, target):
    """Put a symlink where a file was, to one with the same content."""
    target.write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(target)


def build_in_a_link(book):
    (book.html / "etc").symlink_to("/etc")
    write_site_stamp(book, site_inputs(book))


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        (lambda book: (book.html / "alpha.html").write_text("<h1>half"), "not as it was built: alpha.html; run `make"),
        (lambda book: (book.html / "ledger.json").unlink(), "not as it was built: ledger.json (missing)"),
        (lambda book: (book.html / "passwords.txt").write_text("x"), "not as it was built: passwords.txt (stray)"),
        (lambda book: lead_out(book.html / "alpha.html", book.root / "alpha.html"), "built: alpha.html (a symlink)"),
        (lambda book: (book.html / "etc").symlink_to("/etc"), "not as it was built: etc (a symlink)"),
        (build_in_a_link, "these are some: _build/html/etc; put the files themselves there"),
        (lambda book: lead_out(book.root / "LICENSE", book.root / "other"), "these are some: LIC"),
        (lambda book: (book.published / "home").symlink_to(Path.home()), "these are some: data/published/home"),
        (lambda book: edit(book.results("alpha") / "table.csv", "1.0", "2"), "alpha: its outputs were altered: "),
    ],
    ids=["altered", "missing", "stray", "symlink", "folder", "built in", "licence", "published", "outputs"],
)
def test_nothing_but_what_was_built_is_released(ready, capsys, fault, named):
    fault(ready)
    status, out, err = call(ready, capsys)
    assert (status, out) == (1, "")
    assert named in err
    assert not (ready.root / "dist").exists()


def test_exactly_the_recorded_files_are_packed(ready, capsys):
    (ready.html / ".DS_Store").write_text("left by a file manager")
    assert call(ready, capsys)[0] == 0
    assert {name.partition("/")[2] for name in members(ready, "site")} == set(read_site_stamp(ready).files)


@pytest.mark.slow
def test_numbers_of_other_parameters_are_no_release(ready, log, capsys):
    build(ready, log, {"alpha": {"seed": 3}})
    status, out, err = call(ready, capsys)
    assert (status, out) == (1, "")
    assert "alpha with seed = 3 instead of 0; run `make book`, without -p and --scale, first" in err
    build(ready, log)
    assert call(ready, capsys)[0] == 0


def test_the_version_is_the_same_everywhere():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    headings = re.findall(r"^## (.+)$", (REPOSITORY / "CHANGELOG.md").read_text(), re.M)
    newest = headings[headings[0] == "[Unreleased]"]  # below what waits for the next version
    assert project["version"] == library.__version__
    assert citation["version"] == library.__version__
    assert newest == f"[{library.__version__}] — {citation['date-released']}"
