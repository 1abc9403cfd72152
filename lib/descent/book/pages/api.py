"""The library's public names, each with parameters, returns and an example, read from the source: nothing is imported.

A floor is a list of modules, a module opens to its names, a name to its parameters: each step is about a screen.
"""

from __future__ import annotations

import ast
import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from descent.book.pages import docstrings, usage
from descent.book.pages.html import raw
from descent.book.sources.project import Project
from descent.book.sources.provenance import Code, modules

FLOORS = {
    "Random numbers, rules, training": ("dispatch", "arrays", "engine"),
    "Intervals": ("stats",),
    "Networks": ("nets",),
    "Exact theory": ("theory",),
    "Data": ("data",),
    "Objectives": ("problems",),
    "Instruments": ("measure",),
    "Claims and results": ("claims", "results"),
    "One experiment carried out": ("runs",),
    "Your own rule": ("trials",),
}
"""The house from the ground up: what stands on each floor, below the package."""
ABOVE = ("book", "experiments", "figures", "oracles", "__main__")
"""The book's own floors, which are no public interface."""
REST = "Other modules"
LONGEST = 60
"""Signs of a constant's value that are shown."""

Definition = ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign


@dataclass(frozen=True)
class Entry:
    """One public name: where it stands, what it takes, what its docstring says, and its methods."""

    code: Code
    takes: str
    parts: docstrings.Parts
    methods: str

    @property
    def sentence(self) -> str:
        """What it does in one sentence, and what else it offers."""
        return f"{self.parts.sentence} {self.methods}".strip()


def library(project: Project) -> str:
    """Return all public modules, floor by floor, as Markdown."""
    found = {module: path for module, path in modules(project).items() if "." in module and _floor(module)}
    parts, examples = [], usage.uses(project)
    for title in (*FLOORS, REST):
        own = sorted((m for m in found if _floor(m) == title), key=_place)
        if own:
            parts += [f"## {title}", *(_module(module, found[module], examples) for module in own)]
    return "\n\n".join(parts)


def _floor(module: str) -> str:
    """Return the title of a module's floor; nothing for what is not public."""
    _, name, *below = module.split(".")
    if name in ABOVE or any(part.startswith("_") for part in below):
        return ""
    return next((title for title, names in FLOORS.items() if name in names), REST)


def _place(module: str) -> tuple[int, str]:
    order = [name for names in FLOORS.values() for name in names]
    name = module.split(".")[1]
    return order.index(name) if name in order else len(order), module


def _module(module: str, path: Path, examples: Mapping[str, usage.Use]) -> str:
    """Return heading, first paragraph and, folded, the names of a module."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    parts = [f"### `{module}`", prose(_paragraph(ast.get_docstring(tree))), *_borrowed(tree)]
    made = entries(module, tree, text)
    if made:
        items = "\n".join(_item(entry, examples.get(entry.code.name)) for entry in made)
        names = f"{len(made)} name{'s' * (len(made) > 1)}"
        listed = ", ".join(f"<code>{entry.code.name.rpartition('.')[2]}</code>" for entry in made)
        parts.append(raw(f'<details class="api"><summary>{names}: {listed}</summary>\n{items}\n</details>'))
    return "\n\n".join(filter(None, parts))


def entries(module: str, tree: ast.Module, text: str = "") -> list[Entry]:
    """Return what a module defines of its public names, in the order of the source."""
    made = _defined(tree)
    names = _all(tree) or [name for name, (node, _) in made.items() if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    public = [name for name in made if name in names and not name.startswith("_")]
    return [_entry(module, name, *made[name], text.splitlines()) for name in public]


def prose(text: str) -> str:
    """Return a sentence of a docstring as Markdown: `code` stays, every other sign stands for itself."""
    parts = re.split(r"(`+[^`]+`+)", text)
    escaped = (re.sub(r"([\\`*_$<>\[\]{}|#~^@])", r"\\\1", part) for part in parts[::2])
    codes = (f"`{part.strip('`')}`" for part in parts[1::2])
    return "".join(piece for pair in zip(escaped, [*codes, ""], strict=True) for piece in pair)


def _item(entry: Entry, use: usage.Use | None) -> str:
    """Return one name: its line, and folded below it parameters, returns, what is refused, and an example."""
    name, parts = entry.code.name.rpartition(".")[2], entry.parts
    head = f'<code class="named">{name}</code><code class="takes">{escape(entry.takes)}</code>'
    rows = [
        _section("Parameters", _parameters(parts.parameters)),
        _section("Returns", _returns(parts)),
        _section("Raises", html(parts.raises)),
        _section("Notes", html(parts.more)),
        _section("Example", _example(parts, use)),
        _section("Source", f'<a href="{entry.code.address}"><code>{name}</code></a>'),
    ]
    return (
        f'<details class="name"><summary>{head}<span>{html(entry.sentence)}</span></summary>\n'
        f"<dl>{''.join(filter(None, rows))}</dl></details>"
    )


def _section(title: str, content: str) -> str:
    return f"<dt>{title}</dt><dd>{content}</dd>" if content else ""


def _parameters(given: Sequence[docstrings.Parameter]) -> str:
    """Return one line per parameter: name, type, default, what it is."""
    lines = (
        f"<li><code>{one.name}</code>{_typed(one)}{' — ' + html(one.says) if one.says else ''}</li>" for one in given
    )
    made = "".join(lines)
    return f"<ul>{made}</ul>" if made else ""


def _typed(one: docstrings.Parameter) -> str:
    """Return type, shape and default of a parameter, as numpy's documents write them."""
    kind = f" : <code>{escape(one.kind)}</code>" if one.kind else ""
    kind += f" {escape(one.shape)}" if one.shape else ""
    return kind + (f", default <code>{escape(one.default)}</code>" if one.default else "")


def _returns(parts: docstrings.Parts) -> str:
    said = re.sub(r"^Return |^Yield ", "", parts.sentence)
    return f"<code>{escape(parts.returns)}</code> — {html(said)}" if parts.returns else ""


def _example(parts: docstrings.Parts, use: usage.Use | None) -> str:
    """Return the docstring's own example, which runs as a test, or else a place where the name is used.

    No `pre`: the theme measures each of these when a page opens, and here are hundreds, folded away.
    """
    if parts.example:
        return f'<code class="example">{escape(parts.example)}</code>'
    return f'<code class="example">{escape(use.text)}</code><small>as in {escape(use.place)}</small>' if use else ""


def html(text: str) -> str:
    """Return a sentence of a docstring as HTML: what stands in backticks is code."""
    parts = re.split(r"`+([^`]+)`+", text)
    return "".join(f"<code>{escape(part)}</code>" if i % 2 else escape(part) for i, part in enumerate(parts))


def _entry(module: str, name: str, node: Definition, doc: str, lines: Sequence[str]) -> Entry:
    methods = _methods(node) if isinstance(node, ast.ClassDef) else ""
    place = Code(f"{module}.{name}", module, node.lineno)
    return Entry(place, _takes(node), docstrings.parts(node, doc, lines), methods)


def _defined(tree: ast.Module) -> dict[str, tuple[Definition, str]]:
    """Return every definition of a module with its docstring; a constant's is the string below it."""
    found: dict[str, tuple[Definition, str]] = {}
    for node, after in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = (node, ast.get_docstring(node) or "")
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if isinstance(target, ast.Name):
                found[target.id] = (node, _text(after))
    return found


def _borrowed(tree: ast.Module) -> Iterator[str]:
    """Yield one line for every module whose names this one offers as well."""
    public = set(_all(tree))
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [item.asname or item.name for item in node.names if (item.asname or item.name) in public]
            if names:
                place = node.module.replace(".", "-").replace("_", "-")
                listed = ", ".join(f"`{name}`" for name in names)
                yield f'Also here, from <a href="#{place}">`{node.module}`</a>: {listed}.'


def _all(tree: ast.Module) -> list[str]:
    """Return the names in `__all__`."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__":
            return list(ast.literal_eval(node.value))
    return []


def _takes(node: Definition) -> str:
    """Return the arguments of a function or a class, the value of a constant."""
    if isinstance(node, ast.FunctionDef):
        return f"({_arguments(node.args)})"
    if isinstance(node, ast.ClassDef):
        return _fields(node)
    value = ast.unparse(node.value) if node.value else "…"
    return f" = {value if len(value) <= LONGEST else value[:LONGEST] + '…'}"


def _arguments(given: ast.arguments) -> str:
    """Return the arguments of a function without their types, and without self."""
    given = copy.deepcopy(given)
    for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg):
        if argument is not None:
            argument.annotation = None
    return re.sub(r"^(self|cls)(, |$)", "", ast.unparse(given))


def _fields(node: ast.ClassDef) -> str:
    """Return what a class is made from: its own __init__, or the fields of a dataclass or named tuple."""
    for part in node.body:
        if isinstance(part, ast.FunctionDef) and part.name == "__init__":
            return f"({_arguments(part.args)})"
    named = {ast.unparse(part.target): docstrings.default(part) for part in docstrings.fields(node)}
    texts = [f"{name}={default}" if default else name for name, default in named.items()]
    return f"({', '.join(texts)})" if texts else ""


def _methods(node: ast.ClassDef) -> str:
    names = [part.name for part in node.body if isinstance(part, ast.FunctionDef) and not part.name.startswith("_")]
    return f"With {', '.join(f'`{name}`' for name in names)}." if names else ""


def _text(node: ast.stmt | None) -> str:
    """Return the string that stands as a statement of its own."""
    value = node.value if isinstance(node, ast.Expr) else None
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else ""


def _paragraph(doc: str | None) -> str:
    return " ".join((doc or "").strip().partition("\n\n")[0].split())
