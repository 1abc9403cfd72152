"""Put beside the pages what readers and programs take along: ledger, tables, notebooks."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from descent.book.execute.stamps import book_place, table_files
from descent.book.pages import code
from descent.book.site.checks import SCHEMA
from descent.book.sources import source
from descent.book.sources.project import BookError, Project
from descent.claims import Record, save_records
from descent.claims.schema import ledger_schema
from descent.results import verified_table

IMAGES = ("image/png", "image/jpeg", "image/svg+xml", "application/pdf")


def publish(project: Project, html: Path, records: Sequence[Record]) -> None:
    """Copy ledger, notebooks (executed without pictures, and plain), sources and tables; write the library's pages."""
    code.write(project, html)
    save_records(html / "ledger.json", records)
    (html / SCHEMA.name).write_text(ledger_schema(), encoding="utf-8")
    downloads = html / "downloads"
    for chapter in project.notebooks:
        place = book_place(project, chapter)
        _copy_tables(project, place.results, downloads / chapter)
        notebook = text_only(source.load(place.notebook))
        (downloads / f"{chapter}.ipynb").write_text(source.dump(notebook), encoding="utf-8")
        plain = source.dump(source.read(project.source(chapter)))
        (downloads / f"{chapter}.plain.ipynb").write_text(plain, encoding="utf-8")
        shutil.copy(project.source(chapter), downloads / f"{chapter}.md")
        large = project.paper_scale(chapter)
        if large.is_dir():
            _copy_tables(project, large, downloads / chapter / large.name)


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
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            for kind in IMAGES:
                output.get("data", {}).pop(kind, None)
    return notebook
