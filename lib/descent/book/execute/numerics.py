"""A plugin for pytest that gives nbval the book's sense of equal numbers: `-p descent.book.execute.numerics`.

nbval compares outputs letter by letter. Before it does, every printed estimate that agrees with the reference's but for
arithmetic is spelt as the reference spells it; what does not agree stays, and nbval shows the difference.
"""

from __future__ import annotations

from typing import Any

import pytest
from nbval.plugin import IPyNbCell

from descent.stats.sameness import as_printed

_compare = IPyNbCell.compare_outputs


def pytest_configure(config: pytest.Config) -> None:
    """Let nbval's cells compare as described."""
    IPyNbCell.compare_outputs = _compare_as_printed


def _compare_as_printed(cell: Any, test: list[Any], ref: list[Any], skip_compare: Any = None) -> Any:
    if len(test) == len(ref):
        test = [_spelt(a, b) for a, b in zip(ref, test, strict=True)]
    return _compare(cell, test, ref, skip_compare)


def _spelt(reference: Any, output: Any) -> Any:
    """Return an output with the texts of a stream or of its representations spelt as the reference spells them."""
    spelt = type(output)(output)
    if "text" in output:
        spelt["text"] = _text(reference.get("text"), output["text"])
    if "data" in output and "data" in reference:
        spelt["data"] = {kind: _text(reference["data"].get(kind), shown) for kind, shown in output["data"].items()}
    return spelt


def _text(reference: Any, shown: Any) -> Any:
    return as_printed(reference, shown) if isinstance(reference, str) and isinstance(shown, str) else shown
