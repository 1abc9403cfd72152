"""From a figure or a claim back to its code, data and section: what drew and computed it, where it is discussed."""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from docutils.nodes import make_id

from descent.book.sources import parts, source
from descent.book.sources.parameters import experiments_package
from descent.book.sources.project import Project
from descent.claims import Record
from descent.results import NIGHT

RUN = "run"
"""Method of the bench that runs an experiment."""
RECORDED = "paper_table"
"""Function that reads a table measured at another scale than the chapter's."""
FIGURES = ".figures"
"""What the dotted name of everything that draws holds."""
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


@dataclass(frozen=True, order=True)
class Kept:
    """A table measured at another scale than the chapter's: that scale, its name, the experiment that left it."""

    scale: str
    name: str
    experiment: str


@dataclass(frozen=True)
class Trace:
    """A figure: what it was drawn by, the experiments and tables behind it, its title, and its place on the page."""

    drawn: Code | None
    experiments: tuple[str, ...]
    title: str
    anchor: str
    kept: tuple[Kept, ...] = ()


@dataclass(frozen=True)
class Home:
    """Where a claim is at home on the site: its section, the tables and the code by experiment."""

    section: str
    title: str
    tables: Mapping[str, Sequence[str]] = field(default_factory=dict)
    code: Mapping[str, Code] = field(default_factory=dict)


def modules(project: Project) -> dict[str, Path]:
    """Return every module of the library by its dotted name."""
    found = {}
    for path in sorted(project.library.rglob("*.py")):
        names = path.relative_to(project.library).with_suffix("").parts
        found[".".join(names[:-1] if names[-1] == "__init__" else names)] = path
    return found


def figures(project: Project, chapter: str, notebook: source.Notebook) -> dict[int, Trace]:
    """Return the trace of every cell of a chapter that has an alt text, by its place among the cells."""
    found: dict[int, Trace] = {}
    names: dict[str, str] = {}
    results: dict[str, str] = {}
    read: dict[str, set[Kept]] = {}
    library, known = modules(project), _experiments(project, chapter)
    for place, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        tree = ast.parse("\n".join(source.plain(cell.source)))
        names |= _imports(tree)
        results |= _runs(tree, names, known)
        read |= _reads(project, chapter, tree)
        shown = cell.metadata.get("mystnb", {})
        if "alt" in shown.get("image", {}):
            anchor = shown.get("figure", {}).get("name", "")
            drawn, used = _drawn(tree, names, library), _used(tree, results)
            found[place] = Trace(drawn, used, _titled(shown), anchor, _kept(project, chapter, tree, read))
    return found


def experiments(project: Project, chapter: str) -> dict[str, Code]:
    """Return where the library defines the experiments of a chapter, by their names."""
    library = modules(project)
    found = {
        item.name: _defined(library, (*item.modules, dotted.rpartition(".")[0]), dotted.rpartition(".")[2])
        for dotted, item in _experiments(project, chapter).items()
    }
    return {name: code for name, code in found.items() if code}


def made_of(project: Project, chapter: str) -> dict[str, tuple[str, ...]]:
    """Return the modules that every experiment of a chapter is made of, by its name."""
    return {item.name: item.modules for item in _experiments(project, chapter).values()}


def tables(results: Path) -> dict[str, list[str]]:
    """Return the names of a chapter's tables by the experiment that left them."""
    found: dict[str, list[str]] = {}
    for path in sorted(results.glob("*.json")):
        if path.with_suffix(".csv").is_file():
            name = json.loads(path.read_text(encoding="utf-8")).get("experiment", "")
            found.setdefault(name, []).append(path.with_suffix(".csv").name)
    return found


def homes(
    chapter: str, text: str, records: Sequence[Record], files: Mapping[str, Sequence[str]], places: Mapping[str, Code]
) -> dict[str, Home]:
    """Return the home of every claim of a chapter, from its text and from the tables and code of its experiments."""
    own = {outcome.experiment for record in records for outcome in record.outcomes}
    data = {name: [f"downloads/{chapter}/{file}" for file in found] for name, found in files.items()}
    code = {name: place for name, place in places.items() if name in own}
    return {record.claim.id: Home(*section(chapter, text, record.claim.id), data, code) for record in records}


def section(chapter: str, text: str, claim: str) -> tuple[str, str]:
    """Return address and title of the section that quotes a claim, else the first that names it, else the page."""
    headings = list(re.finditer(r"^#{1,4} .+$", text, flags=re.M))
    ends = [heading.start() for heading in headings[1:]] + [len(text)]
    for sign in (rf"glue:text\}}`{claim}\.", rf"\b{claim}\b"):
        for heading, end in zip(headings, ends, strict=True):
            title = heading[0].lstrip("# ")
            if re.search(sign, text[heading.end() : end]) and not heading[0].startswith("# ") and "$" not in title:
                return f"{parts.page_at(text, heading.start(), chapter)}.html#{make_id(title)}", title
    return f"{chapter}.html", headings[0][0].lstrip("# ") if headings else chapter


def spelled(text: str) -> str:
    """Return a title with its formulas as signs, such as η_1/2 and √(2λ ln2)."""
    text = re.sub(r"\\sqrt\{([^{}]*)\}", r"√(\1)", text.replace("$", ""))
    text = re.sub(r"\\([a-z]+)", lambda found: SPELLED.get(found[1], f" {found[1]}"), text)
    return re.sub(r"[{}\\]", "", text)


def _titled(shown: Mapping[str, Any]) -> str:
    """Return the bold words a caption begins with, else the first sentence of the alt text."""
    bold = re.search(r"\*\*(.+?)\*\*", str(shown.get("figure", {}).get("caption", "")))
    text = bold[1] if bold else str(shown["image"]["alt"]).partition(". ")[0]
    return spelled(text).rstrip(".")


def _experiments(project: Project, chapter: str) -> dict[str, Any]:
    """Return a chapter's experiments by the dotted names of the constants that hold them; none in a book without."""
    package = experiments_package(project, chapter)
    if package is None:
        return {}
    ours, inside = {id(item) for item in package.EXPERIMENTS}, f"{package.__name__}."
    modules = [module for name, module in sys.modules.items() if f"{name}.".startswith(inside)]
    held = ((f"{module.__name__}.{name}", value) for module in modules for name, value in vars(module).items())
    return {dotted: value for dotted, value in held if id(value) in ours}


def _runs(tree: ast.Module, names: Mapping[str, str], known: Mapping[str, Any]) -> dict[str, str]:
    """Return which experiment each variable holds, from lines such as `race = bench.run(margins.race.RACE)`."""
    found: dict[str, str] = {}
    for node in tree.body:
        call = node.value if isinstance(node, ast.Assign) else None
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == RUN):
            continue
        experiment = known.get(_dotted(call.args[0], names)) if call.args else None
        if experiment is not None and isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = experiment.name
    return found


def _reads(project: Project, chapter: str, tree: ast.Module) -> dict[str, set[Kept]]:
    """Return the published tables behind each variable, from lines such as `large = paper_table("toy", "race")`."""
    found: dict[str, set[Kept]] = {}
    for node in (node for node in tree.body if isinstance(node, ast.Assign)):
        names = [part.id for target in node.targets for part in ast.walk(target) if isinstance(part, ast.Name)]
        found |= dict.fromkeys(names, _published(project, chapter, node))
    return {name: tables for name, tables in found.items() if tables}


def _published(project: Project, chapter: str, tree: ast.AST) -> set[Kept]:
    """Return the tables a piece of code reads by `paper_table`: of those there are, the ones its strings name."""
    parts = list(ast.walk(tree))
    if not any(isinstance(part, ast.Call) and _ends_in(part.func) == RECORDED for part in parts):
        return set()
    words = {part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)}
    scale = NIGHT if NIGHT in words else "gpu"
    left = tables(project.night(chapter) if scale == NIGHT else project.paper_scale(chapter))
    return {Kept(scale, name, made) for made, files in left.items() for name in words if f"{name}.csv" in files}


def _kept(project: Project, chapter: str, tree: ast.Module, read: Mapping[str, set[Kept]]) -> tuple[Kept, ...]:
    """Return the published tables a figure's cell reads, or names variables of."""
    used = [read[node.id] for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id in read]
    return tuple(sorted(_published(project, chapter, tree).union(*used)))


def _ends_in(node: ast.expr) -> str:
    """Return the last name of an expression such as `results.paper_table`."""
    return getattr(node, "attr", getattr(node, "id", ""))


def _used(tree: ast.Module, results: Mapping[str, str]) -> tuple[str, ...]:
    """Return the experiments whose results a cell names: all of them feed its figure."""
    used = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id in results]
    return tuple(dict.fromkeys(results[name] for name in used))


def _drawn(tree: ast.Module, names: Mapping[str, str], library: Mapping[str, Path]) -> Code | None:
    """Return what the last call of a cell that draws leads to."""
    drawn = None
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        package, _, name = _dotted(call.func, names).rpartition(".")
        if FIGURES in package:
            drawn = _defined(library, _within(library, package), name) or drawn
    return drawn


def _within(library: Mapping[str, Path], package: str) -> Iterator[str]:
    """Yield a module, or a package and all modules in it."""
    return (module for module in library if f"{module}.".startswith(f"{package}."))


def _defined(library: Mapping[str, Path], among: Sequence[str] | Iterator[str], name: str) -> Code | None:
    """Return the first definition of a name among modules."""
    for module in (module for module in among if module in library):
        line = _lines(library[module].read_text(encoding="utf-8")).get(name)
        if line is not None:
            return Code(f"{module}.{name}", module, line)
    return None


@lru_cache(maxsize=256)
def _lines(text: str) -> Mapping[str, int]:
    """Return the line of every function and constant that a module defines; a text is parsed once."""
    found: dict[str, int] = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef):
            found.setdefault(node.name, node.lineno)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in (target for target in targets if isinstance(target, ast.Name)):
                found.setdefault(target.id, node.lineno)
    return found


def _imports(tree: ast.Module) -> dict[str, str]:
    """Return the dotted name behind every imported name."""
    found: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {item.asname or item.name: f"{node.module}.{item.name}" for item in node.names}
        elif isinstance(node, ast.Import):
            found |= {item.asname or item.name: item.name for item in node.names}
    return found


def _dotted(node: ast.expr, names: Mapping[str, str]) -> str:
    """Return the full dotted name of an expression such as `draw.race`, "" for any other."""
    if isinstance(node, ast.Name):
        return names.get(node.id, "")
    if isinstance(node, ast.Attribute):
        head = _dotted(node.value, names)
        return f"{head}.{node.attr}" if head else ""
    return ""
