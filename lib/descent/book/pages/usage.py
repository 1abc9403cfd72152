"""Where a public name is put to use: the shortest statement of a chapter, else of the library, else of the tests."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from descent.book.sources import source
from descent.book.sources.project import Project
from descent.book.sources.provenance import modules

__all__ = ["Use", "uses"]

LONGEST = 320
"""Signs of a statement that is shown as an example."""


@dataclass(frozen=True)
class Use:
    """A statement that uses a name, and the page or file it is from."""

    text: str
    place: str


def uses(project: Project) -> dict[str, Use]:
    """Return one use of every name that a module imports from another, by its full dotted name."""
    found, homes = dict[str, Use](), _homes(project)
    for readings in (_chapters(project), _library(project), _tests(project)):
        layer: dict[str, Use] = {}
        for place, text in readings:
            for called, statement in _statements(text, place):
                name = homes.get(called, called)
                if name not in layer or len(statement) < len(layer[name].text):
                    layer[name] = Use(statement, place)
        found = layer | found
    return found


def _homes(project: Project) -> dict[str, str]:
    """Return where a name is defined that another module imports, by the name it has there."""
    return {
        f"{module}.{name}": full
        for module, path in modules(project).items()
        for name, full in _imported(ast.parse(path.read_text(encoding="utf-8")))
    }


def _chapters(project: Project) -> Iterator[tuple[str, str]]:
    for page in project.notebooks:
        yield f"{page}.md", "\n".join(source.code(source.read(project.source(page))))


def _library(project: Project) -> Iterator[tuple[str, str]]:
    for module, path in modules(project).items():
        yield module, path.read_text(encoding="utf-8")


def _tests(project: Project) -> Iterator[tuple[str, str]]:
    folder = project.root / "tests"
    for path in sorted(folder.rglob("*.py")):
        yield path.relative_to(project.root).as_posix(), path.read_text(encoding="utf-8")


def _statements(text: str, place: str) -> Iterator[tuple[str, str]]:
    """Yield full names that a text imports or defines, each with the short statements in which they stand."""
    tree = ast.parse(text)
    own = (node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef))
    homes = {name: f"{place}.{name}" for name in own} | dict(_imported(tree))
    if not homes:
        return
    for node in ast.walk(tree):
        shown = _shown(node)
        if shown and len(shown) <= LONGEST and not shown.startswith("__all__"):
            parts = [node.args, node.returns] if isinstance(node, ast.FunctionDef) else [node]
            inner = (part for whole in parts if whole for part in ast.walk(whole))
            yield from ((name, shown) for name in {_name(part, homes) for part in inner} if name)


def _shown(node: ast.AST) -> str:
    """Return a statement or a call as text, and the head of a function: a type is used by what takes it."""
    if isinstance(node, ast.FunctionDef):
        returned = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        return f"def {node.name}({ast.unparse(node.args)}){returned}"
    return ast.unparse(node) if isinstance(node, ast.Assign | ast.Expr | ast.Return | ast.Call) else ""


def _imported(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield every name of this library as a text knows it, and in full."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "descent":
            yield from ((item.asname or item.name, f"{node.module}.{item.name}") for item in node.names)


def _name(node: ast.AST, homes: Mapping[str, str]) -> str:
    """Return the full name that an expression is, `module.name` too; nothing for another."""
    if isinstance(node, ast.Name):
        return homes.get(node.id, "")
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in homes:
        return f"{homes[node.value.id]}.{node.attr}"
    return ""
