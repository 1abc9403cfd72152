"""A machine with an accelerator for some minutes: what is worth most first, each only if its time still fits."""

from __future__ import annotations

import contextlib
import importlib
import math
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from descent.runs.budget import Budget
from descent.runs.campaign import LATE, Task, campaign, done, others, write_records
from descent.runs.sweep import SweepError

__all__ = ["WORTH", "Step", "TimeOver", "alarm", "by_worth", "lease"]

WORTH = (
    ("saddles", "resnet"),  # P3's verdicts on networks
    ("geometry", "resnet"),  # the claim that nothing smaller can test, P5-W5
    ("geometry", "cycles"),
    ("margins", "dimmed"),  # P4-C1 and P4-C2, likewise
    ("margins", "cifar"),
    ("margins", "normed"),
    ("smoothing", "grid"),  # the largest grid
)
"""Experiments, by chapter, whose claims nothing smaller can test; all others check what the chapters already say."""


Result = dict[str, Any]
Limit = Callable[[float], AbstractContextManager[None]]


class TimeOver(BaseException):
    """The time of a machine has come to its end while something ran."""


@dataclass(frozen=True)
class Step:
    """One task of a lease, by the chapter it belongs to, and the folder of its results."""

    chapter: str
    task: Task
    out: Path

    @property
    def name(self) -> str:
        """Chapter and experiment: experiments of two chapters may be named alike."""
        return f"{self.chapter}.{self.task.name}"


def by_worth(steps: Sequence[Step]) -> list[Step]:
    """Return the steps of WORTH first, in its order, and then the others in theirs.

    steps: the tasks of a lease.
    """
    places = {f"{chapter}.{name}": place for place, (chapter, name) in enumerate(WORTH)}
    return sorted(steps, key=lambda step: places.get(step.name, len(places)))


@contextlib.contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """Raise TimeOver after so many seconds, on systems that can tell; what runs has been saved on its way."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def over(number: int, frame: FrameType | None) -> None:
        raise TimeOver

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def lease(steps: Sequence[Step], budget: Budget, say: Callable[[str], None] = print, limit: Limit = alarm) -> list[str]:
    """Run in the order given what is not done yet and still fits; return the names of the steps that failed.

    Results are written as they come, and the records of a chapter after each of its steps. What is under way when the
    time is over is cut short, and the same call goes on with it another day.

    steps: the tasks, in order; budget: the time there is; limit: from seconds to a context that raises TimeOver after
    them.
    """
    made = dict[str, Result]()
    for step in steps:
        if (content := done(step.task, step.out)) is not None:
            made[step.name] = content
            say(f"{step.name}: done already")
        elif not budget.fits(step.name):
            say(f"{step.name}: {LATE}{_expected(budget, step.name)}, {_minutes(budget.left)} left")
        else:
            say(f"{step.name}: begins{_expected(budget, step.name)}, {_minutes(budget.left)} left")
            try:
                _run(step, budget, limit, made)
                said = made[step.name].get("skipped", "ends")
            except TimeOver:
                said = "the time is over; the same command goes on with it"
            except SweepError as fault:
                said, made[step.name] = str(fault), {}
            say(f"{step.name}: {said}, {_minutes(budget.left)} left")
            _record(step, steps, made, say)
    return [name for name, content in made.items() if not content]


def _run(step: Step, budget: Budget, limit: Limit, made: dict[str, Result]) -> None:
    """Run a step within the time left, and enter what it gives."""

    def work() -> bool:
        with limit(budget.left):
            (made[step.name],) = campaign([step.task], step.out, say=lambda _: None)
        return "skipped" not in made[step.name]

    budget.run(step.name, work)


def _record(last: Step, steps: Sequence[Step], made: Mapping[str, Result], say: Callable[[str], None]) -> None:
    """Write the records of a chapter from all that there is of it."""
    own = [step for step in steps if step.chapter == last.chapter]
    tasks, found = [step.task for step in own], [content for step in own if (content := made.get(step.name))]
    if any("estimates" in content for content in found):
        late = [step.task for step in own if step.name not in made]
        paper = importlib.import_module(last.task.package).PAPER
        write_records(paper, found + others(tasks, last.out), last.out, late, say)


def _expected(budget: Budget, name: str) -> str:
    need = budget.need(name)
    return "" if math.isnan(need) else f", {_minutes(need)} expected"


def _minutes(seconds: float) -> str:
    return f"{max(0.0, seconds) / 60:.1f} min"
