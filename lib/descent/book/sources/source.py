"""Chapters as sources: MyST text with a full jupytext header and one cell of parameters."""

from __future__ import annotations

import ast
import contextlib
import copy
from functools import lru_cache
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from jupytext.myst import MystMetadataParsingError

from descent.book.sources.project import SourceError, sound
from descent.results import parse_yaml, read_text

Value = int | float | str | bool
Notebook = Any
"""A notebook as nbformat holds it; its own types are not complete enough to check against."""

HEADER = ("jupytext.text_representation.format_name", "kernelspec.display_name", "kernelspec.name")
"""What the header of a chapter must name; a shorter one builds in one tool and is refused by the next."""

NEEDS = "needs-"
"""Prefix of the tag of a cell that can only run where an image set is present."""

INJECTED = "injected-parameters"
"""Tag of the cell that papermill adds below the parameters cell."""


def read(path: Path) -> Notebook:
    """Return a chapter as a notebook, after checking header, metadata filter, syntax and parameters cell."""
    return parse(path, sound(read_text, path))


def parse(path: Path, text: str) -> Notebook:
    """Return the text of a chapter as a notebook, after the same checks."""
    return copy.deepcopy(_parsed(path, text))


@lru_cache(maxsize=64)
def _parsed(path: Path, text: str) -> Notebook:
    """Return the notebook of a text, which a command parses once however often it asks."""
    _check_header(path, text)
    notebook = _notebook(path, text)
    notebook.metadata.pop("jupytext", None)
    _check_syntax(path, notebook)
    _parameters_cell(notebook, path.name)
    return notebook


def load(path: Path) -> Notebook:
    """Return the notebook in a file."""
    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]  # nbformat is half typed


def dump(notebook: Notebook) -> str:
    """Return a notebook as the text of a file, its cells named by their place: a random name would be a change."""
    named = copy.deepcopy(notebook)
    for place, cell in enumerate(named.cells):
        cell["id"] = f"cell-{place}"
    return str(nbformat.writes(named))  # type: ignore[no-untyped-call]  # nbformat is half typed


def text_cell(text: str) -> Any:
    """Return a new cell of Markdown."""
    return nbformat.v4.new_markdown_cell(text)  # type: ignore[no-untyped-call]  # nbformat is half typed


def parameters(path: Path) -> dict[str, Value]:
    """Return names and default values of a chapter's parameters."""
    return defaults(read(path), path.name)


def defaults(notebook: Notebook, name: str) -> dict[str, Value]:
    """Return names and default values of the parameters of a notebook, whose file is called `name`."""
    cell = _parameters_cell(notebook, name)
    values = dict(_assignment(node, name) for node in ast.parse(cell.source).body)
    if not values:
        raise SourceError(f"{name}: the parameters cell assigns nothing")
    return values


def code(notebook: Notebook) -> list[str]:
    """Return the sources of the code cells, IPython magics left out."""
    return ["\n".join(plain(cell.source)) for cell in notebook.cells if cell.cell_type == "code"]


def plain(text: str) -> list[str]:
    """Return the lines of a cell, those that are no Python, magics and shell, left blank."""
    return ["" if line.lstrip().startswith(("%", "!")) else line for line in text.splitlines()]


def executable(notebook: Notebook) -> list[Any]:
    """Return what execution depends on: code cells and their metadata. Prose may change without a new run."""
    return [[cell.source, cell.metadata] for cell in notebook.cells if cell.cell_type == "code"]


def data_sets(notebook: Notebook) -> list[str]:
    """Return the image sets that cells say they need, by tags such as `needs-cifar10`."""
    tags = {tag for cell in notebook.cells for tag in cell.metadata.get("tags", [])}
    return sorted(tag.removeprefix(NEEDS) for tag in tags if tag.startswith(NEEDS))


def with_outputs(notebook: Notebook, executed: Notebook) -> Notebook:
    """Return today's text with the outputs of its execution; both hold the same code cells."""
    merged = copy.deepcopy(notebook)
    done = [
        cell for cell in executed.cells if cell.cell_type == "code" and INJECTED not in cell.metadata.get("tags", [])
    ]
    blank = [cell for cell in merged.cells if cell.cell_type == "code"]
    for cell, run in zip(blank, done, strict=True):
        cell.outputs, cell.execution_count = run.outputs, run.execution_count
    return merged


def convert(text: str, default: Value) -> Value:
    """Turn the text of a parameter into the type of its default; raise ValueError when it does not fit."""
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise ValueError("true or false")
        return text.lower() == "true"
    if isinstance(default, int):
        return int(text)
    return float(text) if isinstance(default, float) else text


def _check_header(path: Path, text: str) -> None:
    if not text.startswith("---\n"):
        raise SourceError(f"{path.name}: a chapter with code cells starts with the jupytext header")
    inner = text.split("---\n", 2)[1]
    header: Any = sound(parse_yaml, f"\n{inner}", path.name)  # its lines are then counted as in the file
    if "cell_metadata_filter" in str(header):
        raise SourceError(f"{path.name}: remove cell_metadata_filter from the header; with it an editor drops tags")
    for name in HEADER:
        node = header
        for key in name.split("."):
            node = node.get(key) if isinstance(node, dict) else None
        if not node:
            raise SourceError(f"{path.name}: the header lacks {name}; copy the full jupytext header of another chapter")


def _notebook(path: Path, text: str) -> Notebook:
    try:
        return jupytext.reads(text, fmt="md:myst")
    except (ValueError, MystMetadataParsingError, nbformat.ValidationError) as fault:
        why = str(fault).partition("\n")[0].partition(";")[0]
        raise SourceError(f"{path.name}: {why}; correct the options at the head of the cell") from None


def _check_syntax(path: Path, notebook: Notebook) -> None:
    for number, cell in enumerate(code(notebook), start=1):
        try:
            ast.parse(cell)
        except SyntaxError as fault:
            shown = (fault.text or "").strip()
            raise SourceError(f"{path.name}: code cell {number}, line {fault.lineno}: {fault.msg}: {shown}") from None


def _parameters_cell(notebook: Notebook, name: str) -> Notebook:
    found = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(found) != 1:
        raise SourceError(f"{name}: {len(found)} cells tagged `parameters`, exactly one is needed")
    return found[0]


def _assignment(node: ast.stmt, name: str) -> tuple[str, Value]:
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    value = getattr(node, "value", None)
    if len(targets) == 1 and isinstance(targets[0], ast.Name) and value is not None:
        with contextlib.suppress(ValueError):
            literal = ast.literal_eval(value)
            if isinstance(literal, int | float | str | bool):
                return targets[0].id, literal
    raise SourceError(f"{name}: the parameters cell holds only lines like `name = 1.0`, not line {node.lineno}")
