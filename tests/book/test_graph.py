"""What rests on what: read from claims and code, both ways, and told in the row of every claim."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from descent.book.pages import neighbours
from descent.book.sources import graph
from descent.book.sources.graph import Graph, Ground, of
from descent.book.sources.project import find_project
from toybook import REPOSITORY

TOY = Graph({
    "A-C1": Ground(("a.one",), ("theory.mode.growth",), ()),
    "A-C2": Ground(("a.one", "a.two"), (), ("A-C1",)),
    "A-C3": Ground(("a.one",), ("theory.mode.growth",), ()),
    "B-C1": Ground(("b.one",), ("theory.mode.growth", "theory.mode.roots"), ("A-C2",)),
})  # fmt: skip


def test_edges_are_the_same_both_ways():
    assert TOY.naming("A-C1") == ("A-C2",)
    assert TOY.measured_by("A-C1", "a.one") == ("A-C2", "A-C3")
    assert TOY.built_on("A-C1", "theory.mode.growth") == ("B-C1",)
    assert TOY.shaken("A-C2") == ("A-C1", "A-C3", "B-C1")
    assert TOY.shaken("B-C1") == ()
    assert TOY.to_json()["A-C2"] == {
        "experiments": ["a.one", "a.two"], "theory": [], "named": ["A-C1"], "named_by": ["B-C1"],
    }  # fmt: skip


def test_a_claim_rests_on_the_laws_of_the_runs_that_measure_it():
    test = lambda by: SimpleNamespace(by=by)  # noqa: E731
    claim = SimpleNamespace(id="A-C1", tests=(test("two"), test("one"), test("two")), see=("A-C2",), paired_with=())
    found = of(
        [SimpleNamespace(chapter="a", claims=(claim,))], {"a": {"one": ("y", "x"), "two": ("x",), "three": ("z",)}}
    )
    assert found.grounds == {"A-C1": Ground(("a.two", "a.one"), ("x", "y"), ("A-C2",))}


def test_laws_are_what_theories_define_and_problems_offer():
    pieces = ["descent.theory.escape, Unstable", "descent.theory.escape, _hidden"]
    pieces += ["descent.problems.pca, radius", "descent.problems.pca, StreamingPCA", "descent.stats.estimate, mean"]
    assert graph.laws(pieces) == ("problems.pca.radius", "theory.escape.Unstable")


def test_the_row_says_it_all_in_words():
    row = neighbours.fact(TOY, "A-C1")
    assert "measured by <code>a.one</code>; its code names <code>theory.mode.growth</code></dd>" in row
    assert "2 claims would have to be read again first" in row
    assert '<li data-kind="name"><b>point to it</b>: <a href="#A-C2">A-C2</a></li>' in row
    assert '<li data-kind="law">same theory, <b>theory.mode.growth</b>: B-C1</li>' in row
    assert "no other claim names it" in neighbours.fact(TOY, "B-C1")
    assert neighbours.fact(TOY, "Z-C9") == ""


@pytest.fixture(scope="module")
def book():
    return graph.read(find_project(REPOSITORY))


def test_the_book_s_claims_rest_on_its_theory(book):
    assert "theory.escape.Unstable" in book.grounds["P3-C1"].theory
    assert book.grounds["P3-C1"].experiments == ("saddles.escape",)
    assert {"P3-X1", "P3-X9"} <= set(book.grounds["P3-C1"].named)
    assert "P3-C1" in book.naming("P3-X9")
    assert "P3-C9" in book.measured_by("P3-C1", "saddles.escape")


def test_every_claim_has_its_runs_and_names_what_exists(book):
    assert all(ground.experiments for ground in book.grounds.values())
    named = {id for ground in book.grounds.values() for id in ground.named}
    assert named <= set(book.grounds)
