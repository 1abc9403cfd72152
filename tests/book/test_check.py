"""Verdicts under other master seeds: flips are found, measurements are kept."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from descent.book.commands import check as command
from descent.book.commands import cli
from descent.book.commands.check import Survival, against, check, experiments
from descent.claims import Ledger, Verdict, load_papers
from descent.results import provenance
from descent.stats import Estimate
from toybook import edit

HOLDS, FAILS, OPEN, NOT = Verdict


def seeds(**verdicts):
    return Survival({f"seed {i}": {name: row[i] for name, row in verdicts.items()} for i in range(2)})


def test_equal_verdicts_survive():
    assert seeds(a=(HOLDS, HOLDS), b=(FAILS, FAILS)).survives


def test_a_flip_does_not_survive():
    outcome = seeds(a=(HOLDS, FAILS))
    assert outcome.flipped == ["a"]
    assert not outcome.survives
    assert "FLIPS" in outcome.table()


def test_one_move_to_inconclusive_is_allowed_two_are_not():
    assert seeds(a=(HOLDS, OPEN)).survives
    assert not seeds(a=(HOLDS, OPEN), b=(OPEN, FAILS)).survives


def test_not_tested_is_no_move():
    assert seeds(a=(HOLDS, NOT)).moved == []


def test_experiments_are_chosen_by_name(project):
    assert experiments(project, "alpha") == ["steady", "moody", "pictures"]
    assert experiments(project, "alpha", ["moody"]) == ["moody"]


@pytest.mark.slow
def test_check_finds_the_flip_and_keeps_what_was_measured(project, log):
    outcome = check(project, "alpha", ["moody"], {}, 2, progress=log)
    assert outcome.columns["seed 1"] == {"T1-C1": FAILS}
    assert outcome.columns["seed 2"] == {"T1-C1": HOLDS}
    assert outcome.columns["published"] == {"T1-C1": HOLDS}
    assert outcome.apart == ("T1-C1.size (seed 1)",)  # it measures 2 ± 0.01 where 1 was published
    assert "of the published ones: T1-C1.size (seed 1)" in outcome.table()
    assert outcome.estimates["seed 1"]["T1-C1.size"] == "2.000 [1.990, 2.010]"
    assert list(outcome.estimates) == ["published", "seed 1", "seed 2"]
    (row,) = (line for line in outcome.table().splitlines() if line.startswith("T1-C1.size |"))
    assert row.split("|")[2].strip() == "2.000 [1.990, 2.010]"
    assert not outcome.survives
    files = sorted(path.name for path in (project.root / "runs").rglob("*.json"))
    assert files == ["seed-1-moody.json", "seed-2-moody.json"]
    check(project, "alpha", ["moody"], {}, 2, progress=log)
    assert "2 of 2 runs reused" in log.lines


GOOD = '{"estimates": {"T1-C1.size": [{"value": 1, "low": 0, "high": 2, "n": 3, "method": "exact"}]}}'


LACKING = '{"estimates": {}, "skipped": "no pictures"}'
DAMAGED = [GOOD[:-20], "", "[]", "{}", GOOD.replace('"n"', '"m"'), GOOD.replace("[{", "{")]


@pytest.mark.parametrize("content", [*DAMAGED, LACKING])
def test_a_measurement_that_was_damaged_is_made_again(project, log, monkeypatch, content):
    made = []

    def measure(package, name, chosen, scale, file):
        made.append(file)
        file.write_text(GOOD)
        return 1.0

    monkeypatch.setattr(command, "measure", measure)
    monkeypatch.setattr(command.lifeline, "processes", ThreadPoolExecutor)
    monkeypatch.setattr(command, "_folder", lambda *_: project.root)
    file = project.root / "seed-1-moody.json"
    for text, count in ((GOOD, 0), (content, 1)):
        file.write_text(text)
        assert check(project, "alpha", ["moody"], {}, 1, progress=log).columns["seed 1"]
        assert len(made) == count


@pytest.mark.slow
def test_command_ends_with_the_conclusion(project, capsys):
    call = ["--root", str(project.root), "check", "alpha", "--seeds", "1"]
    assert cli.main([*call, "--only", "steady", "--only", "pictures"]) == 0
    out = capsys.readouterr().out
    assert out.endswith("the verdicts survive\n")
    assert "pictures: the pictures are not here" in out
    assert cli.main([*call, "--only", "steady", "-p", "replicas=64"]) == 0
    assert "survive among these seeds; they were not compared with the published ones" in capsys.readouterr().out


def measured(project, folder):
    """Return records in which the experiment `steady` has measured what it measures."""
    (paper,) = [paper for paper in load_papers(project.claims) if paper.chapter == "alpha"]
    made = Ledger(paper, provenance("cpu", "cpu", 0, 32, modules=["descent.stats.estimate"]), folder)
    found = {"T1-C1.size": Estimate(1.0, 0.99, 1.01, 32, "Student t", 31)}
    made.add(found, experiment="steady", config="c0ffee", seconds=0.1)
    return made.save()


@pytest.mark.slow
def test_every_digit_is_compared_with_a_file_of_records(project, log, tmp_path, capsys):
    file = measured(project, tmp_path)
    assert against(project, "alpha", ["steady"], {}, file, progress=log).table() == "1 estimates compared, 0 differ"
    edit(project.library / "toy" / "experiments" / "alpha.py", "config.base)", "config.base + 1e-15)")
    call = ["--root", str(project.root), "check", "alpha", "--only", "steady", "--against", str(file)]
    assert cli.main(call) == 1
    out = capsys.readouterr().out
    assert "T1-C1.size: 1.0 [0.99, 1.01] of 32 there, 1.000000000000001 [" in out
    assert "1 estimates compared, 1 differ" in out
