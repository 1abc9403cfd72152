"""The command `descent lease`: the experiments of paper scale on one device, in the order of their worth."""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from descent.book.commands.paper import known_device, read_calibration, rescaled
from descent.book.execute.lock import held
from descent.book.sources import records
from descent.book.sources.project import BookError, Project, begun
from descent.experiments.lab import Lab
from descent.results import Provenance, provenance, write_json
from descent.runs import calibrate, campaign, forecast
from descent.runs.budget import Budget, kind
from descent.runs.lease import Step, by_worth, lease

TINY = 0.02
"""What is timed on a CPU, as a part of what is timed on an accelerator."""
SAVED = 20.0
"""Seconds between two checkpoints: about what is lost of a step that is cut short."""


def run(
    project: Project,
    options: argparse.Namespace,
    usage: Callable[..., Any],
    clock: Callable[[], float] = time.monotonic,
) -> int:
    """Calibrate the device, print the plan, run what fits into the minutes; return 1 where something failed."""
    begun, root = clock(), options.out or project.published
    if options.data is not None:
        os.environ["DESCENT_DATA"] = str(options.data.resolve())
    steps = usage(_steps, project, options)
    if options.plan:
        print(_planned(steps, _expected(project, steps, None), False))
        return 0
    with held(project.build / ".lease", f"lease works in {root}"):
        calibration = usage(_calibration, root / "calibration.json", options.device)
        expected = _expected(project, steps, calibration)
        kinds = {step.name: kind(step.task.config, step.task.lab) for step in steps}
        print(f"{_planned(steps, expected, True)}\n{rescaled(calibration)}", flush=True)
        budget = Budget(60 * options.minutes - (clock() - begun), expected, clock=clock, kinds=kinds)
        failed = lease(steps, budget, lambda line: print(line, flush=True))
    return 1 if failed else 0


def _steps(project: Project, options: argparse.Namespace) -> list[Step]:
    """Return the tasks that are stated for the scale, or those that are named, in the order of their worth."""
    device = "cpu" if options.plan else options.device
    known_device(device)
    given = {"replicas": options.replicas} if options.replicas else {}
    lab, named = Lab(options.seed, device=device, **given), [name.partition(".") for name in options.only]
    strange = sorted({chapter for chapter, _, _ in named} - set(project.notebooks))
    if strange:
        raise BookError(f"--only {strange[0]}: name an experiment as CHAPTER.NAME, such as saddles.resnet")
    found = []
    for chapter in project.notebooks:
        only = [name for of, _, name in named if of == chapter]
        if only or not named:
            out = options.out / chapter if options.out else project.paper_scale(chapter)
            found += _of_chapter(chapter, out, lab, options.scale, only)
    return by_worth(found)


def _of_chapter(chapter: str, out: Path, lab: Lab, scale: str, only: Sequence[str]) -> list[Step]:
    work = str(begun(out).resolve())
    try:
        tasks = campaign.tasks(f"descent.experiments.{chapter}", lab, scale, only, seconds=SAVED, work=work)
    except ValueError as fault:
        raise BookError(str(fault)) from None
    return [Step(chapter, task, out) for task in tasks]


def _calibration(file: Path, device: str) -> dict[str, Any]:
    """Return what this very device can do, from the file if that is of it and of today's code; else it is measured."""
    made = provenance("gpu" if device.startswith("cuda") else "cpu", device, 0, 1, modules=[calibrate.__name__])
    with contextlib.suppress(BookError, ValueError):
        found = read_calibration(file)
        if Provenance.from_json(found["provenance"]) == made:
            return found
    print(f"calibrating {device}", flush=True)
    write_json(file, calibrate.calibrate(device, 3, TINY if device == "cpu" else 1.0))
    return read_calibration(file)


def _expected(project: Project, steps: Sequence[Step], calibration: Mapping[str, Any] | None) -> dict[str, float]:
    """Return the seconds that each step is expected to take, by name; NaN where that is unknown."""
    found: dict[str, float] = {}
    for chapter in dict.fromkeys(step.chapter for step in steps):
        own = [step for step in steps if step.chapter == chapter]
        seconds = forecast.expected([s.task for s in own], records.known_seconds(project, chapter), calibration)
        found |= {step.name: seconds[step.task.name] for step in own}
    return found


def _planned(steps: Sequence[Step], expected: Mapping[str, float], calibrated: bool) -> str:
    """Return the steps in their order with the minutes expected of each, as text."""
    rows = [(step.name, f"{expected[step.name] / 60:.1f}") for step in steps]
    column = "minutes as calibrated" if calibrated else "minutes on one core"
    table: str = pd.DataFrame(rows, columns=["experiment", column]).to_string(index=False)
    return table
