"""One build at a time: a lock that goes with the process, however it ends."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from descent.book.project import BookError, Project

try:
    import fcntl
except ImportError:  # no such locks on this system: two builds at once are then the caller's care
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def alone(project: Project) -> Iterator[None]:
    """Hold the lock of a book's build folder; raise BookError naming the process that holds it."""
    project.build.mkdir(parents=True, exist_ok=True)
    with (project.build / ".lock").open("a+", encoding="utf-8") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.seek(0)
                holder = file.read().strip() or "unknown"
                raise BookError(f"another build works in {project.build.name}/ (process {holder}): "
                                "wait until it has ended, or stop it, then run this again") from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
