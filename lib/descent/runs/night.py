"""A night of two cores: units longest first over some processes, and verdicts from whatever units there are.

It may be stopped at any moment and started again, here or elsewhere; see `descent.runs.units`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from descent.claims.outcome import estimate_to
from descent.experiments.lab import Found, Unit
from descent.results import NIGHT, joined, save_table
from descent.runs import campaign
from descent.runs.campaign import Task
from descent.runs.perform import Finding, perform, registration_of
from descent.runs.units import Job, Kept, carry_out, drawn, parts_of, stored

__all__ = ["Failed", "Night", "chosen", "merge", "night", "parted", "tasks"]

OFTEN = 300.0
"""Seconds between two looks at what all units together say."""
Say = Callable[[str], None]


class Failed(RuntimeError):
    """Some units could not be measured; all others are."""


def tasks(package: str, lab: Any, only: Sequence[str] = (), **options: Any) -> list[Task]:
    """Return the tasks of a chapter that are cut into units: all, or those named by experiment or by claim.

    Raises: ValueError for a name that is neither, and for an experiment that has no night.
    """
    found = campaign.tasks(package, lab, NIGHT, only, **options)
    without = [task.name for task in found if NIGHT not in task.experiment.sizes]
    if without:
        raise ValueError(f"{', '.join(without)}: has no configuration for a night; leave it out")
    return found


def parted(name: str) -> tuple[str, str]:
    """Return the experiment or claim and the part of it that a choice names; "" is all of it.

    >>> parted("cifar:CNN, full batch"), parted("dimmed")
    (('cifar', 'CNN, full batch'), ('dimmed', ''))
    """
    first, _, part = name.partition(":")
    return first.strip(), part.strip()


def chosen(package: str, lab: Any, only: Sequence[str] = ()) -> set[str]:
    """Return what is to be measured, as `Night` takes it, from names such as "dimmed" or 'cifar:CNN, full batch'.

    Raises: ValueError as `tasks` does, and for a part that there is not, naming those there are.
    """
    if not only:
        return {task.name for task in tasks(package, lab)}
    pairs = [(task, part) for first, part in map(parted, only) for task in tasks(package, lab, [first])]
    for task, part in pairs:
        _refuse(part, task)
    return {f"{task.name}:{part}" if part else task.name for task, part in pairs}


def _refuse(part: str, task: Task) -> None:
    """Raise ValueError for a part that no unit of a task is of."""
    units = parts_of(task).units(task.config, drawn(task), {})
    if not any(_in(part, unit) for unit in units):
        kinds = "; ".join(dict.fromkeys(unit.kind for unit in units))
        raise ValueError(
            f"{task.name} has no part {part!r}: after the colon stands a kind of its work ({kinds}), or what the names "
            f"of its units begin with, such as {units[0].name}"
        )


def _in(part: str, unit: Unit) -> bool:
    return part == unit.kind or unit.name.startswith(part)


@dataclass
class Night:
    """What is known of some tasks' units: those that are there, by task and unit.

    chosen: what is to be measured now, the names of tasks; after a colon a part of one, which is a kind of its work or
    what the names of its units begin with. aside: set aside what is of no use; else it stays.
    """

    todo: Sequence[Task]
    out: Path
    say: Say
    chosen: Collection[str]
    aside: bool = True
    kept: dict[str, dict[str, Kept]] = field(default_factory=dict)  # the units that are there

    def __post_init__(self) -> None:
        if self.aside:
            for part in (self.out / "units").glob("*/.*.part"):  # of a process that was killed while it wrote
                part.unlink(missing_ok=True)
        for task in self.todo:
            self.kept[task.name] = {}
            self.read(task)

    def read(self, task: Task) -> None:
        """Read the units that are there and not known yet; those that hang on others come after them."""
        kept, seen = self.kept[task.name], set[str]()
        while new := [unit for unit in self.units(task) if not unit.waits and unit.name not in seen]:
            seen |= {unit.name for unit in new}
            for unit in (unit for unit in new if unit.name not in kept):
                if (found := stored(Job(task, unit), self.out, self.say, aside=self.aside)) is not None:
                    kept[unit.name] = found

    def found(self, task: Task) -> Found:
        """Return what the units of a task have measured."""
        return {name: one.arrays for name, one in self.kept[task.name].items()}

    def units(self, task: Task) -> Sequence[Unit]:
        """Return all units of a task as they are known by now."""
        return parts_of(task).units(task.config, drawn(task), self.found(task))

    def wanted(self, task: Task) -> list[Unit]:
        """Return the units of a task that are chosen, there already or not."""
        parts = [part for name, part in map(parted, self.chosen) if name == task.name]
        return [unit for unit in self.units(task) if any(_in(part, unit) for part in parts)]

    def jobs(self) -> Iterator[Job]:
        """Yield what is not measured yet."""
        for task in self.todo:
            for unit in self.wanted(task):
                if unit.name not in self.kept[task.name]:
                    yield Job(task, unit)

    def paces(self, task: Task) -> dict[str, float]:
        """Return how much of each kind of work a second does: by the units that are there, or else by the plan."""
        kept, sums = self.kept[task.name], dict[str, tuple[float, float]]()
        for unit in self.units(task):
            if unit.name in kept and kept[unit.name].whole:
                size, took = sums.get(unit.kind, (0.0, 0.0))
                sums[unit.kind] = size + unit.size, took + kept[unit.name].seconds
        learnt = {kind: size / took for kind, (size, took) in sums.items() if size > 0 and took > 0}
        return {**parts_of(task).paces, **learnt}

    def expected(self) -> list[tuple[Job, float]]:
        """Return what is not measured yet, with the seconds that each unit is expected to take."""
        paces = {task.name: self.paces(task) for task in self.todo}
        return [(job, job.unit.size / paces[job.task.name].get(job.unit.kind, math.nan)) for job in self.jobs()]

    def left(self, jobs: int) -> float:
        """Return the seconds that are left on some processes: all the work shared, or the longest piece of it."""
        times = [seconds for _, seconds in self.expected()]
        return max(sum(times) / jobs, max(times)) if times else 0.0

    def plan(self) -> pd.DataFrame:
        """Return per task and kind of work the units, what is done, and the minutes of a core that are left."""
        rows = []
        for task in self.todo:
            units, kept, paces = self.wanted(task), self.kept[task.name], self.paces(task)
            for kind in dict.fromkeys(unit.kind for unit in units):
                some = [unit for unit in units if unit.kind == kind]
                minute = 60 * paces.get(kind, math.nan)
                open_ = [unit.size / minute for unit in some if unit.name not in kept]
                done, later = sum(unit.name in kept for unit in some), sum(unit.waits for unit in some)
                rows.append((task.name, kind, len(some), done, later, max(open_, default=0.0), sum(open_) / 60))
        names = ["experiment", "kind of work", "units", "done", "waiting for others", "longest, minutes", "core-hours"]
        return pd.DataFrame(rows, columns=names).round({"longest, minutes": 1, "core-hours": 2})

    def total(self, task: Task) -> tuple[int, int]:
        """Return how many units of a task are there, and of how many."""
        return len(self.kept[task.name]), len(self.units(task))


def night(state: Night, executor: Executor | None, jobs: int, write: Callable[[], None]) -> None:
    """Measure what is not there yet, the longest first; write what all say now and then, and at the end.

    state: tasks and units; jobs: processes at a time; write: called to write tables and records.

    Raises: Failed naming what could not be measured, after all else is; OSError where nothing can be written.
    """
    running, refused, wrote = dict[Future[str], Job](), dict[str, str](), time.monotonic()
    started = dict[str, float]()
    while True:
        for job in _next(state, running.values(), refused, jobs - len(running)):
            started[_key(job)] = time.monotonic()  # before it is handed over: without processes it then runs at once
            running[_submit(executor, job, state.out)] = job
        if not running:
            break
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            job = running.pop(future)
            why = _ended(state, job, future)
            refused |= {_key(job) if future.exception() else job.task.name: why} if why else {}
            state.say(_line(state, job, why, time.monotonic() - started[_key(job)], jobs))
        if time.monotonic() - wrote > OFTEN:
            write()
            wrote = time.monotonic()
    write()
    if refused:
        raise Failed("\n".join(f"{key}: {why}" for key, why in refused.items()))


def _next(state: Night, running: Any, refused: Mapping[str, str], room: int) -> list[Job]:
    """Return the longest units that can begin."""
    busy = {_key(job) for job in running} | set(refused)
    ready = [
        (job, seconds)
        for job, seconds in state.expected()
        if not job.unit.waits and not {_key(job), job.task.name} & busy
    ]
    longest = sorted(ready, key=lambda pair: -_known(pair[1]))
    return [job for job, _ in longest[: max(0, room)]]


def _known(seconds: float) -> float:
    return math.inf if math.isnan(seconds) else seconds


def _ended(state: Night, job: Job, future: Future[str]) -> str:
    """Take a unit in; return why there is none. What no unit could be written without is raised."""
    fault = future.exception()
    if isinstance(fault, OSError):
        raise fault
    if fault is not None:
        return f"{type(fault).__name__}: {fault}"
    if why := future.result():
        return why
    state.read(job.task)  # with what hangs on it: a file of an earlier choice is set aside before it is written anew
    there = job.unit.name in state.kept[job.task.name]
    return "" if there else "its file is gone, or was changed as soon as it was written"


def _line(state: Night, job: Job, why: str, seconds: float, jobs: int) -> str:
    kept = [unit.name in state.kept[task.name] for task in state.todo for unit in state.wanted(task)]
    have, of = sum(kept), len(kept)
    left = "" if have == of else f", about {_duration(state.left(jobs))} left"
    return f"{_key(job)}: {why or _duration(seconds)}; {have} of {of} units{left}"


def _duration(seconds: float) -> str:
    """Return a time as text, such as "40 s", "12 min" or "3 h 20 min"."""
    if math.isnan(seconds):
        return "an unknown time"
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def _key(job: Job) -> str:
    return f"{job.task.name}/{job.unit.name}"


def _submit(executor: Executor | None, job: Job, out: Path) -> Future[str]:
    if executor is not None:
        return executor.submit(carry_out, job, out)
    future = Future[str]()
    try:
        future.set_result(carry_out(job, out))
    except Exception as fault:
        future.set_exception(fault)
    return future


def merge(paper: str, state: Night) -> Path | None:
    """Write tables and records from whatever units there are; return the records' file, None where there is nothing.

    paper: such as "P3"; state: tasks and units.
    """
    found = [content for task in state.todo if (content := _merged(task, state)) is not None]
    return campaign.write_records(paper, found, state.out, say=state.say) if found else None


def _merged(task: Task, state: Night) -> dict[str, Any] | None:
    """Put the units of a task together, write its tables, and return what its records are written from."""
    kept, parts, found = state.kept[task.name], parts_of(task), state.found(task)
    if not kept:
        return None
    made, took = joined([one.provenance for one in kept.values()]), sum(one.seconds for one in kept.values())
    about = {"task": task.name, "lab": asdict(task.lab), "provenance": made.to_json(), "seconds": took}
    if parts.merge(task.config, drawn(task), found) is None:
        have, of = state.total(task)
        drew = registration_of(task.experiment, task.scale)
        return about | {"registration": drew, "partial": _every(task, f"{have} of {of} units")}
    finding = perform(task.experiment, task.lab, task.scale, lambda config, lab: parts.merge(config, lab, found))
    for name, frame in finding.tables.items():
        save_table(
            name, frame.reset_index(drop=True), made, state.out,
            experiment=task.name, config=finding.config, registration=finding.registration,
        )  # fmt: skip
    return about | _content(finding) | {"partial": dict(parts.partial(finding.result))}


def _content(finding: Finding) -> dict[str, Any]:
    estimates = {key: [estimate_to(one) for one in several] for key, several in finding.estimates.items()}
    return {"estimates": estimates, "config": finding.config, "registration": finding.registration}


def _every(task: Task, words: str) -> dict[str, str]:
    """Return the same words for every test that a task is to measure."""
    return dict.fromkeys(campaign.tests_at(task.package, task.name, task.scale), words)
