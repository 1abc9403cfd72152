"""The site is whole or it is not there: each fault is planted and must be refused."""

from __future__ import annotations

import json
import shutil

import pytest
from descent.book.commands.build import build, is_current, outdated
from descent.book.execute.stamps import site_files
from descent.book.site import assemble
from descent.book.sources.project import BookError
from toybook import copied, edit

pytestmark = pytest.mark.slow


def shorten(path):
    path.write_bytes(path.read_bytes()[:-100])


def refused(project, log, message):
    """Build, expect a refusal, twice, and no site left behind."""
    for _ in range(2):
        with pytest.raises(BookError, match=message):
            build(project, log)
    assert not project.html.exists()
    assert not (project.build / "site.json").exists()


@pytest.fixture
def once(monkeypatch, tmp_path):
    """Have Jupyter Book read the same pages once: what it makes of them hangs on nothing else."""
    made, render = {}, assemble.render

    def rendered(project, staged, output):
        files = [path for path in sorted(staged.rglob("*")) if path.is_file()]
        content = tuple((path.relative_to(staged), path.read_bytes()) for path in files)
        if content not in made:
            made[content] = render(project, staged, tmp_path / f"rendered-{len(made)}")
        return copied(made[content], output / "html")

    monkeypatch.setattr(assemble, "render", rendered)


def test_site_stands_at_the_root_with_everything_to_take_along(built):
    for name in ("index.html", "alpha.html", "ledger.html", "downloads/alpha.ipynb", "downloads/alpha/table.csv"):
        assert (built.html / name).is_file(), name
    ledger = json.loads((built.html / "ledger.json").read_text())
    assert ledger["schema"] == 1
    assert [record["id"] for record in ledger["records"]] == ["T1-C1", "T2-C1"]
    assert "image/png" not in (built.html / "downloads" / "alpha.ipynb").read_text()


def test_every_claim_has_its_anchor_and_verdict_in_words(built):
    ledger = (built.html / "ledger.html").read_text()
    assert '<tbody id="T1-C1"' in ledger
    assert "</span> holds</span>" in ledger
    assert 'href="ledger.html?paper=T1&amp;verdict=holds"' in (built.html / "index.html").read_text()


def test_mathematics_is_served_from_the_site(built):
    page = (built.html / "alpha.html").read_text()
    assert "_static/mathjax/tex-chtml.js" in page
    assert (built.html / "_static" / "mathjax" / "tex-chtml.js").is_file()
    assert "thebe" not in page


def test_second_build_reuses_everything(project, log, monkeypatch):
    """It starts no worker and no Jupyter Book, which is what takes time."""
    monkeypatch.setattr("descent.book.execute.execute.run_worker", None)
    monkeypatch.setattr("descent.book.site.assemble.render", None)
    build(project, log)
    assert log.lines[:2] == ["alpha: reused", "beta: reused"]
    assert "site: reused" in log.lines


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        (lambda html: shorten(html / "alpha.html"), "alpha.html"),
        (lambda html: shorten(html / "ledger.json"), "ledger.json"),
        (lambda html: (html / "downloads" / "alpha.md").unlink(), "downloads/alpha.md (missing)"),
        (lambda html: (html / "notes.txt").write_text("mine"), "notes.txt (stray)"),
        (lambda html: (html / "elsewhere").symlink_to(html.parent), "elsewhere (a symlink)"),
    ],
    ids=["page", "ledger", "missing", "stray", "symlink"],
)
def test_a_site_that_was_altered_is_no_current_one(project, fault, named):
    assert is_current(project)
    fault(project.html)
    assert outdated(project) == [f"its files were altered: {named}"]


def test_a_site_that_was_altered_is_assembled_again(project, log):
    before = site_files(project)
    shorten(project.html / "ledger.json")
    (project.html / "notes.txt").write_text("mine")
    build(project, log)
    assert log.lines[:2] == ["alpha: reused", "beta: reused"]
    assert "site: assembling because: its files were altered: ledger.json, notes.txt (stray)" in log.lines
    assert site_files(project).keys() == before.keys()
    assert json.loads((project.html / "ledger.json").read_text())["records"]
    assert is_current(project)


def test_what_moved_and_what_was_altered_are_both_named(project):
    shorten(project.html / "alpha.html")
    edit(project.source("index"), "A toy book", "A toy book, again")
    assert outdated(project) == ["its files were altered: alpha.html", "its sources moved: chapters/index.md"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:-9],
        lambda text: "[]",
        lambda text: '{"inputs": {}, "files": 1}',
        lambda text: json.dumps(json.loads(text)["inputs"]),  # as an earlier version of the book wrote it
    ],
    ids=["cut", "list", "number", "earlier"],
)
def test_a_site_without_a_whole_stamp_is_none(project, damage):
    stamp = project.build / "site.json"
    stamp.write_text(damage(stamp.read_text()))
    assert outdated(project) == ["no finished site"]


def test_hidden_files_are_no_part_of_the_site(project):
    (project.html / ".DS_Store").write_text("left by a file manager")
    assert is_current(project)


def test_the_build_folder_may_be_a_symlink(project, log, tmp_path):
    project.build.rename(tmp_path / "large disk")
    project.build.symlink_to(tmp_path / "large disk")
    edit(project.source("index"), "A toy book", "A toy book, elsewhere")
    build(project, log)
    assert "A toy book, elsewhere" in (project.html / "index.html").read_text()
    assert log.lines[:2] == ["alpha: reused", "beta: reused"]
    assert is_current(project)
    edit(project.source("index"), "See [](alpha.md)", 'See <a href="gamma.html">it</a> [](alpha.md)')
    with pytest.raises(BookError, match=r"link to nothing: gamma\.html"):
        build(project, log)


def test_text_edit_shows_without_a_new_execution(project, log):
    edit(project.source("alpha"), "A sentence about", "A better sentence about")
    build(project, log)
    assert "alpha: reused" in log.lines
    page = (project.html / "alpha.html").read_text()
    assert "A better sentence about" in page
    assert "T1-C1 value 1.000" in page


def test_failing_cell_leaves_no_site_also_on_the_second_try(project, log):
    edit(project.library / "toy" / "law.py", "return 2 * lr", "return 1 / 0")
    refused(project, log, "ZeroDivisionError")


def test_missing_alt_text_is_refused(project, log, once):
    edit(project.source("alpha"), "    alt: A red square, standing for the finding.\n", "")
    refused(project, log, r"alpha\.html: image without alt text")


def test_figure_that_is_not_drawn_is_refused(project, log):
    edit(project.source("alpha"), "display(Image(", "repr(Image(")
    refused(project, log, "alpha: a cell with an alt text shows no picture")


def test_skipped_heading_is_refused(project, log):
    edit(project.source("alpha"), "## Measured", "## Setting\n\n#### Measured")
    refused(project, log, r"level 4 follows one of level 2|Non-consecutive header")


def test_missing_page_is_refused(project, log):
    project.source("status").unlink()
    refused(project, log, r"chapters/status\.md does not exist")


def test_link_to_nothing_is_refused(project, log):
    edit(project.source("index"), "See [](alpha.md)", "See [](gamma.md)")
    refused(project, log, r"gamma\.md")


def test_raw_link_to_a_missing_anchor_is_refused(project, log, once):
    edit(project.source("index"), "See [](alpha.md)", 'See <a href="ledger.html#T1-C9">it</a> [](alpha.md)')
    refused(project, log, "link to a missing anchor: ledger.html#T1-C9")


def test_picture_from_another_host_is_refused(project, log, once):
    picture = '<img alt="A picture." src="https://example.org/a.png">'
    edit(project.source("index"), "See [](alpha.md)", f"{picture} See [](alpha.md)")
    refused(project, log, "loads something from another host")


def test_number_typed_next_to_a_claim_is_refused(project, log):
    edit(project.source("alpha"), "about claim T1-C1 and", "about claim T1-C1 (1.02 here) and")
    refused(project, log, r"alpha\.md:\d+: a number typed next to a claim")


def test_claim_without_a_record_is_refused(project, log):
    claims = project.claims / "T1.yaml"
    text = claims.read_text()
    claims.write_text(text + text[text.index("  - id") :].replace("T1-C1", "T1-C2"))
    refused(project, log, "T1-C2: a claim without a record")


def test_record_of_another_rule_is_refused(project, log):
    edit(project.claims / "T1.yaml", "tolerance: 0.1", "tolerance: 0.2")
    refused(project, log, "T1-C1: recorded under another wording, rule")


def test_an_altered_schema_is_refused_by_name(project, log):
    edit(project.root / "data" / "ledger.schema.json", '"not tested here"', '"untested"')
    refused(project, log, r"data/ledger\.schema\.json was changed")


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("_config.yml", "title: Another", r"_config\.yml, line \d+ is not YAML: the key 'title' occurs twice"),
        ("_config.yml", "\tx: 1", r"_config\.yml, line \d+ is not YAML: .*spaces instead of tabs"),
        ("data/claims/T1.yaml", "title: Another", r"T1\.yaml, line \d+ is not YAML: the key 'title' occurs twice"),
    ],
    ids=["key twice", "tab", "claims"],
)
def test_settings_that_cannot_be_read_are_refused_before_anything_runs(project, log, name, line, message):
    with (project.root / name).open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    edit(project.library / "toy" / "law.py", "return 2 * lr", "return lr * 2")
    refused(project, log, message)
    assert not log.lines


def test_one_paper_in_two_files_is_refused(project, log):
    shutil.copy(project.claims / "T1.yaml", project.claims / "T1-again.yaml")
    refused(project, log, r"T1-again\.yaml and T1\.yaml: paper: both state the claims of T1")


def test_forged_verdict_is_refused(project, log):
    edit(project.library / "toy" / "alpha.records.json", '"verdict": "holds"', '"verdict": "fails"')
    edit(project.library / "toy" / "law.py", "2 * lr", "lr + lr")
    refused(project, log, "estimates give 'holds'")


def test_unknown_placeholder_is_refused(project, log):
    edit(project.source("index"), "<!-- ledger-summary -->", "<!-- ledger-sumary -->")
    refused(project, log, "nothing is generated for <!-- ledger-sumary -->")


def test_a_page_without_code_quotes_the_ledger(project, log):
    edit(project.source("index"), "A toy book", "A toy book, T1-C1 {glue:text}`T1-C1.verdict`")
    build(project, log)
    assert "T1-C1 holds" in (project.html / "index.html").read_text()


def test_a_quote_the_ledger_does_not_have_is_refused(project, log):
    edit(project.source("index"), "A toy book", "A toy book, {glue:text}`T1-C1.vredict`")
    refused(project, log, r"index\.md: the ledger has nothing to quote for T1-C1\.vredict")
