"""Which code a result hangs on, read from the source: definitions, followed through imports, without what is only said.

Nothing is executed. A module counts with all its definitions and with what it imports. Of a package's `__init__` counts
only the name that is asked for: what else it offers, or what a parent package brings along, moves nothing. Comments,
docstrings, line breaks and the order of imports are no code. An import by a computed name is not seen.
"""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from descent.results.texts import read_text

__all__ = ["code_pieces", "imported_pieces", "library_files", "named_pieces", "short_hash"]

PACKAGES = Path(__file__).resolve().parents[2]
LENGTH = 16
IMPORTS, REST = "imports", "the rest"
"""Pieces of a module beside its definitions."""

Statement = ast.stmt


@dataclass(frozen=True)
class _Name:
    """What an import binds: a name of a module, or ("", as `name`) the module itself."""

    module: str
    name: str


@dataclass(frozen=True, eq=False)
class _Module:
    """A parsed module: its definitions by name, what its imports bind, and its imports as text."""

    name: str
    package: bool
    pieces: dict[str, list[Statement]]
    bound: dict[str, _Name]
    imports: tuple[str, ...]

    @functools.cache  # noqa: B019  # a module is as short-lived as the command that reads it
    def hash(self, piece: str) -> str:
        """Return the hash of a piece."""
        return short_hash("\n".join(map(ast.unparse, self.pieces[piece])))

    @functools.cache  # noqa: B019
    def mentions(self, piece: str) -> tuple[tuple[_Name, str], ...]:
        """Return what a piece uses of what the module binds, each with the attribute that is asked of it, or ""."""
        parts = [part for node in self.pieces[piece] for part in ast.walk(node)]
        asked = {id(part.value): part.attr for part in parts if isinstance(part, ast.Attribute)}
        found: dict[tuple[_Name, str], None] = {}
        for part in parts:
            if isinstance(part, ast.Name) and part.id in self.bound:
                found[self.bound[part.id], asked.get(id(part), "")] = None
            elif isinstance(part, ast.Name) and self.package and part.id in self.pieces:
                found[_Name(self.name, part.id), ""] = None
            elif isinstance(part, ast.Import | ast.ImportFrom):  # within a function
                found |= {(name, ""): None for _, name in _binds(self.name, self.package, part)}
        return tuple(found)


def code_pieces(modules: Iterable[str], folder: Path = PACKAGES) -> dict[str, str]:
    """Return a hash of every definition that modules consist of or import under `folder`, as "module, definition".

    Raises: ValueError for a module without source under `folder`, or with one that is no Python.
    """
    names = sorted(modules)
    missing = [name for name in names if _source(name, folder) is None]
    if missing or not names:
        raise ValueError(
            f"no source for {', '.join(missing) or 'an empty list'}: name importable modules "
            'such as "descent.experiments.saddles.escape"'
        )
    return _Walk(folder).of(_Name(name, "") for name in names)


def imported_pieces(code: str, folder: Path = PACKAGES) -> dict[str, str]:
    """Return a hash of every definition under `folder` that a text of code uses, directly or not.

    code: the text, such as that of a cell.
    """
    module = _parsed("", False, code, "a cell")
    walk = _Walk(folder)
    used = (found for piece in module.pieces for found in walk.used(module, piece))
    return walk.of([*walk.imports(module), *used])


def named_pieces(modules: Iterable[str], folder: Path = PACKAGES) -> dict[str, str]:
    """Return a hash of every definition of modules, and of what their functions and classes name of others, no further.

    Modules of the same packages that they import count whole, too, so that all of an experiment does. What these rest
    on is held to its numbers by tests of its own, and an edit there voids nothing that was measured.
    """
    walk, found, waiting, seen = _Walk(folder), dict[str, str](), sorted(modules), set[str]()
    packages = {name.rpartition(".")[0] for name in waiting}
    while waiting:
        name = waiting.pop()
        module = walk.module(name)
        if module is None or name in seen:
            continue
        seen.add(name)
        found |= {f"{name}, {piece}": module.hash(piece) for piece in module.pieces}
        for other, piece in map(walk.home, walk.named(module)):
            if other in packages or other.rpartition(".")[0] in packages:
                waiting.append(other)
            elif piece and (there := walk.module(other)) is not None and piece in there.pieces:
                found[f"{other}, {piece}"] = there.hash(piece)
    return dict(sorted(found.items()))


def library_files(modules: Iterable[str], folder: Path = PACKAGES) -> dict[str, Path]:
    """Return the files of modules and of everything they import under `folder`, by sorted module name."""
    names = {key.partition(", ")[0] for key in code_pieces(modules, folder)}
    return {name: file for name in sorted(names) if (file := _source(name, folder)) is not None}


class _Walk:
    """Follows names from module to module, and keeps a hash of every piece it meets."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.found, self.seen = folder, dict[str, str](), set[_Name]()

    def of(self, names: Iterable[_Name]) -> dict[str, str]:
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            if name not in self.seen:
                self.seen.add(name)
                waiting += self.follow(name)
        return dict(sorted(self.found.items()))

    def follow(self, name: _Name) -> Iterator[_Name]:
        """Keep the pieces that a name stands for, and yield the names they use."""
        module = self.module(name.module)
        if module is None:
            return
        if name.name and self.module(f"{name.module}.{name.name}") is not None:
            yield _Name(f"{name.module}.{name.name}", "")
        elif module.package and name.name in module.pieces:
            yield from self.keep(module, name.name)
        elif module.package and name.name in module.bound:
            yield module.bound[name.name]
        elif name.name and not module.package:
            yield _Name(name.module, "")
        else:
            if module.imports:
                self.found[f"{module.name}, {IMPORTS}"] = short_hash("\n".join(module.imports))
            for piece in module.pieces:
                yield from self.keep(module, piece)
            yield from self.imports(module)

    def named(self, module: _Module) -> Iterator[_Name]:
        """Yield what the functions and classes of a module name of what it imports."""
        for piece, nodes in module.pieces.items():
            if any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in nodes):
                for bound, asked in module.mentions(piece):
                    yield self.attribute(bound, asked) if asked else bound

    def home(self, bound: _Name) -> tuple[str, str]:
        """Return module and name of the definition that an imported name stands for; "" for a module itself."""
        whole = f"{bound.module}.{bound.name}" if bound.name else bound.module
        module = self.module(bound.module)
        if self.module(whole) is not None or module is None:
            return whole, ""
        if module.package and bound.name in module.bound:
            return self.home(module.bound[bound.name])
        return bound.module, bound.name

    def imports(self, module: _Module) -> Iterator[_Name]:
        """Yield what a module imports as a whole; of packages only what is asked of them counts, unless it is one."""
        for bound in module.bound.values():
            inside = self.module(f"{bound.module}.{bound.name}" if bound.name else bound.module)
            if module.package or inside is None or not inside.package:
                yield bound

    def keep(self, module: _Module, piece: str) -> Iterator[_Name]:
        self.found[f"{module.name}, {piece}"] = module.hash(piece)
        yield from self.used(module, piece)

    def used(self, module: _Module, piece: str) -> Iterator[_Name]:
        """Yield what a piece uses of what the module imports; of a package, the names that are asked of it."""
        for name, asked in module.mentions(piece):
            yield self.attribute(name, asked) if asked else name

    def attribute(self, bound: _Name, name: str) -> _Name:
        """Return what `name` is of something imported: a name of that package, or the imported thing itself."""
        whole = f"{bound.module}.{bound.name}" if bound.name else bound.module
        inside = self.module(whole)
        return _Name(whole, name) if inside is not None and inside.package else bound

    def module(self, name: str) -> _Module | None:
        file = _source(name, self.folder)
        return None if file is None else _parsed(name, file.name == "__init__.py", read_text(file), file.name)


@functools.lru_cache(maxsize=2048)
def _parsed(name: str, package: bool, text: str, file: str) -> _Module:
    """Return a module taken apart; a command that digests much parses every text once."""
    try:
        tree = ast.parse(text)
    except SyntaxError as fault:
        raise ValueError(f"{file}, line {fault.lineno} is not Python: {fault.msg}; correct it") from None
    pieces: dict[str, list[Statement]] = {}
    imported: dict[str, _Name] = {}
    for_types: dict[str, _Name] = {}
    for node in _without_docstrings(tree).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            imported |= _binds(name, package, node)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for_types |= {bound: whole for part in node.body for bound, whole in _binds(name, package, part)}
        else:
            pieces.setdefault(_title(node), []).append(node)
    said = tuple(sorted(f"{bound} is {whole}" for bound, whole in imported.items()))
    return _Module(name, package, pieces, imported | for_types, said)


def _binds(module: str, package: bool, node: ast.AST) -> Iterator[tuple[str, _Name]]:
    """Yield what an import statement binds in a module."""
    parts = module.split(".") if package else module.split(".")[:-1]
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.asname or alias.name, _Name(alias.name, "")
    elif isinstance(node, ast.ImportFrom):
        above = parts[: len(parts) - node.level + 1] if node.level else []
        base = ".".join([*above, *([node.module] if node.module else [])])
        for alias in node.names:
            yield alias.asname or alias.name, _Name(base, "" if alias.name == "*" else alias.name)


def _title(node: Statement) -> str:
    """Return the name a statement defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
        return node.name
    target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
    return target.id if isinstance(target, ast.Name) else REST


def _without_docstrings(tree: ast.Module) -> ast.Module:
    """Remove every text that stands as a statement of its own."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            said = [part for part in body if isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant)]
            kept = [part for part in body if part not in said]
            node.body = kept or ([] if isinstance(node, ast.Module) else [ast.Pass()])  # type: ignore[attr-defined]
    return tree


def _source(name: str, folder: Path) -> Path | None:
    stem = folder.joinpath(*name.split("."))
    candidates = (stem / "__init__.py", stem.with_name(f"{stem.name}.py"))
    return next((file for file in candidates if name and file.is_file()), None)


def short_hash(content: bytes | str) -> str:
    """Return the 16 hexadecimal digits that stand for a content wherever a person may read them."""
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()[:LENGTH]
