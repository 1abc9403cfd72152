"""The command `descent paper CHAPTER --scale night`: units of a chapter's experiments, on some cores."""

from __future__ import annotations

import argparse
import contextlib
import importlib
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from descent.book.execute import lifeline
from descent.book.execute.disk_full import is_full
from descent.book.execute.lock import held
from descent.book.sources.project import BookError, Project, begun
from descent.experiments.lab import Lab
from descent.runs import night
from descent.runs.campaign import Task

REFUSED = ("budget", "dask", "calibration", "replicas")


def run(project: Project, options: argparse.Namespace, usage: Callable[..., Any]) -> int:
    """Print the plan, measure what is not there yet, write what all units say; return the exit status."""
    todo, chosen, paper = usage(_tasks, project, options)
    out = options.out or project.night(project.notebook(options.chapter))
    if options.plan:
        print(_planned(night.Night(todo, out, _say, chosen, aside=False)), flush=True)
        return 0
    with held(begun(out) / ".lock", f"night works in {out}"), _room(out):
        state = night.Night(todo, out, _say, chosen)
        print(_planned(state), flush=True)
        _measure(state, paper, options.jobs)
    return 0


def _measure(state: night.Night, paper: str, jobs: int) -> None:
    """Measure, and write the records of what there is then, however it ends."""

    def write() -> None:
        if (path := night.merge(paper, state)) is not None:
            _say(f"records: {path}")

    try:
        with _processes(jobs) as executor:
            night.night(state, executor, jobs, write)
    except night.Failed as fault:
        raise BookError(f"{fault}\nall other units are kept in {state.out}; run the same command to go on") from None
    except KeyboardInterrupt:
        write()
        raise


@contextlib.contextmanager
def _room(out: Path) -> Iterator[None]:
    """Tell in clear words that nothing can be written; what is there stays."""
    try:
        yield
    except OSError as fault:
        why = "there is no room left" if is_full(fault) else f"nothing can be written ({fault.strerror or fault})"
        raise BookError(
            f"{out}: {why}; every unit that has ended is kept: make room, and run the same command to go on"
        ) from fault


@contextlib.contextmanager
def _processes(jobs: int) -> Iterator[Executor | None]:
    if jobs == 1:
        yield None
    else:
        with lifeline.processes(jobs) as pool:
            yield pool


def _planned(state: night.Night) -> str:
    """Return the plan as text, with the hours that all of it is expected to take."""
    frame = state.plan()
    hours = frame["core-hours"].sum()
    return f"{frame.to_string(index=False)}\nexpected: {hours:.1f} core-hours are left of {len(frame)} kinds of work"


def _tasks(project: Project, options: argparse.Namespace) -> tuple[list[Task], set[str], str]:
    """Return all tasks of a chapter that have a night, what of them is to be measured, and the paper."""
    chapter = project.notebook(options.chapter)
    if refused := [f"--{name}" for name in REFUSED if getattr(options, name)]:
        raise BookError(f"{', '.join(refused)}: not for a night; leave it out, and stop the command when you need to")
    name = f"descent.experiments.{chapter}"
    out = options.out or project.night(chapter)
    try:
        package = importlib.import_module(name)
        lab, work = Lab(options.seed, device=options.device or "cpu"), str(begun(out).resolve())
        chosen = night.chosen(name, lab, options.only)
        todo = night.tasks(name, lab, seconds=options.every, work=work)
    except ModuleNotFoundError:
        raise BookError(f"{chapter} has no experiments") from None
    except ValueError as fault:
        raise BookError(str(fault)) from None
    if not todo:
        raise BookError(f"{chapter} has no experiment with a configuration for a night")
    return todo, chosen, package.PAPER


def _say(line: str) -> None:
    print(line, flush=True)
