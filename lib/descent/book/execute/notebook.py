"""What a chapter's notebook does besides science: house style for its figures, numbers for its prose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from IPython.display import HTML, display
from matplotlib_inline.backend_inline import set_matplotlib_formats
from myst_nb import glue
from numpy.typing import ArrayLike

from descent import figures
from descent.book.execute.card import card
from descent.experiments.lab import Experiment, Lab
from descent.runs.bench import Bench
from descent.runs.perform import Finding

__all__ = ["agree", "publish", "show", "use_style"]


def use_style() -> None:
    """Set the house style, let a figure that is the value of a cell be shown as a drawing, and no table be cut.

    Pages show the drawing, in the colours of their theme; the picture beside it is for what reads notebooks without.
    """
    figures.use_style()
    pd.set_option("display.max_colwidth", None, "display.width", 1000)
    set_matplotlib_formats("png", "svg", metadata={"Date": None})  # type: ignore[no-untyped-call]  # matplotlib_inline has no types


def show(experiment: Experiment[Any, Any], lab: Lab, scale: str, found: Finding, claims: Sequence[str]) -> None:
    """Show the card of an experiment that was run: its configuration, seconds, claims, and code."""
    display(HTML(card(experiment, lab, scale, found, claims)))  # type: ignore[no-untyped-call]


def agree(bench: Bench, here: ArrayLike, there: ArrayLike) -> None:
    """Say what the bench has for numbers a page computed by itself; raise ValueError where it is something else.

    At another scale than the page's the bench has another configuration, and nothing is compared.
    """
    ours, theirs = (np.atleast_1d(np.asarray(numbers, dtype=np.float64)) for numbers in (here, there))
    shown = ", ".join(f"{number:.4g}" for number in theirs)
    if bench.scale != "cpu":
        print(f"at scale {bench.scale}, in another configuration: {shown}")
        return
    if not np.allclose(ours, theirs, rtol=1e-4):
        raise ValueError(f"the page finds {ours.tolist()}, the bench {theirs.tolist()}: they are to be one experiment")
    print(f"the experiment finds the same: {shown}")


def publish(bench: Bench) -> None:
    """Write the records of the chapter, and hand the prose its finished strings, one glue key per test and verdict."""
    bench.save()
    for key, text in bench.strings().items():
        glue(key, text, display=False)
