"""Stage the pages with their executed notebooks and let Jupyter Book turn them into a site."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Container, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from descent.book.execute import lifeline
from descent.book.execute.chapter import Chapter, recorded
from descent.book.execute.worker import ANSI
from descent.book.pages import convention, hover
from descent.book.pages.changes import box, changes
from descent.book.pages.page_frame import Boxes, boxes, part_of
from descent.book.pages.quoting import QUOTE, quotable, requote
from descent.book.pages.sparing import Sparing
from descent.book.pages.thumbnail import thumbnails
from descent.book.site.publish import IMAGES
from descent.book.sources import parts, records, source
from descent.book.sources.project import BookError, Project
from descent.claims import Record

CLAIM_LINK = re.compile(r"\]\(claim:([\w-]+)\)")
RENDERING = 1800.0
"""Seconds Jupyter Book may take before it is stopped."""
MOST_TEXT = 100_000
"""Characters of text that one cell may leave: myst-nb takes time with the square of a line's length, here seconds."""
LINK = re.compile(r"(\]\(|\{doc\}`)([\w-]+)\.md(?=[)#`])")


def stage(project: Project, chapters: Sequence[Chapter], generated: Mapping[str, str]) -> Path:
    """Write what Jupyter Book reads: the chapters with their boxes, the other pages with what is generated for them.

    A link to a claim says on hovering what it claims; pages without code quote the ledger as chapters do. Every page
    ends with its changes, where these are known.
    """
    target = project.build / "source"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(project.chapters, target, ignore=shutil.ignore_patterns("*.md", "*.ipynb", ".*"))
    if (target / "_static" / "explorers").is_dir():
        from descent.figures import stills  # loads what draws, which a reused site need not wait for

        stills.write(target / "_static" / "explorers")
    found = recorded(chapters)
    quoted, nights = quotable(project, found), records.nights(project)
    hints = {record.claim.id: _hint(record, nights.get(record.claim.id)) for record in found}
    made = changes(project)
    ends = {page: box(made.get(page, ())) for page in project.pages}
    read_on = {page: chapter for chapter in chapters for page in parts.pages(chapter.notebook.cells, chapter.name)}
    linked = functools.partial(_linked, read_on, hints=hints)
    apart: dict[str, source.Notebook] = {}
    for chapter in chapters:
        notebook = _notebook(project, chapter, linked, quoted)
        requote(notebook, quoted)
        apart |= parts.apart(notebook, chapter.name)
    for page in (page for page in project.pages if page not in project.notebooks):
        text = thumbnails(page, project.texts[page], {chapter.name: chapter for chapter in chapters}, target)
        text = linked(_filled(page, text, generated, quoted))
        if page in apart:
            apart[page].cells = _below(read_on[page], text, apart[page].cells, quoted)
        else:
            (target / f"{page}.md").write_text(f"{text}\n{ends[page]}\n" if ends[page] else text, encoding="utf-8")
    for page, notebook in apart.items():
        notebook.cells += [source.text_cell(ends[page])] if ends[page] else []
        (target / f"{page}.ipynb").write_text(source.dump(notebook), encoding="utf-8")
    (target / "_toc.yml").write_text(yaml.safe_dump(_flat(project.toc), sort_keys=False), encoding="utf-8")
    shutil.copy(project.root / "_config.yml", target / "_config.yml")
    return target


def render(project: Project, staged: Path, output: Path) -> Path:
    """Run Jupyter Book into an empty folder, every warning an error; return the folder of the HTML in there."""
    options = ["--path-output", str(output), "--all", "-W", "-n", "--keep-going"]
    try:
        run = subprocess.run(
            lifeline.command("jupyter_book.cli.main", "build", str(staged), *options),
            stdin=lifeline.line(),
            capture_output=True,
            text=True,
            env=os.environ | {"PYTHONWARNINGS": "ignore"},
            check=False,
            timeout=RENDERING,
        )
    except subprocess.TimeoutExpired as late:
        raise BookError(
            f"Jupyter Book was stopped after {RENDERING:.0f} s, {_last_words(late)}; see what keeps it "
            "busy there, then run this again"
        ) from None
    log = ANSI.sub("", run.stdout + run.stderr)
    (project.build / "jupyter-book.log").write_text(log, encoding="utf-8")
    if run.returncode:
        raise BookError(f"Jupyter Book refuses the pages:\n{_complaints(log)}")
    return output / "_build" / "html"


def _hint(record: Record, night: Record | None) -> str:
    dark = f"; larger networks, by night: {night.verdict}" if night else ""
    return f"{record.claim.statement} — {record.verdict}{dark}".replace('"', "'")


def _notebook(
    project: Project, chapter: Chapter, linked: Callable[[str], str], quoted: Mapping[str, str]
) -> source.Notebook:
    merged = chapter.page()
    parts.require(project, chapter.name, merged.cells)
    _require_pictures(chapter.name, merged)
    _require_short(chapter.name, merged)
    terms = hover.glossary(project)
    for cells in parts.spread(merged.cells, chapter.name).values():
        _told(cells, terms, linked, quoted)
    _tell(merged, convention.convention(chapter.text))
    _surround(merged, boxes(chapter))
    return merged


def _told(
    cells: Sequence[Any], terms: Mapping[str, str], linked: Callable[[str], str], quoted: Mapping[str, str]
) -> None:
    """Explain the terms of one page where they come first, point its links, thin its intervals."""
    seen, sparing = set[str](), Sparing()
    for cell in cells:
        if cell.cell_type == "markdown":
            cell.source = sparing.text(linked(hover.explained(cell.source, terms, seen)), quoted)
        else:
            sparing.past()


def _below(chapter: Chapter, text: str, cells: Sequence[Any], quoted: Mapping[str, str]) -> list[Any]:
    """Return the cells of a page that shows a part of a chapter below its own text, with what they quote written out.

    What a notebook glues is known on one page alone, the chapter's.
    """
    for cell in (cell for cell in cells if cell.cell_type == "markdown"):
        cell.source = QUOTE.sub(lambda match: quoted[match[1]], cell.source)
    return [source.text_cell(_headed(text, part_of(chapter))), *cells]


def _tell(notebook: source.Notebook, name: str) -> None:
    """Let every caption that speaks of rates say in which convention they are."""
    for cell in notebook.cells:
        figure = cell.metadata.get("mystnb", {}).get("figure", {})
        if "caption" in figure:
            figure["caption"] = convention.told(figure["caption"], name)


def _surround(notebook: source.Notebook, box: Boxes) -> None:
    """Put the header below the title, each strip below its figure, the footer at the end."""
    for place in sorted(box.strips, reverse=True):
        notebook.cells.insert(place + 1, source.text_cell(box.strips[place]))
    title = next(cell for cell in notebook.cells if cell.cell_type == "markdown")
    title.source = _headed(title.source, box.header)
    notebook.cells.append(source.text_cell(box.footer))


def _headed(text: str, header: str) -> str:
    """Return a text with a header below its title."""
    return re.sub(r"^# .+$", lambda match: f"{match[0]}\n\n{header}", text, count=1, flags=re.M)


def _require_pictures(page: str, notebook: source.Notebook) -> None:
    """Raise BookError for a cell that has an alt text but shows no picture, unless its data are absent."""
    for cell in notebook.cells:
        described = "alt" in cell.metadata.get("mystnb", {}).get("image", {})
        excused = any(tag.startswith(source.NEEDS) for tag in cell.metadata.get("tags", []))
        shown = any(kind in output.get("data", {}) for output in cell.get("outputs", []) for kind in IMAGES)
        if described and not shown and not excused:
            raise BookError(f"{page}: a cell with an alt text shows no picture: {cell.source.splitlines()[-1]}")


def _require_short(page: str, notebook: source.Notebook) -> None:
    """Raise BookError for a cell that leaves more text than a page can hold."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate(cells, start=1):
        size = sum(map(_text_size, cell.outputs))
        if size > MOST_TEXT:
            raise BookError(
                f"{page}: code cell {number} leaves {size} characters of text, a page holds at most "
                f"{MOST_TEXT} of one cell; print less: {cell.source.splitlines()[-1]}"
            )


def _text_size(output: Any) -> int:
    texts = [output.get("text", ""), *(v for kind, v in output.get("data", {}).items() if kind not in IMAGES)]
    return sum(len(str(text)) for text in texts)


def _filled(page: str, text: str, generated: Mapping[str, str], quoted: Mapping[str, str]) -> str:
    """Return a page without code, its placeholders and quotes filled; raise BookError where one cannot be."""
    for name, content in generated.items():
        text = text.replace(f"<!-- {name} -->", content)
    left = re.search(r"^<!-- [\w-]+ -->$", text, re.M)
    if left:
        raise BookError(f"{page}.md: nothing is generated for {left[0]}; there are {', '.join(generated)}")
    unknown = [key for key in QUOTE.findall(text) if key not in quoted]
    if unknown:
        raise BookError(f"{page}.md: the ledger has nothing to quote for {', '.join(unknown)}; correct the key")
    return QUOTE.sub(lambda match: quoted[match[1]], Sparing().text(text, quoted))


def _linked(notebooks: Container[str], text: str, *, hints: Mapping[str, str]) -> str:
    """Point links at the staged file, .ipynb for a chapter; let a link to a claim say on hovering what it claims."""
    text = CLAIM_LINK.sub(lambda m: f'](claim:{m[1]} "{hints[m[1]]}")' if m[1] in hints else m[0], text)
    return LINK.sub(lambda m: f"{m[1]}{m[2]}.ipynb" if m[2] in notebooks else m[0], text)


def _flat(node: Any) -> Any:
    """Return a table of contents without folders: the site's root is the landing page."""
    if isinstance(node, list):
        return [_flat(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {key: Path(value).name if key in ("root", "file") else _flat(value) for key, value in node.items()}


def _last_words(late: subprocess.TimeoutExpired) -> str:
    lines = ANSI.sub("", (late.stdout or b"").decode(errors="replace")).split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f"after it had said {last!r}" if last else "and had said nothing"


def _complaints(log: str) -> str:
    """Return the lines of a log that say what is wrong, or its end when none does."""
    lines = log.splitlines()
    found = [line for line in lines if re.search(r"WARNING|ERROR|Error|error:", line)]
    return "\n".join(dict.fromkeys(found or lines[-30:]))
