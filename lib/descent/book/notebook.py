"""What a chapter's notebook does besides science: house style for its figures, numbers for its prose."""

from __future__ import annotations

from matplotlib_inline.backend_inline import set_matplotlib_formats
from myst_nb import glue

from descent import figures
from descent.experiments.bench import Bench

__all__ = ["publish", "use_style"]


def use_style() -> None:
    """Set the house style, and let a figure that is the value of a cell be shown as a picture."""
    figures.use_style()
    set_matplotlib_formats("png")  # type: ignore[no-untyped-call]  # matplotlib_inline has no types


def publish(bench: Bench) -> None:
    """Write the records of the chapter, and hand the prose its finished strings, one glue key per test and verdict."""
    bench.close()
    for key, text in bench.strings().items():
        glue(key, text, display=False)
