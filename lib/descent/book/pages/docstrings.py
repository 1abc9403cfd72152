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

__all__ = ["Parameter", "Parts", "first_sentence", "parts"]

_EXAMPLE = re.compile(r"^ *>>> .*?(?=\n\s*\n|\Z)", re.M | re.S)
_RAISES = re.compile(r"^ *Raises: *(.*?)(?=\n\s*\n|\Z)", re.M | re.S)


@dataclass(frozen=True)
class Parameter:
    """One argument or field: its name, its type and default as written, and what it is."""

    name: str
    kind: str
    default: str
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
    said = _said(text, [name for name, *_ in given])
    known = (
        Parameter(name, kind, default, said.get(name) or comment or VOCABULARY.get(name, ""))
        for name, kind, default, comment in given
    )
    sentence = first_sentence(text)
    return Parts(
        sentence, _flat(text)[len(sentence) :].strip(), tuple(known), _returns(node),
        _flat(raises[1]) if raises else "", _unindented(example[0]) if example else "",
    )  # fmt: skip


def first_sentence(doc: str) -> str:
    """Return the first sentence of a docstring."""
    text = _flat(doc.strip().partition("\n\n")[0])
    found = re.match(r".*?(?<!e\.g)(?<!i\.e)[.!?](?= |$)", text)
    return found[0] if found else text


def _said(text: str, names: Sequence[str]) -> dict[str, str]:
    """Return what a text says of names: after a colon, or their shape in brackets behind them."""
    if not names:
        return {}
    one = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    shape = r"(?: \([^()]*\))?"
    begin = re.compile(rf"(?:(?<=^)|(?<=[.;,:] )|(?<=\n))((?:{one}){shape}(?:(?:, | and )(?:{one}){shape})*): ", re.M)
    flat = "\n".join(map(_flat, text.strip().split("\n\n")))
    found: dict[str, str] = {}
    marks = [*begin.finditer(flat)]
    ends = [mark.start() for mark in marks[1:]] + [len(flat)]
    for mark, after in zip(marks, ends, strict=False):
        words = flat[mark.end() : after].partition("\n")[0].strip().rstrip(";,")
        words = re.match(r".*?(?:(?<!e\.g)(?<!i\.e)\.(?= )|$)", words)[0].rstrip(".")  # type: ignore[index]  # it matches anything
        for name in re.findall(rf"\b(?:{one})\b", mark[1]):
            found.setdefault(name, words)
    for name, form in re.findall(rf"(?<![\w.])({one}) (\([^()]*\))(?!:)", flat):
        found.setdefault(name, f"shape {form}")
    return found


def _given(node: ast.AST, lines: Sequence[str]) -> Iterator[tuple[str, str, str, str]]:
    """Yield name, type, default and comment of every argument of a function, or of what makes a class."""
    if isinstance(node, ast.ClassDef):
        made = [part for part in node.body if isinstance(part, ast.FunctionDef) and part.name == "__init__"]
        if made:
            yield from _given(made[0], lines)
            return
        for part in node.body:
            if isinstance(part, ast.AnnAssign) and "ClassVar" not in (kind := ast.unparse(part.annotation)):
                behind = re.search(r"#\s*(?!type:|noqa|fmt:)(.+)$", lines[part.lineno - 1]) if lines else None
                default = ast.unparse(part.value) if part.value else ""
                yield ast.unparse(part.target), kind, default, behind[1].strip() if behind else ""
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
