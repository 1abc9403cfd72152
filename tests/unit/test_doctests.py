"""The examples in the library's docstrings give what they say."""

from __future__ import annotations

import ast
import doctest
from importlib import import_module
from pathlib import Path

import pytest

LIBRARY = Path(__file__).parents[2] / "lib"
EXAMPLES = 30
"""Fewer than this, and examples have been lost or are no longer found."""


def prompts(path: Path) -> int:
    """Count the examples of a module in its source, without importing it."""
    text, kinds = path.read_text(encoding="utf-8"), (ast.Module, ast.ClassDef, ast.FunctionDef)
    if ">>> " not in text:  # every process of the suite asks this of every module
        return 0
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, kinds)]
    return sum((ast.get_docstring(node) or "").count(">>> ") for node in nodes)


WITH_EXAMPLES = {
    ".".join(path.relative_to(LIBRARY).with_suffix("").parts).removesuffix(".__init__"): count
    for path in sorted(LIBRARY.rglob("*.py"))
    if (count := prompts(path))
}


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_every_example_gives_what_it_says(module):
    found = doctest.testmod(import_module(module))
    assert found.failed == 0
    assert found.attempted == WITH_EXAMPLES[module]


def test_examples_are_not_lost():
    assert sum(WITH_EXAMPLES.values()) >= EXAMPLES
