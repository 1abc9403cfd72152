"""Where an execution leaves its notebook, records and tables, and the stamp that says it was finished."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from descent.book import digest, source
from descent.book.project import BookError, Project


@dataclass(frozen=True)
class Stamp:
    """What a finished execution was made from and what it cost; written last."""

    inputs: digest.Inputs
    parameters: dict[str, source.Value]
    digest: str
    seconds: float
    peak_mib: int
    finished: str


@dataclass(frozen=True)
class Place:
    """The files of one execution."""

    notebook: Path
    results: Path
    stamp: Path

    def move_to(self, other: Place) -> None:
        """Put this finished execution in the place of another; the stamp of that goes first, its own comes last."""
        other.clear()
        for path, target in (self.results, other.results), (self.notebook, other.notebook), (self.stamp, other.stamp):
            if target.exists():
                raise BookError(f"{target} cannot be replaced: remove it, then run this again")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(path, target)

    def clear(self) -> None:
        """Remove everything, the stamp first, so that no half of an old success survives."""
        self.stamp.unlink(missing_ok=True)
        self.notebook.unlink(missing_ok=True)
        shutil.rmtree(self.results, ignore_errors=True)


def book_place(project: Project, chapter: str) -> Place:
    """Return where the book keeps a chapter's execution."""
    folder = project.executed
    return Place(folder / f"{chapter}.ipynb", project.results(chapter), folder / f"{chapter}.json")


def read_stamp(place: Place) -> Stamp | None:
    """Return the stamp of a finished execution, None when there is none that can be read."""
    try:
        return Stamp(**json.loads(place.stamp.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
