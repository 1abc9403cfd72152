"""Where a public name is put to use: the shortest statement of a chapter, else of the library, else of the tests.

What only names a type, the head of a function, comes after all of these.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from descent.book.sources import source
from descent.book.sources.project import Project
from descent.book.sources.provenance import modules

__all__ = ["Use", "uses"]

LONGEST = 320
"""Signs of a statement that is shown as an example."""
SHOWN = (ast.Assign, ast.Expr, ast.Return, ast.Call)
"""What is shown, beside heads of functions."""
WITHIN = re.compile(r"^[ \t]+from descent", re.MULTILINE)
"""An import within a function."""
HEAD = "def "
"""How the head of a function begins."""

Rank = tuple[bool, int, int]
"""How good an example is, the least being the best: only a head, the layer, the length."""


@dataclass(frozen=True)
class Use:
    """A statement that uses a name, and the page or file it is from."""

    text: str
    place: str


def uses(project: Project) -> dict[str, Use]:
    """Return one use of every name that a module imports from another, by its full dotted name."""
    best, homes = dict[str, tuple[Rank, Use]](), _homes(project)
    for layer, readings in enumerate((_chapters(project), _library(project), _tests(project))):
        for place, text in readings:
            for called, statement in _statements(text, place):
                name, rank = homes.get(called, called), (statement.startswith(HEAD), layer, len(statement))
                if name not in best or rank < best[name][0]:
                    best[name] = rank, Use(statement, place)
    return {name: use for name, (_, use) in best.items()}


def _homes(project: Project) -> dict[str, str]:
    """Return where a name is defined that another module imports, by the name it has there."""
    return {
        f"{module}.{name}": full
        for module, path in modules(project).items()
        for text in (path.read_text(encoding="utf-8"),)
        for name, full in _imported(text, ast.parse(text))
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
    homes = {name: f"{place}.{name}" for name in own} | dict(_imported(text, tree))
    if not homes:
        return
    shown = functools.cache(_shown)
    waiting: list[tuple[ast.AST, tuple[ast.AST, ...]]] = [(tree, ())]  # each with the statements around it
    while waiting:
        node, around = waiting.pop()
        if isinstance(node, ast.FunctionDef):  # a type is used by what takes it, whose body is another matter
            head = (*around, node)
            waiting += [(part, head) for part in (node.args, node.returns) if part]
            waiting += [(part, around) for part in (*node.decorator_list, *node.body)]
            continue
        around = (*around, node) if isinstance(node, SHOWN) else around
        if around and (name := _name(node, homes)):
            yield from ((name, text) for text in map(shown, around) if text)
        waiting += [(part, around) for part in ast.iter_child_nodes(node)]


def _shown(node: ast.AST) -> str:
    """Return a statement, a call or the head of a function as text; "" for what is too long to be an example."""
    if isinstance(node, ast.FunctionDef):
        returned = f" -> {ast.unparse(node.returns)}" if node.returns else ""
        text = f"{HEAD}{node.name}({ast.unparse(node.args)}){returned}"
    else:
        text = ast.unparse(node)
    return text if len(text) <= LONGEST and not text.startswith("__all__") else ""


def _imported(text: str, tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield every name of this library as a text knows it, and in full."""
    for node in ast.walk(tree) if WITHIN.search(text) else tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "descent":
            yield from ((item.asname or item.name, f"{node.module}.{item.name}") for item in node.names)


def _name(node: ast.AST, homes: Mapping[str, str]) -> str:
    """Return the full name that an expression is, `module.name` too; nothing for another."""
    if isinstance(node, ast.Name):
        return homes.get(node.id, "")
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in homes:
        return f"{homes[node.value.id]}.{node.attr}"
    return ""
