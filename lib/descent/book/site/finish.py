"""What the finished pages need beyond what Jupyter Book gives them: less to load, and what other sites ask for."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from html import escape, unescape
from pathlib import Path
from xml.sax.saxutils import escape as escape_xml

from PIL import Image

from descent.book.site import drawings, scholar
from descent.book.sources import edition, records
from descent.book.sources.project import Project, sound
from descent.claims import Paper, Record
from descent.results import read_text

UNUSED = (
    "_static/scripts/fontawesome.js*",  # 1.5 MB for a dozen icons, which book.css takes from the font of the theme
    "_static/vendor/fontawesome/webfonts/fa-brands*",
    "_static/vendor/fontawesome/webfonts/fa-regular*",
    "_static/vendor/fontawesome/webfonts/*.ttf",
    "_static/images",
    "_static/locales",
    "_static/sbt-webpack-macros.html",
    "_static/webpack-macros.html",
)
ICONS = re.compile(r'<script defer src="_static/scripts/fontawesome\.js[^"]*"></script>\s*')
VIEWPORT = re.compile(r'<meta name="viewport"[^>]*/?>\s*')
CHARSET = '<meta charset="utf-8" />'
ONE_VIEWPORT = '<meta name="viewport" content="width=device-width, initial-scale=1">'
TITLE = re.compile(r"<title>(.*?)</title>", re.S)
SUMMARY = re.compile(r"<article.*?</h1>.*?<p>(?P<first>.*?)</p>", re.S)
HEADED = re.compile(r"<article.*?</h1>", re.S)
"""Up to the end of the title; a copy of it for the printer stands before."""
FOCUS = re.compile(r'<(figure|div) class="(align-default|output text_html)"')
"""What may scroll sideways on a phone, and must then be reached by the keyboard."""
IMAGE = re.compile(r'<img (?![^>]*loading=)(?=[^>]*dark-light)(?=[^>]*src="(?P<file>[^"]+)")')
CARD = "_static/card.png"
"""Picture that other sites show beside a link."""

LOST = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Page not found — {title}</title><link rel="icon" href="_static/favicon.svg">
<style>:root {{ color-scheme: light dark; background: Canvas; color: CanvasText; }}
body {{ font: 1.1rem/1.6 system-ui, sans-serif; max-width: 36rem; margin: 15vh auto; padding: 0 1rem; }}</style>
</head><body><main><h1>No such page</h1>
<p>This address leads nowhere: no gradient at all. Leave along the unstable direction:</p>
<ul><li><a href="index.html">{title}</a></li><li><a href="ledger.html">Ledger of claims</a></li>
<li><a href="search.html">Search</a></li></ul></main></body></html>
"""


def finish(project: Project, html: Path, found: Sequence[Record]) -> None:
    """Trim and complete the pages of a built site."""
    this = edition.read(project)
    title, base, papers = str(project.config["title"]), this.address, records.papers(project)
    for path in sorted(html.glob("*.html")):
        text = _cited(project, this, papers, path.stem, path.read_text(encoding="utf-8"))
        path.write_text(_page(path, text, title, base), encoding="utf-8")
    from descent.book.pages import preview  # loads what draws, which a reused site need not wait for

    preview.draw(html / CARD, title, found)
    changes = project.root / edition.CHANGELOG
    (html / scholar.FEED).write_text(
        scholar.feed(this, sound(read_text, changes) if changes.is_file() else ""), "utf-8"
    )
    (html / "404.html").write_text(LOST.format(title=escape(title)), encoding="utf-8")
    (html / "sitemap.xml").write_text(_sitemap(project, base), encoding="utf-8")
    for pattern in UNUSED:
        for path in html.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _page(path: Path, text: str, title: str, base: str) -> str:
    text = ICONS.sub("", text)
    text = VIEWPORT.sub("", text).replace(CHARSET, f"{CHARSET}\n{ONE_VIEWPORT}", 1)
    text = FOCUS.sub(r'<\1 tabindex="0" class="\2"', text)
    text = text.replace('<div role="list" class="citation-list">', '<div class="citation-list">')  # it holds links too
    text = drawings.shown(text, path.parent)
    text = IMAGE.sub(lambda found: f'<img loading="lazy" decoding="async" {_size(path.parent / found["file"])}', text)
    text = text.replace(f"<title>{title} &#8212; {title}</title>", f"<title>{title}</title>")
    return text.replace("</head>", f"{_card(path.name, text, title, base)}</head>", 1)


def _cited(project: Project, this: edition.Edition, papers: Sequence[Paper], page: str, text: str) -> str:
    """Return a page of the book with the line that names its edition, and what reference managers read of a chapter."""
    if page not in project.pages:
        return text
    cite = ("cite.html#" + page if page in project.notebooks else "cite.html") if "cite" in project.pages else ""
    text = HEADED.sub(lambda found: f"{found[0]}\n{scholar.line(this, cite)}", text, count=1)
    if page in project.notebooks or page == project.pages[0]:
        tested = [paper for paper in papers if paper.chapter == page]
        heading, about = _told(text, this.title)
        heading = heading.removesuffix(f" — {this.title}")
        text = text.replace("</head>", f"{scholar.head(this, page, heading, about, tested)}</head>", 1)
    return text


def _told(text: str, title: str) -> tuple[str, str]:
    """Return the title of a page and its first sentences."""
    named, first = TITLE.search(text), SUMMARY.search(text)
    return (_plain(named[1]) if named else title), (_plain(first["first"])[:300] if first else title)


def _size(picture: Path) -> str:
    """Return how large a picture is, so that a page keeps room for it and does not jump when it comes."""
    if picture.suffix != ".png" or not picture.is_file():
        return ""
    with Image.open(picture, formats=["PNG"]) as opened:
        width, height = opened.size
    return f'width="{width}" height="{height}" '


def _card(name: str, text: str, title: str, base: str) -> str:
    """Return what other sites show of a page: its title, its first sentences, a picture where the address is known."""
    heading, about = _told(text, title)
    rows = {"og:type": "article", "og:site_name": title, "og:title": heading, "og:description": about}
    if base:
        rows |= {"og:url": f"{base}{name}", "og:image": f"{base}{CARD}"}
    tags = [f'<meta property="{key}" content="{escape(value)}">' for key, value in rows.items()]
    tags += [f'<meta name="description" content="{escape(about)}">', '<meta name="twitter:card" content="summary">']
    if base and 'rel="canonical"' not in text:
        tags.append(f'<link rel="canonical" href="{base}{name}">')
    return "\n".join(tags) + "\n"


def _plain(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]+>", "", html)).replace("\\(", "").replace("\\)", "").split())


def _sitemap(project: Project, base: str) -> str:
    """Return the pages for search engines; without html.baseurl in _config.yml their addresses are relative."""
    rows = "\n".join(f"<url><loc>{escape_xml(base)}{page}.html</loc></url>" for page in project.pages)
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n'
        f"{rows}\n</urlset>\n"
    )
