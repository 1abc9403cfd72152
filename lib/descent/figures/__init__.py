"""House style: one palette per concept, theory as thin grey lines, data as marks with intervals.

Every figure is drawn once and read on a light and on a dark page, so the background is transparent and every
colour keeps a contrast of at least three to one on both. Line style and marker differ as well as colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter
from pandas import DataFrame

from descent.stats.estimate import Estimate

INK = "#7f7f7f"
"""Text, axes and theory: the grey that reads on white and on near-black alike."""

DPI = 144
WIDTH = 7.2
"""Full text width in inches."""


@dataclass(frozen=True)
class Look:
    """How one value of a concept is drawn everywhere in the book."""

    color: str
    marker: str
    dashes: tuple[float, ...] | str


# The momentum ramp: cold for plain SGD, warm for strong momentum.
_MOMENTUM: tuple[tuple[float, Look], ...] = (
    (0.0, Look("#3d85c6", "o", "-")),
    (0.5, Look("#1f9d8b", "s", "--")),
    (0.7, Look("#6f9a2e", "D", "-.")),
    (0.8, Look("#b58a1a", "^", (5.0, 1.5))),
    (0.9, Look("#e0702f", "v", "-")),
    (0.95, Look("#d6405f", "P", "--")),
    (0.99, Look("#a862c4", "X", "-.")),
)

ARMS: dict[str, Look] = {
    "plain": Look("#3d85c6", "o", "-"),
    "momentum": Look("#e0702f", "v", "-"),
    "step annealed": Look("#1f9d8b", "s", "--"),
    "momentum annealed": Look("#a862c4", "P", "-."),
    "momentum decayed": Look("#b58a1a", "^", (5.0, 1.5)),
    "plain, matched step": Look("#d6405f", "X", (2.0, 1.2)),
    "plain, matched, annealed": Look("#d6405f", "X", (2.0, 1.2)),
}
"""The arms of an annealing experiment, one look each."""


def momentum_look(momentum: float) -> Look:
    """Return the look of the nearest momentum of the ramp, on the scale of 1/(1 − momentum)."""
    return min(_MOMENTUM, key=lambda item: abs((1 - momentum) / (1 - item[0]) - 1))[1]


def use_style() -> None:
    """Set the house style for every later figure of this process."""
    sns.set_theme(
        context="notebook",
        style="ticks",
        rc={
            "figure.facecolor": "none",
            "axes.facecolor": "none",
            "savefig.facecolor": "none",
            "figure.dpi": DPI,
            "savefig.dpi": DPI,
            "font.size": 9,
            "axes.labelsize": 9,
            "axes.titlesize": 9.5,
            "xtick.labelsize": 8,
            "ytick.labelsize": 8,
            "legend.fontsize": 8,
            "legend.frameon": False,
            "lines.linewidth": 1.5,
            "lines.markersize": 4.5,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.linewidth": 0.8,
            **dict.fromkeys(("xtick.major.width", "ytick.major.width", "xtick.minor.width", "ytick.minor.width"), 0.8),
            **dict.fromkeys(("xtick.major.size", "ytick.major.size"), 4.0),
            **dict.fromkeys(("xtick.minor.size", "ytick.minor.size"), 2.0),
            **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
            "axes.titlecolor": INK,
        },
    )


def panels(columns: int = 1, rows: int = 1, height: float = 2.9, **options: Any) -> tuple[Figure, list[Axes]]:
    """Return a figure of the text width and its axes in reading order; `height` is that of one row.

    The figure is not pyplot's: a notebook shows it once, as the value of its cell.
    """
    figure = Figure(figsize=(WIDTH, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, list(axes.flat)


def line(axis: Axes, x: Any, y: Any, look: Look, **options: Any) -> Any:
    """Draw a measured curve in its look."""
    style = look.dashes if isinstance(look.dashes, str) else (0, look.dashes)
    return axis.plot(x, y, color=look.color, linestyle=style, **options)


def marks(axis: Axes, x: Any, estimates: Sequence[Estimate], look: Look, **options: Any) -> Any:
    """Draw estimates as points with their 95 % intervals."""
    values = [e.value for e in estimates]
    reach = [[e.value - e.low for e in estimates], [e.high - e.value for e in estimates]]
    style: dict[str, Any] = {"fmt": look.marker, "color": look.color, "linestyle": "none", "capsize": 2}
    return axis.errorbar(x, values, yerr=reach, elinewidth=1, **style, **options)


def paper_scale(axis: Axes, frame: DataFrame | None, x: str, columns: tuple[str, str, str], **options: Any) -> None:
    """Draw what was measured at paper scale on the same axis: large open circles with intervals; nothing if absent.

    columns: of estimate, low and high end; x: momentum, drawn at 1/(1 − momentum).
    """
    if frame is None:
        return
    value, low, high = (frame[column].to_numpy() for column in columns)
    axis.errorbar(
        1 / (1 - frame[x].to_numpy()),
        value,
        [value - low, high - value],
        fmt="o",
        markersize=9,
        color=INK,
        markerfacecolor="none",
        elinewidth=0.8,
        zorder=0.5,
        label="paper scale",
        **options,
    )


def theory(axis: Axes, x: Any, y: Any, *, dashed: bool = False, **options: Any) -> Any:
    """Draw a theoretical curve: thin grey, solid when exact, dashed when an approximation."""
    return axis.plot(x, y, color=INK, linewidth=1.0, linestyle=(0, (4, 2)) if dashed else "-", zorder=1, **options)


def plain_ticks(*axes: Axis) -> None:
    """Label a logarithmic axis of about one decade with plain numbers at 1, 2 and 5."""
    for axis in axes:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(ScalarFormatter())
        axis.set_minor_formatter(NullFormatter())


def label_panels(axes: Sequence[Axes]) -> None:
    """Write (a), (b), … before each title, left-aligned."""
    for letter, axis in zip("abcdefgh", axes, strict=False):
        axis.set_title(f"({letter}) {axis.get_title()}", loc="left")
        if axis.get_title():
            axis.set_title("")


__all__ = [
    "ARMS",
    "DPI",
    "INK",
    "WIDTH",
    "Look",
    "label_panels",
    "line",
    "marks",
    "momentum_look",
    "panels",
    "paper_scale",
    "plain_ticks",
    "theory",
    "use_style",
]
