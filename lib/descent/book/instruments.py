"""How the instruments were checked: the oracles of the library, measured anew when the library has changed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from descent import dispatch
from descent.book import digest
from descent.book.project import BookError, Project

ABOVE = ("book", "experiments", "figures")
"""Floors of the library on which no instrument rests."""


def measured(project: Project) -> Sequence[Mapping[str, Any]]:
    """Return one row per oracle, from the last measurement if the library has not changed since."""
    path = project.build / "oracles.json"
    now = digest.library(project, without=ABOVE)
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if kept.get("library") != now:
        fresh = project.build / "oracles.fresh.json"
        run = subprocess.run([sys.executable, "-m", "descent.oracles", str(fresh)], capture_output=True, text=True,
                             env=dispatch.environment(), check=False)
        if run.returncode:
            raise BookError(f"the instruments could not be checked:\n{run.stderr.strip()}")
        kept = {"library": now, "rows": json.loads(fresh.read_text(encoding="utf-8"))}
        fresh.unlink()
        path.write_text(json.dumps(kept, indent=1), encoding="utf-8")
    rows: Sequence[Mapping[str, Any]] = kept["rows"]
    return rows
