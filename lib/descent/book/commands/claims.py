"""Claims told whole: the sentence, its conditions, every test with what is demanded of it, and what was found."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from descent.book.commands.compare import built
from descent.book.sources import records
from descent.book.sources.project import BookError, Project
from descent.claims import Claim, Paper, Record, Test

WIDTH = 100


def told(project: Project, keys: Sequence[str]) -> str:
    """Return the claims that the keys name: of a claim or its test, of a paper or its chapter.

    What was found is that of the built book, else of the published records.
    Raises: BookError for a key that names nothing.
    """
    stated = {claim.id: (claim, paper) for paper in records.papers(project) for claim in paper.claims}
    chosen: dict[str, set[str]] = {}
    for key in keys:
        found = _named(key, stated)
        if not found:
            papers = ", ".join(f"{paper.paper} ({paper.chapter})" for paper in records.papers(project))
            raise BookError(f"no claim {key!r}; name one such as {next(iter(stated))}, or a paper: {papers}")
        for id, tests in found.items():
            chosen.setdefault(id, set()).update(tests)
    made = records.of_record(project) | built(project)
    return "\n\n".join("\n".join(_told(stated[id][0], tests, made.get(id))) for id, tests in chosen.items())


def _named(key: str, stated: dict[str, tuple[Claim, Paper]]) -> dict[str, set[str]]:
    """Return the keys of the tests that are asked for, by claim."""
    id, _, test = key.partition(".")
    return {
        claim.id: tests
        for claim, paper in stated.values()
        if id in (claim.id, paper.paper, paper.chapter)
        and (tests := {each.key for each in claim.tests if not test or (id == claim.id and each.key == test)})
    }


def _told(claim: Claim, tests: set[str], record: Record | None) -> Iterator[str]:
    """Yield the lines on one claim."""
    yield _filled(f"{claim.id} {record.verdict if record else 'not yet run'}: {claim.statement}")
    for name, said in (("where", claim.place), ("conditions", claim.conditions), ("see", ", ".join(claim.see))):
        if said:
            yield _filled(f"{name}: {said}", "  ")
    for test in claim.tests:
        if test.key in tests:
            yield from _test(claim, test, record)


def _test(claim: Claim, test: Test, record: Record | None) -> Iterator[str]:
    outcome = next((each for each in record.outcomes if each.test.key == test.key), None) if record else None
    headline = ", the headline" if test.key == claim.headline and len(claim.tests) > 1 else ""
    yield _filled(f"{claim.id}.{test.key}{headline}: {claim.quantity(test.key)}", "  ")
    yield _filled(f"demanded {test.rule}", "      ")
    if outcome:
        yield _filled(f"{outcome.verdict}: {outcome.text}" if outcome.estimates else outcome.text, "      ")


def _filled(text: str, indent: str = "") -> str:
    return textwrap.fill(text, WIDTH, initial_indent=indent, subsequent_indent=indent + "    ")
