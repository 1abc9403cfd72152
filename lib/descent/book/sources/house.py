"""The house as it stands: floors of the library from the ground up, what is on each, and that imports only point down.

python -m descent.book.sources.house      # the picture that CONTRIBUTING shows
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

__all__ = ["FLOORS", "picture", "rests_on", "upward"]

FLOORS = (
    ("dispatch", "arrays"),
    ("stats", "engine"),
    ("nets", "theory"),
    ("problems",),
    ("data",),
    ("measure", "results"),
    ("claims", "trials"),
    ("experiments",),
    ("figures", "oracles", "runs"),
    ("book.sources",),
    ("book.execute",),
    ("book.pages",),
    ("book.site",),
    ("book.commands",),
)
"""From the ground up; rooms of one floor do not know one another."""
LIBRARY = Path(__file__).resolve().parents[2]
WIDTH, INDENT = 118, 15


def rests_on(library: Path = LIBRARY) -> dict[str, dict[str, set[str]]]:
    """Return by room the rooms that its modules import, each with the modules that do."""
    files = {_dotted(path, library): path for path in sorted(library.rglob("*.py"))}
    found: dict[str, dict[str, set[str]]] = {room: {} for floor in FLOORS for room in floor}
    for module, path in files.items():
        here = _room(module)
        for target in _imported(path, files):
            there = _room(target)
            if here and there and there != here:
                found[here].setdefault(there, set()).add(module)
    return found


def upward(edges: Mapping[str, Mapping[str, set[str]]]) -> list[str]:
    """Return the imports that do not point down, each as "module → room"."""
    height = {room: number for number, floor in enumerate(FLOORS) for room in floor}
    return [
        f"{module} → {there}"
        for here, targets in edges.items()
        for there, modules in targets.items()
        if height[there] >= height[here]
        for module in sorted(modules)
    ]


def picture(library: Path = LIBRARY) -> str:
    """Return the floors from the roof down: every room with its modules, and the rooms it rests on."""
    edges = rests_on(library)
    lines = [line for floor in reversed(FLOORS) for room in floor for line in _drawn(room, edges[room], library)]
    return "\n".join(line.rstrip() for line in lines)


def _drawn(room: str, targets: Mapping[str, set[str]], library: Path) -> Iterator[str]:
    """Yield what a room is, what is in it, and below which rooms it stands."""
    folder = library.joinpath(*room.split("."))
    source = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    about = (ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or "").partition("\n")[0]
    inside = [path.stem for path in sorted(folder.glob("*.py")) if not path.stem.startswith("_")]
    inside += [f"{path.name}/" for path in sorted(folder.glob("*")) if (path / "__init__.py").is_file()]
    order = [name for floor in FLOORS for name in floor]
    below = [name.replace(".", "/") for name in sorted(targets, key=order.index)]
    name = f"{room.replace('.', '/')}{'/' if folder.is_dir() else ''}"
    yield f"{name:{INDENT}s}{about}"
    yield from _wrapped(" ".join(inside))
    yield from _wrapped(f"↓ {', '.join(below)}" if below else "")


def _wrapped(text: str) -> Iterator[str]:
    yield from (f"{'':{INDENT}s}{line}" for line in textwrap.wrap(text, WIDTH - INDENT, break_on_hyphens=False))


def _imported(path: Path, files: Mapping[str, Path]) -> Iterator[str]:
    """Yield the modules of the library that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield from (name for name in (whole if whole in files else node.module,) if name in files)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in files)


def _room(module: str) -> str:
    """Return the room a module is in; "" for the door, `descent` itself."""
    parts = module.split(".")[1:]
    rooms = {room for floor in FLOORS for room in floor}
    return next((name for name in (".".join(parts[:2]), parts[0] if parts else "") if name in rooms), "")


def _dotted(path: Path, library: Path) -> str:
    return ".".join(path.relative_to(library.parent).with_suffix("").parts).removesuffix(".__init__")


if __name__ == "__main__":
    print(picture())
