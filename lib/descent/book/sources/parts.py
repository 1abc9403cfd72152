"""A chapter may be read on several pages: a cell of text that names a page begins a part, which ends with the next.

In the source `+++ {"page": "control-table"}` begins the part that is read on `control-table`, below that page's own
text, and `+++ {"page": "synthesis"}` leads back to the chapter `synthesis`. The notebook stays one, and runs as one.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Sequence
from typing import Any

from descent.book.sources.project import Project, SourceError

__all__ = ["apart", "page_at", "pages", "require", "spread"]

PAGE = "page"
MARK = re.compile(r"^\+\+\+ (\{.*\})$", re.M)


def pages(cells: Sequence[Any], chapter: str) -> list[str]:
    """Return the page that every cell of a chapter is read on."""
    page, found = chapter, list[str]()
    for cell in cells:
        page = cell.metadata.get(PAGE, page)
        found.append(page)
    return found


def apart(notebook: Any, chapter: str) -> dict[str, Any]:
    """Return a chapter as one notebook per page."""
    found = {page: copy.copy(notebook) for page in pages(notebook.cells, chapter)}
    for page, cells in spread(notebook.cells, chapter).items():
        found[page].cells = cells
    return found


def spread(cells: Sequence[Any], chapter: str) -> dict[str, list[Any]]:
    """Return the cells of a chapter by the page they are read on, in order; the chapter's own page comes first."""
    found: dict[str, list[Any]] = {chapter: []}
    for page, cell in zip(pages(cells, chapter), cells, strict=True):
        found.setdefault(page, []).append(cell)
    return found


def page_at(text: str, place: int, chapter: str) -> str:
    """Return the page on which a place of a chapter's source is read."""
    named = [json.loads(mark[1]) for mark in MARK.finditer(text, 0, place)]
    return next((mark[PAGE] for mark in reversed(named) if PAGE in mark), chapter)


def require(project: Project, chapter: str, cells: Sequence[Any]) -> None:
    """Raise SourceError where a part has no page to be read on, or a cell of code begins it."""
    if any(PAGE in cell.metadata for cell in cells if cell.cell_type == "code"):
        raise SourceError(f"{chapter}.md: a cell of code names a page; let a cell of text begin the part")
    if pages(cells, chapter)[-1] != chapter:
        raise SourceError(f'{chapter}.md: its end is read elsewhere; lead back with +++ {{"page": "{chapter}"}}')
    for page in set(pages(cells, chapter)) - {chapter}:
        if page not in project.pages:
            raise SourceError(f"{chapter}.md: a part is to be read on {page!r}, which _toc.yml does not name")
        if page in project.notebooks:
            raise SourceError(f"{chapter}.md: a part is to be read on {page!r}, which has code of its own")
