"""The page that shows how a rule is written, measured and tried: its code runs, and prints what it shows."""

import re
from pathlib import Path

import pytest
from descent.trials import load, problems, report
from descent.trials.contest import Plan, compete

PAGE = Path(__file__).parents[3] / "chapters" / "your-own-optimiser.md"
NUMBER = re.compile(r"[-−]?\d+(?:\.\d+)?(?:e[-+−]?\d+)?")


def blocks(kind):
    fenced = re.findall(r"^```([^\n]*)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [block for language, block in fenced if language == kind]


def test_the_page_prints_what_it_says(capsys):
    names: dict[str, object] = {}
    code, said = blocks("python"), blocks("text")
    assert sum(len(block.splitlines()) for block in code[:2]) <= 22
    for index, block in enumerate(code):
        exec(compile(block, PAGE.name, "exec"), names)
        printed = capsys.readouterr().out
        if index == 0:
            assert printed == ""
            continue
        assert NUMBER.sub("#", printed) == NUMBER.sub("#", said[index - 1])
        numbers, expected = (
            [float(found.replace("−", "-")) for found in NUMBER.findall(text)] for text in (printed, said[index - 1])
        )
        assert numbers == pytest.approx(expected, rel=0.2, abs=0.05)


def test_the_report_it_shows_has_the_form_that_is_printed(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(blocks("python")[0])
    entries = [load.entry(f"{file}:MyLion", {"slow": 0.99}), load.entry("adam"), load.entry("sign")]
    plan = Plan((1e-3, 1e-2, 2), steps=6, every=3)
    found = compete(problems.problem("digits"), entries, plan)
    shown = next(block for block in blocks("") if block.startswith("rule "))
    shown_table, said = re.split(r"(?:^report/\S+\n)+", shown.strip(), flags=re.M)
    rows, printed = shown_table.splitlines(), report.table(found).splitlines()
    head, own = (NUMBER.sub("#", re.sub(r" {2,}", "  ", lines[0])) for lines in (rows, printed))
    assert head == own
    first = [re.split(r" {2,}", line)[0] for line in rows]
    assert first == [re.split(r" {2,}", line)[0] for line in printed]
    opening = NUMBER.sub("#", report.reading(found)).partition(" from MyLion")[0]
    assert NUMBER.sub("#", " ".join(said.split())).startswith(opening)
