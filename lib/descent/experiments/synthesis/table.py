"""The whole control table: every cell of every mechanism, and a row per mechanism to read."""

from __future__ import annotations

from collections.abc import Sequence

from pandas import DataFrame

from descent.experiments.synthesis import directions, features, hopping, modes, tolerance
from descent.experiments.synthesis.lineup import COLUMNS, Cell

__all__ = ["all_cells", "summary"]

TITLES = ("equal rate", "equal step", "average", "equal power")


def all_cells(
    mode: modes.ModesResult, edge: tolerance.ToleranceResult, margin: features.FeaturesResult,
    escape: directions.DirectionsResult, barrier: hopping.HoppingResult,
) -> list[Cell]:
    """Return every cell."""
    return [*modes.cells(mode), *tolerance.cells(edge), *features.cells(margin), *directions.cells(escape),
            *hopping.cells(barrier)]


def summary(cells: Sequence[Cell], momentum: float) -> DataFrame:
    """Return the measured ratios at one momentum by mechanism and control, predictions in brackets."""
    rows = list(dict.fromkeys(cell.mechanism for cell in cells))
    found = {(cell.mechanism, cell.column): _text(cell) for cell in cells if cell.momentum == momentum}
    columns = {title: [found[row, column] for row in rows] for title, column in zip(TITLES, COLUMNS, strict=True)}
    return DataFrame(columns, index=rows).rename_axis(f"momentum {momentum:g}")


def _text(cell: Cell) -> str:
    predicted = "" if cell.predicted is None else f" ({cell.predicted:.3g})"
    if cell.measured is None:
        return predicted.strip() or "undefined"
    return f"{cell.measured.value:.3g}{predicted}"
