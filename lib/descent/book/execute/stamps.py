"""Where an execution leaves its notebook, records and tables, and the stamp that says it was finished."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from descent.book.execute import digest
from descent.book.sources import source
from descent.book.sources.project import BookError, Project
from descent.results import write_atomic

T = TypeVar("T")
MAPPINGS = ("inputs", "parameters", "outputs", "files")
"""What a stamp must hold as names with values; one that holds anything else there is damaged."""


@dataclass(frozen=True)
class Stamp:
    """What a finished execution was made from and what it cost; written last."""

    inputs: digest.Inputs
    parameters: dict[str, source.Value]
    digest: str
    seconds: float
    peak_mib: int
    finished: str
    outputs: dict[str, str]


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


def table_files(results: Path) -> list[str]:
    """Return the names of the tables and records a chapter has left."""
    return sorted(path.name for path in results.iterdir() if path.suffix in (".csv", ".json"))


def outputs(place: Place) -> digest.Inputs:
    """Return a hash of the notebook and of every result that lies at a place now."""
    results = {f"results/{name}": found for name, found in digest.folder_hashes(place.results).items()}
    return {place.notebook.name: digest.entry_hash(place.notebook), **results}


def read_stamp(place: Place) -> Stamp | None:
    """Return the stamp of a finished execution, None when there is none that can be read."""
    return _read(Stamp, place.stamp)


@dataclass(frozen=True)
class SiteStamp:
    """What a finished site was made from, and a hash of every file it consists of; written last."""

    inputs: digest.Inputs
    files: digest.Inputs


def site_files(project: Project) -> digest.Inputs:
    """Return a hash of every file of the site as it lies there now, but for hidden ones, which belong to tools."""
    found = digest.folder_hashes(project.html)
    return {name: value for name, value in found.items() if not any(part[0] == "." for part in name.split("/"))}


def write_site_stamp(project: Project, inputs: digest.Inputs) -> None:
    """Record that the site is finished, made from `inputs`."""
    write_atomic(site_stamp(project), json.dumps(asdict(SiteStamp(inputs, site_files(project))), indent=1))


def read_site_stamp(project: Project) -> SiteStamp | None:
    """Return the stamp of a finished site, None when there is none that can be read."""
    return _read(SiteStamp, site_stamp(project))


def site_stamp(project: Project) -> Path:
    """Return where the stamp of the site lies."""
    return project.build / "site.json"


def _read(kind: type[T], path: Path) -> T | None:
    """Return a stamp; None for one that is absent, damaged, or of a version that recorded less."""
    try:
        stamp = kind(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        return None
    whole = all(isinstance(value, dict) for name, value in vars(stamp).items() if name in MAPPINGS)
    return stamp if whole else None
