"""What a chapter's notebook does besides science: house style for its figures, numbers for its prose."""

from __future__ import annotations

import pandas as pd
from matplotlib_inline.backend_inline import set_matplotlib_formats
from myst_nb import glue

from descent import figures
from descent.runs.bench import Bench

__all__ = ["publish", "use_style"]


def use_style() -> None:
    """Set the house style, let a figure that is the value of a cell be shown as a picture, and no table be cut."""
    figures.use_style()
    pd.set_option("display.max_colwidth", None, "display.width", 1000)
    set_matplotlib_formats("png")  # type: ignore[no-untyped-call]  # matplotlib_inline has no types


def publish(bench: Bench) -> None:
    """Write the records of the chapter, and hand the prose its finished strings, one glue key per test and verdict."""
    bench.save()
    for key, text in bench.strings().items():
        glue(key, text, display=False)
