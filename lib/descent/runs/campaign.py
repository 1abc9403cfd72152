"""Paper-scale runs as plain commands: a plan, tasks that survive a kill, results that verify themselves.

A task is one experiment of a chapter under one set of parameters. It needs torch, numpy, pandas and scipy, no notebook
tool, and may run here, in other processes or on other machines; what it returns depends on none of that. Its result is
written whole, under its own name, by whoever started it: running a task twice does no harm.
"""

from __future__ import annotations

import dataclasses
import importlib
import io
import itertools
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from descent.claims import Ledger, Record, Test, load_paper, load_records
from descent.claims.outcome import estimate_from, estimate_to
from descent.claims.registry import tests_of
from descent.engine.checkpoint import Keeping, keeping
from descent.experiments.lab import Experiment, Lab
from descent.results import (
    Provenance,
    content_hash,
    digest,
    file_hash,
    joined,
    library_digest,
    provenance,
    read_json,
    save_table,
    write_json,
)
from descent.runs.budget import Budget
from descent.runs.perform import Finding, enter, perform, registration_of
from descent.runs.sweep import SweepError, sweep

__all__ = ["Task", "campaign", "done", "others", "run", "tasks", "tests_at", "write_records"]

SCHEMA = 4
BUDGET = 2 << 30
LATE = "not run: out of time"
SMALLEST = 1 << 24
"""Bytes of working memory below which a task that still runs out of memory is given up."""


@dataclass(frozen=True)
class Task:
    """One experiment, by the package and the name it is found under, and its parameters."""

    package: str
    name: str
    lab: Lab
    scale: str = "cpu"
    seconds: float = 60.0  # between two checkpoints
    work: str = ""  # folder for checkpoints, on the machine that runs it; "" for none

    @property
    def experiment(self) -> Experiment[Any, Any]:
        """The experiment itself."""
        return next(item for item in _experiments(self.package) if item.name == self.name)

    @property
    def config(self) -> Any:
        """Its configuration."""
        return self.experiment.config(self.scale)

    @property
    def modules(self) -> Sequence[str]:
        """The modules its code is in."""
        return self.experiment.modules or (self.package,)

    @property
    def mark(self) -> str:
        """What a result must have been made from to be this task's: parameters, rules and code."""
        drawn = registration_of(self.experiment, self.scale)
        return digest((self.name, self.lab, drawn, self.config, library_digest(self.modules)))


def tasks(package: str, lab: Lab, scale: str = "cpu", only: Sequence[str] = (), **options: Any) -> list[Task]:
    """Return the tasks of a chapter: all that are stated for a scale, or those named by experiment or by claim.

    Named ones come in the order of the names. An experiment that is not stated for the scale must be named itself: it
    is tried out then, and no claim is judged by it.
    Raises: ValueError naming what there is, for a name that is neither.
    """
    found, claims = _experiments(package), claims_of(package)
    known = {item.name for item in found} | {claim for several in claims.values() for claim in several}
    strange = sorted(set(only) - known)
    if strange:
        raise ValueError(
            f"neither experiment nor claim of {package.rpartition('.')[2]}: {', '.join(strange)}; "
            f"there are {', '.join(item.name for item in found)}"
        )
    stated = [item for item in found if scale in item.sizes]
    named = [
        item
        for name in only
        for item in found
        if item.name == name or (name in claims.get(item.name, ()) and item in stated)
    ]
    chosen = list({item.name: item for item in named}.values()) if only else stated
    return [Task(package, item.name, lab, scale, **options) for item in chosen]


def claims_of(package: str) -> dict[str, tuple[str, ...]]:
    """Return by experiment the claims that it has a test of."""
    paper = load_paper(importlib.import_module(package).PAPER)
    pairs = dict.fromkeys((test.by, claim.id) for claim in paper.claims for test in claim.tests)
    return {name: tuple(claim for by, claim in pairs if by == name) for name, _ in pairs}


def tests_at(package: str, name: str, scale: str) -> dict[str, Test]:
    """Return the tests that an experiment of a chapter measures at a scale, by key."""
    return tests_of(load_paper(importlib.import_module(package).PAPER), name, scale)


def run(task: Task) -> dict[str, Any]:
    """Run a task and return its result as JSON values, tables as CSV; out of memory it goes on with smaller chunks.

    Image data that are not here make it a result without estimates, with the reason under "skipped".
    """
    lab = task.lab
    made = provenance(task.scale, lab.device, lab.seed, lab.replicas, modules=task.modules)
    about = {
        "schema": SCHEMA,
        "task": task.name,
        "package": task.package,
        "mark": task.mark,
        "lab": dataclasses.asdict(lab),
        "provenance": made.to_json(),
    }
    found = perform(task.experiment, lab, task.scale, lambda config, lab: _kept(task, config, lab, made.arithmetic))
    about["registration"] = found.registration
    if found.missing:
        return about | {"skipped": found.missing, "seconds": found.seconds}
    estimates = {key: [estimate_to(one) for one in several] for key, several in found.estimates.items()}
    tables = {name: frame.to_csv(index=False, na_rep="nan") for name, frame in found.tables.items()}
    return about | {"estimates": estimates, "tables": tables, "config": found.config, "seconds": found.seconds}


def campaign(
    todo: Sequence[Task],
    out: Path,
    executor: Executor | None = None,
    say: Callable[[str], None] = print,
    budget: Budget | None = None,
) -> list[dict[str, Any]]:
    """Run what is not done yet and write each result as soon as it is there; return all results.

    budget: runs one after the other here, and leaves out what does not fit.
    Raises: SweepError naming the tasks that failed, after all others have finished and been written.
    """
    waiting = [task for task in todo if done(task, out) is None]
    if len(waiting) < len(todo):
        say(f"{len(todo) - len(waiting)} of {len(todo)} tasks are done already")
    started = time.perf_counter()

    skipped: dict[str, dict[str, Any]] = {}

    def finished(index: int, result: dict[str, Any]) -> None:
        _write(result, out)
        if "skipped" in result:
            skipped[waiting[index].name] = result
        if waiting[index].work:
            shutil.rmtree(Path(waiting[index].work) / waiting[index].name, ignore_errors=True)
        say(f"{waiting[index].name}: {result.get('skipped') or f'''{result['seconds']:.0f} s'''}")

    def progress(count: int, total: int) -> None:
        left = (time.perf_counter() - started) * (total - count) / count
        say(f"{count} of {total} tasks, about {left:.0f} s left" if count < total else f"all {total} tasks have ended")

    if budget is None:
        sweep(run, waiting, executor, each=finished, progress=progress)
    else:
        _in_time(waiting, budget, finished, say)
    return [content for task in todo if (content := done(task, out) or skipped.get(task.name)) is not None]


def _in_time(
    waiting: Sequence[Task], budget: Budget, finished: Callable[[int, dict[str, Any]], None], say: Callable[[str], None]
) -> None:
    """Run in the order given what fits into the budget; raise SweepError after the last."""
    failures: dict[int, BaseException] = {}
    for index, task in enumerate(waiting):
        if not budget.fits(task.name):
            say(f"{task.name}: {LATE} ({max(0.0, budget.left):.0f} s left)")
            continue

        def work(index: int = index, task: Task = task) -> bool:
            try:
                finished(index, result := run(task))
            except Exception as fault:
                failures[index] = fault
                return False
            return "skipped" not in result

        budget.run(task.name, work)
    if failures:
        raise SweepError(failures, [], waiting)


def done(task: Task, out: Path) -> dict[str, Any] | None:
    """Return a task's result if it is there with its tables, all of it whole and of today's code and parameters."""
    path = _result(out, task.name)
    if not path.is_file():
        return None
    try:
        content = read_json(path)
    except ValueError:
        return None  # cut short: measured again, as what was edited is, never used
    fits = content.get("schema") == SCHEMA and content.get("sha256") == content_hash(content)
    if not fits or content["mark"] != task.mark or "skipped" in content:  # data that were absent may have come
        return None
    files = {out / name: kept for name, kept in content["files"].items()}
    return content if all(path.is_file() and file_hash(path) == kept for path, kept in files.items()) else None


def others(todo: Sequence[Task], out: Path) -> list[dict[str, Any]]:
    """Return what other experiments of the same chapter have left in the folder, under the same parameters and code."""
    first, names = todo[0], {task.name for task in todo}
    rest = [
        replace(first, name=item.name)
        for item in _experiments(first.package)
        if first.scale in item.sizes and item.name not in names
    ]
    return [content for task in rest if (content := done(task, out)) is not None]


def write_records(
    paper_id: str,
    found: Sequence[Mapping[str, Any]],
    out: Path,
    late: Sequence[Task] = (),
    say: Callable[[str], None] = print,
) -> Path:
    """Judge the estimates of finished tasks, and write the records of all claims; what was not run is said to be so.

    late: tasks there was no time for. Earlier records that say more, or cannot be read, are kept under another name.
    paper_id: the paper, such as "P3".
    """
    paper = load_paper(paper_id)
    made = [Provenance.from_json(content["provenance"]) for content in found]
    ledger = Ledger(paper, joined(made), out)
    for content in found:
        enter(ledger, content["task"], _finding(content), Lab(**content["lab"]))
    for key in [key for task in late for key in ledger.due(task.name)]:
        ledger.skip(key, LATE)
    for key in ledger.lacking:
        ledger.skip(key, "not run at this scale")
    _set_aside(out / "records.json", ledger.records, say)
    return ledger.save()


def _set_aside(path: Path, records: Sequence[Record], say: Callable[[str], None]) -> None:
    """Keep earlier records under another name if they say something that the ones to be written there do not."""
    try:
        before = load_records(path)
    except FileNotFoundError:
        return
    except (OSError, ValueError) as fault:
        aside = _renamed(path, "damaged-records")  # a name under which the book does not look for records
        say(f"{path} cannot be used ({fault}): it is kept as {aside.name}; restore it from there, or delete that file")
        return
    new = {key for record in records for key in record.measured()}
    if {key for record in before for key in record.measured()} - new:
        made = before[0].provenance
        device = "".join(each if each.isalnum() else "-" for each in made.device_class)
        _renamed(path, f"records-{made.date}-{device}-{made.library}")


def _renamed(path: Path, stem: str) -> Path:
    """Rename a file so that it takes the place of no other; return its new place."""
    numbers = itertools.chain([""], (f"-{n}" for n in itertools.count(2)))
    places = (path.with_name(f"{stem}{number}{path.suffix}") for number in numbers)
    return path.rename(next(place for place in places if not place.exists()))


def _finding(content: Mapping[str, Any]) -> Finding:
    """Return what a task left, without the result."""
    estimates = {
        key: tuple(estimate_from(one) for one in several) for key, several in content.get("estimates", {}).items()
    }
    return Finding(
        content.get("config", ""),
        content["seconds"],
        estimates=estimates,
        missing=content.get("skipped", ""),
        registration=content.get("registration", ""),
        partial=content.get("partial", {}),
    )


def _kept(task: Task, config: Any, lab: Lab, arithmetic: Sequence[str]) -> Any:
    """Run the experiment under checkpoints; halve the working memory as long as the device runs out of it.

    arithmetic: what computes here. A checkpoint from elsewhere is not gone on with: the provenance would be half true.
    """
    folder = Path(task.work) / task.name if task.work else None
    budget, mark = BUDGET, digest((task.mark, *arithmetic))
    while True:
        keep = Keeping(folder, task.seconds, budget, mark=mark, say=_say)
        try:
            with keeping(keep):
                return task.experiment.run(config, lab)
        except RuntimeError as fault:
            if not _out_of_memory(fault):
                raise
            budget //= 2
            if budget < SMALLEST:
                raise MemoryError(
                    f"{task.name}: out of memory even in chunks of {2 * budget >> 20} MiB ({fault}); "
                    "lower `replicas`, or use a device with more memory"
                ) from fault
            if torch.cuda.is_available():
                torch.cuda.empty_cache()


def _say(line: str) -> None:
    """Print from wherever a task runs."""
    print(line, flush=True)


def _out_of_memory(fault: RuntimeError) -> bool:
    """Tell whether a device, or the CPU's allocator, which has no error of its own, had no memory left."""
    return isinstance(fault, torch.OutOfMemoryError) or "can't allocate memory" in str(fault)


def _write(result: dict[str, Any], out: Path) -> None:
    """Write tables with their provenance, then the result, each whole or not at all."""
    made = Provenance.from_json(result["provenance"])
    written = [
        save_table(
            name,
            pd.read_csv(io.StringIO(text), keep_default_na=False, na_values=["nan"]),
            made,
            out,
            experiment=result["task"],
            config=result.get("config", ""),
            registration=result.get("registration", ""),
        )
        for name, text in result.get("tables", {}).items()
    ]
    files = [path.with_suffix(ending) for path in written for ending in (".csv", ".json")]
    content = result | {"tables": sorted(result.get("tables", {})), "files": {f.name: file_hash(f) for f in files}}
    write_json(_result(out, result["task"]), content | {"sha256": content_hash(content)})


def _result(out: Path, name: str) -> Path:
    """Return the file of a task's result, named so that no table's note can be it."""
    return out / f"{name}.result.json"


def _experiments(package: str) -> Sequence[Experiment[Any, Any]]:
    found: Sequence[Experiment[Any, Any]] = importlib.import_module(package).EXPERIMENTS
    return found
