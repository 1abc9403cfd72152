"""Execute one notebook in this process's kernel: `python -m descent.book.execute.worker JOB.json`.

Progress goes to stdout, one JSON object per cell and one at the end; a traceback goes to stderr. As soon as stdin ends,
so do the worker and its kernel.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from descent.book.execute.lifeline import end_with_parent

ANSI = re.compile(r"\x1b\[[0-9;]*m")
NOT_STARTED = "Kernel died before replying"
"""What jupyter_client says, as a plain RuntimeError, of a kernel that never came to its first cell."""


def main(job_file: str) -> int:
    """Execute the job and return the exit status."""
    import papermill
    from papermill.exceptions import PapermillExecutionError

    job: dict[str, Any] = json.loads(Path(job_file).read_text(encoding="utf-8"))
    tempfile.tempdir = str(Path(job_file).parent)  # how to reach the kernel is written there, and goes with the folder
    started, memory = time.monotonic(), PeakMemory()
    memory.start()
    execute = partial(
        papermill.execute_notebook,
        job["input"], job["output"], parameters=job["parameters"], cwd=job["cwd"], kernel_name="python3",
        progress_bar=False, request_save_on_cell_execute=False, execution_timeout=job["timeout"],
        on_cell_start=lambda cell, cell_index: report(cell=cell_index),
    )  # fmt: skip
    try:
        started_anew(execute)
    except PapermillExecutionError as fault:
        print(ANSI.sub("", str(fault)), file=sys.stderr)
        return 1
    report(seconds=round(time.monotonic() - started, 1), peak_mib=round(memory.stop() / 2**20))
    return 0


def started_anew(execute: Callable[[], object], tries: int = 3) -> None:
    """Execute; where the kernel died before its first cell, start another one.

    A kernel is told five free ports and binds them a second later; in between any other process may have taken one.
    """
    for left in reversed(range(tries)):
        try:
            execute()
        except RuntimeError as fault:
            if left == 0 or NOT_STARTED not in str(fault):
                raise
        else:
            return


def stop_kernel() -> None:
    """Kill all that this process has started."""
    import psutil

    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()


def report(**values: float) -> None:
    """Tell the parent process how far we are."""
    print(json.dumps(values), flush=True)


class PeakMemory(threading.Thread):
    """The largest resident memory of the kernel and its children, sampled four times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak, self._stopped = 0, threading.Event()

    def run(self) -> None:
        """Sample until stopped."""
        import psutil

        me = psutil.Process(os.getpid())
        while not self._stopped.wait(0.25):
            sizes = []
            for child in me.children(recursive=True):
                try:
                    sizes.append(child.memory_info().rss)
                except psutil.Error:  # the child ended between the list and the question
                    continue
            self.peak = max(self.peak, sum(sizes))

    def stop(self) -> int:
        """Return the peak in bytes."""
        self._stopped.set()
        self.join()
        return self.peak


if __name__ == "__main__":
    end_with_parent(stop_kernel)
    sys.exit(main(sys.argv[1]))
