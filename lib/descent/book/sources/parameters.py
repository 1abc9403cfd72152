"""Parameters given on the command line: known, of the right type, in range, before anything runs."""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from descent.book.sources import source
from descent.book.sources.project import BookError, Project
from descent.claims.paper import SCALES


def given(project: Project, chapters: Iterable[str], pairs: Sequence[str]) -> dict[str, dict[str, source.Value]]:
    """Return the parameters each chapter takes from `name=value` texts.

    Raises: BookError naming the valid ones: no chapter knows a name, a type is wrong, a value out of range.
    """
    chapters = list(chapters)
    defaults = {chapter: source.parameters(project.source(chapter)) for chapter in chapters}
    for pair in pairs:
        name = pair.partition("=")[0]
        if "=" not in pair or not any(name in known for known in defaults.values()):
            raise BookError(f"unknown parameter {pair!r}; write name=value with one of: {_valid(defaults)}")
    found = {chapter: _typed(defaults[chapter], pairs) for chapter in chapters}
    if pairs:
        for chapter in chapters:
            _plan(project, chapter, defaults[chapter] | found[chapter])
    return found


def lab(project: Project, chapter: str, values: dict[str, source.Value]) -> Any:
    """Return the validated lab of a chapter's experiments, None in a book without any.

    Raises: BookError with what the lab says is wrong.
    """
    form = experiments_package(project, "lab")
    if form is None:
        return None
    kind = form.Lab
    known = {field.name for field in dataclasses.fields(kind)}
    try:
        return kind(**{name: value for name, value in values.items() if name in known})
    except ValueError as fault:
        raise BookError(f"{chapter}: {fault}") from None


def _plan(project: Project, chapter: str, values: dict[str, source.Value]) -> None:
    """Raise BookError where an experiment of the chapter cannot be run with these parameters; nothing is run."""
    chosen, scale = lab(project, chapter, values), str(values.get("scale", "cpu"))
    if scale not in SCALES:
        raise BookError(f"{chapter}: scale must be one of {', '.join(SCALES)}, got {scale!r}")
    for experiment in getattr(experiments_package(project, chapter), "EXPERIMENTS", ()):
        if scale in experiment.scales and experiment.check is not None:
            try:
                experiment.check(experiment.config(scale), chosen)
            except ValueError as fault:
                raise BookError(f"{chapter}: {fault}") from None


def _typed(known: dict[str, source.Value], pairs: Sequence[str]) -> dict[str, source.Value]:
    found: dict[str, source.Value] = {}
    for name, text in (pair.split("=", 1) for pair in pairs):
        if name not in known:
            continue
        try:
            found[name] = source.convert(text, known[name])
        except ValueError:
            kind = type(known[name]).__name__
            raise BookError(f"{name} must be of type {kind}, not {text!r}; there are: {_valid({'': known})}") from None
    return found


def _valid(defaults: dict[str, dict[str, source.Value]]) -> str:
    merged = {name: value for known in defaults.values() for name, value in known.items()}
    return ", ".join(f"{name} ({type(value).__name__}, default {value!r})" for name, value in merged.items())


def experiments_package(project: Project, name: str) -> Any:
    """Import `<package>.experiments.<name>` of the book's own library; None when there is none."""
    for folder in sorted(project.library.glob("*/experiments")):
        if (folder / name).is_dir() or (folder / f"{name}.py").is_file():
            if str(project.library) not in sys.path:
                sys.path.insert(0, str(project.library))
            return importlib.import_module(f"{folder.parent.name}.experiments.{name}")
    return None
