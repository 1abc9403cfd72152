"""Try a reader's own rule against others, and write the file to begin with."""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from descent.book.sources.project import BookError

__all__ = ["compare_rule", "new_rule"]

WIDTH = 84  # of the lines in which a trial is read out


def compare_rule(options: argparse.Namespace, usage: type[BookError]) -> int:
    """Run one trial and write its report; raise `usage` for a broken rule or a call that cannot be."""
    from descent.data.images import DataMissing
    from descent.engine.contract import BrokenRuleError
    from descent.trials import load, problems, report
    from descent.trials.contest import compete

    if options.list:
        for name, (make, settings) in load.BUILT_IN.items():
            first = (make.__doc__ or "").partition("\n")[0].rstrip(".")
            print(f"{name:<12}{' '.join(f'{k}={v:g}' for k, v in settings.items()):<28}{first}")
        return 0
    if not options.rule:
        raise usage("name a rule: FILE.py:NAME, or a built-in one (--list)")
    try:
        given = load.settings_of(options.parameters)
        entries = [load.entry(options.rule, given), *(load.entry(name) for name in _names(options.against))]
        entries = list({entry.name: entry for entry in reversed(entries)}.values())[::-1]
        problem = problems.problem(options.problem)
        plan = _plan(options, problem.rates)
        _folder(options.out)
        found = compete(problem, entries, plan, _say())
    except (load.TrialError, BrokenRuleError, DataMissing, ValueError, KeyError) as fault:
        raise usage(str(fault.args[0] if isinstance(fault, KeyError) else fault)) from None
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    print(report.table(found))
    print(*(path for path in report.write(found, options.out)), sep="\n")
    print(textwrap.fill(report.reading(found), WIDTH))
    return 0


def new_rule(options: argparse.Namespace, usage: type[BookError]) -> int:
    """Write the template; raise `usage` where a file is there already."""
    from descent.trials.load import TEMPLATE

    path: Path = options.file
    if path.suffix != ".py":
        raise usage(f"{path}: a rule is a Python file; give a name that ends in .py")
    if path.exists():
        raise usage(f"{path} is there already; give another name, for it is not overwritten")
    if not path.parent.is_dir():
        raise usage(f"the folder {path.parent} does not exist; make it first")
    path.write_text(TEMPLATE.format(file=path.name), encoding="utf-8")
    print(path)
    return 0


def _plan(options: argparse.Namespace, rates: tuple[float, float, int]) -> Any:
    from descent.trials.contest import Plan

    if options.lr:
        parts = options.lr.split(":")
        try:
            rates = (float(parts[0]), float(parts[1]), int(parts[2]))
        except (IndexError, ValueError):
            raise ValueError(f"--lr {options.lr}: give LOW:HIGH:COUNT, such as 3e-4:3e-2:5") from None
    match = options.match != "none"
    return Plan(
        rates, options.replicas, options.draws, options.seed, options.steps,
        match=match, by=options.match if match else "reach", symmetric=options.noise == "symmetric",
    )  # fmt: skip


def _folder(path: Path) -> None:
    """Make the folder of the report before anything runs; raise ValueError where that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise ValueError(f"--out {path} cannot be a folder: {fault.strerror}; give another") from None
    if not os.access(path, os.W_OK):
        raise ValueError(f"--out {path} may not be written to; give another folder")


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def _say() -> Callable[[str], None]:
    """Return what tells the progress: one line that is rewritten on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty():
        return lambda text: None
    return lambda text: print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
