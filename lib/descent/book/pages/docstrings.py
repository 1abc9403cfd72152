"""Docstrings of the house taken apart: what each parameter is, what comes back, what is refused, and an example.

A docstring begins with one sentence that says what comes back. After it, "name: words; other, third: words." describes
parameters or fields, also with their shape, "name (R, n)", and "Raises:" says what is refused. A dataclass says the
same in comments behind its fields. What no docstring says again stands in `VOCABULARY`, once for all.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from descent.book.pages.vocabulary import VOCABULARY

__all__ = ["Parameter", "Parts", "default", "fields", "first_sentence", "parts"]

_EXAMPLE = re.compile(r"^ *>>> .*?(?=\n\s*\n|\Z)", re.M | re.S)
_TOKEN = r"(?:…|[\w·]+(?: [+−] [\w·]+)*)"
_SHAPE = re.compile(rf"\((?=.*(?:[^\W\d]|…))(?:…|{_TOKEN},(?: {_TOKEN}(?:, {_TOKEN})*)?)\)")
_RAISES = re.compile(r"^ *Raises: *(.*?)(?=\n\s*\n|\Z)", re.M | re.S)


@dataclass(frozen=True)
class Parameter:
    """One argument or field: its name, its type and default as written, its shape, and what it is in words."""

    name: str
    kind: str
    default: str
    shape: str
    says: str


@dataclass(frozen=True)
class Parts:
    """What a docstring and a signature say: first sentence, the rest, parameters, returned type, refusals, example."""

    sentence: str
    more: str
    parameters: tuple[Parameter, ...]
    returns: str
    raises: str
    example: str


def parts(node: ast.AST, doc: str, lines: Sequence[str]) -> Parts:
    """Return the parts of a definition; lines: of the source it stands in, for the comments behind fields.

    >>> tree = ast.parse("def f(lr: float, n: int = 2) -> float: ...")
    >>> found = parts(tree.body[0], "Return a step. n: how often.", [])
    >>> [(one.name, one.kind, one.says) for one in found.parameters]
    [('lr', 'float', 'learning rate, as it is multiplied into the update'), ('n', 'int', 'how often')]
    """
    example, raises = _EXAMPLE.search(doc), _RAISES.search(doc)
    text = _RAISES.sub("", _EXAMPLE.sub("", doc))
    given = list(_given(node, lines))
    names = [name for name, *_ in given]
    (said, more), shapes = _said(text, names), _shapes(text, names)
    known = (
        Parameter(name, kind, default, shapes.get(name, ""), said.get(name) or comment or VOCABULARY.get(name, ""))
        for name, kind, default, comment in given
    )
    return Parts(
        first_sentence(text), more, tuple(known), _returns(node),
        _flat(raises[1]) if raises else "", _unindented(example[0]) if example else "",
    )  # fmt: skip


def fields(node: ast.ClassDef) -> list[ast.AnnAssign]:
    """Return the fields that a dataclass, a named tuple or a typed dictionary is made from."""
    return [part for part in node.body if isinstance(part, ast.AnnAssign) and not _filled_in(part)]


def default(part: ast.AnnAssign) -> str:
    """Return the default of a field, also what dataclasses.field makes it from; "" for none.

    >>> [default(part) for part in ast.parse("a: int = 2; b: dict = field(default_factory=dict)").body]
    ['2', 'dict()']
    """
    made = _options(part)
    if factory := made.get("default_factory"):
        return factory.removeprefix("lambda: ") if factory.startswith("lambda") else f"{factory}()"
    return made.get("default", "") if made else ast.unparse(part.value) if part.value else ""


def _filled_in(part: ast.AnnAssign) -> bool:
    """Tell whether a field is the class's, or made by the instance itself."""
    return _options(part).get("init") == "False" or "ClassVar" in ast.unparse(part.annotation)


def _options(part: ast.AnnAssign) -> dict[str, str]:
    """Return what a field gives to dataclasses.field."""
    call = part.value
    if isinstance(call, ast.Call) and ast.unparse(call.func) in ("field", "dataclasses.field"):
        return {str(word.arg): ast.unparse(word.value) for word in call.keywords}
    return {}


def first_sentence(doc: str) -> str:
    """Return the first sentence of a docstring."""
    text = _flat(doc.strip().partition("\n\n")[0])
    found = re.match(r".*?(?<!e\.g)(?<!i\.e)(?<!et al)[.!?](?= |$)", text)
    return found[0] if found else text


def _said(text: str, names: Sequence[str]) -> tuple[dict[str, str], str]:
    """Return what a text says of names after a colon, and what is left of the text behind its first sentence."""
    flat, found, rest = "\n".join(map(_flat, text.strip().split("\n\n"))), dict[str, str](), list[str]()
    at = len(first_sentence(text))
    for mark, words in _marks(flat, names):
        for name in re.findall(rf"\b(?:{_any(names)})\b", re.sub(r"\([^()]*\)", "", mark[1])):
            found.setdefault(name, words.rstrip(".;,"))
        if mark.start() >= at:
            rest.append(flat[at : mark.start()])
            at = mark.end() + len(words)
    left = (re.sub(r"[;,:]$", ".", piece.strip()) for piece in (*rest, flat[at:]))
    return found, _flat(" ".join(left))


def _marks(flat: str, names: Sequence[str]) -> Iterator[tuple[re.Match[str], str]]:
    """Yield where a text begins to speak of names, "a, b (R,): ", and its words up to the next or to a full stop."""
    one = rf"`?(?:{_any(names)})`?(?: \([^()]*\))?"
    begin = rf"(?:(?<=^)|(?<=[.;,:] )|(?<=\n))({one}(?:(?:, | and ){one})*): "
    marks = [*re.finditer(begin, flat, re.M)] if names else []
    for mark, after in zip(marks, [*marks[1:], None], strict=True) if marks else ():
        end = after.start() if after else len(flat)
        words = flat[mark.end() : end].partition("\n")[0].rstrip()
        yield mark, re.match(r".*?(?:(?<!e\.g)(?<!i\.e)\.(?= )|$)", words)[0]  # type: ignore[index]  # it matches anything


def _any(names: Sequence[str]) -> str:
    """Return the pattern of any of the names, the longest first."""
    return "|".join(map(re.escape, sorted(names, key=len, reverse=True)))


def _shapes(text: str, names: Sequence[str]) -> dict[str, str]:
    """Return the shapes that stand in brackets behind names, such as (R, n): with a letter or "…", and a comma."""
    found: dict[str, str] = {}
    for name, form in re.findall(rf"(?<![\w.])`?({_any(names)})`? (\([^()]*\))", _flat(text)) if names else ():
        if _SHAPE.fullmatch(form):
            found.setdefault(name, form)
    return found


def _given(node: ast.AST, lines: Sequence[str]) -> Iterator[tuple[str, str, str, str]]:
    """Yield name, type, default and comment of every argument of a function, or of what makes a class."""
    if isinstance(node, ast.ClassDef):
        made = [part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"]
        if made:
            yield from _given(made[0], lines)
            return
        for part in fields(node):
            behind = re.search(r"#\s*(?!type:|noqa|fmt:)(.+)$", lines[part.lineno - 1]) if lines else None
            words = behind[1].strip() if behind else ""
            yield ast.unparse(part.target), ast.unparse(part.annotation), default(part), words
    elif isinstance(node, ast.FunctionDef):
        yield from _arguments(node.args)


def _arguments(given: ast.arguments) -> Iterator[tuple[str, str, str, str]]:
    places = [*given.posonlyargs, *given.args]
    defaults: list[ast.expr | None] = [*[None] * (len(places) - len(given.defaults)), *given.defaults]
    pairs = [*zip(places, defaults, strict=True)]
    pairs += [(given.vararg, None)] if given.vararg else []
    pairs += [*zip(given.kwonlyargs, given.kw_defaults, strict=True)]
    pairs += [(given.kwarg, None)] if given.kwarg else []
    for argument, default in pairs:
        if argument.arg not in ("self", "cls"):
            kind = ast.unparse(argument.annotation) if argument.annotation else ""
            yield argument.arg, kind, ast.unparse(default) if default else "", ""


def _returns(node: ast.AST) -> str:
    return ast.unparse(node.returns) if isinstance(node, ast.FunctionDef) and node.returns else ""


def _flat(text: str) -> str:
    return " ".join(text.split())


def _unindented(example: str) -> str:
    depth = len(example) - len(example.lstrip())
    return "\n".join(line[depth:] for line in example.rstrip().splitlines())
