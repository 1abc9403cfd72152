"""The command `descent register`: enter rules and configurations in the registry, with what they were before."""

from __future__ import annotations

import argparse
import datetime
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import descent
from descent.book.sources import records
from descent.book.sources.parameters import experiments_package
from descent.book.sources.project import BookError, Project, SourceError
from descent.claims import Outcome
from descent.claims.registering import Step, chosen, registered
from descent.claims.registry import (
    Draw,
    Entry,
    Form,
    Place,
    Registry,
    config_digest,
    form,
    pending,
    save_registry,
    unregistered,
)
from descent.claims.verdict import rule_from

START = "start one with `descent register --start`"


def register(project: Project, options: argparse.Namespace, usage: Callable[..., Any]) -> int:
    """Register what the keys name, or list what is not registered; return the exit status."""
    file, papers, experiments = project.registry, records.papers(project), configurations(project)
    before = usage(begun, file) if options.start else read(project)
    everything = [item.key for item in pending(before, papers, experiments)]
    if not (options.keys or options.all or options.start):
        print("\n".join(unregistered(before, papers, experiments)) or "all rules and configurations are registered")
        return 1 if everything else 0
    keys = everything if options.all else usage(_asked, chosen, options.keys, before, papers, experiments)
    step = usage(_asked, Step, _today(), descent.__version__, options.why, options.basis)
    after = usage(_asked, registered, before, papers, experiments, keys, step, _said(project))
    save_registry(file, after)
    print("\n".join([*_lines(before, after), *notes(project.root)]) or "as registered already")
    return 0


def read(project: Project) -> Registry:
    """Return the registry of a book; raise SourceError where there is none, or none that can be read."""
    if not project.registry.is_file():
        raise SourceError(f"{project.registry.relative_to(project.root)} does not exist; {START}")
    return records.registry(project)


def begun(file: Path) -> Registry:
    """Return an empty registry for a book that has none; raise BookError where there is one."""
    if file.exists():
        raise BookError(
            f"there is a registry, {file.name}, and what it says is never removed: to start one of your own, rename it "
            f"first, for example to {file.stem}-before.json"
        )
    return Registry()


def configurations(project: Project) -> dict[Place, str]:
    """Return the digests of all configurations of the book's experiments, at the scales they are carried out at."""
    packages = {chapter: experiments_package(project, chapter) for chapter in project.notebooks}
    return {
        Place(chapter, item.name, scale): config_digest(item.config(scale))
        for chapter, package in packages.items()
        for item in getattr(package, "EXPERIMENTS", ())
        for scale in item.sizes
    }


def notes(root: Path) -> list[str]:
    """Say what stands between this registration and a history in which everybody finds it; nothing outside git.

    A warning, no refusal: a rule and its entry belong into one commit, so that the rule is not committed yet as a rule.
    """
    changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", "data/claims", "lib")
    if changed is None:
        return []
    files = [line[3:] for line in changed.splitlines() if not line.endswith("registry.json")]
    found = []
    if files:
        more = f" and {len(files) - 3} more" if len(files) > 3 else ""
        found.append(f"note: not committed: {', '.join(files[:3])}{more}; commit them together with the registry")
    if _git(root, "symbolic-ref", "--quiet", "HEAD") is None:
        found.append("note: HEAD is detached, a commit made here is on no branch; make one first: git switch -c NAME")
    return found


def _git(root: Path, *arguments: str) -> str | None:
    """Return what git says; None where it fails, is absent, or has no repository here."""
    try:
        ran = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return ran.stdout if ran.returncode == 0 else None


def _asked(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of the claims; what it refuses is told as a BookError."""
    try:
        return function(*arguments)
    except ValueError as fault:
        raise BookError(str(fault)) from None


def _today() -> str:
    return datetime.datetime.now(datetime.UTC).date().isoformat()


def _said(project: Project) -> Callable[[str, Form], tuple[str, str]]:
    """Return what tells estimate and verdict that were published of a test under one of its forms."""
    found: dict[str, list[Outcome]] = {}

    def said(key: str, left: Form) -> tuple[str, str]:
        if not found:
            for name, outcome in _published(project):
                found.setdefault(name, []).append(outcome)
        for outcome in found.get(key, ()):
            if outcome.estimates and {**form(outcome.test), "needs": left["needs"]} == left:
                return outcome.quote, str(outcome.verdict)
        return "", ""

    return said


def _published(project: Project) -> Iterator[tuple[str, Outcome]]:
    """Yield all outcomes of the records of record, the chapters' own first, then those at paper scale."""
    folder = project.published
    for file in (*sorted((folder / "records").glob("*.json")), *sorted(folder.glob(f"*/gpu/{records.RECORDS}"))):
        for record in records.read(file):
            yield from ((f"{record.claim.id}.{outcome.test.key}", outcome) for outcome in record.outcomes)


def _lines(before: Registry, after: Registry) -> Iterator[str]:
    """Yield one line for every entry that has moved."""
    for key, entry in after.tests.items():
        if before.tests.get(key) != entry:
            yield f"{key}: {_told(before.tests.get(key), entry)}"
    for place, draw in after.draws.items():
        if before.draws.get(place) != draw:
            yield f"{place}: {_drawn(before.draws.get(place), draw)}"


def _told(was: Entry | None, entry: Entry) -> str:
    rule = _rule(entry.form)
    if was is None:
        return f"{rule}, basis {entry.basis}"
    last = entry.earlier[-1]
    found = f", which said {last.estimate}, {last.verdict}" if last.verdict else ""
    if entry.withdrawn:
        return f"withdrawn: {rule}{found}"
    return f"{rule}, basis {entry.basis}; before: {_rule(last.form)}, basis {last.basis}{found}"


def _drawn(was: Draw | None, draw: Draw) -> str:
    if not draw.config:
        return "gone"
    return f"registration {draw.registration[:8]}" + (f"; before: {was.registration[:8]}" if was else "")


def _rule(left: Form) -> str:
    return str(rule_from(left["rule"]))
