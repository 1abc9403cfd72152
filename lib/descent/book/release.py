"""The book as archives to deposit: the same tree gives the same bytes, whoever packs it, wherever and whenever."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

from descent.book import build, digest
from descent.book.lock import alone
from descent.book.project import BookError, Project, sound
from descent.book.stamps import book_place, read_stamp
from descent.results import read_yaml, write_atomic

NAME = "what-momentum-does"
CITATION = "CITATION.cff"
PUBLISHED = ("data/published", "data/claims", "data/ledger.schema.json", CITATION, "LICENSE")
"""What is deposited beside the site: measurements of record, claims, and what is needed to read and to cite them."""


def release(project: Project) -> list[Path]:
    """Write both archives and their checksums into dist/; raise BookError unless the site is there and up to date."""
    version, released = _edition(project)
    with alone(project):
        _require_site(project)
        site = {path.relative_to(project.html): path for path in _files(project.html)}
        kept = {path.relative_to(project.root): path for name in PUBLISHED for path in _required(project, name)}
        return [path for kind, files in (("site", site), ("published", kept))
                for path in _write(project.root / "dist", f"{NAME}-{version}-{kind}", files, released)]


def _write(folder: Path, name: str, files: Mapping[Path, Path], released: date) -> tuple[Path, Path]:
    """Write an archive and the file that `sha256sum -c` reads."""
    packed, archive = pack(name, files, released), folder / f"{name}.tar.gz"
    write_atomic(archive, packed)
    checksum = archive.with_name(f"{archive.name}.sha256")
    write_atomic(checksum, f"{hashlib.sha256(packed).hexdigest()}  {archive.name}\n")
    return archive, checksum


def pack(name: str, files: Mapping[Path, Path], released: date) -> bytes:
    """Return files, by their place in the folder `name`, as tar.gz: sorted, of one date, of nobody's."""
    moment = int(datetime.combine(released, time(), UTC).timestamp())
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for place in sorted(files, key=Path.as_posix):
            content = files[place].read_bytes()
            entry = tarfile.TarInfo(f"{name}/{place.as_posix()}")  # owner and group are 0 and without a name
            entry.size, entry.mtime, entry.mode = len(content), moment, 0o644
            archive.addfile(entry, io.BytesIO(content))
    return gzip.compress(plain.getvalue(), mtime=moment)


def _edition(project: Project) -> tuple[str, date]:
    """Return version and date of release as the citation file states them."""
    (path,) = _required(project, CITATION)
    stated: Any = sound(read_yaml, path)
    try:
        return str(stated["version"]), date.fromisoformat(str(stated["date-released"]))
    except (KeyError, TypeError, ValueError):
        raise BookError(f'{CITATION} must state a version and date-released: "YYYY-MM-DD"; write both') from None


def _require_site(project: Project) -> None:
    """Raise BookError where there is no site, or one that a build would make anew."""
    stamps = {chapter: read_stamp(book_place(project, chapter)) for chapter in project.notebooks}
    made = project.build / "site.json"
    if not (project.html / "index.html").is_file() or not made.is_file() or None in stamps.values():
        raise BookError(f"there is no finished site in {project.html.relative_to(project.root)} to release; "
                        "run `make book` first")
    moved = digest.moved(json.loads(made.read_text(encoding="utf-8")), build.site_inputs(project))
    for chapter, stamp in stamps.items():
        if stamp is not None:
            moved += [f"{chapter}: {name}"
                      for name in digest.moved(stamp.inputs, digest.inputs(project, chapter, stamp.parameters))]
    if moved:
        shown = ", ".join(moved[:3]) + (f" and {len(moved) - 3} more" if len(moved) > 3 else "")
        raise BookError(f"the site is older than its sources, which moved since: {shown}; run `make book` first")


def _required(project: Project, name: str) -> list[Path]:
    """Return a file, or all files of a folder; raise BookError when there is none."""
    path = project.root / name
    found = [path] if path.is_file() else _files(path)
    if not found:
        raise BookError(f"{name} is missing from the book, and belongs into its release; put it there")
    return found


def _files(folder: Path) -> list[Path]:
    """Return all files below a folder but hidden ones, which belong to tools."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in found if not any(p.startswith(".") for p in path.relative_to(folder).parts))
