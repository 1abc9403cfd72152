"""Exactly the chapters whose inputs moved are executed, with the reason; a failure is no success later."""

from __future__ import annotations

import json

import nbformat
import pytest
from descent.book.execute import execute as execution
from descent.book.execute.execute import execute, execute_all, reasons
from descent.book.execute.process import Job
from descent.book.execute.stamps import book_place, outputs, read_stamp
from descent.book.sources.project import BookError
from toybook import edit


def run(project, log, **options):
    return execute_all(project, project.notebooks, {}, log, jobs=2, **options)


def test_nothing_moved_nothing_executed(project, log):
    assert run(project, log) == {"alpha": [], "beta": []}
    assert log.lines == ["alpha: reused", "beta: reused"]


def test_library_edit_reexecutes_exactly_the_importing_chapters(project, log):
    edit(project.library / "toy" / "law.py", "2 * lr", "4 * lr")
    assert run(project, log) == {"alpha": ["library toy.law, value"], "beta": []}
    assert "alpha: re-executed because: library toy.law, value" in log.lines
    assert "beta: reused" in log.lines
    assert "value 2.000" in book_place(project, "alpha").notebook.read_text()


def test_of_many_reasons_the_first_are_named_and_the_others_counted(project, log, monkeypatch):
    monkeypatch.setattr(execution, "reasons", lambda *_: [f"library toy.law, part{n}" for n in range(300)])
    monkeypatch.setattr(execution, "execute", lambda job, progress: None)
    assert len(run(project, log)["alpha"]) == 300
    named = ", ".join(f"library toy.law, part{n}" for n in range(3))
    assert f"alpha: re-executed because: {named} and 297 more" in log.lines


def test_edit_of_a_shared_module_reexecutes_both(project, log):
    edit(project.library / "toy" / "base.py", "[seed, value]", "[seed, 1 * value]")
    assert run(project, log) == {name: ["library toy.base, save"] for name in ("alpha", "beta")}


@pytest.mark.parametrize(
    ("path", "old", "new", "reason"),
    [
        ("chapters/alpha.md", "value:.3f", "value:.4f", "chapter source"),
        ("data/claims/T1.yaml", "near its", "close to its", "data file data/claims/T1.yaml"),
    ],
)
def test_own_inputs_reexecute_one_chapter(project, log, path, old, new, reason):
    edit(project.root / path, old, new)
    assert run(project, log) == {"alpha": [reason], "beta": []}


def test_environment_and_parameters_are_inputs(project, log):
    edit(project.root / "requirements.lock", "none", "other")
    why = execute_all(project, ["alpha"], {"alpha": {"seed": 3}}, log)
    assert why == {"alpha": ["environment (lock file)", "parameters"]}
    assert "Injected" not in (text := book_place(project, "alpha").notebook.read_text())
    assert "injected-parameters" in text


def test_failing_cell_fails_with_its_traceback_also_on_the_second_try(project, log):
    edit(project.library / "toy" / "law.py", "return 2 * lr", "return 1 / 0")
    for _ in range(2):
        with pytest.raises(BookError, match=r"(?s)alpha: a cell failed.*law\.py.*ZeroDivisionError"):
            run(project, log)
    place = book_place(project, "alpha")
    assert not place.notebook.exists()
    assert not place.stamp.exists()
    assert not place.results.exists()
    assert read_stamp(book_place(project, "beta"))


def test_repaired_chapter_succeeds_again(project, log):
    edit(project.library / "toy" / "law.py", "return 2 * lr", "return 1 / 0")
    with pytest.raises(BookError):
        run(project, log)
    edit(project.library / "toy" / "law.py", "return 1 / 0", "return 2 * lr")
    assert run(project, log)["alpha"] == ["no finished execution"]


@pytest.mark.parametrize("lost", ["notebook", "stamp"])
def test_half_of_an_execution_is_none(project, log, lost):
    getattr(book_place(project, "alpha"), lost).unlink()
    assert run(project, log)["alpha"] == ["no finished execution"]


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        (lambda results, notebook: edit(results / "table.csv", "1.0", "2.0"), "results/table.csv"),
        (lambda results, notebook: edit(notebook, "value 1.000", "value 1.001"), "alpha.ipynb"),
        (lambda results, notebook: (results / "records.json").unlink(), "results/records.json (missing)"),
        (lambda results, notebook: (results / "more.csv").write_text("1"), "results/more.csv (stray)"),
        (lambda results, notebook: (results / "more").symlink_to(notebook), "results/more (a symlink)"),
    ],
    ids=["table", "notebook", "missing", "stray", "symlink"],
)
def test_altered_outputs_are_named_and_made_again(project, log, fault, named):
    place = book_place(project, "alpha")
    before = outputs(place)
    fault(place.results, place.notebook)
    because = f"its outputs were altered: {named}"
    assert run(project, log) == {"alpha": [because], "beta": []}
    assert f"alpha: re-executed because: {because}" in log.lines
    assert outputs(place) == before
    assert run(project, log) == {"alpha": [], "beta": []}


@pytest.mark.parametrize("outputs", [None, ["table.csv"], "absent"])
def test_an_execution_that_recorded_no_outputs_is_none(project, outputs):
    stamp = book_place(project, "alpha").stamp
    content = json.loads(stamp.read_text()) | {"outputs": outputs}
    if outputs == "absent":  # as an earlier version of the book wrote it
        del content["outputs"]
    stamp.write_text(json.dumps(content))
    assert reasons(project, "alpha", {}) == ["no finished execution"]


def test_too_slow_a_chapter_is_stopped(project, log):
    edit(project.library / "toy" / "law.py", "return 2 * lr", "import time; time.sleep(60)")
    with pytest.raises(BookError, match="alpha: stopped after 2 s"):
        execute(Job(project, "alpha", {}, book_place(project, "alpha"), timeout=2), log)
    assert not book_place(project, "alpha").stamp.exists()


def test_executed_notebook_names_no_path_and_no_time(project):
    text = book_place(project, "alpha").notebook.read_text()
    assert str(project.root) not in text
    notebook = nbformat.reads(text, as_version=4)
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}
    assert all(not set(cell.metadata) & {"papermill", "execution"} for cell in notebook.cells)


def test_cost_is_recorded(project):
    stamp = read_stamp(book_place(project, "alpha"))
    assert 0 < stamp.seconds < 600
    assert 10 < stamp.peak_mib < 4000
    assert json.loads(book_place(project, "alpha").stamp.read_text())["digest"] == stamp.digest
