"""One at a time, builds and campaigns, and what several share: locks that go with the process, however it ends."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from descent.book.sources.project import BookError, Project

try:
    import fcntl
except ImportError:  # no such locks on this system: two at once are then the caller's care
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def alone(project: Project) -> Iterator[None]:
    """Hold the lock of a book's build folder; raise BookError naming the process that holds it."""
    with held(project.build / ".lock", f"build works in {project.build.name}/"):
        yield


@contextlib.contextmanager
def held(path: Path, work: str) -> Iterator[None]:
    """Hold a lock; raise BookError naming the process that does the `work` ("build works in _build/") already."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    except OSError as fault:
        raise BookError(
            f"{path.parent} cannot be written ({fault.strerror}): "
            "name another folder, or make it one that you may write to"
        ) from None
    with file:
        if not taken(file):
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise BookError(
                f"another {work} (process {holder}): wait until it has ended, or stop it, then run this again"
            )
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def taken(file: IO[str]) -> bool:
    """Take the lock of an open file for this process alone; tell whether that went, as it does where there are none."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as fault:
        return fault.errno not in (errno.EWOULDBLOCK, errno.EACCES)  # some file systems know no locks
    return True


def share(file: IO[str]) -> None:
    """Hold the lock of an open file together with others, so that nobody can take it alone."""
    if fcntl is not None:
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_SH)
