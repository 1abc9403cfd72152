"""The book as archives to deposit: the same tree gives the same bytes, whoever packs it and whenever.

Wherever, too, as long as Python compresses with the same zlib.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

from descent.book.commands import build
from descent.book.execute import digest
from descent.book.execute.execute import reasons
from descent.book.execute.lock import alone
from descent.book.execute.stamps import SiteStamp, Stamp, book_place, read_site_stamp, read_stamp, site_files
from descent.book.site import deposit
from descent.book.sources import edition, records, source
from descent.book.sources.project import BookError, Project, sound
from descent.results import read_yaml, write_atomic

NAME = "what-momentum-does"
CITATION = "CITATION.cff"
PUBLISHED = ("data/published", "data/claims", "data/ledger.schema.json", CITATION, "LICENSE")
"""What is deposited beside the site: measurements of record, claims, and what is needed to read and to cite them."""

Files = Mapping[Path, Path | bytes]
"""What is packed by its place in the archive: a file, or its content."""


def release(project: Project) -> list[Path]:
    """Write both archives and their checksums into dist/; raise BookError unless the site is there and up to date."""
    version, released = _edition(project)
    with alone(project):
        site = {Path(name): project.html / name for name in _require_site(project).files}  # nothing else lies there
        kept = {path.relative_to(project.root): path for name in PUBLISHED for path in _required(project, name)}
        _require_no_symlinks(project, [*site.values(), *kept.values()])
        contents = {place: path.read_bytes() for place, path in kept.items()}
        packs: dict[str, Files] = {"site": site, "published": contents | _described(project, contents)}
        return [
            path
            for kind, files in packs.items()
            for path in _write(project.root / "dist", f"{NAME}-{version}-{kind}", files, released)
        ]


def _described(project: Project, files: Mapping[Path, bytes]) -> dict[Path, bytes]:
    """Return what tells programs of the files that are deposited: tables, claims in FORRT's terms, and all of it."""
    this, found = edition.read(project), records.load(project)
    made = {
        deposit.PACKAGE: deposit.package(this, files),
        deposit.FORRT: deposit.forrt(this, found, records.papers(project)),
    }
    return made | {deposit.CRATE: deposit.crate(this, {**files, **made})}


def _write(folder: Path, name: str, files: Files, released: date) -> tuple[Path, Path]:
    """Write an archive and the file that `sha256sum -c` reads."""
    packed, archive = pack(name, files, released), folder / f"{name}.tar.gz"
    write_atomic(archive, packed)
    checksum = archive.with_name(f"{archive.name}.sha256")
    write_atomic(checksum, f"{hashlib.sha256(packed).hexdigest()}  {archive.name}\n")
    return archive, checksum


def pack(name: str, files: Files, released: date) -> bytes:
    """Return files or contents, by their place in the folder `name`, as tar.gz: sorted, of one date, of nobody's."""
    moment = int(datetime.combine(released, time(), UTC).timestamp())
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for place in sorted(files, key=Path.as_posix):
            given = files[place]
            content = given.read_bytes() if isinstance(given, Path) else given
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


def _require_site(project: Project) -> SiteStamp:
    """Return the stamp of the site; raise BookError where there is none, or one that a plain build would make anew."""
    folder, made = project.html.relative_to(project.root), read_site_stamp(project)
    stamps = {name: stamp for name in project.notebooks if (stamp := read_stamp(book_place(project, name)))}
    if made is None or len(stamps) < len(project.notebooks) or not project.html.is_dir():
        raise BookError(f"there is no finished site in {folder} to release; run `make book` first")
    _require_defaults(project, stamps)
    moved = digest.moved(made.inputs, build.site_inputs(project))
    moved += [f"{name}: {why}" for name, stamp in stamps.items() for why in reasons(project, name, stamp.parameters)]
    if moved:
        raise BookError(
            f"the site is older than its sources, which moved since: {digest.some(moved)}; run `make book` first"
        )
    if lost := digest.altered(made.files, site_files(project)):
        raise BookError(f"the site in {folder} is not as it was built: {digest.some(lost)}; run `make book` first")
    return made


def _require_defaults(project: Project, stamps: Mapping[str, Stamp]) -> None:
    """Raise BookError for chapters that were executed with parameters of somebody's own: their numbers are others."""
    found = []
    for chapter, stamp in stamps.items():
        known = source.parameters(project.source(chapter))
        found += [
            f"{chapter} with {name} = {value!r} instead of {known.get(name)!r}"
            for name, value in stamp.parameters.items()
            if known.get(name) != value
        ]
    if found:
        raise BookError(
            "a release carries the book's own numbers, but chapters were executed with other parameters: "
            f"{digest.some(found)}; run `make book`, without -p and --scale, first"
        )


def _required(project: Project, name: str) -> list[Path]:
    """Return a file, or all files of a folder; raise BookError when there is none."""
    path = project.root / name
    found = [path] if path.is_file() or path.is_symlink() else _files(path)
    if not found:
        raise BookError(f"{name} is missing from the book, and belongs into its release; put it there")
    return found


def _require_no_symlinks(project: Project, paths: Iterable[Path]) -> None:
    """Raise BookError for symlinks: what they lead to may be anybody's."""
    if links := [str(path.relative_to(project.root)) for path in paths if path.is_symlink()]:
        raise BookError(
            f"a release follows no symlinks, and these are some: {digest.some(links)}; "
            "put the files themselves there, or remove them"
        )


def _files(folder: Path) -> list[Path]:
    """Return all files and symlinks below a folder but hidden ones, which belong to tools."""
    found = (path for path in folder.rglob("*") if path.is_file() or path.is_symlink())
    return sorted(path for path in found if not any(p.startswith(".") for p in path.relative_to(folder).parts))
