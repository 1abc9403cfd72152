"""Build the book: execute what moved, stage, render, publish, check; the stamp of the site comes last."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from descent.book import (
    api,
    assemble,
    boxes,
    checks,
    digest,
    finish,
    instruments,
    ledger,
    pages,
    publish,
    records,
    reports,
    scales,
)
from descent.book.execute import Given, execute_all
from descent.book.lock import alone
from descent.book.process import TIMEOUT
from descent.book.progress import Progress
from descent.book.project import BookError, Project
from descent.book.room import is_full
from descent.book.stamps import Stamp, book_place, read_stamp
from descent.book.where import homes
from descent.claims import Record, quotes
from descent.results import write_atomic

TOOLS = (
    "jupyter-book",
    "sphinx",
    "myst-nb",
    "sphinx-book-theme",
    "pydata-sphinx-theme",
    "sphinx-mathjax-offline",
)


def build(
    project: Project,
    progress: Progress,
    given: Given | None = None,
    *,
    jobs: int | None = None,
    force: bool = False,
    timeout: float = TIMEOUT,
) -> Path:
    """Return the folder of the finished site; raise BookError and leave no site when anything is wrong."""
    with alone(project):
        return _build(project, progress, given or {}, jobs=jobs, force=force, timeout=timeout)


def _build(
    project: Project, progress: Progress, given: Given, *, jobs: int | None, force: bool, timeout: float
) -> Path:
    on_device = any(values.get("device", "cpu") != "cpu" for values in given.values())
    try:
        checks.require([*checks.source_faults(project), *checks.prose_faults(project)])
        jobs = 1 if on_device else jobs or cores()
        execute_all(project, project.notebooks, given, progress, jobs=jobs, force=force, timeout=timeout)
        if force or not is_current(project):
            progress.say("site: assembling")
            _site(project)
        else:
            progress.say("site: reused")
    except BaseException as fault:
        _stamp(project).unlink(missing_ok=True)
        if is_full(fault):
            raise BookError(f"there is no room left to write the book; the previous site stays as it was, "
                            f"make room and run this again\n{fault}") from fault
        shutil.rmtree(project.html, ignore_errors=True)
        raise
    progress.say(f"ledger: {ledger.standing(records.load(project))}")
    progress.say(f"site: {project.html / 'index.html'}")
    return project.html


def cores() -> int:
    """Return how many chapters may run side by side here."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def site_inputs(project: Project) -> digest.Inputs:
    """Return everything the site depends on beside the library: pages, configuration, executions, tools."""
    files = [project.root / "_config.yml", project.root / "_toc.yml"]
    files += [path for path in sorted(project.chapters.rglob("*")) if path.is_file() and ".ipynb" not in str(path)]
    for chapter in project.notebooks:
        files += [book_place(project, chapter).stamp, *project.claim_files(chapter)]
        files += [path for path in sorted(project.paper_scale(chapter).glob("*")) if path.is_file()]
    pipeline = {path.name: digest.file_hash(path) for path in sorted(Path(__file__).parent.glob("*.py"))}
    pipeline["library"] = digest.library(project)  # its source is shown on the site
    sources = {str(path.relative_to(project.root)): digest.file_hash(path) for path in files}
    return sources | pipeline | {name: digest.installed(name) for name in TOOLS}


def is_current(project: Project) -> bool:
    """Tell whether there is a site, built from today's sources."""
    stamps = [_stamp(project), *(book_place(project, name).stamp for name in project.notebooks)]
    if not all(path.is_file() for path in (*stamps, project.html / "index.html")):
        return False
    return bool(json.loads(_stamp(project).read_text(encoding="utf-8")) == site_inputs(project))


def _site(project: Project) -> None:
    found = records.load(project)
    stamps = {name: _read(project, name) for name in project.notebooks}
    around = {name: boxes.boxes(project, name, stamp, found) for name, stamp in stamps.items()}
    hints = {record.claim.id: f"{record.claim.statement} — {record.verdict}".replace('"', "'") for record in found}
    parts = _generated(project, stamps, found)
    html = assemble.render(project, assemble.stage(project, parts, quotes(found), around, hints))
    publish.publish(project, html, found)
    finish.finish(project, html, found)
    checks.require(checks.site_faults(project, html, [record.claim.id for record in found]))
    shutil.rmtree(project.html, ignore_errors=True)
    os.replace(html, project.html)
    write_atomic(_stamp(project), json.dumps(site_inputs(project), indent=1))


def _generated(project: Project, stamps: Mapping[str, Stamp], found: Sequence[Record]) -> dict[str, str]:
    """Return what replaces the placeholders of the pages."""
    titles = {name: _title(project, name) for name in stamps}
    where, large = homes(project, found), records.paper_scale(project)
    parts = {
        "ledger-summary": pages.summary(found, titles),
        "ledger-table": ledger.ledger_table(found, where, large),
        "not-held": reports.not_held(found, where, titles),
        "status-table": pages.status_table(stamps, titles),
        "figure-table": pages.figure_table(project, stamps, titles, found),
    }
    if project.asks_for("oracle-table"):
        parts["oracle-table"] = reports.oracle_table(instruments.measured(project))
    if project.asks_for("paper-scale"):
        parts["paper-scale"] = scales.scale_table(project, titles, large)
    return parts | ({"api": api.library(project)} if project.asks_for("api") else {})


def _stamp(project: Project) -> Path:
    return project.build / "site.json"


def _read(project: Project, chapter: str) -> Stamp:
    stamp = read_stamp(book_place(project, chapter))
    if stamp is None:
        raise BookError(f"{chapter}: its execution left no stamp")
    return stamp


def _title(project: Project, page: str) -> str:
    found = re.search(r"^# (.+)$", project.source(page).read_text(encoding="utf-8"), re.M)
    if found is None:
        raise BookError(f"{page}.md has no title")
    return found[1]
