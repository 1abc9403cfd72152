"""What a claim rests on, read from claims and code: its experiments, the theory these name, the claims it points to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from descent.book.sources import provenance, records
from descent.book.sources.project import Project
from descent.claims import Paper
from descent.results import named_pieces

THEORY, PROBLEMS = "descent.theory.", "descent.problems."
"""Where exact answers stand: all of a theory, and the functions beside a problem."""


@dataclass(frozen=True)
class Ground:
    """What one claim rests on: experiments as "saddles.escape", theory as "theory.escape.Unstable", claims it names."""

    experiments: tuple[str, ...]
    theory: tuple[str, ...]
    named: tuple[str, ...]


@dataclass(frozen=True)
class Graph:
    """The grounds of all claims, in the order of the ledger."""

    grounds: Mapping[str, Ground]

    def naming(self, claim: str) -> tuple[str, ...]:
        """Return the claims that point to a claim."""
        return self._others(claim, lambda ground: claim in ground.named)

    def measured_by(self, claim: str, experiment: str) -> tuple[str, ...]:
        """Return the other claims that an experiment measures."""
        return self._others(claim, lambda ground: experiment in ground.experiments)

    def built_on(self, claim: str, law: str) -> tuple[str, ...]:
        """Return the claims of other experiments whose code names a law too."""
        own = set(self.grounds[claim].experiments)
        return self._others(claim, lambda ground: law in ground.theory and not own & set(ground.experiments))

    def shaken(self, claim: str) -> tuple[str, ...]:
        """Return the claims that a fault of this one would put in doubt first: what names it, what its runs measure."""
        found = set(self.naming(claim))
        for experiment in self.grounds[claim].experiments:
            found |= set(self.measured_by(claim, experiment))
        return tuple(id for id in self.grounds if id in found)

    def to_json(self) -> dict[str, Any]:
        """Return the graph for programs, with both directions of every edge."""
        return {
            id: {**{name: list(value) for name, value in vars(ground).items()}, "named_by": list(self.naming(id))}
            for id, ground in self.grounds.items()
        }

    def _others(self, claim: str, rests: Callable[[Ground], bool]) -> tuple[str, ...]:
        return tuple(id for id, ground in self.grounds.items() if id != claim and rests(ground))


def read(project: Project) -> Graph:
    """Return the graph of a book's claims."""
    papers = records.papers(project)
    return of(papers, {paper.chapter: theory(project, paper.chapter) for paper in papers})


def of(papers: Iterable[Paper], laws: Mapping[str, Mapping[str, tuple[str, ...]]]) -> Graph:
    """Return the graph of papers' claims; laws: by chapter and experiment, what theory it names."""
    grounds = {}
    for paper in papers:
        for claim in paper.claims:
            by = tuple(dict.fromkeys(test.by for test in claim.tests))
            named = dict.fromkeys(law for name in by for law in laws[paper.chapter].get(name, ()))
            experiments = tuple(f"{paper.chapter}.{name}" for name in by)
            grounds[claim.id] = Ground(experiments, tuple(sorted(named)), (*claim.see, *claim.paired_with))
    return Graph(grounds)


def theory(project: Project, chapter: str) -> dict[str, tuple[str, ...]]:
    """Return the laws that the code of every experiment of a chapter names, by the name of the experiment."""
    made = provenance.made_of(project, chapter)
    return {name: laws(named_pieces(modules, project.library)) for name, modules in made.items()}


def laws(pieces: Iterable[str]) -> tuple[str, ...]:
    """Return those definitions that are exact answers, without the name of the library.

    >>> laws(["descent.theory.mode, growth", "descent.problems.pca, StreamingPCA", "descent.problems.pca, radius"])
    ('problems.pca.radius', 'theory.mode.growth')
    """
    split = (piece.split(", ") for piece in pieces)
    return tuple(sorted(f"{m.removeprefix('descent.')}.{name}" for m, name in split if _is_law(m, name)))


def _is_law(module: str, name: str) -> bool:
    public = name.isidentifier() and not name.startswith("_") and not name.isupper()
    return public and (module.startswith(THEORY) or (module.startswith(PROBLEMS) and name.islower()))
