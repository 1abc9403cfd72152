"""Run a chapter with parameters of one's own, and compare records claim by claim."""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from descent import __version__
from descent.book.execute.execute import execute
from descent.book.execute.process import TIMEOUT, Job
from descent.book.execute.progress import Progress
from descent.book.execute.stamps import Place
from descent.book.pages import comparison
from descent.book.sources import provenance, records, source
from descent.book.sources.project import BookError, Project
from descent.claims import Claim, Record, Test, compare_records, standing
from descent.claims.reruns import bundle_name, pack_bundle
from descent.claims.verdict import rule_to
from descent.results import short_hash, write_atomic

RUN = "stamp.json"
COMPARISON = ("test", "published interval", "your interval", "compatible?", "comparison")


def run(
    project: Project,
    chapter: str,
    values: Mapping[str, source.Value],
    timeout: float = TIMEOUT,
    out: Path | None = None,
    *,
    bundle: bool = False,
) -> str:
    """Execute a chapter into a folder of its own, `out` or one under runs/; return the comparison with the published.

    The folder holds notebook, records, tables, figures, and the comparison as Markdown and HTML. bundle: and one file
    of it all for others, see `claims.reruns`.
    """
    place = run_place(project, chapter, values, out)
    records.papers(project)  # read first: a fault there must not cost the run
    before = published(project, chapter)
    _require_folder(project, place.stamp.parent)
    execute(Job(project, chapter, values, place, timeout), Progress())
    said = report(project, chapter, values, place, before)
    return f"{said}\n\n{_bundled(project, chapter, values, place)}" if bundle else said


def _bundled(project: Project, chapter: str, values: Mapping[str, source.Value], place: Place) -> str:
    """Write the bundle of a finished run beside it; return what to do with it."""
    folder = place.notebook.parent
    text = (folder / "comparison.md").read_text(encoding="utf-8").partition("\n## Figures of this run")[0]
    records_made = (place.results / "records.json").read_bytes()
    packed = pack_bundle(chapter, __version__, values, records_made, text.rstrip() + "\n")
    path = folder / bundle_name(chapter, packed)
    write_atomic(path, packed)
    return f"to attach to an issue, or for data/reruns: {_shown(project, path)}"


def require_chance(project: Project, chapter: str, values: Mapping[str, source.Value]) -> None:
    """Raise BookError for parameters that ask another question than the published run: those are no re-run of it."""
    known = source.parameters(project.source(chapter))
    others = [name for name in values if name not in comparison.CHANCE and values[name] != known[name]]
    if others:
        raise BookError(
            f"--bundle is for what others can hold against the published numbers: {', '.join(others)} would be "
            f"another setting; give {', '.join(comparison.CHANCE)} alone, or leave out --bundle"
        )


def report(
    project: Project, chapter: str, values: Mapping[str, source.Value], place: Place, before: Sequence[Record]
) -> str:
    """Write the comparison of a finished run, with its figures, beside it; return it as text."""
    defaults = source.parameters(project.source(chapter))
    changed = {name: (defaults[name], value) for name, value in values.items() if value != defaults[name]}
    found = comparison.pairs(before, records.read(place.results), changed)
    folder, head = place.notebook.parent, comparison.title(chapter, changed)
    figures = _figures(project, chapter, place)
    write_atomic(folder / "comparison.md", comparison.as_markdown(found, head, figures))
    write_atomic(folder / "comparison.html", comparison.as_html(found, head, figures))
    where = f"notebook, tables, figures, comparison.md and .html: {_shown(project, folder)}"
    return "\n\n".join([comparison.as_text(found, head), where])


def _figures(project: Project, chapter: str, place: Place) -> dict[str, str]:
    """Write the figures of a run beside it; return what to say of each, by file."""
    text, said = source.read(project.source(chapter)), {}
    run = source.with_outputs(text, source.load(place.notebook))  # which has a cell more, for the parameters
    for cell, trace in provenance.figures(project, chapter, text).items():
        shown = (output.get("data", {}).get("image/png") for output in run.cells[cell].outputs)
        if image := next(filter(None, shown), None):
            name = f"figures/{trace.anchor or f'cell-{cell}'}.png"
            write_atomic(place.notebook.parent / name, base64.b64decode(image))
            said[name] = (
                f"{trace.anchor or f'Cell {cell}'} of this run. Of the published one the chapter says: {trace.title}"
            )
    return said


def _shown(project: Project, path: Path) -> str:
    """Return a path from the folder of the book where it lies there."""
    return str(path.relative_to(project.root)) if path.is_relative_to(project.root) else str(path)


def _require_folder(project: Project, folder: Path) -> None:
    """Make the folder of a run; raise BookError where that cannot be, or where nothing can be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as fault:
        raise BookError(
            f"{_shown(project, folder)} cannot be written ({fault.strerror}); "
            f"make {folder.parent.name}/ a folder that you may write to"
        ) from None


def run_place(project: Project, chapter: str, values: Mapping[str, source.Value], out: Path | None = None) -> Place:
    """Return where a run goes: `out`, else a folder named by its parameters, so that no run overwrites another.

    Raises: BookError where `out` holds what is no run of this chapter.
    """
    name = short_hash(json.dumps(dict(values), sort_keys=True))[:8]
    folder = (out or project.root / "runs" / f"{chapter}-{name}").resolve()
    if out and folder.exists() and not (folder.is_dir() and (not any(folder.iterdir()) or (folder / RUN).is_file())):
        raise BookError(f"--out {out} exists, and holds no run; name an empty folder, or one that a run has made")
    return Place(folder / f"{chapter}.ipynb", folder / "results", folder / RUN)


def published(project: Project, chapter: str) -> tuple[Record, ...]:
    """Return the records of record, or those of the built book where there are none."""
    kept = published_file(project, chapter)
    return records.read(kept if kept.is_file() else project.results(chapter))


def published_file(project: Project, chapter: str) -> Path:
    """Return where the records of record lie: outside the folder of data the chapter itself reads."""
    return project.published / "records" / f"{chapter}.json"


def compare_files(a: Path, b: Path) -> str:
    """Return the comparison of two files of records."""
    return compared(records.read(a), records.read(b))


def compared(first: Sequence[Record], second: Sequence[Record]) -> str:
    """Return one line per test and one per claim whose verdict moved."""
    rows = [(line.key, line.published, line.yours, line.answer, line.how) for line in compare_records(first, second)]
    after = {record.claim.id: record.verdict for record in second}
    moved = [
        f"{record.claim.id}: {record.verdict} → {after[record.claim.id]}"
        for record in first
        if after.get(record.claim.id, record.verdict) != record.verdict
    ]
    return "\n".join([columns(COMPARISON, rows), "", "verdicts that moved: " + ("; ".join(moved) or "none")])


def claims_table(project: Project) -> str:
    """Check the claims files; return every test with its claim's verdict where there is one, and how all stand."""
    found = built(project)
    verdicts = {id: record.verdict for id, record in found.items()}
    rows = [
        (f"{claim.id}.{test.key}", str(verdicts.get(claim.id, "not yet run")), str(test.rule), _quantity(claim, test))
        for paper in records.papers(project)
        for claim in paper.claims
        for test in claim.tests
    ]
    return columns(("test", "claim's verdict", "demanded", "quantity"), rows) + f"\n\n{_standing(project, found)}"


def built(project: Project) -> dict[str, Record]:
    """Return the records of the chapters that have been run, by claim, under today's claims."""
    stated = {claim.id: (claim, paper) for paper in records.papers(project) for claim in paper.claims}
    run = [name for name in project.notebooks if (project.results(name) / "records.json").is_file()]
    found = {record.claim.id: record for name in run for record in records.read(project.results(name))}
    return {id: records.today(record, *stated[id]) if id in stated else record for id, record in found.items()}


def _quantity(claim: Claim, test: Test) -> str:
    return claim.quantity(test.key) + (" (identity)" if test.identity else "")


def _standing(project: Project, found: Mapping[str, Record]) -> str:
    """Return how the claims stand that have been run, and how many have not."""
    left = sum(claim.id not in found for paper in records.papers(project) for claim in paper.claims)
    return standing(found.values(), sources=True) + (f"; {left} not yet run" if left else "")


def claims_json(project: Project) -> str:
    """Return every claim with its rules, and its verdict where the book has one, as JSON."""
    found = built(project)
    rows = [
        {
            "id": claim.id, "paper": paper.paper, "chapter": paper.chapter, "statement": claim.statement,
            "conditions": claim.conditions, "known": claim.known, "identity": claim.identity,
            "verdict": str(found[claim.id].verdict) if claim.id in found else None,
            "headline": claim.headline, "text": found[claim.id].headline.text if claim.id in found else None,
            "tests": [_stated(test) for test in claim.tests],
        }
        for paper in records.papers(project)
        for claim in paper.claims
    ]  # fmt: skip
    return json.dumps({"schema": 1, "claims": rows}, indent=1, ensure_ascii=False)


def _stated(test: Test) -> dict[str, object]:
    return {"key": test.key, "quantity": test.quantity, "rule": rule_to(test.rule), "identity": test.identity}


def columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a plain table whose last column may be of any length."""
    if not rows:
        raise BookError("there is nothing to show")
    table = [head, *rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(head) - 1)]
    lines = [
        " | ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]) for row in table
    ]
    return "\n".join([lines[0], "-+-".join("-" * width for width in [*widths, len(head[-1])]), *lines[1:]])
