"""A claim to begin with: four files, which the claims' loader, the runner, the figure and the book take as they are."""

from __future__ import annotations

import ast
import importlib.util
import shutil
import sys

import pytest
from descent.book.commands import cli, new_claim
from descent.book.sources import source
from descent.book.sources.project import Project
from descent.claims import Ledger, Verdict, load_paper
from descent.experiments.lab import Experiment, Lab
from descent.results import provenance
from descent.runs.perform import enter, perform
from toybook import REPOSITORY


@pytest.fixture
def book(tmp_path):
    """Return pages, claims and the folders of the library of the repository's book, without its code."""
    for name in ("_toc.yml", "_config.yml"):
        shutil.copy(REPOSITORY / name, tmp_path / name)
    for name in ("chapters", "data/claims"):
        shutil.copytree(REPOSITORY / name, tmp_path / name, ignore=shutil.ignore_patterns("_static"))
    for name in ("experiments/saddles", "experiments/geometry", "figures/geometry"):
        (tmp_path / "lib" / "descent" / name).mkdir(parents=True)
    return Project(tmp_path)


def call(book, place, capsys):
    status = cli.main(["--root", str(book.root), "new", "claim", place])
    return (status, *capsys.readouterr())


def loaded(path, name, monkeypatch):
    """Return the module of a file, for the time of a test."""
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("chapter", "paper", "drawn"), [
    ("saddles", "P3", "figures/saddles_cold_rest.py"), ("geometry", "P5", "figures/geometry/cold_rest.py"),
])  # fmt: skip
def test_the_four_files_make_a_claim_with_a_verdict(book, capsys, monkeypatch, chapter, paper, drawn):
    before = load_paper(book.claims / f"{paper}.yaml")
    status, out, _ = call(book, f"{chapter}.cold_rest", capsys)
    assert status == 0
    files = out.partition("\n\n")[0].splitlines()
    assert files == [
        f"data/claims/{paper}.yaml", f"lib/descent/experiments/{chapter}/cold_rest.py", f"lib/descent/{drawn}",
        f"chapters/{chapter}.md",
    ]  # fmt: skip
    after = load_paper(book.claims / f"{paper}.yaml")
    (claim,) = [claim for claim in after.claims if claim not in before.claims]
    assert f"descent register {claim.id} --basis" in out
    module = loaded(book.root / files[1], f"descent.experiments.{chapter}.cold_rest", monkeypatch)
    (experiment,) = [each for each in vars(module).values() if isinstance(each, Experiment)]
    lab = Lab()  # as the chapter has it
    found = perform(experiment, lab)
    ledger = Ledger(after, provenance("cpu", "cpu", 0, 1000, modules=["descent.stats.estimate"]), book.root)
    enter(ledger, experiment.name, found, lab)
    assert ledger.record(claim.id).verdict is Verdict.HOLDS
    assert list(found.tables) == ["cold_rest"]
    figure = loaded(book.root / files[2], ".".join(("descent", *drawn[:-3].split("/"))), monkeypatch)
    assert len(figure.cold_rest(found.result).axes) == 1
    cells = source.code(source.read(book.root / files[3]))
    names = [node.module for cell in cells for node in ast.walk(ast.parse(cell)) if isinstance(node, ast.ImportFrom)]
    assert figure.__name__ in names
    assert f"`{claim.id}.law`" in (book.root / files[3]).read_text()


@pytest.mark.parametrize(
    ("place", "named"),
    [
        ("saddles", "give chapter and name of an experiment, such as saddles.warmth"),
        ("saddles.My-Test", "give chapter and name"),
        ("nowhere.rest", "no paper's chapter is called 'nowhere'; there are normalised, smoothing"),
        ("saddles.escape", "lib/descent/experiments/saddles/escape.py is there already; give the experiment another"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_written(book, capsys, place, named):
    (book.library / "descent/experiments/saddles/escape.py").write_text("")
    status, out, err = call(book, place, capsys)
    assert (status, out) == (2, "")
    assert named in err
    assert (book.claims / "P3.yaml").read_text() == (REPOSITORY / "data/claims/P3.yaml").read_text()


def test_the_guide_shows_what_is_written():
    guide = (REPOSITORY / "CONTRIBUTING.md").read_text()
    assert f"```python\n{new_claim.EXPERIMENT}```" in guide
    assert f"```yaml\n{new_claim.CLAIM}```" in guide
