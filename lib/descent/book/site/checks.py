"""What must be true of a finished site, and of the prose before it; every fault is one line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from descent.book.pages.quoting import QUOTE
from descent.book.pages.sparing import INTERVAL
from descent.book.sources import edition, records
from descent.book.sources.project import BookError, Project, sound
from descent.claims.schema import ledger_schema
from descent.results import read_text

SCHEMA = Path("data", "ledger.schema.json")
"""Where a book keeps the schema of its ledger."""
PARAGRAPHS = ("p", "li")
GENERATED = {"genindex.html", "search.html"}
CLAIM = re.compile(r"\b(?:[A-Z][A-Z0-9]*-[A-Z]|S-)\d+(?:\.\w+)?")
_WORDS = r"\b(?:is|was|are|gives?|gave|equals?|of|about|shows?|found)\b"
_AFTER = re.compile(rf"§(?:[\s:(\[=≈~<>–—*|-]|{_WORDS})*[-+−]?\d")
_BEFORE = re.compile(r"\d[\d.,]*\s*[%×]?[\s(\[:–—*|-]*§")
_CITED = re.compile(r"\{cite(?::\w+)?\}`([^`]+)`")
_ENTRY = re.compile(r"^@(?!comment|string|preamble)\w+\{\s*([^\s,]+)\s*,", re.M | re.I)


@dataclass
class Page(HTMLParser):
    """What the checks need from one HTML page."""

    ids: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)
    images: list[dict[str, str | None]] = field(default_factory=list)
    headings: list[int] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    paragraphs: list[str] = field(default_factory=list)
    _open: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note ids, links, images, headings and what the page loads."""
        values = dict(attrs)
        if tag in PARAGRAPHS:
            self._open.append("")
        self.ids |= {value for key in ("id", "name") if (value := values.get(key))}
        if tag == "a" and values.get("href"):
            self.links.append(values["href"] or "")
        if tag == "img":
            self.images.append(values)
        if re.fullmatch(r"h[1-6]", tag) and "jb-print" not in str(values):
            self.headings.append(int(tag[1]))
        address = values.get("src") or (values.get("href") if tag == "link" else None)
        if address and values.get("rel") not in ("index", "search", "next", "prev", "canonical"):
            self.loaded.append(address)

    def handle_data(self, data: str) -> None:
        """Note the text."""
        self.text.append(data)
        if self._open:
            self._open[-1] += data

    def handle_endtag(self, tag: str) -> None:
        """Note a paragraph that ends."""
        if tag in PARAGRAPHS and self._open:
            self.paragraphs.append(self._open.pop())


def parse(path: Path) -> Page:
    """Return what a page holds."""
    page = Page()
    text = path.read_text(encoding="utf-8")
    # The theme repeats the title and the contents for the printer; that copy is no part of the outline.
    page.feed(re.sub(r'<div id="jb-print-docs-body".*?(?=<div id="searchbox">|<article)', "", text, flags=re.S))
    return page


def site_faults(project: Project, html: Path, claims: Iterable[str]) -> list[str]:
    """Return everything that is wrong with a built site, in which every one of `claims` must be found."""
    html = html.resolve()  # links are followed to where they end, and _build may be a symlink
    pages = {path: parse(path) for path in sorted(html.glob("*.html"))}
    faults = [
        f"page missing from the site: {name}.html" for name in project.pages if html / f"{name}.html" not in pages
    ]
    faults += [f"a notebook failed, see {path.name}" for path in sorted((html / "reports").glob("*"))]
    for path, page in pages.items():
        per_page = (
            (_alt_faults, _host_faults)
            if path.name in GENERATED
            else (_alt_faults, _host_faults, _heading_faults, _figure_faults)
        )
        faults += [f"{path.name}: {fault}" for check in per_page for fault in check(page)]
        faults += [f"{path.name}: {fault}" for fault in _link_faults(html, path, page, pages)]
    for name in (name for name, text in project.texts.items() if QUOTE.search(text)):
        faults += [f"{name}.html: {fault}" for fault in _crowd_faults(pages.get(html / f"{name}.html", Page()))]
    return [*faults, *_ledger_faults(html, claims)]


def source_faults(project: Project) -> list[str]:
    """Return what is wrong with settings, claims and the schema of the ledger, before anything is executed."""
    faults = []
    for look in (
        lambda: project.config,
        lambda: records.papers(project),
        lambda: records.registry(project),
        lambda: records.bundles(project),
        lambda: edition.read(project),
        lambda: _schema(project),
    ):
        try:
            look()
        except BookError as fault:
            faults.append(str(fault))
    return faults


def prose_faults(project: Project) -> list[str]:
    """Return the places where a number is typed next to a claim id instead of coming from the ledger."""
    faults = []
    for name, text in project.texts.items():
        for number, (line, prose) in enumerate(zip(text.splitlines(), _prose(text), strict=True), start=1):
            masked = CLAIM.sub("§", prose)
            if _AFTER.search(masked) or _BEFORE.search(masked):
                why = "a number typed next to a claim; quote it from the ledger"
                faults.append(f"{name}.md:{number}: {why}: {line.strip()}")
    return faults


def citation_faults(project: Project) -> list[str]:
    """Return entries of the bibliographies that no page cites, and citations of what is no entry."""
    entries = {key: file for file in _bibliographies(project) for key in _ENTRY.findall(sound(read_text, file))}
    cited: set[str] = set()
    faults: list[str] = []
    for name, text in project.texts.items():
        for number, line in enumerate(text.splitlines(), start=1):
            keys = {key.strip() for found in _CITED.findall(line) for key in found.split(",")}
            cited |= keys
            faults += [
                f"{name}.md:{number}: cites {key}, which is no entry of the bibliography; add it or correct the key"
                for key in sorted(keys - entries.keys())
            ]
    why = "cite it where its result is used, or drop it"
    idle = [(key, file.relative_to(project.root)) for key, file in entries.items() if key not in cited]
    return faults + [f"{place}: no page cites {key}; {why}" for key, place in idle]


def require(faults: Iterable[str]) -> None:
    """Raise BookError with all faults, if any."""
    if found := list(faults):
        raise BookError("\n".join(found))


def _bibliographies(project: Project) -> list[Path]:
    """Return the files that the settings name, where they are; what is missing Jupyter Book says."""
    named = (project.chapters / name for name in project.config.get("bibtex_bibfiles") or ())
    return [path for path in named if path.is_file()]


def _schema(project: Project) -> None:
    """Raise BookError where the schema is not the one that this library's records follow."""
    if sound(read_text, project.root / SCHEMA) != ledger_schema():
        raise BookError(f"{SCHEMA} was changed, but records are as they were; undo it: python -m descent.claims.schema")


def _figure_faults(page: Page) -> Iterator[str]:
    if any("<Figure size" in text for text in page.text):
        yield "a figure is shown as text, not as a picture; call use_style() of descent.book.execute.notebook first"


def _crowd_faults(page: Page) -> Iterator[str]:
    """Find paragraphs with more than one interval, which nobody reads; typed ones and quoted ones count alike."""
    for text in page.paragraphs:
        if len(INTERVAL.findall(text)) > 1:
            yield f"more than one interval in a paragraph, quote all but one: {' '.join(text.split())[:100]}"


def _alt_faults(page: Page) -> Iterator[str]:
    for image in page.images:
        alt, source = (image.get("alt") or "").strip(), image.get("src") or ""
        if image.get("role") == "presentation":
            continue
        if not alt or Path(unquote(source)).name in alt:
            yield f"image without alt text: {source[:60]}"


def _heading_faults(page: Page) -> Iterator[str]:
    if page.headings.count(1) != 1:
        yield f"{page.headings.count(1)} headings of level 1, one is needed"
    for above, below in zip(page.headings, page.headings[1:], strict=False):
        if below > above + 1:
            yield f"a heading of level {below} follows one of level {above}"


def _host_faults(page: Page) -> Iterator[str]:
    for address in page.loaded:
        if address.startswith(("http:", "https:", "//")):
            yield f"loads something from another host: {address}"


def _link_faults(html: Path, path: Path, page: Page, pages: dict[Path, Page]) -> Iterator[str]:
    for link in page.links:
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        target = path if not parts.path else (path.parent / unquote(parts.path)).resolve()
        if not target.is_relative_to(html) or not target.exists():
            yield f"link to nothing: {link}"
        elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids:
            yield f"link to a missing anchor: {link}"


def _ledger_faults(html: Path, claims: Iterable[str]) -> Iterator[str]:
    try:
        recorded = {
            record["id"] for record in json.loads((html / "ledger.json").read_text(encoding="utf-8"))["records"]
        }
    except (OSError, ValueError, KeyError, TypeError):
        yield "ledger.json is missing or is not a ledger"
        return
    anchors = parse(html / "ledger.html").ids if (html / "ledger.html").is_file() else set()
    for claim in claims:
        if claim not in recorded:
            yield f"claim {claim} has no record in ledger.json"
        if claim not in anchors:
            yield f"claim {claim} has no anchor on the ledger page"


def _prose(text: str) -> list[str]:
    """Return the lines of a page with header, code, formulas, roles and link targets blanked out."""

    def blank(match: re.Match[str]) -> str:
        return re.sub(r"[^\n]", " ", match[0])

    without: list[tuple[str, int]] = [
        (r"\A---\n.*?\n---\n", re.S),
        (r"^(`{3,}|~{3,})(?:\{code-cell\}|[a-z]*$).*?^\1\s*$", re.S | re.M),
        (r"\$\$.*?\$\$", re.S),
        (r"\$[^$\n]+\$", 0),
        (r"\{[\w:-]+\}`[^`]*`", 0),
        (r"`[^`\n]*`", 0),
        (r"\]\([^)\n]*\)", 0),
    ]
    for pattern, flags in without:
        text = re.sub(pattern, blank, text, flags=flags)
    return text.splitlines()
