"""Counts and marks on the pages: by whose sentences the claims are, identities apart, what other seeds say."""

from __future__ import annotations

import json
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from html import escape
from itertools import groupby
from types import SimpleNamespace

import pytest
from descent.book.commands import build, check, cli
from descent.book.execute.chapter import load_all
from descent.book.pages import landing, ledger
from descent.book.pages.sources_table import source_table
from descent.book.sources import records
from descent.book.sources.project import SourceError
from descent.claims import SOURCES, Verdict, by_source, counted, identities, standing, tally
from descent.claims.agreement import load_agreement
from toybook import edit


def cells(html):
    """Return the rows of a table by their heads, without links."""
    rows = re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', html)
    return {name: [re.sub(r"<[^>]+>", "", cell) for cell in re.findall(r"<td>(.*?)</td>", row)] for name, row in rows}


def test_the_table_counts_every_claim_once_and_no_identity(published):
    html = source_table(published)
    rows = cells(html)
    assert list(rows) == [*(source.name for source in SOURCES), "together"]
    for source, count in by_source(published).items():
        known, *numbers = rows[source.name]
        assert known == ", ".join(source.known)
        assert list(map(int, numbers)) == [sum(count.values()), *count.values()]
    assert int(rows["together"][1]) == len(counted(published)) == len(published) - len(identities(published))
    assert len(identities(published)) >= 8


def test_words_come_before_the_table_and_it_can_be_read_by_ear(published):
    html = source_table(published)
    for source in SOURCES:
        for word, meaning in source.known.items():
            assert html.index(f"<dt>{word}</dt><dd>{escape(meaning)}</dd>") < html.index("<table")
    assert re.search(r'<div class="wide" tabindex="0" role="region" aria-label="[^"]+">\n<table', html)
    assert html.count("<caption>") == 1
    assert len(re.findall('<th scope="col">', html)) == 3 + len(Verdict)


def test_numbers_lead_to_the_claims_they_count(chapters):
    rows = source_table([record for chapter in chapters for record in chapter.records])
    (asked,) = set(re.findall(r'href="ledger.html\?source=(\w+)&amp;verdict=holds"', rows))
    page = ledger.ledger_table(chapters, {}, {}, {})
    assert re.findall(rf'<tbody id="([\w-]+)" [^>]*data-source="{asked}" data-verdict="holds"', page) == ["T2-C1"]
    assert re.findall(r'<tbody id="([\w-]+)" [^>]*data-verdict="identity"', page) == ["T1-C1"]  # no bar counts it


def test_the_ledger_sets_identities_apart(chapters):
    page = ledger.ledger_table(chapters, {}, {}, {})
    assert re.findall(r'<tbody id="(.*?)"', page) == ["T2-C1", "T1-C1"]  # identities last
    assert re.findall(r'data-source="(\w+)"', page) == ["ours", "identities"]
    assert "1 claim: 1 hold; and 1 identity." in page
    assert 'href="how-we-know.html#identities"' in page
    row = page[page.index('id="T1-C1"') :]
    assert "identity, in no count" in row
    assert "<code>size</code>: the value <small>(identity)</small>" in row
    assert "identity" not in page[page.index('id="T2-C1"') : page.index('id="T1-C1"')]


def test_a_bar_per_paper_says_in_numbers_what_it_draws(chapters):
    html = landing.summary(chapters)
    rows = re.findall(r"<li>.*?</li>", html, re.S)
    assert len(rows) == len(chapters) + len(SOURCES)
    assert 'T2 · <a href="beta.html">' in rows[1]
    assert rows[1].count('<span class="holds" style="flex: 1">') == 1
    assert 'href="ledger.html?paper=T2&amp;verdict=holds"><span aria-hidden="true">✓</span> 1 hold</a>' in rows[1]
    assert "verdict" not in rows[0]  # an identity is in no count
    assert '<a href="ledger.html?source=identities">1 identity, which is in no count</a>' in html


def test_the_numbers_of_the_bars_are_those_of_their_selections(published):
    chapters = [
        SimpleNamespace(name=paper, title=paper, records=tuple(records)) for paper, records in papers(published)
    ]
    html = landing.summary(chapters)
    said = re.findall(r'paper=(\w+)&amp;verdict=([\w+]+)"><span aria-hidden="true">.</span> (\d+) ', html)
    by_hand = Counter((record.paper, str(record.verdict).replace(" ", "+")) for record in counted(published))
    assert {(paper, verdict): int(n) for paper, verdict, n in said} == by_hand
    widths = [float(width) for width in re.findall(r'style="width: ([\d.]+)%"', html)]
    assert max(widths) == 100 > min(widths) > 0


def papers(found):
    return groupby(sorted(found, key=lambda record: record.paper), key=lambda record: record.paper)


def test_a_book_without_identities_says_nothing_of_them(project):
    page = landing.summary(load_all(project)) + ledger.ledger_table(load_all(project), {}, {}, {})
    assert "in no count</a>" not in page
    assert "stand last" not in page


def test_the_command_says_how_the_claims_stand(project, capsys):
    assert cli.main(["--root", str(project.root), "claims"]) == 0
    assert capsys.readouterr().out.endswith("\n\n2 claims; what we add: 2 hold\n")
    (project.results("beta") / "records.json").unlink()
    claims = project.claims / "T1.yaml"
    claims.write_text(claims.read_text().replace("        by: toy\n", "        by: toy\n        identity: true\n"))
    assert cli.main(["--root", str(project.root), "claims"]) == 0
    out = capsys.readouterr().out
    assert "T1-C1.size | holds           | 1 ± 0.1  | the value (identity)" in out
    assert out.endswith("\n\n0 claims; and 1 identity; 1 not yet run\n")
    assert cli.main(["--root", str(project.root), "claims", "--json"]) == 0
    found = {claim["id"]: claim for claim in json.loads(capsys.readouterr().out)["claims"]}
    assert [found[id]["identity"] for id in ("T1-C1", "T2-C1")] == [True, False]
    assert found["T1-C1"]["tests"][0]["identity"]


def test_the_sums_of_all_texts_agree(published):
    count = tally(published)
    assert standing(published).startswith(f"{sum(count.values())} claims: {count[Verdict.HOLDS]} hold")
    said = standing(published, sources=True)
    assert sum(map(int, re.findall(r"(\d+) hold", said))) == count[Verdict.HOLDS]
    assert sum(map(int, re.findall(r"(\d+) fail", said))) == count[Verdict.FAILS]


@pytest.fixture
def quick(project, monkeypatch):
    """Measure in no time: the value is right at even seeds, and far away at odd ones."""

    def measure(package, name, chosen, scale, file):
        value = 1.0 + chosen.seed % 2
        one = {"value": value, "low": value - 0.01, "high": value + 0.01, "n": 32, "method": "Student t", "dof": 31}
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"estimates": {"T1-C1.size": [one]}, "skipped": ""}))
        return 1.0

    monkeypatch.setattr(check, "measure", measure)
    monkeypatch.setattr(check.lifeline, "processes", ThreadPoolExecutor)
    monkeypatch.syspath_prepend(project.library)
    return project


def test_what_other_seeds_say_is_kept_and_shown(quick, log, capsys):
    call = ["--root", str(quick.root), "check", "alpha", "--save"]
    assert cli.main(call) == 1  # a verdict that flips does not survive, and is kept all the same
    assert capsys.readouterr().out.endswith("\ndata/published/agreement/alpha.json\n")
    kept = load_agreement(quick.agreement("alpha"))
    (test,) = kept.tests.values()
    assert {seed: str(verdict) for seed, verdict in test.others.items()} == {
        1: "fails", 2: "holds", 3: "fails", 4: "holds", 5: "fails",
    }  # fmt: skip
    assert (kept.seed, test.published, len(test.registration)) == (0, Verdict.HOLDS, 16)
    build.build(quick, log)
    assert "sources moved: data/published/agreement/alpha.json" in "\n".join(log.lines)
    page = (quick.html / "ledger.html").read_text()
    assert page.count("2 of 5 other seeds agree") == 1
    assert page.index('id="T1-C1"') < page.index("2 of 5 other seeds agree") < page.index('id="T2-C1"')


def test_under_other_rules_it_is_said_to_be_stale(quick, capsys):
    cli.main(["--root", str(quick.root), "check", "alpha", "--save", "--seeds", "2"])
    found = records.load(quick)
    assert records.agreements(quick, found) == {"T1-C1": "1 of 2 other seeds agree; size: fails at 1"}
    edit(quick.claims / "T1.yaml", "        by: toy\n", "        by: toy\n        needs: [momentum]\n")
    (stale,) = records.agreements(quick, found).values()
    assert stale.startswith("other seeds: stale, of 20")


def test_a_bad_file_of_other_seeds_stops_the_build_by_name(quick, log):
    cli.main(["--root", str(quick.root), "check", "alpha", "--save", "--seeds", "1"])
    edit(quick.agreement("alpha"), '"fails"', '"holds"')
    with pytest.raises(SourceError, match=r"alpha\.json in agreement: it was changed after it was written"):
        build.build(quick, log)


@pytest.mark.parametrize("more", [["--only", "moody"], ["-p", "replicas=8"], ["--against", "records.json"]])
def test_only_a_whole_chapter_as_published_is_kept(quick, capsys, more):
    assert cli.main(["--root", str(quick.root), "check", "alpha", "--save", *more]) == 2
    assert "--save keeps a whole chapter" in capsys.readouterr().err
    assert not quick.agreement("alpha").exists()


def test_without_published_records_nothing_is_run_to_be_kept(quick, capsys, monkeypatch):
    monkeypatch.setattr(check, "measure", None)
    (quick.results("alpha") / "records.json").unlink()
    assert cli.main(["--root", str(quick.root), "check", "alpha", "--save"]) == 1
    assert "no records at" in capsys.readouterr().err
