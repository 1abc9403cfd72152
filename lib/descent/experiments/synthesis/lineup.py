"""The control table: what a mechanism comes to with momentum over what it comes to without, under four controls.

equal_lr: heavy ball at lr η against plain SGD at η, as papers compare; equal_step: the same against plain SGD at
η/(1 − β), which travels as far per step; average: momentum as an average of gradients at η, raw rate η(1 − β), against
plain SGD at η, which is the same comparison at a smaller step; equal_power: that average with a batch smaller by
(1 − β)/(1 + β), so that the noise of its direction has plain SGD's power.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, Protocol

from pandas import DataFrame

from descent.engine import Hyper, heavy_ball
from descent.stats import Estimate

UNDEFINED = "control undefined: plain SGD is unstable at this step"
FRACTION = "predicted only: the smaller batch is not a whole number of examples"

Column = Literal["equal_lr", "equal_step", "average", "equal_power"]
COLUMNS: tuple[Column, ...] = ("equal_lr", "equal_step", "average", "equal_power")
MOMENTA = (0.0, 0.5, 0.9, 0.99)
MOVING = MOMENTA[1:]  # at zero every arm is plain SGD, and every ratio 1
GRID = tuple((column, momentum) for column in COLUMNS for momentum in MOMENTA)  # the cells of a row
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


class Arm(NamedTuple):
    """Heavy ball at its raw rate; a factor on the variance of its noise, or a batch of its own (0: all examples)."""

    lr: float
    momentum: float
    noise: float = 1.0
    batch: int = 0


class Cell(NamedTuple):
    """A ratio to plain SGD: predicted (None where no formula applies), measured (None with the reason in `note`)."""

    mechanism: str
    column: Column
    momentum: float
    predicted: float | None
    measured: Estimate | None
    note: str = ""


def arms_at(lr: float) -> tuple[Arm, ...]:
    """Return plain SGD; then, by momentum, heavy ball, its control, the average, and the average at a smaller batch."""
    found = [Arm(lr, 0.0)]
    for m in MOVING:
        average = lr * (1 - m)
        found += [Arm(lr, m), Arm(lr / (1 - m), 0.0), Arm(average, m), Arm(average, m, (1 + m) / (1 - m))]
    return tuple(found)


def pair(column: Column, momentum: float) -> tuple[int, int]:
    """Return the places of an arm and of the plain SGD it is compared with."""
    if momentum == 0:
        return 0, 0
    first = 1 + 4 * MOVING.index(momentum)
    arm = first + {"equal_lr": 0, "equal_step": 0, "average": 2, "equal_power": 3}[column]
    return arm, first + 1 if column == "equal_step" else 0


class Rows(Protocol):
    """A result that fills rows of the table."""

    @property
    def cells(self) -> Iterable[Cell]:
        """Every cell of one mechanism or of several."""


def rule_of(arms: Sequence[Arm]) -> Hyper:
    """Return the rule of every arm."""
    return heavy_ball([arm.lr for arm in arms], [arm.momentum for arm in arms])


def cells_table(found: Iterable[Cell]) -> DataFrame:
    """Return the cells as a table, one row each; empty where nothing was predicted or measured."""
    cells = list(found)
    frame = DataFrame(cells, columns=["mechanism", "control", "momentum", "predicted", "measured", "note"])
    for name, end in (("low", "low"), ("high", "high"), ("measured", "value")):
        frame[name] = [cell.measured and getattr(cell.measured, end) for cell in cells]
    return frame


def all_cells(*results: Rows) -> list[Cell]:
    """Return the cells of several results."""
    return [cell for result in results for cell in result.cells]


def summary(cells: Sequence[Cell], momentum: float) -> DataFrame:
    """Return the measured ratios at one momentum by mechanism and control, predictions in brackets."""

    def text(cell: Cell) -> str:
        predicted = "" if cell.predicted is None else f" ({cell.predicted:.3g})"
        return f"{cell.measured.value:.3g}{predicted}" if cell.measured else predicted.strip() or "undefined"

    found = {(cell.mechanism, cell.column): text(cell) for cell in cells if cell.momentum == momentum}
    columns = {title: [found[row, column] for row in NAMES] for title, column in zip(TITLES, COLUMNS, strict=True)}
    return DataFrame(columns, index=list(NAMES.values())).rename_axis(f"momentum {momentum:g}")
