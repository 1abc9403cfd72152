"""The page How we know: identities with their numbers, and whether rules can fail."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from descent.book.commands import build
from descent.book.execute.chapter import load_all
from descent.book.pages import evidence
from descent.book.sources.project import find_project
from descent.claims import Direction, counted, identities
from descent.claims.margins import load_units
from descent.claims.power import measured, only_hold, powers
from descent.claims.verdict import Verdict
from descent.stats import proportion
from toybook import REPOSITORY, edit


@pytest.fixture(scope="module")
def units():
    return load_units(find_project(REPOSITORY).claims)


def test_every_identity_stands_there_with_its_number(published):
    html = evidence.identity_table(published)
    rows = dict(re.findall(r'<tr><th scope="row"><a href="ledger.html#[\w-]+">([\w.-]+)</a></th>(.*?)</tr>', html))
    marked = {
        f"{record.claim.id}.{outcome.test.key}": outcome
        for record in published
        for outcome in record.outcomes
        if outcome.test.identity
    }
    assert set(rows) == set(marked)
    assert all(outcome.text in rows[key] for key, outcome in marked.items())
    first, second = html.split('scope="rowgroup">')[1:]
    assert {key.partition(".")[0] for key in rows if f">{key}<" in first} == {r.claim.id for r in identities(published)}
    assert {key.partition(".")[0] for key in rows if f">{key}<" in second} < {r.claim.id for r in counted(published)}
    assert f"{len(identities(published))} claims and {len(marked)} tests" in html


def test_a_book_without_identities_has_none(project):
    records = [record for chapter in load_all(project) for record in chapter.records]
    assert evidence.identity_table(records) == "There are none."


def test_whether_the_published_rules_can_fail(published, units):
    """Of every measured test: the chances are some, and a test that failed or did not hold could fail."""
    found = {power.key: power for power in powers(published, units)}
    assert len(found) > 200
    assert not {f"{r.claim.id}.{o.test.key}" for r in published for o in r.outcomes if o.test.identity} & set(found)
    for power in found.values():
        assert all(0 <= chance <= 1 for chance in (power.holds_without, power.fails_at_half, power.fails_most))
        assert power.fails_most >= power.fails_at_half
    failed = {key for key, outcome in measured(published) if outcome.verdict is Verdict.FAILS}
    assert not failed & set(only_hold(published, units))
    html = evidence.only_hold_list(published, units)
    listed = re.findall(r'<li><a href="ledger.html#[\w-]+">([\w.-]+)</a>', html)
    assert tuple(listed) == only_hold(published, units)


def test_without_an_effect_the_published_rules_hardly_ever_hold(published, units):
    """By construction a test without an effect holds in one of forty runs at most; a few per cent for odd intervals."""
    lenient = [power.key for power in powers(published, units) if power.holds_without > 0.05]
    assert lenient == []


def folded(html):
    return dict(re.findall(r"<details><summary>(\w+), .*?</summary>\n(.*?)</details>", html, re.S))


def test_the_tables_are_folded_per_paper(chapters):
    html = evidence.power_tables(chapters, {})
    assert list(folded(html)) == ["T2"]  # the test of T1 is an identity
    table = folded(html)["T2"]
    assert '<div class="wide" tabindex="0" role="region" aria-label="Can the rules of T2 fail?">' in table
    assert "<caption>1 test of T2. Chances per run" in table
    (cells,) = re.findall(r'<tr><th scope="row"><a href="ledger.html#T2-C1">T2-C1.size</a></th>(.*?)</tr>', table)
    rule, found, without, half, most = re.findall("<td>(.*?)</td>", cells)
    assert (rule, found, most) == ("1 ± 0.1", "1 ± 0.0049", "100 %")
    assert float(without.partition(" ")[0]) == pytest.approx(2.5, abs=0.1)  # at the edge, of one test: 95 %
    assert half == "&lt; 0.1 %"
    assert "Of 1 measured tests 0 would say" in html


def test_a_rule_that_can_only_hold_is_named_first(chapters):
    first, second = chapters
    (record,) = second.records
    share = replace(record.outcomes[0], estimates=(proportion(30, 40),))
    share = replace(share, test=replace(share.test, rule=Direction(above=0.0)), family=10)
    fair = replace(record, outcomes=(share,))
    html = evidence.only_hold_list([fair], {})
    assert "1 of 1 tests can only hold" in html
    assert '<li><a href="ledger.html#T2-C1">T2-C1.size</a>: &gt; 0</li>' in html
    assert "is known of 1 of these 1 tests" in html
    assert "1 of which can only hold" in evidence.power_tables([first, replace(second, records=(fair,))], {})
    assert "None of 1 tests is known" in evidence.only_hold_list([record], {})


def test_small_chances_are_not_written_as_none():
    assert [evidence._percent(x) for x in (0.0, 1e-5, 0.0254, 0.5, 0.99995, 1.0)] == [
        "0 %", "&lt; 0.1 %", "2.54 %", "50 %", "&gt; 99.9 %", "100 %",
    ]  # fmt: skip


def test_the_page_is_filled(project, log):
    text = (REPOSITORY / "chapters" / "how-we-know.md").read_text().replace("<!-- oracle-table -->", "")
    (project.chapters / "how-we-know.md").write_text(text)
    last = "  - file: chapters/status\n"
    edit(project.root / "_toc.yml", last, f"{last}  - file: chapters/how-we-know\n")
    build.build(project, log)
    page = (project.html / "how-we-know.html").read_text()
    assert 'id="identities"' in page
    assert "There are none." in page
    assert "<summary>T1, The alpha chapter: 1 test</summary>" in page
    assert "None of 2 tests is known" in page
    assert "ledger: 2 claims; what we add: 2 hold" in log.lines
