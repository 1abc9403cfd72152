"""When a page was last changed, and by what: from the history of the repository, and nothing outside of one."""

from __future__ import annotations

import subprocess
from collections import defaultdict
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from descent.book.pages.html import raw
from descent.book.sources.project import Project

__all__ = ["Change", "box", "changes"]

SHOWN = 12
"""The latest changes that are listed; earlier ones are counted."""
PATIENCE = 60.0  # seconds for git


class Change(NamedTuple):
    """One commit that touched a page: its day, and the first line of what it says."""

    day: str
    said: str


def changes(project: Project) -> Mapping[str, Sequence[Change]]:
    """Return the changes of every page by its name, the latest first.

    None outside the project's own repository, and in one that was cloned without its history, whose last commit would
    seem to have changed everything.
    """
    place = _git(project, "rev-parse", "--show-toplevel", "--is-shallow-repository").splitlines()
    if len(place) != 2 or Path(place[0]).resolve() != project.root.resolve() or place[1] != "false":
        return {}
    found: dict[str, list[Change]] = defaultdict(list)
    log = _git(project, "log", "--format=%x1e%ad%x1f%s", "--date=short", "--name-only", "--", project.chapters.name)
    for commit in log.split("\x1e")[1:]:
        head, *files = filter(None, commit.splitlines())
        change = Change(*head.split("\x1f", 1))
        for path in map(Path, files):
            if path.suffix == ".md":
                found[path.stem].append(change)
    return dict(found)


def box(made: Sequence[Change]) -> str:
    """Return the changes of a page as what stands at its end; nothing where none is known."""
    if not made:
        return ""
    rows = "".join(f"<li>{change.day}: {escape(change.said)}</li>" for change in made[:SHOWN])
    earlier = len(made) - SHOWN
    rest = f"<p>and {earlier} earlier</p>" if earlier > 0 else ""
    return raw(
        f'<details class="changes"><summary>Last changed on {made[0].day}</summary><ul>{rows}</ul>{rest}</details>'
    )


def _git(project: Project, *arguments: str) -> str:
    """Return what git says in the project's folder; nothing where there is no git, no repository, or no answer."""
    command = ["git", "-C", str(project.root), *arguments]
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE, encoding="utf-8")
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return run.stdout if run.returncode == 0 else ""
