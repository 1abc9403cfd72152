"""What a chapter depends on, piece by piece, so that a build can say why it re-executes."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from descent import dispatch, results
from descent.book.sources import source
from descent.book.sources.project import Project, begun, sound
from descent.results import imported_pieces, short_hash

Inputs = dict[str, str]
"""One short hash, or a version, per input; the key names the input as the reader shall see it."""

ABSENT = "absent"
SYMLINK = "symlink"


def inputs(project: Project, chapter: str, parameters: Mapping[str, source.Value]) -> Inputs:
    """Return everything a chapter's outputs depend on."""
    return inputs_of(project, chapter, source.read(project.source(chapter)), parameters)


def inputs_of(
    project: Project, chapter: str, notebook: source.Notebook, parameters: Mapping[str, source.Value]
) -> Inputs:
    """Return everything the outputs of a chapter's notebook depend on."""
    pieces = sound(imported_pieces, "\n".join(source.code(notebook)), project.library)
    return {
        "chapter source": short_hash(json.dumps(source.executable(notebook), sort_keys=True)),
        **{f"library {piece}": found for piece, found in pieces.items()},
        **{f"data file {file.relative_to(project.root)}": file_hash(file) for file in data_files(project, chapter)},
        **{f"data set {name}": data_set(project, name) for name in source.data_sets(notebook)},
        **environment(project),
        "parameters": json.dumps(dict(parameters), sort_keys=True),
    }


def environment(project: Project) -> Inputs:
    """Return the versions of what executes the chapters, and the kernels it is told to use."""
    lock, here = project.root / "requirements.lock", dispatch.child_environment()
    return {
        "environment (lock file)": file_hash(lock) if lock.is_file() else ABSENT,
        "environment (python)": platform.python_version(),
        "environment (torch)": installed("torch"),
        "environment (kernels)": json.dumps({name: here.get(name) for name in dispatch.AVX2}),
    }


def installed(package: str) -> str:
    """Return the version of an installed package, or "absent"."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ABSENT


def data_files(project: Project, chapter: str) -> Iterator[Path]:
    """Yield the claims of a chapter and the measurements of record it may draw."""
    yield from project.claim_files(chapter)
    files = (path for path in sorted((project.published / chapter).rglob("*")) if path.is_file())
    units = project.night(chapter) / "units"  # what tables and records are made from, which a chapter reads
    run = [begun(folder) for folder in (project.night(chapter), project.paper_scale(chapter))]
    yield from (path for path in files if not any(map(path.is_relative_to, (units, *run))))


def data_root(project: Project) -> Path:
    """Return where image sets are looked for, as the library does: $DESCENT_DATA, else data/cache."""
    return Path(os.environ.get("DESCENT_DATA") or project.root / "data" / "cache").resolve()


def data_set(project: Project, name: str) -> str:
    """Return "absent", or a hash of names and contents of the files of a data set outside the project."""
    folder = data_root(project) / name
    files = {path.relative_to(folder).as_posix(): file_hash(path) for path in folder.rglob("*") if path.is_file()}
    return total(files) if files else ABSENT


def library(project: Project, *, without: Iterable[str] = ()) -> str:
    """Return one hash of all modules of the library, but for those below the folders named."""
    left_out = set(without)
    files = {path.relative_to(project.library): path for path in sorted(project.library.rglob("*.py"))}
    kept = {place: path for place, path in files.items() if not left_out & set(place.parts)}
    return short_hash(json.dumps([(place.as_posix(), file_hash(path)) for place, path in kept.items()]))


def moved(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Return the names of the inputs that differ."""
    return [key for key in sorted(set(old) | set(new)) if old.get(key) != new.get(key)]


def total(pieces: Mapping[str, str]) -> str:
    """Return one short digest of all inputs."""
    return short_hash(json.dumps(dict(pieces), sort_keys=True))


def file_hash(path: Path) -> str:
    """Return a short hash of a file's bytes."""
    return results.file_hash(path)[:16]


def folder_hashes(folder: Path) -> Inputs:
    """Return a hash of everything below a folder, by its place there; a symlink is named as one, never followed."""
    entries = sorted(path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return {path.relative_to(folder).as_posix(): entry_hash(path) for path in entries}


def entry_hash(path: Path) -> str:
    """Return a short hash of a file's bytes, or what else is there in place of one."""
    if path.is_symlink():
        return SYMLINK
    try:
        return file_hash(path) if path.is_file() else "no file"
    except OSError as fault:  # gone meanwhile, or not ours to read
        return f"unreadable ({type(fault).__name__})"


def altered(recorded: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """Return the files that are no longer as they were recorded, and say of them what is wrong beyond their content."""

    def told(name: str) -> str:
        if name not in found:
            return f"{name} (missing)"
        if found[name] == SYMLINK:
            return f"{name} (a symlink)"
        return name if name in recorded else f"{name} (stray)"

    return [told(name) for name in moved(recorded, found)]


def some(names: Sequence[str]) -> str:
    """Return the first three of some names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
