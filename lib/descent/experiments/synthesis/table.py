"""The whole control table: every cell of every mechanism, and a row per mechanism to read."""

from __future__ import annotations

from collections.abc import Sequence

from pandas import DataFrame

from descent.experiments.synthesis import directions, features, hopping, modes, tolerance
from descent.experiments.synthesis.lineup import COLUMNS, Cell

__all__ = ["NAMES", "TITLES", "all_cells", "summary"]

TITLES = ("equal rate", "equal step", "average", "equal power")
NAMES = {
    "direction": "noise of the direction",
    "tolerance, batch 4": "tolerance, batch 4",
    "tolerance, batch 256": "tolerance, batch 256",
    "escape": "time to leave a saddle",
    "floor": "noise floor",
    "small margins": "error on small margins",
    "flat escape": "flat part of escape",
    "barrier": "time over a barrier",
}
"""The mechanisms in the order of the table, and what it calls them."""


def all_cells(
    mode: modes.ModesResult,
    edge: tolerance.ToleranceResult,
    margin: features.FeaturesResult,
    escape: directions.DirectionsResult,
    barrier: hopping.HoppingResult,
) -> list[Cell]:
    """Return every cell."""
    return [
        *modes.cells(mode),
        *tolerance.cells(edge),
        *features.cells(margin),
        *directions.cells(escape),
        *hopping.cells(barrier),
    ]


def summary(cells: Sequence[Cell], momentum: float) -> DataFrame:
    """Return the measured ratios at one momentum by mechanism and control, predictions in brackets."""
    found = {(cell.mechanism, cell.column): _text(cell) for cell in cells if cell.momentum == momentum}
    columns = {title: [found[row, column] for row in NAMES] for title, column in zip(TITLES, COLUMNS, strict=True)}
    return DataFrame(columns, index=list(NAMES.values())).rename_axis(f"momentum {momentum:g}")


def _text(cell: Cell) -> str:
    predicted = "" if cell.predicted is None else f" ({cell.predicted:.3g})"
    if cell.measured is None:
        return predicted.strip() or "undefined"
    return f"{cell.measured.value:.3g}{predicted}"
