"""House style: one colour per arm, theory as thin grey lines, data as marks with intervals.

Every figure is drawn once, in colours for a light page; `themed` gives the same drawing for a dark one, colour by
colour. Text has at least nine points at the size shown, and every colour, text or not, a contrast of at least 4.5 to
one on the page it is made for. Line style and marker differ as well as colour.
"""

from __future__ import annotations

import re
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

GROUND = "#ffffff"
INK = "#555b61"
"""Text, axes and theory."""

BLUE, INDIGO, TEAL, ORANGE, RED, WINE = "#2f6ea8", "#4a4fc4", "#137a6b", "#c25513", "#b8304a", "#7a1f4b"
OLIVE, LIME, GOLD = "#55771f", "#7a6a10", "#8a6510"
SLATE, LAVENDER, VIOLET, MAGENTA, TAUPE, MOSS, STEEL = (
    "#3f4752", "#6d5bb0", "#8a44a8", "#b0368f", "#86624c", "#5f7355", "#4f7391",
)  # fmt: skip

DARK = {
    INK: "#b5b9be", BLUE: "#7ab3e8", INDIGO: "#a3a6ff", TEAL: "#4fc3b0", ORANGE: "#f0935a", RED: "#f07a90",
    WINE: "#ffc0d0", OLIVE: "#a5cf62", LIME: "#d6c84a", GOLD: "#e3b94a", SLATE: "#d5dae1", LAVENDER: "#b7a8f0",
    VIOLET: "#d39ae8", MAGENTA: "#f08ad0", TAUPE: "#d1ae98", MOSS: "#b3c9a8", STEEL: "#9fc0d8",
}  # fmt: skip
"""The colour of a dark page for every colour of a light one."""

DPI = 144
WIDTH = 7.0
"""Full text width in inches: that of a page's column on a screen of common width."""

TEXT = 9.0
"""Size of the smallest text in points; at the full text width a figure is shown at its own size."""


@dataclass(frozen=True)
class Look:
    """How one value of a concept is drawn everywhere in the book."""

    color: str
    marker: str
    dashes: tuple[float, ...] | str


# The momentum ramp: cold for plain SGD, warm for strong momentum.
_MOMENTUM: tuple[tuple[float, Look], ...] = (
    (0.0, Look(BLUE, "o", "-")),
    (0.5, Look(OLIVE, "s", "--")),
    (0.7, Look(LIME, "D", "-.")),
    (0.8, Look(GOLD, "^", (5.0, 1.5))),
    (0.9, Look(ORANGE, "v", "-")),
    (0.95, Look(RED, "P", "--")),
    (0.99, Look(WINE, "X", "-.")),
)

ARMS: dict[str, Look] = {
    "plain": Look(BLUE, "o", "-"),
    "momentum": Look(ORANGE, "v", "-"),
    "average": Look(TEAL, "s", "--"),
    "step annealed": Look(TAUPE, "s", "--"),
    "momentum annealed": Look(MAGENTA, "P", "-."),
    "momentum decayed": Look(GOLD, "^", (5.0, 1.5)),
    "plain, matched step": Look(INDIGO, "X", (2.0, 1.2)),
    "plain, matched, annealed": Look(INDIGO, "X", (2.0, 1.2)),
}
"""The arms of the book's experiments, one look each; that of momentum at other strengths gives `momentum_look`."""

SERIES: tuple[Look, ...] = (
    Look(SLATE, "o", "-"),
    Look(LAVENDER, "s", "--"),
    Look(TAUPE, "^", "-."),
    Look(VIOLET, "v", "-"),
    Look(STEEL, "P", "--"),
    Look(MAGENTA, "X", "-."),
    Look(MOSS, "D", "-"),
)
"""Looks of what is no arm: learning rates, batch sizes, widths, laws, data."""


def momentum_look(momentum: float) -> Look:
    """Return the look of the nearest momentum of the ramp, on the scale of 1/(1 − momentum); plain SGD's at 0 alone."""
    near = _MOMENTUM[1:] if momentum else _MOMENTUM[:1]
    return min(near, key=lambda item: abs((1 - momentum) / (1 - item[0]) - 1))[1]


def themed(svg: str) -> str:
    """Return a drawing for a dark page: every colour of the house for a light one replaced, the ground left out.

    >>> themed('<path style="fill: #ffffff"/><path style="stroke: #2f6ea8"/>')
    '<path style="fill: none"/><path style="stroke: #7ab3e8"/>'
    """
    ground = svg.replace(f"fill: {GROUND}", "fill: none", 1)
    return re.sub("|".join(DARK), lambda found: DARK[found[0]], ground)


def use_style() -> None:
    """Set the house style for every later figure of this process."""
    sns.set_theme(
        context="notebook",
        style="ticks",
        rc={
            "figure.facecolor": GROUND,
            "axes.facecolor": "none",
            "savefig.facecolor": GROUND,
            "figure.dpi": DPI,
            "savefig.dpi": DPI,
            "svg.fonttype": "path",
            "svg.hashsalt": "descent",
            "path.simplify_threshold": 0.5,
            "font.size": TEXT,
            **dict.fromkeys(("axes.labelsize", "xtick.labelsize", "ytick.labelsize", "legend.fontsize"), TEXT),
            **dict.fromkeys(("legend.title_fontsize", "figure.labelsize"), TEXT),
            "axes.titlesize": TEXT + 0.5,
            **dict.fromkeys(("legend.handlelength", "legend.columnspacing"), 1.5),
            **dict.fromkeys(("legend.handletextpad", "legend.labelspacing"), 0.4),
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


def whiskers(*estimates: Estimate) -> list[list[float]]:
    """Return how far 95 % intervals reach below and above their estimates, as error bars ask for it, (2, n)."""
    return [[e.value - e.low for e in estimates], [e.high - e.value for e in estimates]]


def marks(axis: Axes, x: Any, estimates: Sequence[Estimate], look: Look, **options: Any) -> Any:
    """Draw estimates as points with their 95 % intervals."""
    values = [e.value for e in estimates]
    style: dict[str, Any] = {"fmt": look.marker, "color": look.color, "linestyle": "none", "capsize": 2}
    return axis.errorbar(x, values, yerr=whiskers(*estimates), elinewidth=1, **style, **options)


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
    "DARK",
    "DPI",
    "GROUND",
    "INK",
    "SERIES",
    "TEXT",
    "WIDTH",
    "Look",
    "label_panels",
    "line",
    "marks",
    "momentum_look",
    "panels",
    "paper_scale",
    "plain_ticks",
    "themed",
    "theory",
    "use_style",
    "whiskers",
]  # fmt: skip
