"""A chapter as a notebook for a machine without the book, such as Colab: its first cell brings what is missing."""

from __future__ import annotations

import math
import tomllib
from typing import Any

import nbformat

from descent.book.execute.chapter import Chapter
from descent.book.sources import source
from descent.book.sources.project import Project, sound
from descent.results import read_yaml

__all__ = ["away", "packages"]

LEFT_OUT = ("torch", "torchvision", "jupyter-book", "papermill", "sphinx-mathjax-offline")
"""What a hosted notebook has in a version of its own, which must stay, or what only the making of the book needs."""

NOTE = """\
This is the chapter *{title}*, to run on another machine. **No GPU is needed**: with the defaults below it \
took {minutes} on two cores. The next cell does nothing in a checkout of the book; elsewhere it brings version \
{version} of the library, and leaves PyTorch as it is."""

INSTALL = """\
import importlib.util, os, subprocess, sys

ADDRESS = {address!r}  # of the book's repository
if importlib.util.find_spec("descent") is None:
    assert ADDRESS, "write the address that you clone the book from into ADDRESS"
    clone = ["git", "clone", "-q", "--depth", "1", "--branch", "v{version}"]
    subprocess.run([*clone, ADDRESS, "book"], check=True)
    pip = [sys.executable, "-m", "pip", "install", "-q"]
    subprocess.run([*pip, {packages}], check=True)
    sys.path.insert(0, os.path.abspath("book/lib"))
    os.chdir("book/chapters")
"""


def away(chapter: Chapter) -> source.Notebook:
    """Return the chapter without outputs, below what it takes and a cell that installs the released version."""
    project = chapter.project
    notebook = source.parse(project.source(chapter.name), chapter.text)
    cited = sound(read_yaml, project.root / "CITATION.cff") if (project.root / "CITATION.cff").is_file() else {}
    version = str(cited.get("version", "0"))
    named = ", ".join(repr(name) for name in packages(project))
    install = INSTALL.format(address=str(cited.get("repository-code", "")), version=version, packages=named)
    note = NOTE.format(title=chapter.title, minutes=_minutes(chapter.stamp.seconds), version=version)
    notebook.cells[:0] = [source.text_cell(note), _code_cell(install)]
    return notebook


def packages(project: Project) -> list[str]:
    """Return what a chapter needs beside PyTorch, from the project's own list of requirements."""
    path = project.root / "pyproject.toml"
    stated: Any = tomllib.loads(path.read_text(encoding="utf-8"))["project"] if path.is_file() else {}
    asked = [*stated.get("dependencies", []), *stated.get("optional-dependencies", {}).get("book", [])]
    return [*(one for one in asked if _name(one) not in LEFT_OUT), "myst-nb>=1"]


def _name(requirement: str) -> str:
    return requirement.partition(">")[0].partition("<")[0].partition("=")[0].strip()


def _minutes(seconds: float) -> str:
    """Return a time in whole minutes, rounded up."""
    count = max(1, math.ceil(seconds / 60))
    return "one minute" if count == 1 else f"{count} minutes"


def _code_cell(text: str) -> Any:
    return nbformat.v4.new_code_cell(text)  # type: ignore[no-untyped-call]  # nbformat is half typed
