"""The records the chapters have left, verified, and the claims they must answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from descent.book.sources.project import BookError, Project, sound
from descent.claims import Claim, Paper, Record, Verdict, faults, load_papers, load_records, restated
from descent.claims.agreement import agreed, load_agreement
from descent.claims.registry import Place, Registry, load_registry
from descent.claims.reruns import Bundle, load_bundle, require_registered

RECORDS = "records*.json"
"""The records of a campaign, and earlier ones that say what the last one does not (see `campaign.write_records`)."""


def papers(project: Project) -> tuple[Paper, ...]:
    """Return the papers whose chapters are in the book; raise BookError for a faulty claims file."""
    try:
        return tuple(paper for paper in load_papers(project.claims) if paper.chapter in project.notebooks)
    except ValueError as fault:
        raise BookError(str(fault)) from None


def registry(project: Project) -> Registry:
    """Return what the book has registered, nothing where it has no registry; raise SourceError for a faulty one."""
    return sound(load_registry, project.registry) if project.registry.is_file() else Registry()


def load(project: Project) -> tuple[Record, ...]:
    """Return the records of all chapters; raise BookError when claims and records do not match."""
    found = tuple(record for chapter in project.notebooks for record in read(project.results(chapter)))
    require_answers(project, found)
    return found


def require_answers(project: Project, found: Sequence[Record]) -> None:
    """Raise BookError unless records answer the claims of the book, each under today's wording and rules."""
    if wrong := faults(found, papers(project)):
        raise BookError("\n".join(wrong))


def paper_scale(project: Project) -> dict[str, Record]:
    """Return by claim what has been measured at paper scale, judged under today's claims.

    A test added since counts as not yet measured. Of several records of a claim, from other days or devices, the one
    with the most tests counts, then the latest one. Raises: BookError for records of other wordings or rules.
    """
    return _elsewhere(project, project.paper_scale, "at paper scale")


def nights(project: Project) -> dict[str, Record]:
    """Return the same of what has been measured in nights of two cores, from all draws or from those there are."""
    return _elsewhere(project, project.night, "in a night")


def _elsewhere(project: Project, folder: Callable[[str], Path], where: str) -> dict[str, Record]:
    stated = {claim.id: (claim, paper) for paper in papers(project) for claim in paper.claims}
    found: list[Record] = []
    for chapter in project.notebooks:
        files = sorted(folder(chapter).glob(RECORDS), key=lambda file: file.name == "records.json")
        found += [record for file in files for record in read(file) if record.verdict is not Verdict.NOT_TESTED]
    found = [today(record, *stated[record.claim.id]) if record.claim.id in stated else record for record in found]
    best: dict[str, Record] = {}
    for record in found:
        if record.claim.id not in best or _measured(record) >= _measured(best[record.claim.id]):
            best[record.claim.id] = record
    wrong = [line for line in faults(tuple(best.values()), papers(project)) if "without a record" not in line]
    if wrong:
        raise BookError(
            f"{where}, data/published: " + "\n".join(wrong) + "\nrun it again, or keep the file under a "
            "name that does not begin with records, such as earlier.json: it then judges no claim"
        )
    return best


def of_record(project: Project) -> dict[str, Record]:
    """Return by claim what is published of the chapters, judged under today's claims."""
    stated = {claim.id: (claim, paper) for paper in papers(project) for claim in paper.claims}
    files = [project.published / "records" / f"{chapter}.json" for chapter in project.notebooks]
    found = [record for file in files if file.is_file() for record in read(file) if record.claim.id in stated]
    return {record.claim.id: today(record, *stated[record.claim.id]) for record in found}


def today(record: Record, claim: Claim, paper: Paper) -> Record:
    """Return a record under a claim of today, see `restated`."""
    return restated(record, claim, paper.family_at(record.provenance.scale))


def _measured(record: Record) -> int:
    return sum(bool(outcome.estimates) for outcome in record.outcomes)


def agreements(project: Project, found: Sequence[Record]) -> dict[str, str]:
    """Return by claim how many other seeds agree with its verdict, where that was tried.

    Raises: SourceError for a file that is damaged or another's.
    """
    stated = {claim.id: (claim, paper) for paper in papers(project) for claim in paper.claims}
    files = {name: project.agreement(name) for name in project.notebooks if project.agreement(name).is_file()}
    kept = {name: sound(load_agreement, file) for name, file in files.items()}
    draws = registry(project).draws if kept else {}
    said = {}
    for record in (record for record in found if record.chapter in kept):
        own = {place.name: draw.registration for place, draw in draws.items() if _is_of(place, record)}
        said[record.claim.id] = agreed(today(record, *stated[record.claim.id]), kept[record.chapter], own)
    return {id: text for id, text in said.items() if text}


def bundles(project: Project) -> tuple[Bundle, ...]:
    """Return the runs that others sent; raise SourceError for one that was edited or is drawn under foreign rules."""
    found, registered = list[Bundle](), registry(project)
    for file in sorted(project.reruns.glob("*.zip")):
        bundle = sound(load_bundle, file)
        if registered.draws:  # a book without a registry has nothing to hold it against
            sound(require_registered, bundle, registered)
        found.append(bundle)
    return tuple(found)


def _is_of(place: Place, record: Record) -> bool:
    return (place.chapter, place.scale) == (record.chapter, record.provenance.scale)


def known_seconds(project: Project, chapter: str) -> dict[str, float]:
    """Return what each experiment took when the published records were made."""
    file = project.published / "records" / f"{chapter}.json"
    if not file.is_file():
        return {}
    made = [outcome for record in read(file) for outcome in record.outcomes if outcome.experiment]
    return {outcome.experiment: outcome.seconds for outcome in made}


def read(path: Path) -> tuple[Record, ...]:
    """Return the records of a file, or of the records.json or ledger.json in a folder.

    Raises: BookError when there is none, or when a verdict does not follow from its numbers.
    """
    candidates = [path / "records.json", path / "ledger.json"] if path.is_dir() else [path]
    file = next((candidate for candidate in candidates if candidate.is_file()), None)
    if file is None:
        raise BookError(f"no records at {path}: expected records.json or ledger.json")
    try:
        return load_records(file)
    except (ValueError, KeyError, TypeError, AttributeError) as fault:
        raise BookError(f"{file} is not a file of records: {fault}") from None
