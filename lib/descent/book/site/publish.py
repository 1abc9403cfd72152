"""Put beside the pages what readers and programs take along: ledger, tables, notebooks."""

from __future__ import annotations

import copy
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from descent.book.execute.chapter import Chapter, recorded
from descent.book.execute.stamps import table_files
from descent.book.pages import cite, code, elsewhere
from descent.book.site.checks import SCHEMA
from descent.book.sources import edition, graph, records, source
from descent.book.sources.project import BookError, Project
from descent.claims import save_records
from descent.claims.registry import beside
from descent.claims.schema import ledger_schema
from descent.results import verified_table, write_json

EMPTY = re.compile(r"\[\]\(([\w-]+)\.md\)")
IMAGES = ("image/png", "image/jpeg", "image/svg+xml", "application/pdf")


def publish(project: Project, chapters: Sequence[Chapter], html: Path) -> None:
    """Copy ledger, notebooks (executed without pictures, and plain), sources and tables; write the library's pages."""
    code.write(project, html)
    save_records(html / "ledger.json", recorded(chapters), beside(records.registry(project)))
    (html / SCHEMA.name).write_text(ledger_schema(), encoding="utf-8")
    cite.write(html, edition.read(project), chapters)
    write_json(html / "claim-graph.json", {"schema": 1, "claims": graph.read(project).to_json()})
    downloads = html / "downloads"
    for bundle in sorted(project.reruns.glob("*.zip")):
        (downloads / "reruns").mkdir(parents=True, exist_ok=True)
        shutil.copy(bundle, downloads / "reruns" / bundle.name)
    for chapter in chapters:
        _copy_tables(project, project.results(chapter.name), downloads / chapter.name)
        _write_forms(chapter, downloads)
        for other in (project.paper_scale(chapter.name), project.night(chapter.name)):
            if other.is_dir():
                _copy_tables(project, other, downloads / chapter.name / other.name)


def _write_forms(chapter: Chapter, folder: Path) -> None:
    """Write a chapter as executed notebook without pictures, as plain notebook, as one for elsewhere, and as source."""
    given = chapter.executed if chapter.stamp.parameters else chapter.page()  # the cell of parameters is in one alone
    titles = chapter.project.titles
    forms = {
        "ipynb": source.dump(_titled(text_only(given), titles)),
        "plain.ipynb": source.dump(_titled(chapter.notebook, titles)),
        "away.ipynb": source.dump(_titled(elsewhere.away(chapter), titles)),
        "md": chapter.text,
    }
    for form, text in forms.items():
        (folder / f"{chapter.name}.{form}").write_text(text, encoding="utf-8")


def _titled(notebook: source.Notebook, titles: Mapping[str, str]) -> source.Notebook:
    """Return a notebook whose links to pages have words, which a site fills in and a notebook does not."""
    told = copy.deepcopy(notebook)
    for cell in (cell for cell in told.cells if cell.cell_type == "markdown"):
        cell.source = EMPTY.sub(lambda found: f"[{titles.get(found[1], found[1])}]({found[1]}.md)", cell.source)
    return told


def _copy_tables(project: Project, folder: Path, target: Path) -> None:
    """Copy tables and records; raise BookError for a table that is not the one its note was written for."""
    target.mkdir(parents=True)
    for name in table_files(folder):
        try:
            if name.endswith(".csv"):
                verified_table(folder / name)
        except ValueError as fault:
            raise BookError(f"{(folder / name).relative_to(project.root)}: {fault}") from None
        shutil.copy(folder / name, target / name)


def text_only(notebook: source.Notebook) -> source.Notebook:
    """Return a notebook whose outputs are text: small to store, and the same on every machine that draws."""
    bare = copy.deepcopy(notebook)
    for cell in bare.cells:
        for output in cell.get("outputs", []):
            for kind in IMAGES:
                output.get("data", {}).pop(kind, None)
    return bare
