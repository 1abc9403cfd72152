"""From a figure on a page back to its code and data: what a cell draws with, and which experiments it draws."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from descent.book.sources import source
from descent.book.sources.project import Project

RUN = "run"
"""Method of the bench that runs an experiment."""
SPELLED = {"alpha": "α", "beta": "β", "delta": "δ", "eta": "η", "lambda": "λ", "mu": "μ", "omega": "ω", "sigma": "σ"}


@dataclass(frozen=True)
class Code:
    """A definition in the library: its dotted name, and the module and line where it stands."""

    name: str
    module: str
    line: int

    @property
    def address(self) -> str:
        """Where the site shows it."""
        return f"code/{self.module}.html#L{self.line}"


@dataclass(frozen=True)
class Trace:
    """A figure: what it was drawn by, the experiments it was drawn from, its title, and its place on the page."""

    drawn: Code | None
    experiments: tuple[str, ...]
    title: str
    anchor: str


def modules(project: Project) -> dict[str, Path]:
    """Return every module of the library by its dotted name."""
    found = {}
    for path in sorted(project.library.rglob("*.py")):
        parts = path.relative_to(project.library).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def figures(project: Project, chapter: str) -> dict[int, Trace]:
    """Return the trace of every cell of a chapter that has an alt text, by its place among the cells."""
    cells = source.read(project.source(chapter)).cells
    found: dict[int, Trace] = {}
    names: dict[str, str] = {}
    results: dict[str, str] = {}
    for place, cell in enumerate(cells):
        if cell.cell_type != "code":
            continue
        tree = ast.parse("\n".join(source.plain(cell.source)))
        names |= _imports(tree)
        results |= _runs(tree, names, project)
        shown = cell.metadata.get("mystnb", {})
        if "alt" in shown.get("image", {}):
            drawn, experiments = _trace(tree, names, results, project)
            found[place] = Trace(drawn, experiments, _titled(shown), shown.get("figure", {}).get("name", ""))
    return found


def experiment(project: Project, chapter: str, name: str) -> Code | None:
    """Return where the library defines the experiment `name` of a chapter."""
    return _search(project, "descent.experiments", rf'^(\w+) = Experiment\(\s*"{re.escape(name)}"', prefer=chapter)


def tables(results: Path) -> dict[str, list[str]]:
    """Return the names of a chapter's tables by the experiment that left them."""
    found: dict[str, list[str]] = {}
    for path in sorted(results.glob("*.json")):
        if path.with_suffix(".csv").is_file():
            name = json.loads(path.read_text(encoding="utf-8")).get("experiment", "")
            found.setdefault(name, []).append(path.with_suffix(".csv").name)
    return found


def _titled(shown: Mapping[str, Any]) -> str:
    """Return the bold words a caption begins with, else the first sentence of the alt text."""
    bold = re.search(r"\*\*(.+?)\*\*", str(shown.get("figure", {}).get("caption", "")))
    text = bold[1] if bold else str(shown["image"]["alt"]).partition(". ")[0]
    return _spelled(text).rstrip(".")


def _spelled(text: str) -> str:
    """Return a title with its formulas as signs, such as η_1/2 and √(2λ ln2)."""
    text = re.sub(r"\\sqrt\{([^{}]*)\}", r"√(\1)", text.replace("$", ""))
    text = re.sub(r"\\([a-z]+)", lambda found: SPELLED.get(found[1], f" {found[1]}"), text)
    return re.sub(r"[{}\\]", "", text)


def _trace(
    tree: ast.Module, names: Mapping[str, str], results: Mapping[str, str], project: Project
) -> tuple[Code | None, tuple[str, ...]]:
    """Follow the last call of a cell that draws; every result named in the cell feeds the figure."""
    used = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id in results]
    drawn = [code for call in _calls(tree) if (code := _definition(project, _dotted(call.func, names)))]
    drawing = [code for code in drawn if ".figures" in code.module]
    return (drawing[-1] if drawing else None), tuple(dict.fromkeys(results[name] for name in used))


def _imports(tree: ast.Module) -> dict[str, str]:
    """Return the dotted name behind every imported name."""
    found: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {item.asname or item.name: f"{node.module}.{item.name}" for item in node.names}
        elif isinstance(node, ast.Import):
            found |= {item.asname or item.name: item.name for item in node.names}
    return found


def _runs(tree: ast.Module, names: Mapping[str, str], project: Project) -> dict[str, str]:
    """Return which experiment each variable holds, from lines such as `race = bench.run(margins.RACE)`."""
    found: dict[str, str] = {}
    for node in tree.body:
        call = node.value if isinstance(node, ast.Assign) else None
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == RUN):
            continue
        name = _experiment_name(project, _dotted(call.args[0], names)) if call.args else None
        if name and isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = name
    return found


def _experiment_name(project: Project, dotted: str) -> str | None:
    package, _, constant = dotted.rpartition(".")
    for path in _files(project, package):
        match = re.search(rf'^{constant} = Experiment\(\s*"(\w+)"', path.read_text(encoding="utf-8"), re.M)
        if match:
            return match[1]
    return None


def _definition(project: Project, dotted: str) -> Code | None:
    package, _, name = dotted.rpartition(".")
    return _search(project, package, rf"^def ({re.escape(name)})\(") if package and name else None


def _search(project: Project, package: str, pattern: str, prefer: str = "") -> Code | None:
    """Return the first definition in a module or the modules of its package that matches."""
    known = {path: module for module, path in modules(project).items()}
    for path in sorted(_files(project, package), key=lambda path: prefer not in path.parts):
        text = path.read_text(encoding="utf-8")
        match = re.search(pattern, text, re.M)
        if match:
            return Code(f"{known[path]}.{match[1]}", known[path], text.count("\n", 0, match.start()) + 1)
    return None


def _files(project: Project, package: str) -> list[Path]:
    folder = project.library.joinpath(*package.split("."))
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [p for p in [folder.with_suffix(".py")] if p.is_file()]


def _calls(tree: ast.Module) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def _dotted(node: ast.expr, names: Mapping[str, str]) -> str:
    """Return the full dotted name of an expression such as `draw.race`, "" for any other."""
    if isinstance(node, ast.Name):
        return names.get(node.id, "")
    if isinstance(node, ast.Attribute):
        head = _dotted(node.value, names)
        return f"{head}.{node.attr}" if head else ""
    return ""
