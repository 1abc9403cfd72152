"""A run beside the published one: both verdicts, both numbers, and the reason, as text, Markdown and HTML."""

from __future__ import annotations

from dataclasses import replace

import nbformat
import pytest
from descent.book.commands import cli, compare
from descent.book.execute.stamps import Place, book_place
from descent.book.pages import comparison
from descent.book.sources import records, source


def moved(record, *, shift=0.0, half=None, config=None, n=None, reason=""):
    """The record with its number shifted, its interval widened, its configuration another, or not made at all."""

    def other(outcome):
        if reason:
            return replace(outcome, estimates=(), reason=reason)
        numbers = tuple(
            replace(
                each, value=each.value + shift, n=n or each.n,
                low=each.value + shift - half if half else each.low + shift,
                high=each.value + shift + half if half else each.high + shift,
            )
            for each in outcome.estimates
        )  # fmt: skip
        return replace(outcome, estimates=numbers, config=config or outcome.config)

    made = replace(record.provenance, replicas=n or record.provenance.replicas)
    return replace(record, outcomes=tuple(map(other, record.outcomes)), provenance=made)


@pytest.fixture
def record(project):
    (found,) = records.read(project.results("alpha"))
    return found


SETTING = {"momentum": (0.9, 0.5), "replicas": (1000, 64)}


@pytest.mark.parametrize(
    ("change", "changed", "verdict", "why"),
    [
        ({}, {}, "holds", "one setting, and the numbers agree"),
        ({"shift": 1.0, "config": "f" * 16}, SETTING, "fails", "another setting: momentum 0.5 instead of 0.9; another"),
        ({"shift": 0.0, "config": "f" * 16}, {}, "holds", "another setting: the configurations differ; another"),
        ({"half": 0.5, "n": 16}, {}, "inconclusive", "of 16 replicas where 32 were published it is not decided; "),
        ({"shift": 1.0, "n": 31}, {}, "fails", "one setting, and yet the numbers lie farther apart than chance"),
        ({"reason": "data missing"}, {}, "not tested here", "not tested in your run: data missing"),
    ],
    ids=["same", "momentum", "elsewhere", "few", "apart", "absent"],
)
def test_a_claim_says_why_its_verdicts_differ(record, change, changed, verdict, why):
    (pair,) = comparison.pairs([record], [moved(record, **change)], changed)
    text = comparison.as_text([pair], "alpha")
    assert why in pair.why
    assert record.claim.statement in text
    assert str(pair.yours.verdict) == verdict
    expected = "holds, as published:" if verdict == "holds" else f"T1-C1 holds → {verdict}:"
    assert expected in text
    assert text.splitlines()[-1] == comparison.moves([pair])
    assert max(map(len, text.splitlines()[:-1])) <= comparison.WIDTH


def test_the_claim_comes_before_its_numbers_and_what_moved_before_the_rest(record):
    other = replace(record, claim=replace(record.claim, id="T1-C2"))
    found = comparison.pairs([record, other], [record, moved(other, shift=1.0, config="f" * 16)], SETTING)
    assert [pair.published.claim.id for pair in found] == ["T1-C2", "T1-C1"]
    text = comparison.as_text(found, comparison.title("alpha", SETTING))
    assert text.startswith(
        "alpha with momentum 0.5 (published: 0.9), replicas 64 (published: 1000)\n\n2 claims: 1 keep"
    )
    assert text.index("T1-C2 holds → fails: The alpha value") < text.index("published: holds, ") < text.index("T1-C1 h")
    assert "another setting" in comparison.as_markdown(found, "alpha", {}).partition("## Every test")[2]


def test_the_comparison_and_its_figures_lie_beside_the_run(project, tmp_path, record):
    made = book_place(project, "alpha")
    place = Place(tmp_path / "alpha.ipynb", made.results, tmp_path / "stamp.json")
    executed = source.load(made.notebook)
    given = nbformat.v4.new_code_cell("lr = 0.6", metadata={"tags": ["injected-parameters"]})  # as papermill puts it
    executed.cells.insert(1, given)
    place.notebook.write_text(source.dump(executed))
    said = compare.report(project, "alpha", {"lr": 0.6}, place, [record])
    assert said.startswith("alpha with lr 0.6 (published: 0.5)")
    page, text = ((tmp_path / f"comparison.{end}").read_text() for end in ("html", "md"))
    pictures = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert len(pictures) == 1
    assert f'<img src="figures/{pictures[0]}" alt="' in page
    assert f"](figures/{pictures[0]})" in text
    assert "T1-C1.size" in page
    assert "http" not in page


def test_a_folder_that_holds_something_else_is_refused(project, tmp_path, capsys):
    full = tmp_path / "full"
    full.mkdir()
    (full / "thesis.tex").write_text("years of work")
    call = ["--root", str(project.root), "run", "alpha", "--out", str(full)]
    assert cli.main(call) == cli.USAGE_FAULT
    assert "exists, and holds no run; name an empty folder" in capsys.readouterr().err
    (full / "stamp.json").write_text("{}")
    assert compare.run_place(project, "alpha", {}, full).notebook == full / "alpha.ipynb"
