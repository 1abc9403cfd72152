"""How the instruments were checked: the oracles of the library, measured anew when the library has changed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from descent import dispatch
from descent.book import digest, lifeline
from descent.book.project import BookError, Project
from descent.book.work import own_folder
from descent.results import write_atomic

ABOVE = ("book", "experiments", "figures")
"""Floors of the library on which no instrument rests."""


def measured(project: Project) -> Sequence[Mapping[str, Any]]:
    """Return one row per oracle, from the last measurement if the library has not changed since."""
    path = project.build / "oracles.json"
    now = digest.library(project, without=ABOVE)
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if kept.get("library") != now:
        with own_folder(project, "oracles") as work:
            kept = {"library": now, "rows": _measure(work / "rows.json")}
        write_atomic(path, json.dumps(kept, indent=1))
    rows: Sequence[Mapping[str, Any]] = kept["rows"]
    return rows


def _measure(file: Path) -> Any:
    run = subprocess.run(lifeline.command("descent.oracles", str(file)), stdin=lifeline.line(), capture_output=True,
                         text=True, env=dispatch.environment(), check=False)
    if run.returncode:
        raise BookError(f"the instruments could not be checked:\n{run.stderr.strip()}")
    return json.loads(file.read_text(encoding="utf-8"))
