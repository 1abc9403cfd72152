"""Children that end with the process that started them, however that ended: it alone holds the other end of a pipe."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor

from descent import dispatch


@functools.cache
def line() -> int:
    """Return what a child is given as stdin: it can be read, in vain, until this process has ended."""
    reading, _ = os.pipe()  # no child inherits the writing end, and the system closes it with this process
    return reading


def command(module: str, *arguments: str) -> list[str]:
    """Return the command that calls main() of a module in a child with the lifeline as stdin."""
    code = (
        f"import sys; from {__name__} import end_with_parent; end_with_parent(); "
        f"from {module} import main; sys.exit(main())"
    )
    return [sys.executable, "-c", code, *arguments]


def end_with_parent(last: Callable[[], None] | None = None) -> None:
    """Let this child end as soon as its parent has, and call `last` before that."""
    threading.Thread(target=_wait_and_end, args=(last,), daemon=True).start()


def _wait_and_end(last: Callable[[], None] | None) -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    else:
        os.read(0, 1)
    try:
        if last is not None:
            last()
    finally:
        os._exit(1)


@contextlib.contextmanager
def processes(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool of processes of one thread each, which end with this process, and at once when it is interrupted."""
    os.environ.update(dispatch.child_environment())
    before = set(multiprocessing.active_children())
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), initializer=_begin) as pool:
        try:
            yield pool
        except KeyboardInterrupt:
            for child in set(multiprocessing.active_children()) - before:
                child.kill()
            raise


def _begin() -> None:
    """Leave Ctrl-C, which a terminal sends to all processes, to the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
