"""How the instruments were checked: the oracles of the library, measured anew when the library has changed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from descent import dispatch
from descent.book.execute import digest, lifeline
from descent.book.execute.work import own_folder
from descent.book.sources.project import BookError, Project
from descent.results import MALFORMED, read_json, write_atomic

Rows = Sequence[Mapping[str, Any]]

PATIENCE = 1800.0
"""Seconds the instruments may take, which are some seconds."""
ABOVE = ("book", "experiments", "figures")
"""Floors of the library on which no instrument rests."""


def measured(project: Project) -> Rows:
    """Return one row per oracle, from the last measurement if neither library nor environment has changed since."""
    path = project.build / "oracles.json"
    now = digest.total({"library": digest.library(project, without=ABOVE), **digest.environment(project)})
    rows = _kept(path, now)
    if rows is None:
        with own_folder(project, "oracles") as work:
            rows = _measure(work / "rows.json")
        write_atomic(path, json.dumps({"inputs": now, "rows": rows}, indent=1))
    return rows


def _kept(path: Path, inputs: str) -> Rows | None:
    """Return what was measured last; None when that was of other inputs, or cannot be read."""
    try:
        kept = read_json(path)
        rows: Rows = kept["rows"]
        return rows if kept["inputs"] == inputs else None
    except (OSError, ValueError, *MALFORMED):
        return None


def _measure(file: Path) -> Rows:
    try:
        run = subprocess.run(
            lifeline.command("descent.oracles", str(file)),
            stdin=lifeline.line(),
            capture_output=True,
            text=True,
            env=dispatch.child_environment(),
            check=False,
            timeout=PATIENCE,
        )
    except subprocess.TimeoutExpired:
        raise BookError(
            f"the instruments were stopped after {PATIENCE:.0f} s: run `python -m descent.oracles` to see "
            "which one hangs"
        ) from None
    if run.returncode:
        raise BookError(f"the instruments could not be checked:\n{run.stderr.strip()}")
    rows: Rows = json.loads(file.read_text(encoding="utf-8"))
    return rows
