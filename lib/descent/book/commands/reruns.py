"""Say of every run that others sent what it agrees with."""

from __future__ import annotations

from collections.abc import Sequence

from descent.book.commands.compare import columns, published
from descent.book.sources import records
from descent.book.sources.project import BookError, Project
from descent.claims import Record, Verdict
from descent.claims.reruns import Bundle, reruns

COLUMNS = ("file", "version", "seed", "replicas", "agree", "not", "inconclusive", "claims with another verdict")


def table(project: Project) -> str:
    """Return a row per bundle under data/reruns; raise BookError for one that is refused, and where there is none."""
    found = records.bundles(project)
    if not found:
        raise BookError(f"{project.reruns.relative_to(project.root)} holds no bundle; put the file you were sent there")
    return columns(COLUMNS, [_row(bundle, published(project, project.notebook(bundle.chapter))) for bundle in found])


def _row(bundle: Bundle, before: Sequence[Record]) -> tuple[str, ...]:
    made = [one for record in before for one in reruns(record, [bundle])]
    same = sum(one.same for one in made)
    others = [one.record for one in made if not one.same]
    open = sum(record.verdict is Verdict.INCONCLUSIVE for record in others)
    conditions = bundle.records[0].provenance
    moved = ", ".join(f"{record.claim.id} {record.verdict}" for record in others) or "none"
    return (
        bundle.name, bundle.version, str(conditions.seed), str(conditions.replicas),
        str(same), str(len(others) - open), str(open), moved if made else "no independent run of today's rules",
    )  # fmt: skip
