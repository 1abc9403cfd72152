"""Stage the pages with their executed notebooks and let Jupyter Book turn them into a site."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from descent.book.execute import lifeline
from descent.book.execute.stamps import book_place
from descent.book.execute.worker import ANSI
from descent.book.pages import hover
from descent.book.pages.page_frame import Boxes
from descent.book.site.publish import IMAGES
from descent.book.sources import source
from descent.book.sources.project import BookError, Project

QUOTE = re.compile(r"\{glue:text\}`([^`]+)`")
CLAIM_LINK = re.compile(r"\]\(claim:([\w-]+)\)")
RENDERING = 1800.0
"""Seconds Jupyter Book may take before it is stopped."""
MOST_TEXT = 100_000
"""Characters of text that one cell may leave: myst-nb takes time with the square of a line's length, here seconds."""
LINK = re.compile(r"(\]\(|\{doc\}`)([\w-]+)\.md(?=[)#`])")


def stage(
    project: Project,
    generated: Mapping[str, str],
    quotes: Mapping[str, str],
    boxes: Mapping[str, Boxes],
    hints: Mapping[str, str],
) -> Path:
    """Write what Jupyter Book reads.

    generated replaces placeholders, quotes what pages without code quote from the ledger, as chapters do; boxes
    surround the notebooks; hints are shown where a link to a claim is hovered.
    """
    target = project.build / "source"
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(project.chapters, target, ignore=shutil.ignore_patterns("*.md", "*.ipynb", ".*"))
    if (target / "_static" / "explorers").is_dir():
        from descent.figures import stills  # loads what draws, which a reused site need not wait for

        stills.write(target / "_static" / "explorers")
    for page in project.pages:
        text = project.source(page)
        if page in project.notebooks:
            notebook = _notebook(project, page, boxes[page], hints)
            (target / f"{page}.ipynb").write_text(source.dump(notebook), encoding="utf-8")
        else:
            (target / text.name).write_text(_filled(project, text, generated, quotes, hints), encoding="utf-8")
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


def _notebook(project: Project, page: str, box: Boxes, hints: Mapping[str, str]) -> source.Notebook:
    executed = source.load(book_place(project, page).notebook)
    merged = source.with_outputs(source.read(project.source(page)), executed)
    _require_pictures(page, merged)
    _require_short(page, merged)
    terms, seen = hover.glossary(project), set[str]()
    for cell in merged.cells:
        if cell.cell_type == "markdown":
            cell.source = _linked(project, hover.explained(cell.source, terms, seen), hints)
    _surround(merged, box)
    return merged


def _surround(notebook: source.Notebook, box: Boxes) -> None:
    """Put the header below the title, each strip below its figure, the footer at the end."""
    for place in sorted(box.strips, reverse=True):
        notebook.cells.insert(place + 1, source.text_cell(box.strips[place]))
    title = next(cell for cell in notebook.cells if cell.cell_type == "markdown")
    title.source = re.sub(r"^# .+$", lambda match: f"{match[0]}\n\n{box.header}", title.source, count=1, flags=re.M)
    notebook.cells.append(source.text_cell(box.footer))


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


def _filled(
    project: Project, path: Path, generated: Mapping[str, str], quotes: Mapping[str, str], hints: Mapping[str, str]
) -> str:
    text = path.read_text(encoding="utf-8")
    for name, content in generated.items():
        text = text.replace(f"<!-- {name} -->", content)
    left = re.search(r"^<!-- [\w-]+ -->$", text, re.M)
    if left:
        raise BookError(f"{path.name}: nothing is generated for {left[0]}; there are {', '.join(generated)}")
    unknown = [key for key in QUOTE.findall(text) if key not in quotes]
    if unknown:
        raise BookError(f"{path.name}: the ledger has nothing to quote for {', '.join(unknown)}; correct the key")
    return _linked(project, QUOTE.sub(lambda match: quotes[match[1]], text), hints)


def _linked(project: Project, text: str, hints: Mapping[str, str]) -> str:
    """Point links at the staged file, .ipynb for a chapter; let a link to a claim say on hovering what it claims."""
    text = CLAIM_LINK.sub(lambda m: f'](claim:{m[1]} "{hints[m[1]]}")' if m[1] in hints else m[0], text)
    return LINK.sub(lambda m: f"{m[1]}{m[2]}.ipynb" if m[2] in project.notebooks else m[0], text)


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
