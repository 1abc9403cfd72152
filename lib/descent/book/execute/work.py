"""Folders for what is not finished yet, _build/work/: of its own for each piece of work, swept once all is dead."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from descent.book.execute.lock import share, taken
from descent.book.sources.project import Project


@contextlib.contextmanager
def own_folder(project: Project, name: str) -> Iterator[Path]:
    """Yield a folder under a name that nobody had before, so that an orphan never writes into it; remove it after."""
    with (
        _at_work(project) as root,
        tempfile.TemporaryDirectory(prefix=f"{name}-", dir=root, ignore_cleanup_errors=True) as folder,
    ):
        yield Path(folder)


def sweep(project: Project) -> None:
    """Remove what killed commands have left, unless somebody works there now."""
    with _at_work(project):
        pass


@contextlib.contextmanager
def _at_work(project: Project) -> Iterator[Path]:
    """Share the lock of the folder, which goes with the process; whoever finds it free sweeps first."""
    root = project.build.resolve() / "work"
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("a", encoding="utf-8") as file:
        if taken(file):  # otherwise somebody works there: what is dead can wait
            _remove_folders(root)
        share(file)
        yield root


def _remove_folders(root: Path) -> None:
    for path in root.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
