"""Reference notebooks bite: a planted wrong number turns nbval red, and an empty reference is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from descent.book.commands import reference
from descent.book.commands.compare import published_file
from descent.book.execute.chapter import load
from descent.book.execute.execute import execute_all
from descent.book.execute.progress import Progress
from descent.book.sources import records, source
from descent.book.sources.project import BookError, Project
from descent.claims import save_records
from toybook import copied, edit

pytestmark = pytest.mark.slow
SANITIZE = Path(__file__).with_name("sanitize.cfg")


@pytest.fixture
def project(project):
    reference.renew(load(project, "alpha"))
    return project


def nbval(notebook: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Let nbval execute a notebook and compare its checked cells, apart from this pytest and its settings."""
    (notebook.parent / "pytest.ini").write_text("[pytest]\n")
    options = [
        "--nbval-lax",
        "--nbval-current-env",
        "--nbval-sanitize-with",
        str(SANITIZE),
        "-p",
        "no:cacheprovider",
        "-p",
        "descent.book.execute.numerics",
        "-q",
    ]
    command = [sys.executable, "-m", "pytest", *options, str(notebook)]
    return subprocess.run(
        command, capture_output=True, text=True, env=os.environ | environment, cwd=notebook.parent, check=False
    )


VERDICTS = """print('''
 claim   estimate                           region      verdict
 T1-C1   1.70 [1.20, 2.20], 32 replicas     > 1.1       holds
 T1-C2   0.9864, deterministic              0.9 to 1    fails
''')"""


@pytest.fixture(scope="module")
def verdicts(built, tmp_path_factory):
    """Return a book whose first chapter prints a table of verdicts, with its reference; not to be changed."""
    project = Project(copied(built.root, tmp_path_factory.mktemp("verdicts") / "book"))
    edit(project.source("alpha"), 'print(f"T1-C1 value {value:.3f}")', VERDICTS)
    execute_all(project, ["alpha"], {}, Progress())
    reference.renew(load(project, "alpha"))
    return project


@pytest.mark.parametrize(
    ("printed", "planted", "agrees"),
    [
        ("1.70 [1.20, 2.20]", "1.61 [1.12, 2.13]", True),  # a tenth of the width off
        ("1.70 [1.20, 2.20]", "2.20 [1.70, 2.70]", False),  # half of it
        ("  holds", "  fails", False),
        (" T1-C2   0.9864, deterministic              0.9 to 1    fails\n", "", False),
    ],
    ids=["a tenth off", "half off", "verdict", "row"],
)
def test_words_are_compared_exactly_and_estimates_as_numerics(verdicts, tmp_path, printed, planted, agrees):
    notebook = reference.replay(load(verdicts, "alpha"), tmp_path).notebook
    plant(notebook, printed, planted)
    result = nbval(notebook)
    assert result.returncode == (0 if agrees else 1), result.stdout


def elsewhere(project, chaotic):
    """Have the published records made by another processor, of runs that are chaotic or not."""
    (made,) = records.read(project.results("alpha"))
    outcomes = tuple(replace(each, test=replace(each.test, chaotic=chaotic)) for each in made.outcomes)
    provenance = replace(made.provenance, instructions="another processor")
    save_records(published_file(project, "alpha"), [replace(made, outcomes=outcomes, provenance=provenance)])


def plant(notebook, old, new):
    """Have a notebook hold another output in the first cell that is compared."""
    content = source.load(notebook)
    (output,) = next(cell.outputs for cell in content.cells if reference.CHECKED in cell.metadata.get("tags", []))
    assert old in output.text
    output.text = output.text.replace(old, new, 1)
    notebook.write_text(source.dump(content), encoding="utf-8")


@pytest.mark.parametrize("chaotic", [True, False])
def test_rows_of_chaotic_runs_are_compared_on_one_arithmetic_alone(verdicts, tmp_path, chaotic):
    project = Project(copied(verdicts.root, tmp_path / "book"))
    plant(reference_path(project), "1.70 [1.20, 2.20]", "2.20 [1.70, 2.70]")
    elsewhere(project, chaotic)
    assert nbval(reference.replay(load(project, "alpha"), tmp_path).notebook).returncode == (0 if chaotic else 1)
    plant(reference_path(project), "0.9864", "0.8")  # of another claim
    assert nbval(reference.replay(load(project, "alpha"), tmp_path).notebook).returncode == 1


def test_rows_are_left_out_of_tables_of_text_and_of_html():
    html = "<tbody>\n <tr>\n <th>T-1</th>\n <td>0</td>\n </tr>\n <tr>\n <th>T-2</th>\n <td>1</td>\n </tr>\n</tbody>"
    outputs = [{"data": {"text/plain": "     verdict\nT-1  holds\nT-12 holds\nT-2  of T-1", "text/html": html}}]
    (left,) = reference.without_rows(outputs, {"T-1"})
    assert left["data"]["text/plain"] == "     verdict\nT-12 holds\nT-2  of T-1"
    assert "T-1" not in left["data"]["text/html"]
    assert "<th>T-2</th>\n <td>1</td>" in left["data"]["text/html"]


def reference_path(project):
    return project.references / "alpha.ipynb"


def test_reference_holds_text_and_no_path(project):
    text = reference_path(project).read_text()
    assert "T1-C1 value 1.000" in text
    assert "image/png" not in text
    assert str(project.root) not in text


def test_unchanged_execution_passes(project, tmp_path):
    replay = reference.replay(load(project, "alpha"), tmp_path)
    assert replay.compared == 1
    result = nbval(replay.notebook)
    assert result.returncode == 0, result.stdout
    assert "1 passed" in result.stdout


def test_planted_wrong_number_is_seen(project, tmp_path):
    edit(reference_path(project), "T1-C1 value 1.000", "T1-C1 value 1.001")
    result = nbval(reference.replay(load(project, "alpha"), tmp_path).notebook)
    assert result.returncode == 1
    assert "1.001" in result.stdout


def test_changed_library_is_seen_after_the_new_execution(project, tmp_path, log):
    edit(project.library / "toy" / "law.py", "2 * lr", "2.002 * lr")
    execute_all(project, ["alpha"], {}, log)
    assert nbval(reference.replay(load(project, "alpha"), tmp_path).notebook).returncode == 1


def test_reference_can_also_be_executed_by_nbval_alone(project, tmp_path):
    results = {"DESCENT_OUT": str(tmp_path), "PYTHONPATH": str(project.library)}
    assert nbval(reference_path(project), **results).returncode == 0
    edit(reference_path(project), "T1-C1 value 1.000", "T1-C1 value 1.001")
    assert nbval(reference_path(project), **results).returncode == 1


def test_unexecuted_reference_is_refused(project, tmp_path):
    text = source.dump(source.read(project.source("alpha")))
    reference_path(project).write_text(text)
    with pytest.raises(BookError, match="never executed"):
        reference.replay(load(project, "alpha"), tmp_path)


def test_reference_without_a_checked_output_is_refused(project, tmp_path):
    edit(reference_path(project), "nbval-check-output", "nbval-ignore-output")
    with pytest.raises(BookError, match="proves nothing"):
        reference.replay(load(project, "alpha"), tmp_path)


def test_reference_of_other_code_is_refused(project, tmp_path):
    edit(reference_path(project), "law.value(lr)", "law.value(lr) + 0")
    with pytest.raises(BookError, match="no longer that of its reference"):
        reference.replay(load(project, "alpha"), tmp_path)


def test_missing_reference_is_refused(project, tmp_path):
    with pytest.raises(BookError, match="beta has no reference notebook"):
        reference.replay(load(project, "beta"), tmp_path)


def test_cells_that_need_absent_data_are_left_out_and_counted(project, tmp_path, log):
    edit(project.source("alpha"), "[hide-input]", "[nbval-check-output, needs-toyset]")
    execute_all(project, ["alpha"], {}, log)
    reference.renew(load(project, "alpha"))
    replay = reference.replay(load(project, "alpha"), tmp_path)
    assert (replay.compared, replay.left_out) == (1, {"toyset": 1})


def test_output_with_a_path_is_no_reference(project, log):
    edit(project.source("alpha"), 'print(f"', 'import os\nprint(os.getcwd())\nprint(f"')
    execute_all(project, ["alpha"], {}, log)
    with pytest.raises(BookError, match="an output shows the path"):
        reference.renew(load(project, "alpha"))
