"""The command `descent paper`: a campaign of paper-scale runs, here, in processes, or on a cluster."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from descent.book.commands import night
from descent.book.execute import lifeline
from descent.book.execute.lock import held
from descent.book.sources import records
from descent.book.sources.project import BookError, Project, begun
from descent.experiments.lab import Lab
from descent.results import NIGHT, write_json
from descent.runs import campaign, forecast
from descent.runs.budget import CORE, Budget, rates, unfit
from descent.runs.sweep import SweepError

PATIENCE = 10
"""Seconds within which a scheduler must answer."""


def paper(project: Project, options: argparse.Namespace, usage: Callable[..., Any]) -> int:
    """Print the plan, run what is not done yet, write the records; return the exit status."""
    if options.data is not None:
        os.environ["DESCENT_DATA"] = str(options.data.resolve())
    if options.scale == NIGHT:
        return night.run(project, options, usage)
    usage(_named_folder, options)
    todo, package = usage(_tasks, project, options)
    known = records.known_seconds(project, options.chapter)
    calibration = None if options.calibration is None else usage(read_calibration, options.calibration)
    print(forecast.plan(todo, known, calibration).to_string(index=False), flush=True)
    if calibration is not None:
        print(rescaled(calibration), flush=True)
    if options.plan:
        return 0
    budget = None
    if options.budget is not None:
        seconds = forecast.expected(todo, known, calibration)
        budget = Budget(60 * options.budget, seconds, kinds=forecast.kinds(todo))
    with held(begun(options.out) / ".lock", f"campaign works in {options.out}"):
        _measure(todo, package, options, budget)
    return 0


def _measure(todo: Sequence[campaign.Task], package: Any, options: argparse.Namespace, budget: Budget | None) -> None:
    """Run what is not done yet, and write the records of what there is then."""
    out = options.out
    try:
        with _executor(options) as executor:
            found = campaign.campaign(todo, out, executor, lambda line: print(line, flush=True), budget)
    except SweepError as fault:
        kept = sum(campaign.done(task, out) is not None for task in todo)
        rest = f"{kept} of {len(todo)} results are kept in {out}; run the same command to resume"
        raise BookError(f"{fault}\n{rest}") from None
    if any("estimates" in content for content in found):
        late = [task for task in todo if campaign.done(task, out) is None]
        found += campaign.others(todo, out)
        print(f"records: {campaign.write_records(package.PAPER, found, out, late)}")


def calibrate(options: argparse.Namespace, usage: Callable[..., Any]) -> int:
    """Print gates and rates of a device; return 1 when a gate is shut."""
    from descent.runs.calibrate import calibrate as measure

    usage(known_device, options.device)
    size = options.size or (0.02 if options.device == "cpu" else 1.0)
    found = measure(options.device, options.repeats, size)
    for gate in found["gates"]:
        print(f"{'open' if gate['open'] else 'SHUT':5s} {gate['name']}: {gate['reached']:.1e} of {gate['allowed']:.0e}")
    for rate in found["rates"]:
        print(f"{rate['value']:12.4g} {rate['unit']:16s} [{rate['low']:.3g}, {rate['high']:.3g}]  {rate['name']}")
    if options.out is not None:
        write_json(options.out, found)
    return 0 if found["rates"] else 1


def _named_folder(options: argparse.Namespace) -> None:
    if options.out is None:
        raise BookError("--out names the folder for results and checkpoints; only a night has one of its own")


def known_device(name: str) -> None:
    """Raise BookError for a device that this machine does not have."""
    try:
        Lab(device=name)
    except ValueError as fault:
        raise BookError(str(fault)) from None


def _tasks(project: Project, options: argparse.Namespace) -> tuple[list[campaign.Task], Any]:
    import importlib

    chapter = project.notebook(options.chapter)
    if options.budget is not None and (options.jobs > 1 or options.dask):
        raise BookError("--budget runs one experiment after the other: leave out --jobs and --dask")
    name = f"descent.experiments.{chapter}"
    device = options.device or ("cuda" if options.scale == "gpu" and not options.plan else "cpu")
    try:
        package = importlib.import_module(name)
        given = {"replicas": options.replicas} if options.replicas else {}
        lab = Lab(options.seed, device=device, **given)
        work = "" if options.dask else str(begun(options.out).resolve())
        return campaign.tasks(name, lab, options.scale, options.only, seconds=options.every, work=work), package
    except ModuleNotFoundError:
        raise BookError(f"{chapter} has no experiments") from None
    except ValueError as fault:
        raise BookError(str(fault)) from None


def read_calibration(file: Path) -> dict[str, Any]:
    """Return what `descent calibrate --out` wrote; raise BookError for anything else, and for a device that errs."""
    remedy = "make one with `descent calibrate --device … --out FILE`"
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        raise BookError(f"--calibration {file}: cannot be read ({fault}); {remedy}") from None
    if why := unfit(found):
        raise BookError(f"--calibration {file}: {why}; {remedy}")
    calibration: dict[str, Any] = found
    return calibration


def rescaled(calibration: Mapping[str, Any]) -> str:
    """Return the sentence about a calibration that stands below a plan."""
    made, here = calibration["provenance"], rates(calibration)
    faster = ", ".join(f"{name} {here[name] / rate:.3g} ×" for name, rate in CORE.items() if name in here)
    return f"minutes rescaled by the calibration of {made['device_class']}, {made['date']}; one core = 1: {faster}"


@contextlib.contextmanager
def _executor(options: argparse.Namespace) -> Iterator[Executor | None]:
    if options.dask:
        with _cluster(options.dask) as executor:
            yield executor
    elif options.jobs > 1:
        with lifeline.processes(options.jobs) as pool:
            yield pool
    else:
        yield None


@contextlib.contextmanager
def _cluster(address: str) -> Iterator[Executor]:
    """Yield the executor of a running dask cluster; raise BookError when there is none, or nobody to work."""
    try:
        from distributed import Client
    except ImportError:
        raise BookError("--dask needs the package distributed: pip install 'descent[cluster]'") from None
    try:
        client: Any = Client(address, timeout=PATIENCE, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, TimeoutError, ValueError) as fault:
        raise BookError(f"no dask scheduler answers at {address} ({fault}); start one with `dask scheduler`") from None
    with client:
        if not client.scheduler_info()["workers"]:
            raise BookError(f"the scheduler at {address} has no workers; start some with `dask worker {address}`")
        yield client.get_executor(pure=False, retries=3)
