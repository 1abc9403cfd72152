"""One worker process for one chapter: started with one thread, followed, and stopped when it is too slow."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from descent import dispatch
from descent.book.execute import digest, lifeline
from descent.book.execute.progress import Progress
from descent.book.execute.signals import ENDING
from descent.book.execute.stamps import Place
from descent.book.sources import source
from descent.book.sources.project import BookError, Project, Unfinished

TIMEOUT = 1800.0
"""Seconds a chapter may take before it is stopped."""

_RUNNING: set[subprocess.Popen[str]] = set()
_STOPPING = threading.Event()
"""Set once all workers are to stop: one that is only being started then must not slip through."""


@dataclass(frozen=True)
class Job:
    """One chapter to be executed, with parameters that differ from its defaults, into a place."""

    project: Project
    chapter: str
    parameters: Mapping[str, source.Value]
    place: Place
    timeout: float = TIMEOUT


def run_worker(job: Job, notebook: source.Notebook, work: Path, progress: Progress) -> dict[str, Any]:
    """Execute a notebook and leave `executed.ipynb` in the folder `work`; return seconds and peak_mib.

    Raises: BookError with the traceback when a cell fails, or when the time is over; Unfinished when we, or somebody
    else, stopped it before.
    """
    (work / "source.ipynb").write_text(source.dump(notebook), encoding="utf-8")
    (work / "job.json").write_text(json.dumps(_order(job, work)), encoding="utf-8")
    command = [sys.executable, "-m", "descent.book.execute.worker", str(work / "job.json")]
    with (work / "stderr").open("w+", encoding="utf-8") as errors:
        with (
            subprocess.Popen(
                command,
                stdin=lifeline.line(),
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=_environment(job),
                start_new_session=True,  # what a terminal sends to all processes, such as Ctrl-C, is ours to answer
            ) as process,
            _stopped_after(process, job.timeout) as late,
        ):
            last = _follow(process, job.chapter, len(notebook.cells), progress)
        errors.seek(0)
        text = "".join(line for line in errors if not line.startswith("[IPKernelApp]")).strip()
    if process.returncode:
        kind, reason = _failure(job, process.returncode, late.is_set())
        progress.finish(job.chapter, f"{job.chapter}: {reason}")
        raise kind(f"{job.chapter}: {reason}\n{text}".rstrip())
    return last


def _failure(job: Job, status: int, late: bool) -> tuple[type[BookError], str]:
    """Return whose fault the end of a worker is, and what to say of it."""
    if late:
        return BookError, f"stopped after {job.timeout:.0f} s"
    if _STOPPING.is_set():
        return Unfinished, "stopped before it had finished"
    if status == -signal.SIGKILL:
        return Unfinished, (
            "killed before it had finished, by somebody or for want of memory; run this again, with "
            "--jobs 1 if memory is short"
        )
    if status < 0 and -status in ENDING:
        return Unfinished, f"ended by {signal.Signals(-status).name} before it had finished; run this again"
    return BookError, f"the worker crashed (signal {-status})" if status < 0 else "a cell failed"


def _order(job: Job, work: Path) -> dict[str, Any]:
    return {
        "input": str(work / "source.ipynb"),
        "output": str(work / "executed.ipynb"),
        "cwd": str(job.project.chapters),
        "parameters": dict(job.parameters),
        "timeout": int(job.timeout),
    }


def _environment(job: Job) -> dict[str, str]:
    library = os.pathsep.join(filter(None, (str(job.project.library), os.environ.get("PYTHONPATH"))))
    folders = {"DESCENT_OUT": job.place.results.resolve(), "DESCENT_DATA": digest.data_root(job.project)}
    return dispatch.child_environment() | {name: str(path) for name, path in folders.items()} | {"PYTHONPATH": library}


def _follow(process: subprocess.Popen[str], chapter: str, cells: int, progress: Progress) -> dict[str, Any]:
    """Read progress until the process ends."""
    last: dict[str, Any] = {}
    for line in process.stdout or ():
        last = json.loads(line)
        if "cell" in last:
            progress.advance(chapter, last["cell"] / cells)
    process.wait()
    return last


@contextlib.contextmanager
def _stopped_after(process: subprocess.Popen[str], seconds: float) -> Iterator[threading.Event]:
    """Stop the process with its kernel after a time limit, or when we are interrupted ourselves."""
    late = threading.Event()

    def stop() -> None:
        late.set()
        _kill(process)

    timer = threading.Timer(seconds, stop)
    timer.start()
    _RUNNING.add(process)
    try:
        if _STOPPING.is_set():
            _kill(process)
        yield late
    finally:
        timer.cancel()
        _kill(process)
        _RUNNING.discard(process)


def allow_workers() -> None:
    """Let workers run again after `stop_all`."""
    _STOPPING.clear()


def stop_all() -> None:
    """Stop every worker of this process, with its kernel, and whichever is still to start."""
    _STOPPING.set()
    for process in list(_RUNNING):
        _kill(process)


def _kill(process: subprocess.Popen[str]) -> None:
    """Kill the worker and its kernel, which lives in a session of its own.

    The worker is halted first, or it could start a kernel while we go through its children.
    """
    if process.poll() is None:
        with contextlib.suppress(psutil.NoSuchProcess):
            worker = psutil.Process(process.pid)
            worker.suspend()
            for member in [*worker.children(recursive=True), worker]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.kill()
    process.wait()
