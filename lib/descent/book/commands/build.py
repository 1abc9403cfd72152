"""Build the book: execute what moved, stage, render, publish, check; the stamp of the site comes last."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from descent.book.execute import digest, signals
from descent.book.execute.chapter import Chapter, load_all, recorded
from descent.book.execute.disk_full import is_blameless, is_full
from descent.book.execute.execute import Given, execute_all
from descent.book.execute.lock import alone
from descent.book.execute.process import TIMEOUT
from descent.book.execute.progress import Progress
from descent.book.execute.stamps import book_place, read_site_stamp, site_files, site_stamp, write_site_stamp
from descent.book.execute.work import own_folder, sweep
from descent.book.pages import (
    api,
    cite,
    convention,
    evidence,
    hover,
    instruments,
    landing,
    ledger,
    neighbours,
    paper_scale_page,
    quoting,
    reports,
    reruns_told,
    rules_page,
)
from descent.book.site import assemble, checks, finish, publish
from descent.book.sources import edition, graph, records
from descent.book.sources.edition import CHANGELOG, CITATION
from descent.book.sources.project import BookError, Project
from descent.claims import standing
from descent.claims.margins import load_units
from descent.claims.reruns import Rerun

Again = Mapping[str, Sequence[Rerun]]
"""The runs of others, by claim."""
TOOLS = ("jupyter-book", "sphinx", "myst-nb", "sphinx-book-theme", "pydata-sphinx-theme", "sphinx-mathjax-offline")


def build(
    project: Project,
    progress: Progress,
    given: Given | None = None,
    *,
    jobs: int | None = None,
    force: bool = False,
    timeout: float = TIMEOUT,
) -> Path:
    """Return the folder of the finished site; raise BookError and leave no site when anything is wrong with the book.

    What says nothing about the book, such as Ctrl-C or a full disk, leaves the previous site as it was.
    """
    with alone(project):
        sweep(project)
        anew = Project(project.root)  # what `project` remembers of the table of contents may be older than the file
        return _build(anew, progress, given or {}, jobs=jobs, force=force, timeout=timeout)


def _build(
    project: Project, progress: Progress, given: Given, *, jobs: int | None, force: bool, timeout: float
) -> Path:
    on_device = any(values.get("device", "cpu") != "cpu" for values in given.values())
    try:
        before = sources(project)  # ahead of all that reads them: what is edited from here on counts as not built
        checks.require([*checks.source_faults(project), *checks.prose_faults(project)])
        checks.require([*checks.citation_faults(project), *convention.faults(project)])
        jobs = 1 if on_device else jobs or cores()
        execute_all(project, project.notebooks, given, progress, jobs=jobs, force=force, timeout=timeout)
        if why := ["asked for"] if force else outdated(project, before):
            progress.say(f"site: assembling because: {'; '.join(why)}")
            _site(project, before | executions(project))
        else:
            progress.say("site: reused")
    except BaseException as fault:
        if is_full(fault):
            raise BookError(
                f"there is no room left to write the book; the previous site stays as it was, "
                f"make room and run this again\n{fault}"
            ) from fault
        if not is_blameless(fault):
            site_stamp(project).unlink(missing_ok=True)
            shutil.rmtree(project.html, ignore_errors=True)
        raise
    progress.say(f"ledger: {standing(records.load(project), sources=True)}")
    if said := edition.read(project).homeless:
        progress.say(f"home: {said}")
    progress.say(f"site: {project.html / 'index.html'}")
    return project.html


def cores() -> int:
    """Return how many chapters may run side by side here."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def site_inputs(project: Project) -> digest.Inputs:
    """Return everything the site depends on: pages, configuration, library, tools, executions."""
    return sources(project) | executions(project)


def sources(project: Project) -> digest.Inputs:
    """Return what the site depends on beside the executions; what names further files is hashed before it is read."""
    files = [project.root / "_config.yml", project.root / "_toc.yml"]
    files += [path for name in (CITATION, CHANGELOG) if (path := project.root / name).is_file()]
    files += [path for path in sorted(project.chapters.rglob("*")) if path.is_file() and ".ipynb" not in str(path)]
    pages = _hashes(project, files)
    data = [path for folder in (project.claims, project.reruns) for path in sorted(folder.glob("*")) if path.is_file()]
    for chapter in project.notebooks:
        for folder in (project.paper_scale(chapter), project.night(chapter)):
            data += [path for path in sorted(folder.glob("*")) if path.is_file()]
        beside = (project.agreement(chapter), project.published / "records" / f"{chapter}.json")
        data += [path for path in beside if path.is_file()]
    book = Path(__file__).parents[1]
    pipeline = {path.relative_to(book).as_posix(): digest.file_hash(path) for path in sorted(book.rglob("*.py"))}
    pipeline["library"] = digest.library(project)  # its source is shown on the site
    return pages | _hashes(project, data) | pipeline | {name: digest.installed(name) for name in TOOLS}


def executions(project: Project) -> digest.Inputs:
    """Return what the site depends on of the chapters' executions."""
    return _hashes(project, [book_place(project, chapter).stamp for chapter in project.notebooks])


def _hashes(project: Project, files: Sequence[Path]) -> digest.Inputs:
    return {str(path.relative_to(project.root)): digest.file_hash(path) for path in files}


def is_current(project: Project) -> bool:
    """Tell whether there is a site, whole and built from today's sources."""
    return not outdated(project)


def outdated(project: Project, hashed: digest.Inputs | None = None) -> list[str]:
    """Return why the site must be assembled again; none when it is whole and built from today's sources.

    hashed: the sources, where that is known already.
    """
    made = read_site_stamp(project)
    executed = all(book_place(project, name).stamp.is_file() for name in project.notebooks)
    if made is None or not executed or not project.html.is_dir():
        return ["no finished site"]
    found = {
        "its files were altered": digest.altered(made.files, site_files(project)),
        "its sources moved": digest.moved(made.inputs, (hashed or sources(project)) | executions(project)),
    }
    return [f"{what}: {digest.some(names)}" for what, names in found.items() if names]


def _site(project: Project, inputs: digest.Inputs) -> None:
    chapters = load_all(project)
    found = recorded(chapters)
    checks.require(quoting.unmeasured(project, found, quoting.quotable(project, found)))
    staged = assemble.stage(project, chapters, _generated(project, chapters))
    with own_folder(project, "site") as work:
        html = assemble.render(project, staged, work)
        publish.publish(project, chapters, html)
        finish.finish(project, html, found)
        checks.require(checks.site_faults(project, html, [record.claim.id for record in found]))
        _replace(project, html, work, inputs)


def _replace(project: Project, html: Path, work: Path, inputs: digest.Inputs) -> None:
    """Put a finished site in the place of the previous one; the stamp of that goes first, its own comes last."""
    with signals.held():
        site_stamp(project).unlink(missing_ok=True)
        if project.html.exists():
            os.replace(project.html, work / "previous")
        os.replace(html, project.html)
        write_site_stamp(project, inputs)


def _facts(project: Project, chapters: Sequence[Chapter], again: Again) -> dict[str, str]:
    """Return what an opened claim says beside its tests: what it rests on, the runs of others, how it is cited."""
    claims = graph.read(project)
    return {
        (id := record.claim.id): "".join(
            (neighbours.fact(claims, id), reruns_told.fact(again.get(id, ())), cite.fact(record))
        )
        for record in recorded(chapters)
    }


def _generated(project: Project, chapters: Sequence[Chapter]) -> dict[str, str]:
    """Return what replaces the placeholders of the pages."""
    large, nights = records.paper_scale(project), records.nights(project)
    rules = rules_page.read(project, recorded(chapters))
    has_rules = project.asks_for("rules-table")
    agreed = records.agreements(project, recorded(chapters))
    again = reruns_told.by_claim(recorded(chapters), records.bundles(project))
    agreed = reruns_told.beside(agreed, again)
    more = _facts(project, chapters, again)
    listed = ledger.ledger_table(chapters, large, rules.claims if has_rules else {}, agreed, nights, more)
    parts = {
        "ledger-summary": landing.summary(chapters),
        "ledger-table": hover.spelt(listed, project),
        "not-held": hover.spelt(reports.not_held(chapters, nights), project),
        "status-table": landing.status_table(chapters),
        "figure-table": landing.figure_table(chapters, [*large.values(), *nights.values()]),
    }
    if project.asks_for("citation"):
        parts["citation"] = cite.page(edition.read(project), chapters)
    if project.asks_for("identities"):
        parts["identities"] = evidence.identity_table(recorded(chapters))
    if project.asks_for("power-table"):
        units = load_units(project.claims)
        parts["only-hold"] = evidence.only_hold_list(recorded(chapters), units)
        parts["power-table"] = evidence.power_tables(chapters, units)
    if project.asks_for("oracle-table"):
        parts["oracle-table"] = reports.oracle_table(instruments.measured(project))
    if project.asks_for("paper-scale"):
        titles = {chapter.name: chapter.title for chapter in chapters}
        parts["paper-scale"] = paper_scale_page.scale_table(project, titles, large, nights)
    if has_rules:
        parts |= {"rules-tally": rules_page.tally(rules), "rules-table": rules_page.history_table(rules)}
    return parts | ({"api": api.library(project)} if project.asks_for("api") else {})
