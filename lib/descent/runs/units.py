"""Units of a long run as files: each written whole when it ends, and used where it is what is to be measured today.

One that is damaged, or was made from other rules, code or settings, is set aside under another name: never used, never
deleted. So a machine may be lost at any moment, and another one go on where it stopped.
"""

from __future__ import annotations

import functools
import itertools
import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from descent.claims.registry import config_digest
from descent.data.images import DataMissing
from descent.engine.checkpoint import Keeping, keeping
from descent.engine.precision import arithmetic
from descent.experiments.lab import Arrays, Lab, Parts, Unit
from descent.results import MALFORMED, Provenance, content_hash, digest, named_pieces, provenance, read_json, write_json
from descent.runs.campaign import Task
from descent.runs.perform import registration_of

__all__ = ["Job", "Kept", "carry_out", "drawn", "parts_of", "place", "stored"]

SCHEMA = 1
ASIDE = "aside"
"""The folder, beside the units, of what is not used."""
WORDS = {
    "experiment": "another experiment",
    "registration": "another registration: its rules or its configuration were others",
    "config": "another configuration",
    "seed": "another seed",
    "lab": "other parameters",
    "unit": "another setting",
    "code": "other code of the experiment",
}
Say = Callable[[str], None]


@dataclass(frozen=True)
class Job:
    """One unit of one task, which any process can carry out."""

    task: Task
    unit: Unit  # of work


@dataclass(frozen=True, eq=False)
class Kept:
    """A unit that was measured: its arrays, what it took, and where; whole: not gone on with from a checkpoint.

    seconds: of a core, so that one that other work shared, or that slept, makes no later plan too long.
    """

    arrays: Arrays  # what was measured, by name
    seconds: float
    provenance: Provenance
    whole: bool = True


def parts_of(task: Task) -> Parts[Any, Any]:
    """Return how a task's experiment is cut into units; ValueError for one that is not."""
    if task.experiment.parts is None:
        raise ValueError(f"{task.name} is not cut into units")
    return task.experiment.parts


def drawn(task: Task) -> Lab:
    """Return the lab of a task with the registration that its random numbers are drawn from."""
    return replace(task.lab, registration=_origin(task)["registration"])


def place(out: Path, task: Task, unit: Unit) -> Path:
    """Return the file of a unit.

    unit: the unit of work.
    """
    return out / "units" / task.name / f"{unit.name}.json"


@functools.lru_cache(maxsize=256)
def _origin(task: Task) -> dict[str, Any]:
    """Return what all units of a task are made from; the place of checkpoints is no part of it."""
    lab = task.lab
    return {
        "experiment": task.name,
        "registration": registration_of(task.experiment, task.scale),
        "config": config_digest(task.config),
        "seed": lab.seed,
        "lab": digest((lab.replicas, lab.momentum, lab.lr)),
        "code": digest(named_pieces(task.modules)),
    }


def _made(job: Job) -> dict[str, Any]:
    return _origin(job.task) | {"unit": digest((job.unit.name, job.unit.given))}


def carry_out(job: Job, out: Path, say: Say = print) -> str:
    """Measure a unit and write its file; return "", or which data are not there."""
    task, unit, clock = job.task, job.unit, time.process_time()
    work = Path(task.work) / task.name / unit.name if task.work else None
    made = provenance(task.scale, task.lab.device, task.lab.seed, task.lab.replicas, modules=task.modules)
    whole = work is None or not work.exists()
    keep = Keeping(work, task.seconds, mark=digest((_made(job), *made.arithmetic)), say=say)
    try:
        with arithmetic("float32", task.lab.device), keeping(keep):
            arrays = parts_of(task).measure(task.config, drawn(task), unit)
    except DataMissing as fault:
        return str(fault)
    content = {
        "schema": SCHEMA,
        "unit": unit.name,
        "kind": unit.kind,
        "size": float(unit.size),
        "made": _made(job),
        "seconds": round(time.process_time() - clock, 3),
        "whole": whole,  # else these are the seconds since it was taken up again
        "provenance": made.to_json(),
        "arrays": {name: _array_to(np.asarray(values)) for name, values in arrays.items()},
    }
    write_json(place(out, task, unit), content | {"sha256": content_hash(content)})
    if work is not None:
        shutil.rmtree(work, ignore_errors=True)
    return ""


def stored(job: Job, out: Path, say: Say, *, aside: bool = True) -> Kept | None:
    """Return a unit that is there, whole and of today's making; what is not is told of and, with `aside`, set aside.

    aside: whether a useless file is moved out of the way.
    """
    path = place(out, job.task, job.unit)
    if not path.is_file():
        return None
    try:
        content = read_json(path)
        if content.get("schema") != SCHEMA or content.get("sha256") != content_hash(content):
            raise ValueError("it is not what was written")
        if other := _differs(content["made"], _made(job)):
            _useless(path, "other", f"is of {other}", say, aside)
            return None
        arrays = {name: _array_from(one) for name, one in content["arrays"].items()}
        made = Provenance.from_json(content["provenance"])
        return Kept(arrays, float(content["seconds"]), made, bool(content["whole"]))
    except (OSError, ValueError, *MALFORMED) as fault:
        _useless(path, "damaged", f"is damaged ({fault})", say, aside)
        return None


def _differs(made: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Say in what a file's making differs from today's; "" if in nothing."""
    return next((words for key, words in WORDS.items() if made.get(key) != now[key]), "")


def _useless(path: Path, why: str, words: str, say: Say, aside: bool) -> None:
    """Move a file of no use where nothing takes it for a unit, and say so."""
    if not aside:
        say(f"{path.parent.name}/{path.name} {words}: it will be kept under another name, and measured again")
        return
    folder = path.parent / ASIDE
    folder.mkdir(exist_ok=True)
    numbers = itertools.chain([""], (f"-{n}" for n in itertools.count(2)))
    names = (folder / f"{path.stem}-{why}{number}.json" for number in numbers)
    target = path.rename(next(name for name in names if not name.exists()))
    say(f"{path.parent.name}/{path.name} {words}: it is kept as {ASIDE}/{target.name}, and measured again")


def _array_to(values: NDArray[Any]) -> dict[str, Any]:
    """Return an array as JSON values: no number is null, infinite ones are text; texts stay texts."""
    kind = "text" if values.dtype.kind == "U" else str(values.dtype)
    return {"dtype": kind, "shape": list(values.shape), "values": [_plain(one) for one in values.ravel().tolist()]}


def _plain(one: Any) -> Any:
    if not isinstance(one, float) or math.isfinite(one):
        return one
    return None if math.isnan(one) else str(one)


def _array_from(content: Mapping[str, Any]) -> NDArray[Any]:
    kind = content["dtype"]
    values = [math.nan if one is None else one for one in content["values"]]
    made = np.array(values, dtype=str) if kind == "text" else np.array(values, dtype=kind)
    return made.reshape(content["shape"])
