"""What a chapter's notebook does besides science: house style for its figures, numbers for its prose."""

from __future__ import annotations

from myst_nb import glue

from descent.experiments.bench import Bench
from descent.figures import use_style

__all__ = ["publish", "use_style"]


def publish(bench: Bench) -> None:
    """Write the records of the chapter, and hand the prose its finished strings, one glue key per test and verdict."""
    bench.close()
    for key, text in bench.strings().items():
        glue(key, text, display=False)
