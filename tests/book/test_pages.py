"""What is generated around the chapters: traces of figures, pictures of outcomes, boxes, the finish of the pages."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import shutil
import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest
from descent.book.commands import build
from descent.book.execute.chapter import load, load_all
from descent.book.pages import (
    hover,
    instruments,
    landing,
    ledger,
    page_frame,
    paper_scale_page,
    reports,
    rules_page,
    thumbnail,
)
from descent.book.pages.picture import WIDTH, picture
from descent.book.site import assemble, publish
from descent.book.sources import provenance, records, source
from descent.book.sources.project import BookError, find_project
from descent.claims import Claim, Outcome, Record, Verdict, moves
from descent.claims import verdict as rules
from descent.stats.estimate import Estimate
from toybook import REPOSITORY, edit


@pytest.fixture(scope="module")
def book():
    return find_project(REPOSITORY)


def outcome(rule, *intervals, key="size", quantity="the size"):
    estimates = tuple(Estimate((low + high) / 2, low, high, 40, "Student t", 39) for low, high in intervals)
    return Outcome(rules.Test(key, quantity, rule, ("cpu",)), 1, estimates, "", "toy", "abc", 1.0)


def numbers(svg, pattern):
    return [tuple(map(float, found)) for found in re.findall(pattern, svg)]


def figures(book, chapter):
    return provenance.figures(book, chapter, source.read(book.source(chapter)))


def draws_a_formula(drawn):
    """Tell whether a figure needs no result: every argument of what draws it has a default."""
    module, _, name = drawn.name.rpartition(".")
    parameters = inspect.signature(getattr(importlib.import_module(module), name)).parameters.values()
    return all(p.default is not p.empty for p in parameters)


def test_every_figure_is_traced_to_its_code_and_experiments(book):
    for chapter in book.notebooks:
        found, places = figures(book, chapter), provenance.experiments(book, chapter)
        assert found
        for made in found.values():
            assert made.drawn is not None
            assert made.experiments or made.kept or draws_a_formula(made.drawn)
            lines = provenance.modules(book)[made.drawn.module].read_text().splitlines()
            assert lines[made.drawn.line - 1].startswith(f"def {made.drawn.name.rpartition('.')[2]}(")
            for name in (*made.experiments, *(table.experiment for table in made.kept)):
                assert f".{chapter}" in places[name].module


def test_every_experiment_is_traced_to_the_line_that_defines_it(book):
    for chapter in book.notebooks:
        package = importlib.import_module(f"descent.experiments.{chapter}")
        places = provenance.experiments(book, chapter)
        assert set(places) == {item.name for item in package.EXPERIMENTS}
        for item in package.EXPERIMENTS:
            code = places[item.name]
            constant = code.name.rpartition(".")[2]
            assert getattr(importlib.import_module(code.module), constant) is item
            line = provenance.modules(book)[code.module].read_text().splitlines()[code.line - 1]
            assert line.startswith((f"{constant} =", f"{constant}:"))


STEADY = """toy("steady", lambda config, lab: config.base)"""


def test_an_experiment_is_found_as_what_it_is_whatever_makes_it(project, monkeypatch):
    """The toy's are no calls of a class, one has a constant, and the cell names that under another name."""
    monkeypatch.syspath_prepend(project.library)
    for name in [name for name in sys.modules if name.partition(".")[0] == "toy"]:
        monkeypatch.delitem(sys.modules, name)
    experiments = project.library / "toy" / "experiments" / "alpha.py"
    edit(experiments, f"    {STEADY},\n", "    STEADY,\n")
    edit(experiments, 'PAPER = "T1"\n', f'PAPER = "T1"\nSTEADY = {STEADY}\n')
    run = "from toy.experiments import alpha as tried\n\nx = bench.run(tried.STEADY)"
    edit(project.source("alpha"), "value = law", f"{run}\nvalue = law")
    edit(project.source("alpha"), "display(Image", "print(x)\ndisplay(Image")
    line = experiments.read_text().splitlines().index(f"STEADY = {STEADY}") + 1
    module = "toy.experiments.alpha"
    assert provenance.experiments(project, "alpha") == {"steady": provenance.Code(f"{module}.STEADY", module, line)}
    (figure,) = figures(project, "alpha").values()
    assert figure.experiments == ("steady",)
    assert provenance.experiments(project, "beta") == {}


def test_every_figure_has_a_title_and_a_place_without_formulas(book):
    found = [made for chapter in book.notebooks for made in figures(book, chapter).values()]
    assert len({made.anchor for made in found}) == len(found)
    assert not [made.title for made in found if not made.title or set(made.title) & set("$\\{}")]
    assert provenance.spelled(r"from $\eta_{1/2}$ to $\sqrt{2\lambda\ln2}$") == "from η_1/2 to √(2λ ln2)"


def test_the_status_page_says_of_every_figure_what_it_rests_on(book, project):
    page = (project.html / "status.html").read_text()
    assert "2 figures." in page
    assert page.count("A red square, standing for the finding</a></th>") == 2
    assert re.search(r'<a href="alpha.html">The alpha chapter</a>, executed \d{4}-\d\d-\d\d, fresh', page)
    edit(project.library / "toy" / "law.py", "2 * lr", "lr + lr")
    edit(project.library / "toy" / "base.py", "import csv", "import csv, sys")
    table = landing.figure_table([load(project, "alpha")])
    assert "stale: library toy.base, imports and 1 more" in table


def test_a_page_shows_a_copy_of_a_figure(tmp_path):
    drawn = {"outputs": [{"data": {"image/png": "…", "image/svg+xml": "<svg>a square</svg>"}}]}
    alpha = SimpleNamespace(
        figures={1: SimpleNamespace(anchor="fig-square")}, page=lambda: SimpleNamespace(cells=[{}, drawn])
    )
    page = thumbnail.thumbnails("index", "![A square](figure:alpha#fig-square)", {"alpha": alpha}, tmp_path)
    assert page == "![A square](_static/figures/fig-square.svg)"
    assert (tmp_path / "_static" / "figures" / "fig-square.svg").read_text() == "<svg>a square</svg>"
    for absent in ("figure:alpha#none", "figure:gamma#none"):
        with pytest.raises(BookError, match=rf"^index.md: there is no figure none .* correct {absent}$"):
            thumbnail.thumbnails("index", f"![A square]({absent})", {"alpha": alpha}, tmp_path)


def test_a_claims_sentence_spells_out_its_acronyms():
    book = SimpleNamespace(texts={"notation": "# Notation\n\nSHB\n: Heavy ball.\n\nStep\n: A walk.\n"})
    said = hover.spelt('<td class="statement">SHB beats SHB by a step</td><td>SHB</td>', book)
    abbreviated = '<abbr title="Heavy ball.">SHB</abbr>'
    assert said == f'<td class="statement">{abbreviated} beats SHB by a step</td><td>SHB</td>'


def test_a_figure_names_the_claims_that_came_of_its_experiments(project):
    (record, _) = records.load(project)
    figure = provenance.Trace(None, ("toy",), "A <title>", "fig-a")
    row = landing._figure("alpha", figure, [record])
    assert '<a href="alpha.html#fig-a">A &lt;title&gt;</a>' in row
    assert '<td>toy</td><td><a href="ledger.html#T1-C1">T1-C1</a></td>' in row
    alone = provenance.Trace(None, (), "B", "")
    assert "<td>formulas alone</td><td>none</td>" in landing._figure("alpha", alone, [record])


def test_a_figure_names_the_tables_that_other_scales_left(book):
    """Read directly, in a loop, or through a variable of another cell; only tables that there are."""
    found = {made.anchor: made.kept for made in figures(book, "saddles").values()}
    by_night = {(each.name, each.experiment) for each in found["fig-saddles-residual"] if each.scale == "night"}
    assert by_night == {("resnet", "resnet"), ("resnet_curve", "resnet"), ("residual_edge", "residual_edge")}
    assert found["fig-saddles-speedup"] == (provenance.Kept("gpu", "linear_saddle", "linear"),)
    (read,) = {made.kept for made in figures(book, "normalised").values() if made.anchor == "fig-normalised-control"}
    assert {each.name for each in read} == {"wider"}


def test_what_other_scales_left_stands_below_a_figure_and_beside_its_claims(project, monkeypatch):
    (record, _) = records.load(project)
    kept = provenance.Kept("night", "large", "wide")
    figure = provenance.Trace(None, (), "A title", "fig-a", (kept,))
    night = replace(
        record,
        provenance=replace(record.provenance, scale="night"),
        outcomes=tuple(replace(each, experiment="wide") for each in record.outcomes),
    )
    row = landing._figure("alpha", figure, [record, night])
    assert '<td>wide by night</td><td><a href="ledger.html#T1-C1">T1-C1</a></td>' in row
    assert "<td>none</td>" in landing._figure("alpha", figure, [record])
    chapter = load(project, "alpha")
    strip = page_frame._strip(chapter, figure, {})
    assert strip.startswith('<a href="paper-scale.html">by night</a>: data <a href="downloads/alpha/night/large.csv"')
    monkeypatch.setitem(vars(chapter), "experiments", {"wide": provenance.Code("toy.wide.WIDE", "toy.wide", 3)})
    known = page_frame._strip(chapter, figure, {})
    assert known == strip + ', computed by <a href="code/toy.wide.html#L3"><code>toy.wide.WIDE</code></a>'


def test_what_did_not_hold_by_night_is_told_below_the_chapters_own(project):
    chapters = load_all(project)
    (record, _) = records.load(project)
    page = reports.not_held(chapters)
    assert page == "Every claim holds."
    failed = tuple(
        replace(each, test=replace(each.test, rule=rules.Equivalence(99.0, 0.1))) for each in record.outcomes
    )
    page = reports.not_held(chapters, {"T1-C1": replace(record, outcomes=failed)})
    assert "<summary>1 of 1 claims asked of larger networks by night: 1 fail</summary>" in page
    assert 'href="ledger.html#T1-C1"' in page


def test_a_link_to_a_claim_says_what_a_night_found(project):
    (record, _) = records.load(project)
    assert assemble._hint(record, None).endswith("— holds")
    assert assemble._hint(record, record).endswith("— holds; larger networks, by night: holds")


def test_a_claim_is_sent_to_the_section_that_quotes_it():
    text = "# Title\n\nT1-C1 and T1-C2\n\n## Before\n\nT1-C1 named\n\n## Where it is\n\n{glue:text}`T1-C1.verdict`\n"
    assert provenance.section("alpha", text, "T1-C1") == ("alpha.html#where-it-is", "Where it is")
    assert provenance.section("alpha", text, "T1-C2") == ("alpha.html", "Title")


@pytest.mark.parametrize(
    ("interval", "verdict"),
    [((0.95, 1.0), Verdict.HOLDS), ((1.3, 1.4), Verdict.FAILS), ((1.0, 1.2), Verdict.INCONCLUSIVE)],
)
def test_the_picture_shows_what_the_verdict_says(interval, verdict):
    made = outcome(rules.Equivalence(1.0, 0.1), interval)
    assert made.verdict is verdict
    svg = picture(made)
    ((left, width),) = numbers(svg, r'<rect x="([\d.]+)" y="1" width="([\d.]+)"')
    ((x1, x2),) = numbers(svg, r'class="raw" x1="([\d.]+)" x2="([\d.]+)"')
    inside, outside = left <= x1 and x2 <= left + width, x1 > left + width or x2 < left
    assert (inside, outside) == (verdict is Verdict.HOLDS, verdict is Verdict.FAILS)
    assert f'class="outcome {verdict}"' in svg
    assert str(verdict) in svg.partition("aria-label")[2]


def test_a_number_of_the_ledger_stands_under_the_name_of_its_quantity():
    first = outcome(rules.Direction(above=1.0), (2.0, 3.0), quantity="speed of the harm")
    second = outcome(rules.Equivalence(1.0, 0.5), (0.9, 1.1), key="recovers", quantity="speed without it")
    claim = Claim("T1-C1", "here", "read", "It recovers.", ("cpu",), (first.test, second.test), headline="recovers")
    made = Record(claim, "T1", "alpha", (first, second), None)
    (cell,) = re.findall(r'<td class="estimate".*?</td>', ledger._lead(made, None, "", None))
    assert re.search(r'<span class="quantity">speed without it</span><br><strong>1', cell)
    assert "harm" not in cell


def test_the_picture_of_a_region_without_end_and_of_several_estimates():
    half = picture(outcome(rules.Direction(above=2.0), (3.0, 4.0)))
    ((left, width),) = numbers(half, r'<rect x="([\d.]+)" y="1" width="([\d.]+)"')
    assert left + width == pytest.approx(WIDTH - 8, abs=0.2)  # the region goes on to the end of the picture
    assert picture(outcome(rules.Ordering(), (0.1, 0.2), (0.2, 0.4), (0.1, 0.3))).count("<circle") == 3
    assert picture(outcome(rules.Direction(above=2.0))) == ""


def test_both_scales_stand_on_one_axis():
    here, large = (outcome(rules.Equivalence(1.0, 0.1), interval) for interval in ((0.95, 1.0), (1.3, 1.4)))
    svg = picture(here, large)
    ((kind, mine), (other, theirs)) = re.findall(r'<circle class="(\w+)" cx="([\d.]+)"', svg)
    assert (kind, other) == ("here", "large")
    (left, width), *more = numbers(svg, r'<rect x="([\d.]+)" y="1" width="([\d.]+)"')
    assert not more
    assert left <= float(mine) <= left + width < float(theirs)
    said = svg.partition("aria-label")[2]
    assert said.index("holds") < said.index("at paper scale") < said.index("fails")
    alone = picture(outcome(rules.Equivalence(1.0, 0.1)), large)
    assert alone.count("<circle") == 1
    assert "not tested here" in alone


def test_another_verdict_at_paper_scale_stands_beside_the_first(book):
    (here, *_), large = records.load(book), records.paper_scale(book)
    assert ledger._otherwise(here, None) == ledger._otherwise(here, here) == ""
    for record in (record for record in records.load(book) if record.claim.id in large):
        other = large[record.claim.id]
        whole = set(record.measured()) <= set(other.measured())
        said = ledger._otherwise(record, other)
        assert (str(other.verdict) in said) is (whole and other.verdict is not record.verdict)


def test_minutes_count_prose_and_figures_but_no_code():
    prose = "word " * 400
    assert page_frame.minutes(prose) == 2
    assert page_frame.minutes(prose + "\n```{code-cell} ipython3\n" + "code " * 4000 + "\n```\n") == 2
    assert page_frame.minutes(prose + '\n    alt: "a"\n    alt: "b"\n') == 3


def test_boxes_say_how_to_run_a_chapter_again(project):
    page = (project.html / "alpha.html").read_text()
    assert "descent run alpha -p seed=1" in re.sub(r"<[^>]+>", "", page)
    assert 'href="downloads/alpha.plain.ipynb"' in page
    assert (project.html / "downloads" / "alpha.away.ipynb").is_file()
    assert 'href="downloads/alpha.away.ipynb"' in page
    assert "1 claim: 1 hold" in page
    assert "minutes to read" in page
    plain = (project.html / "downloads" / "alpha.plain.ipynb").read_text()
    assert '"output_type"' not in plain


def test_hovering_a_claim_tells_it_and_notebooks_follow_the_text(project, log):
    edit(project.source("index"), "A toy book\n", "A toy book\n\n[T1-C1](claim:T1-C1)\n")
    edit(project.source("alpha"), "A sentence about", "A sentence, see [](beta.md), about")
    build.build(project, log)
    for form in ("alpha.ipynb", "alpha.plain.ipynb", "alpha.away.ipynb"):
        assert "see [The beta chapter](beta.md)" in (project.html / "downloads" / form).read_text()
    assert 'title="The alpha value is near its prediction. — holds"' in (project.html / "index.html").read_text()


def test_pages_are_trimmed_and_carry_a_card(project):
    page = (project.html / "index.html").read_text()
    assert page.count('name="viewport"') == 1
    assert "fontawesome.js" not in page
    assert not list(project.html.glob("_static/scripts/fontawesome*"))
    assert '<meta property="og:title" content="A toy book — What Momentum Does">' in page
    assert "canonical" not in page
    assert "<loc>alpha.html</loc>" in (project.html / "sitemap.xml").read_text()
    assert (project.html / "404.html").is_file()
    assert (project.html / "_static" / "card.png").is_file()


def test_with_an_address_they_carry_it(project, log):
    edit(project.root / "_config.yml", 'baseurl: ""', 'baseurl: "https://book.example/"')
    edit(project.root / "CITATION.cff", "license: MIT", 'license: MIT\nurl: "https://book.example/"')
    build.build(project, log)
    page = (project.html / "alpha.html").read_text()
    assert re.findall('rel="canonical" href="(.*?)"', page) == ["https://book.example/alpha.html"]
    assert '<meta property="og:image" content="https://book.example/_static/card.png">' in page
    assert "<loc>https://book.example/beta.html</loc>" in (project.html / "sitemap.xml").read_text()


def test_ledger_opens_to_everything(project):
    page = (project.html / "ledger.html").read_text()
    (found,) = [record for record in records.load(project) if record.claim.id == "T1-C1"]
    for text in (found.outcomes[0].config, found.provenance.library, "Student t", "master seed 0", "alpha.html"):
        assert text in page


def test_what_did_not_hold_is_listed_with_what_was_demanded(project, log):
    (project.chapters / "not-held.md").write_text("# Not held\n\n<!-- not-held -->\n")
    last = "  - file: chapters/status\n"
    edit(project.root / "_toc.yml", last, f"{last}  - file: chapters/not-held\n")
    build.build(project, log)
    assert "Every claim holds." in (project.html / "not-held.html").read_text()


def test_instruments_that_cannot_be_checked_stop_the_build(project, log, monkeypatch):
    edit(project.source("index"), "A toy book\n", "A toy book\n\n<!-- oracle-table -->\n")
    monkeypatch.setenv("PYTHONPATH", str(project.library / "toy"))
    (project.library / "toy" / "sitecustomize.py").write_text(
        "import sys\nif 'descent.oracles' in str(sys.orig_argv): raise SystemExit('planted')\n"
    )
    with pytest.raises(BookError, match="could not be checked"):
        build.build(project, log)


@pytest.mark.parametrize("kept", ["", "[]", '{"rows": []}', '{"inputs": "of another library", "rows": []}'])
def test_instruments_are_measured_anew_where_the_last_measurement_is_no_good(project, monkeypatch, kept):
    monkeypatch.setattr(instruments, "_measure", lambda file: [{"instrument": "a"}])
    (project.build / "oracles.json").write_text(kept)
    assert instruments.measured(project) == [{"instrument": "a"}]
    monkeypatch.setattr(instruments, "_measure", None)
    assert instruments.measured(project) == [{"instrument": "a"}]  # and then kept


def test_a_term_is_explained_once_and_not_in_formulas_code_links_or_headings():
    terms, seen = {"SHB": "a $sum$ of gradients", "Effective step": "how far"}, set()
    text = "# SHB\n\n`SHB` and $SHB$ and [SHB](a.md) then SHB and the effective step of SHB, NSHB.\n\n```\nSHB\n```\n"
    found = hover.explained(text, terms, seen)
    assert found.count("<abbr") == 2
    assert 'then <abbr title="a sum of gradients">SHB</abbr> and' in found
    assert '<abbr title="how far">effective step</abbr> of SHB' in found
    assert hover.explained("SHB again", terms, seen) == "SHB again"


def test_what_was_measured_at_paper_scale_stands_beside(project, log):
    folder = project.published / "alpha" / "gpu"
    folder.mkdir(parents=True)
    (folder / "records.json").write_text((project.results("alpha") / "records.json").read_text())
    build.build(project, log)
    page = (project.html / "ledger.html").read_text()
    row = page[page.index('id="T1-C1"') : page.index('id="T2-C1"')]
    assert "<dt>paper scale</dt>" in row
    assert "verdicts may be compared, digits may not" in row
    assert "paper scale" not in page[page.index('id="T2-C1"') :]
    alone = records.paper_scale(project)
    (folder / "records.json").rename(folder / "records-2026-01-01-cpu-0.json")  # set aside by a later run
    assert records.paper_scale(project) == alone
    edit(project.claims / "T1.yaml", "near its prediction", "close to its prediction")
    with pytest.raises(BookError, match="T1-C1: recorded under another wording"):
        build.build(project, log)


def test_a_damaged_table_of_paper_scale_is_refused_by_name(project):
    folder = project.paper_scale("alpha")
    shutil.copytree(find_project(REPOSITORY).paper_scale("saddles"), folder)
    assert paper_scale_page.published(project, "alpha")
    (folder / "flow.csv").write_text("1")
    with pytest.raises(BookError, match=r"alpha/gpu/flow.csv: .*hash differs"):
        paper_scale_page.published(project, "alpha")


@pytest.mark.parametrize("scale", ["cpu", "gpu"])
@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (lambda table: edit(table, "1.0", "1.1"), "hash differs"),
        (lambda table: edit(table.with_suffix(".json"), '"sha256": "', '"sha256": "0'), "hash differs"),
        (lambda table: table.with_suffix(".json").unlink(), r"no table\.json beside it"),
    ],
    ids=["table", "note", "alone"],
)
def test_a_table_is_not_published_beside_a_note_of_another(project, tmp_path, scale, fault, why):
    folder = project.results("alpha")
    if scale == "gpu":
        folder = shutil.copytree(folder, project.paper_scale("alpha"))
    (html := tmp_path / "html").mkdir()
    fault(folder / "table.csv")
    with pytest.raises(BookError, match=rf"{folder.relative_to(project.root)}/table\.csv: .*{why}"):
        publish.publish(project, load_all(project), html)


def test_paper_scale_lists_every_large_experiment_and_what_it_has_left(book):
    large = records.paper_scale(book)
    html = paper_scale_page.scale_table(book, {"saddles": "Saddles"}, large)
    found = re.findall(r'<th scope="row"><code>(\w+)</code>', html)
    experiments = importlib.import_module("descent.experiments.saddles").EXPERIMENTS
    assert found == [item.name for item in experiments if "gpu" in item.scales]
    rows = dict(zip(found, html.split('<th scope="row">')[1:], strict=True))
    tables = paper_scale_page.published(book, "saddles")
    assert set(tables) <= set(found)
    for name, row in rows.items():
        assert ("not yet" in row) is (name not in tables), name
        for each in tables.get(name, ()):
            assert f'href="downloads/saddles/gpu/{each.name}.csv"' in row
            assert each.provenance.date in row
    assert "at paper scale alone" in rows["resnet"]
    assert "at paper scale alone" not in rows["escape"]
    assert "P3-C1" in rows["escape"]
    own = [record for record in large.values() if record.chapter == "saddles"]
    judged = [o.verdict for record in own for o in record.outcomes if o.experiment == "escape" and o.estimates]
    assert (f"{judged.count(Verdict.HOLDS)} hold" in rows["escape"]) is bool(judged)  # older ones count not


def test_the_rules_page_tells_every_form_and_why_it_was_left(book):
    found = tuple(record for file in sorted(book.published.glob("records/*.json")) for record in records.read(file))
    history = rules_page.read(book, found)
    html = rules_page.history_table(history)
    rows = dict(re.findall(r'<tbody id="([\w-]+)">(.*?)</tbody>', html, re.S))
    assert list(rows) == [claim.lower() for claim in history.claims]
    bound = [re.sub(r"<[^>]+>", " ", row) for row in rows["p5-c11"].split("<tr>") if "<code>bound" in row]
    assert ["&gt; 1 " in bound[0], "&gt; 0.25" in bound[1]] == [True, True]
    assert "asks for less" in bound[0]
    assert "a23fb12b" in bound[0]
    assert "held against today's number" in html
    assert "registered anew" in bound[1]
    assert "stands" in bound[-1]
    assert "no longer asked" in rows["p5-c8"]
    assert "the claim's sentence" in rows["s-28"]
    assert "p2-c1" not in rows  # moved in its symbols alone
    assert 'href="ledger.html#P5-C11"' in rows["p5-c11"]
    folded = html[html.index("<details>") :]
    assert f"Registered anew: {len(history.anew)} more tests" in folded
    assert folded.count("stands</td>") == len([past for past in history.anew if not past.dropped]) > 100


def test_the_tally_counts_what_the_files_hold(book):
    history = rules_page.read(book, ())
    said, past = rules_page.tally(history), history.moves.past
    assert f"{len(past)} tests have earlier forms or were stated in edition 1" in said
    assert f"{sum(each.moved for each in past.values())} tests were changed in more than their symbols" in said
    kinds = [form.kind for each in past.values() for form in each.earlier]
    for kind, words in moves.KINDS.items():
        assert (f"{words}: {kinds.count(kind)}" in said) is (kind in kinds and kind != "registered")
    assert f"{kinds.count('registered')} forms were left when rules were registered anew" in said
    assert "Held against" not in said  # nothing is measured here


def test_an_earlier_form_is_held_against_todays_number_where_that_is_its_own(book):
    past = rules_page.read(book, ()).moves.past["P5-C11.bound"]
    now = rules.Test("bound", past.earlier[0].quantity, rules.Direction(above=0.25), ("cpu",))
    estimate = Estimate(0.8, 0.7, 0.9, 40, "Student t", 39)
    assert past.judged(0, Outcome(now, 1, (estimate,))) is Verdict.FAILS
    assert past.judged(0, Outcome(now, 1)) is None
    every = replace(now, rule=rules.Direction(above=0.25, each=True))
    assert past.judged(0, Outcome(every, 1, (estimate, estimate))) is None  # a number per cell, where one was asked for
    edge = rules_page.read(book, ()).moves.past["P5-X1.edge"]
    now = replace(now, quantity=edge.earlier[1].quantity)
    assert edge.judged(0, Outcome(now, 1, (estimate,))) is None  # another quantity then
    assert edge.judged(1, Outcome(now, 1, (estimate,))) is Verdict.FAILS


def test_the_ledger_marks_a_claim_whose_rule_moved_and_links_to_its_history(project, log):
    test = {"key": "T1-C1.size", "quantity": "the size", "rule": {"kind": "direction", "above": 9.0}, "scales": ["cpu"]}
    stand = {
        "form": test, "date": "2026-01-01", "commit": "12345678", "after_code": False, "estimate": "1.0 [0.9, 1.1]",
        "verdict": "fails", "end": "replaced", "end_date": "2026-02-02", "end_commit": "87654321", "why": "Say <less>",
        "evidence": "published", "after_measurement": True, "loosened": True,
    }  # fmt: skip
    last = stand | {"end": "", "after_measurement": False}
    history = {"tests": {"T1-C1.size": [stand, last]}, "wordings": {}}
    (project.claims / "edition1.json").write_text(json.dumps(history))
    note = {"commit": "87654321", "tests": ["T1-C1.size"], "moved": "easier", "why": "It was <too> hard."}
    notes = {"moves": [note], "wordings": []}
    (project.claims / "edition1_notes.yaml").write_text(json.dumps(notes))
    (project.chapters / "rules.md").write_text("# Rules\n\n<!-- rules-tally -->\n\n<!-- rules-table -->\n")
    edit(
        project.root / "_toc.yml",
        "  - file: chapters/ledger\n",
        "  - file: chapters/ledger\n  - file: chapters/rules\n",
    )
    build.build(project, log)
    page = (project.html / "ledger.html").read_text()
    marks = re.findall(r'<a class="moved" href="rules.html#(.*?)" title="(.*?)"><small>(.*?)</small></a>', page)
    assert [(place, text) for place, _, text in marks] == [("t1-c1", "rule moved: asks for less")]
    assert marks[0][1].startswith("After it could be measured T1-C1 was changed")
    assert page.index('id="T1-C1"') < page.index('class="moved"') < page.index('id="T2-C1"')
    told = (project.html / "rules.html").read_text()
    for text in ('id="t1-c1"', "&gt; 9", "It was &lt;too&gt; hard.", "Say &lt;less&gt;", "1.0 [0.9, 1.1]", "stands"):
        assert text in told
    edit(project.claims / "edition1_notes.yaml", "It was", "It had been")
    build.build(project, log)
    assert "It had been" in (project.html / "rules.html").read_text()
    edit(project.claims / "edition1_notes.yaml", "87654321", "00000000")
    with pytest.raises(BookError, match=r"does not say why T1-C1\.size moved in 87654321; add a note"):
        build.build(project, log)


def test_a_book_without_a_page_of_rules_marks_nothing(project):
    assert 'class="moved"' not in (project.html / "ledger.html").read_text()
