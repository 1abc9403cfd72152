"""The claims of a paper, read from data/claims and checked field by field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from descent.claims.fields import Node
from descent.claims.margins import FILE, Unit, filled, load_units
from descent.claims.verdict import FLAGS, Rule, Test, rule_from
from descent.results import project_root, read_yaml

__all__ = ["Claim", "Paper", "is_claims_file", "load_paper", "load_papers"]

SCHEMA = 1
SCALES = ("cpu", "gpu")
KNOWN = ("read", "secondary", "recalled", "derived")
NEEDS = ("momentum", "mnist", "cifar10", "cifar100")
"""What a test may need: a headline momentum that is not 0, or image data that lie outside the book."""
LINKS = ("see", "paired_with")
SAME = "the same"
"""What a quantity begins with that is told by the one before it."""
OTHERS = (FILE, "edition1_notes.yaml")
"""Files beside the claims that hold none."""


@dataclass(frozen=True)
class Claim:
    """One falsifiable sentence with its tests.

    known: how the statement is known: read in the paper's own text, in a secondary source, recalled, or
    derived for this book; conditions: under which the verdict was reached; paper_shape: the paper's number
    or shape; see, paired_with: ids of related claims; headline: the test that asks what the statement says, not a
    condition of it, by its key; it is part of no rule.
    """

    id: str  # such as "P5-C11"
    place: str  # where it is said
    known: str
    statement: str
    scales: tuple[str, ...]
    tests: tuple[Test, ...]
    conditions: str = ""
    paper_shape: str = ""
    see: tuple[str, ...] = ()
    paired_with: tuple[str, ...] = ()
    headline: str = field(default="", compare=False)

    def quantity(self, key: str) -> str:
        """Return what a test measures in words that stand alone: "the same" is followed by what it is the same as."""
        said = ""
        for test in self.tests:
            alone = not test.quantity.startswith(SAME)
            said = test.quantity if alone else said
            if test.key == key:
                return said if alone else f"{test.quantity}, as “{said}”"
        raise ValueError(f"{self.id} has no test {key!r}; it has {', '.join(test.key for test in self.tests)}")

    @property
    def identity(self) -> bool:
        """Whether all of its tests are identities: then it is one itself, and no claim that is counted."""
        return all(test.identity for test in self.tests)


@dataclass(frozen=True)
class Paper:
    """A paper, the chapter that tests it, and its claims."""

    paper: str
    chapter: str
    title: str
    claims: tuple[Claim, ...]  # in the order of the file
    authors: str = ""  # as they sign
    year: int = 0  # of the paper
    arxiv: str = ""  # its number there
    doi: str = ""  # of the published paper

    @property
    def tests(self) -> dict[str, Test]:
        """Every test by its key, "<claim>.<test>"."""
        return {f"{claim.id}.{test.key}": test for claim in self.claims for test in claim.tests}

    def family_at(self, scale: str) -> int:
        """Return the number of tests judged together at a scale, by which intervals are widened."""
        return sum(test.stated_for(scale) for test in self.tests.values())

    def claim(self, id: str) -> Claim:
        """Return a claim by id; raise ValueError naming those there are."""
        for claim in self.claims:
            if claim.id == id:
                return claim
        ids = ", ".join(claim.id for claim in self.claims)
        raise ValueError(f"{self.paper} has no claim {id!r}; it has {ids}")


def load_paper(paper: str | Path) -> Paper:
    """Read one paper's claims, by its id ("P3") or from a file, with the margins that stand beside it.

    Raises: ValueError naming file, claim, field and remedy.
    """
    path = paper if isinstance(paper, Path) else project_root() / "data" / "claims" / f"{paper}.yaml"
    if not path.is_file():
        raise ValueError(f"no claims of {paper!r}: {path.name} does not exist in data/claims")
    return _paper(Node(path.name, read_yaml(path)), load_units(path.parent))


def load_papers(folder: Path | None = None) -> tuple[Paper, ...]:
    """Read every paper's claims with the links between papers.

    Raises: ValueError for a link to nowhere, and for one paper in two files.
    """
    files = sorted(filter(is_claims_file, (folder or project_root() / "data" / "claims").iterdir()))
    papers = tuple(load_paper(file) for file in files)
    _check_once(papers, files)
    known = {claim.id for paper in papers for claim in paper.claims}
    for claim in (claim for paper in papers for claim in paper.claims):
        _check_links(claim, known, {paper.paper for paper in papers})
    return papers


def is_claims_file(path: Path) -> bool:
    """Tell whether a file holds a paper's claims; others beside them, named in OTHERS, tell about rules."""
    return path.suffix == ".yaml" and path.name not in OTHERS


def _paper(node: Node, units: Mapping[str, Unit]) -> Paper:
    node.only(("schema", "paper", "chapter", "title", "claims"), ("authors", "year", "arxiv", "doi"))
    if node.content["schema"] != SCHEMA:
        raise node.fault("schema", f"{node.content['schema']!r} will not do; this library reads {SCHEMA}")
    name, year = node.text("paper", r"[A-Z][A-Z0-9]*"), node.content.get("year", 0)
    if not isinstance(year, int):
        raise node.fault("year", f"{year!r} will not do; write a whole number")
    claims = tuple(_claim(item, name, units) for item in node.nodes("claims", "id"))
    for claim in claims:
        _check_links(claim, {item.id for item in claims}, {name})
    authors, arxiv, doi = (node.text(field, default="") for field in ("authors", "arxiv", "doi"))
    chapter = node.text("chapter", r"[a-z][a-z0-9_]*")
    return Paper(name, chapter, node.text("title"), claims, authors, year, arxiv, doi)


def _claim(node: Node, paper: str, units: Mapping[str, Unit]) -> Claim:
    optional = ("conditions", "paper_shape", "headline", *LINKS)
    node.only(("id", "place", "known", "statement", "scales", "tests"), optional)
    scales = node.texts("scales", allowed=SCALES)
    tests = tuple(_test(item, scales, units) for item in node.nodes("tests", "key"))
    return Claim(
        id=node.text("id", rf"{paper}-[A-Z]?[0-9]+"), place=node.text("place"),
        known=node.choice("known", KNOWN), statement=node.text("statement"), scales=scales,
        tests=tests, headline=_headline(node, tests),
        conditions=node.text("conditions", default=""), paper_shape=node.text("paper_shape", default=""),
        see=node.texts("see", ()), paired_with=node.texts("paired_with", ()),
    )  # fmt: skip


def _test(node: Node, scales: tuple[str, ...], units: Mapping[str, Unit]) -> Test:
    node.only(("key", "by", "quantity", "rule"), ("needs", "scales", "unit", "because", *FLAGS))
    return Test(
        node.text("key", r"[a-z][a-z0-9_]*"),
        node.text("quantity"),
        _rule(node, units),
        node.texts("scales", scales, allowed=scales),
        node.text("by", r"[a-z][a-z0-9_]*"),
        node.texts("needs", (), allowed=NEEDS),
        node.text("unit", default=""),
        node.text("because", default=""),
        **{name: node.flag(name) for name in FLAGS},
    )


def _headline(node: Node, tests: Sequence[Test]) -> str:
    """Return the key of the headline test, the first one where none is named."""
    keys, first = [test.key for test in tests], tests[0]
    if first.quantity.startswith(SAME):
        raise node.fault("tests", f"nothing stands before {first.key} that is {SAME!r}; say what it measures")
    key = node.text("headline", default=first.key)
    if key not in keys:
        raise node.fault("headline", f"{key!r} is no test of this claim; name one of {', '.join(keys)}")
    return key


def _rule(node: Node, units: Mapping[str, Unit]) -> Rule:
    """Return the rule of a test; what its unit says is filled in."""
    rule, unit = node.content["rule"], node.text("unit", default="")
    if not isinstance(rule, Mapping):
        raise node.fault("rule", f"{rule!r} will not do; write {{kind: …, …}}")
    if unit and unit not in units:
        raise node.fault("unit", f"{unit!r} is not in {FILE}; add it there, or use one of {', '.join(units) or 'none'}")
    try:
        return rule_from(filled(rule, units[unit], stated=bool(node.text("because", default=""))) if unit else rule)
    except ValueError as error:
        raise node.fault("rule", str(error)) from None


def _check_once(papers: Sequence[Paper], files: Sequence[Path]) -> None:
    found: dict[str, str] = {}
    for paper, file in zip(papers, files, strict=True):
        if paper.paper in found:
            where = f"{found[paper.paper]} and {file.name}"
            raise ValueError(f"{where}: paper: both state the claims of {paper.paper}; keep one file")
        found[paper.paper] = file.name


def _check_links(claim: Claim, known: set[str], papers: set[str]) -> None:
    for link in LINKS:
        for target in getattr(claim, link):
            if target.partition("-")[0] in papers and (target not in known or target == claim.id):
                raise ValueError(f"{claim.id}: {link}: {target!r} is not another claim; correct the id")
