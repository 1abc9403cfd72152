"""Copies of the chapters' figures for the pages that point to them: `figure:saddles#fig-saddles-escape`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from descent.book.execute.chapter import Chapter
from descent.book.sources.project import BookError

FOLDER = Path("_static", "figures")
WANTED = re.compile(r"\bfigure:([\w-]+)#([\w-]+)")


def thumbnails(page: str, text: str, chapters: Mapping[str, Chapter], target: Path) -> str:
    """Return a page that shows copies of the figures it names, which are written below `target`.

    Raises: BookError where a chapter or a figure of that name is absent.
    """

    def shown(match: re.Match[str]) -> str:
        chapter, name = match.groups()
        drawn = _drawing(chapters[chapter], name) if chapter in chapters else None
        if drawn is None:
            raise BookError(f"{page}.md: there is no figure {name} in the chapter {chapter}; correct {match[0]}")
        path = FOLDER / f"{name}.svg"
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        (target / path).write_text(drawn, encoding="utf-8")
        return path.as_posix()

    return WANTED.sub(shown, text)


def _drawing(chapter: Chapter, name: str) -> str | None:
    """Return the drawing that a chapter's execution left under a name."""
    places = [place for place, figure in chapter.figures.items() if figure.anchor == name]
    cells = chapter.page().cells
    outputs = [output for place in places for output in cells[place].get("outputs", ())]
    found = (output.get("data", {}).get("image/svg+xml") for output in outputs)
    return next(("".join(data) for data in found if data), None)
