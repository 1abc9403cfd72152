"""Where things lie in a book project: sources, library, claims, and everything that is built."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, TypeVar

from descent.claims.margins import FILE as MARGINS
from descent.claims.paper import is_claims_file
from descent.results import NIGHT, parse_yaml, read_text, read_yaml

T = TypeVar("T")


class BookError(Exception):
    """A fault in the book or in how it was called; its text is meant for the person at the terminal."""


class Unfinished(BookError):
    """Something was stopped from outside before its end, through no fault of the book."""


class SourceError(BookError):
    """A file of the book is not what its place promises: the book is at fault, however it was called."""


@dataclass(frozen=True)
class Project:
    """A book: a folder with `_toc.yml`, `_config.yml`, `chapters/`, `lib/` and `data/claims/`."""

    root: Path

    @property
    def chapters(self) -> Path:
        """Folder of the sources."""
        return self.root / "chapters"

    @property
    def library(self) -> Path:
        """Folder that holds the importable packages."""
        return self.root / "lib"

    @property
    def claims(self) -> Path:
        """Folder of the claims, one YAML file per paper."""
        return self.root / "data" / "claims"

    @property
    def registry(self) -> Path:
        """File of the registered rules, which `descent register` alone writes; it need not exist."""
        return self.claims / "registry.json"

    @property
    def build(self) -> Path:
        """Folder of everything that is built."""
        return self.root / "_build"

    @property
    def executed(self) -> Path:
        """Folder of executed notebooks and their stamps."""
        return self.build / "executed"

    @property
    def html(self) -> Path:
        """Folder of the finished site."""
        return self.build / "html"

    @property
    def published(self) -> Path:
        """Folder of the measurements of record."""
        return self.root / "data" / "published"

    @property
    def reruns(self) -> Path:
        """Folder of the runs that others sent, one bundle each; it need not exist."""
        return self.root / "data" / "reruns"

    @property
    def references(self) -> Path:
        """Folder of the executed notebooks that the tests compare against."""
        return self.root / "tests" / "notebooks"

    def results(self, chapter: str) -> Path:
        """Return the folder of a chapter's records and tables."""
        return self.build / "results" / chapter

    def paper_scale(self, chapter: str) -> Path:
        """Return the folder of what a chapter's experiments gave at paper scale; it need not exist."""
        return self.published / chapter / "gpu"

    def night(self, chapter: str) -> Path:
        """Return the folder of what a chapter's experiments gave in nights of two cores; it need not exist."""
        return self.published / chapter / NIGHT

    def agreement(self, chapter: str) -> Path:
        """Return the file of what other seeds said of a chapter's tests."""
        return self.published / "agreement" / f"{chapter}.json"

    def asks_for(self, part: str) -> bool:
        """Tell whether a page has the placeholder of a generated part, <!-- part -->."""
        return any(f"<!-- {part} -->" in text for text in self.texts.values())

    def source(self, page: str) -> Path:
        """Return a page's source; raise SourceError when there is none."""
        path = self.chapters / f"{page}.md"
        if not path.is_file():
            raise SourceError(f"_toc.yml names {page!r}, but {path.relative_to(self.root)} does not exist")
        return path

    @cached_property
    def toc(self) -> dict[str, Any]:
        """The table of contents as Jupyter Book reads it."""
        return _fields(self.root / "_toc.yml", "root")

    @cached_property
    def config(self) -> dict[str, Any]:
        """The settings of Jupyter Book, in which a title must stand."""
        return _fields(self.root / "_config.yml", "title")

    @cached_property
    def pages(self) -> tuple[str, ...]:
        """All pages in reading order, without folder and suffix."""
        return tuple(Path(name).name for name in _files(self.toc))

    @cached_property
    def texts(self) -> dict[str, str]:
        """The text of every page, read once."""
        return {page: sound(read_text, self.source(page)) for page in self.pages}

    @cached_property
    def titles(self) -> dict[str, str]:
        """The title of every page that has one."""
        return {page: title for page, text in self.texts.items() if (title := title_of(text))}

    @cached_property
    def notebooks(self) -> tuple[str, ...]:
        """The pages that hold code, in reading order."""
        return tuple(page for page, text in self.texts.items() if is_notebook(text))

    def notebook(self, chapter: str) -> str:
        """Return `chapter` when it is one of the notebooks; raise BookError naming the valid ones."""
        if chapter not in self.notebooks:
            raise BookError(f"unknown chapter {chapter!r}: the chapters are {', '.join(self.notebooks) or 'none'}")
        return chapter

    def claim_files(self, chapter: str) -> tuple[Path, ...]:
        """Return the claim files that name `chapter` as theirs, and the margins that all rules share."""
        files = [path for path in sorted(self.claims.glob("*.yaml")) if is_claims_file(path) or path.name == MARGINS]
        return tuple(path for path in files if path.name == MARGINS or _chapter(path) == chapter)


def title_of(text: str) -> str | None:
    """Return the title of a page, None where it has none."""
    found = re.search(r"^# (.+)$", text, re.M)
    return found[1] if found else None


def is_notebook(text: str) -> bool:
    """Tell whether a Markdown page holds code cells."""
    return re.search(r"^`{3,}\{code-cell\}", text, re.M) is not None


def sound(read: Callable[..., T], *arguments: Any) -> T:
    """Return what a function reads from a file of the book; what it refuses is a SourceError."""
    try:
        return read(*arguments)
    except OSError as fault:
        raise SourceError(f"{fault.filename} cannot be read ({fault.strerror}); put a readable file there") from None
    except ValueError as fault:
        raise SourceError(str(fault)) from None


def begun(out: Path) -> Path:
    """Return where a campaign or a night keeps what it has begun, inside the folder of what it has finished."""
    return out / "work"


def find_project(start: Path) -> Project:
    """Return the project that contains `start`, searching upwards; raise BookError when there is none."""
    for folder in (start, *start.parents):
        if (folder / "_toc.yml").is_file() and (folder / "chapters").is_dir():
            return Project(folder)
    raise BookError(f"no book here: neither {start} nor a folder above it holds _toc.yml and chapters/")


def _chapter(path: Path) -> object:
    """Return the chapter that a claims file names; raise SourceError for one that cannot be read."""
    return sound(_claimed, sound(read_text, path), path.name)


@lru_cache(maxsize=64)
def _claimed(text: str, name: str) -> object:
    """Return the value of `chapter` in a text, which is parsed once: every chapter asks every file."""
    content = parse_yaml(text, name)
    return content.get("chapter") if isinstance(content, dict) else None


def _fields(path: Path, needed: str) -> dict[str, Any]:
    """Return the fields of a YAML file, one of which must be there."""
    found = sound(read_yaml, path)
    if not isinstance(found, dict) or needed not in found:
        raise SourceError(f"{path.name}: the field {needed} is missing; add a line `{needed}: …`")
    return found


def _files(node: Any) -> Iterator[str]:
    """Yield every file of a table of contents in reading order."""
    if isinstance(node, list):
        for item in node:
            yield from _files(item)
    elif isinstance(node, dict):
        for key in ("root", "file"):
            if key in node:
                if not isinstance(node[key], str):
                    raise SourceError(f"_toc.yml: {key}: {node[key]!r} is no page; write one as chapters/NAME")
                yield node[key]
        for key in ("parts", "chapters", "sections", "subtrees", "entries"):
            yield from _files(node.get(key))
