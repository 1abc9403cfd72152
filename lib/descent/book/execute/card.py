"""The card of an experiment: what was asked, with which configuration, at what cost, and the code that ran."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import io
import sys
import textwrap
import tokenize
from collections.abc import Iterator, Sequence
from html import escape
from typing import Any

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from descent.experiments.lab import Experiment, Lab, Share
from descent.runs.perform import Finding

__all__ = ["card", "comments"]


def card(experiment: Experiment[Any, Any], lab: Lab, scale: str, found: Finding, claims: Sequence[str]) -> str:
    """Return the card as HTML: one line that unfolds to question, configuration and the source of `run`."""
    judged = ", ".join(claims) or "no claim"  # a summary is one control: its links stand below
    links = ", ".join(f'<a href="ledger.html#{claim}">{claim}</a>' for claim in claims)
    facts = f"{found.seconds:.0f} s" if not found.missing else f"not run: {escape(found.missing)}"
    rows = "".join(
        f"<tr><th scope='row'><code>{name}</code></th><td><code>{escape(value)}</code></td><td>{escape(said)}</td></tr>"
        for name, value, said in _settings(experiment.config(scale), lab)
    )
    source = highlight(inspect.getsource(experiment.run), PythonLexer(), HtmlFormatter(nowrap=True))
    return (
        f'<details class="experiment-card"><summary>Experiment <code>{experiment.name}</code>: {facts}, judges {judged}'
        f"</summary>\n<p>{escape(_question(experiment))}{f' In the ledger: {links}.' if links else ''}</p>\n"
        f'<table tabindex="0"><thead><tr><th>setting</th><th>value</th><th>meaning</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>\n"
        f'<div class="highlight"><pre tabindex="0">{source}</pre></div></details>'
    )


def comments(kind: type) -> dict[str, str]:
    """Return the comment behind each field of a configuration, or the one it goes on with."""
    text = textwrap.dedent(inspect.getsource(kind))
    said = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT and "noqa" not in token.string
    }
    (body,) = (node.body for node in ast.parse(text).body if isinstance(node, ast.ClassDef))
    named = [node for node in body if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)]
    return {
        node.target.id: " ".join(said[line] for line in range(node.lineno, (node.end_lineno or 0) + 1) if line in said)
        for node in named
        if isinstance(node.target, ast.Name)
    }


def _settings(config: Any, lab: Lab) -> Iterator[tuple[str, str, str]]:
    """Yield name, value and comment of every setting; those of a part are named after it."""
    said = comments(type(config))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if isinstance(value, Share):
            yield field.name, str(lab.count(value)), said.get(field.name, "")
        elif dataclasses.is_dataclass(value) and _beside(type(value), type(config)):
            yield from ((f"{field.name}.{name}", text, meant) for name, text, meant in _settings(value, lab))
        else:
            yield field.name, _written(value), said.get(field.name, "")


def _beside(kind: type, other: type) -> bool:
    """Tell whether two classes stand in one package: a part of a configuration, not a problem of the library."""
    return kind.__module__.rpartition(".")[0] == other.__module__.rpartition(".")[0]


def _written(value: Any) -> str:
    """Return a value as it is written, without what every one of its kind has."""
    if isinstance(value, tuple):
        return ", ".join(map(_written, value)) or "none"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        own = (f"{f.name}={getattr(value, f.name)!r}" for f in dataclasses.fields(value) if f.repr)
        return f"{type(value).__name__}({', '.join(own)})"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _question(experiment: Experiment[Any, Any]) -> str:
    """Return what the experiment's module says of it, beyond its first line where there is more."""
    doc = inspect.getdoc(sys.modules[experiment.run.__module__]) or ""
    first, _, more = doc.partition("\n\n")
    return " ".join((more.partition("\n\n")[0] or first).split())
