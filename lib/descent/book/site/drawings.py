"""The figures of a finished page: one drawing per theme, each opened by a tap, and the vector file to take along."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path

from descent.book.pages.page_frame import STRIP

__all__ = ["shown"]

_FIGURE = re.compile(r"<figure[^>]*>(?:(?!</figure>).)*?</figure>", re.S)
_DRAWING = re.compile(r'<img (?=[^>]*dark-light)[^>]*?src="(?P<file>[^"]+\.svg)"[^>]*>')
_NAME = re.compile(r'<figure[^>]*id="([^"]+)"')
POINT = 96 / 72
"""Pixels of a style sheet in a point."""


def shown(page: str, folder: Path) -> str:
    """Return a page whose figures, and copies of figures, are drawings for the reader's theme; write the dark ones."""
    made: list[str] = []
    last = 0
    for figure in _FIGURE.finditer(page):
        drawing = _DRAWING.search(figure[0])
        if drawing is None:
            continue
        made += [page[last : figure.start()], figure[0].replace(drawing[0], _pair(drawing, folder))]
        last = figure.end()
        strip = page.find(STRIP, last)
        following = page.find("<figure", last)
        if strip >= 0 and (following < 0 or strip < following):
            made += [page[last : strip + len(STRIP)], _taken(drawing["file"], figure[0])]
            last = strip + len(STRIP)
    return _DRAWING.sub(
        lambda copy: copy[0] if " on-" in copy[0] else _pair(copy, folder), "".join([*made, page[last:]])
    )


def _pair(drawing: re.Match[str], folder: Path) -> str:
    """Return the two drawings of a figure, of which a page shows that of its theme, each linked to its file."""
    from descent.figures import themed  # loads what draws, which a page without figures need not wait for

    light = folder / drawing["file"]
    text = light.read_text(encoding="utf-8")
    dark = light.with_suffix(".dark.svg")
    dark.write_text(themed(text), encoding="utf-8")
    image = f'<img loading="lazy" decoding="async" {_size(text)}' + drawing[0][len("<img ") :]
    both = ((drawing["file"], "on-light"), (f"{drawing['file'][: -len('.svg')]}.dark.svg", "on-dark"))
    links = (
        f'<a class="enlarge {theme}" href="{file}" aria-label="open this figure by itself">'
        + image.replace(drawing["file"], file).replace("dark-light", f"dark-light {theme}", 1)
        + "</a>"
        for file, theme in both
    )
    return "".join(links)


def _taken(file: str, figure: str) -> str:
    """Return the link to the vector file of a figure, for the strip below it."""
    named = _NAME.search(figure)
    name = escape(named[1] if named else "figure")
    return f'<a class="vector" href="{file}" download="{name}.svg">drawing (SVG)</a>; '


def _size(svg: str) -> str:
    """Return how large a drawing is, so that a page keeps room for it and does not jump when it comes."""
    head = svg[: svg.find(">", svg.find("<svg")) + 1]
    sizes = (re.search(rf'{side}="([\d.]+)pt"', head) for side in ("width", "height"))
    found = [round(float(size[1]) * POINT) for size in sizes if size]
    return f'width="{found[0]}" height="{found[1]}" ' if len(found) == 2 else ""
