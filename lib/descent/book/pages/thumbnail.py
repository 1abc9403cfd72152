"""Small copies of the chapters' figures for the pages that point to them: `figure:saddles#fig-saddles-escape`."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from descent.book.execute.chapter import Chapter
from descent.book.sources.project import BookError

FOLDER = Path("_static", "figures")
WIDTH = 720
"""Pixels across, enough for a third of a page on a sharp screen."""
WANTED = re.compile(r"\bfigure:([\w-]+)#([\w-]+)")


def thumbnails(page: str, text: str, chapters: Mapping[str, Chapter], target: Path) -> str:
    """Return a page that shows copies of the figures it names, which are written below `target`.

    Raises: BookError where a chapter or a figure of that name is absent.
    """

    def shown(match: re.Match[str]) -> str:
        chapter, name = match.groups()
        drawn = _picture(chapters[chapter], name) if chapter in chapters else None
        if drawn is None:
            raise BookError(f"{page}.md: there is no figure {name} in the chapter {chapter}; correct {match[0]}")
        path = FOLDER / f"{name}.png"
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        _shrink(drawn, target / path)
        return path.as_posix()

    return WANTED.sub(shown, text)


def _picture(chapter: Chapter, name: str) -> bytes | None:
    """Return the picture that a chapter's execution left under a name."""
    places = [place for place, figure in chapter.figures.items() if figure.anchor == name]
    cells = chapter.page().cells
    outputs = (output for place in places for output in cells[place].get("outputs", ()))
    found = (output.get("data", {}).get("image/png") for output in outputs)
    return next((base64.b64decode(data) for data in found if data), None)


def _shrink(picture: bytes, path: Path) -> None:
    with Image.open(io.BytesIO(picture), formats=["PNG"]) as opened:
        small = opened.convert("RGBA")
    small.thumbnail((WIDTH, WIDTH), Image.Resampling.LANCZOS)
    small.save(path, "PNG", optimize=True)
