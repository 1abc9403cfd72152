"""One minimiser in few or many directions: exit laws, the chance to leave, the gap between the two thresholds."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from descent.arrays import Array
from descent.experiments.flatness.dimension import FEATURE, MOMENTUM, DimensionResult
from descent.experiments.flatness.exits import ExitsResult
from descent.experiments.flatness.mechanisms import Case, MechanismsResult
from descent.figures import INK, SERIES, Look, label_panels, line, marks, momentum_look, panels, plain_ticks, theory
from descent.figures.flatness.looks import batch_look
from descent.measure.exit_laws import BARRIER, LOGARITHM, POWER, predicted
from descent.problems.exponents import almost_sure_threshold
from descent.stats import mean
from descent.theory.mode import mode_edge

__all__ = ["chance_to_leave", "dimension_gap", "exit_laws"]


LAW_LOOKS = {
    law: Look(look.color, "", dashes)
    for law, look, dashes in zip((BARRIER, POWER, LOGARITHM), SERIES[:3], ("-", "--", "-."), strict=True)
}
RUNS = Look(SERIES[3].color, "o", "-")


def exit_laws(result: MechanismsResult) -> Figure:
    """Draw mean exit times of three mechanisms, each on the axes that make its own law straight, and all three laws.

    The laws are fitted to the filled points; the open one is held out.
    """
    figure, axes = panels(3, height=3.2)
    titles = {Case.ADDITIVE: "additive noise", Case.BETWEEN: "between thresholds", Case.ABOVE: "above both"}
    for axis, (row, title) in zip(axes, titles.items(), strict=True):
        _laws(axis, result, row)
        axis.set(title=title)
    axes[0].set(yscale="log", xlabel="radius² / (2 variance)", ylabel="mean exit time (steps)")
    for axis in axes[1:]:
        axis.set(xscale="log", xlabel="radius / jitter")
    axes[1].set(yscale="log")
    label_panels(axes)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def _laws(axis: Axes, result: MechanismsResult, row: int) -> None:
    """Draw the laws fitted to all radii but the largest, and the measured times."""
    mechanism = result.config.mechanisms[row]
    radii, times = np.array(mechanism.radii), result.mean_times(row)
    dense = np.geomspace(radii[0], radii[-1], 200)
    for law, look in LAW_LOOKS.items():
        guess = np.exp(np.minimum(predicted(law, times[None, :-1], radii[:-1], dense)[0], 50))
        line(axis, _place(dense, result, row), guess, look, label=f"{law} law")
    found, places = result.exit_times(row), _place(radii, result, row)
    marks(axis, places[:-1], found[:-1], RUNS, label="runs", zorder=5)
    marks(axis, places[-1:], found[-1:], RUNS, zorder=5, mfc="none")
    room = (times[-1] / times[0]) ** 0.15 if row != Case.ABOVE else None
    low, high = (times[0] / room, times[-1] * room**2) if room else (0.0, 1.25 * times[-1])
    axis.set(ylim=(low, high))


def _place(radii: Array, result: MechanismsResult, row: int) -> Array:
    """Return where radii go on the axis of a mechanism."""
    mechanism = result.config.mechanisms[row]
    return radii**2 / (2 * mechanism.walk.variance) if row == Case.ADDITIVE else radii / mechanism.walk.jitter


def chance_to_leave(result: ExitsResult) -> Figure:
    """Draw the chance to leave against the starting distance with exact slopes, and exit times above both."""
    figure, axes = panels(2, height=3.4)
    _chances(axes[0], result)
    _exit_times(axes[1], result)
    label_panels(axes)
    handles, labels = axes[1].get_legend_handles_labels()
    figure.legend(handles, labels, title="batch size", loc="outside lower center", ncols=3)
    return figure


def _chances(axis: Axes, result: ExitsResult) -> None:
    """Draw measured chances with lines of slope α through the first, and above them the runs above both thresholds."""
    chances, sign = result.chances, "α = "
    for place, row in enumerate(np.argsort([setting.exponent for setting in result.between])):
        setting, start, found = result.between[row], 1 / result.ratios[row], chances[row]
        look, exact = batch_look(setting.batch_size), found[0].value * (start / start[0]) ** setting.exponent
        marks(axis, start, found, look)
        theory(axis, start, exact)
        axis.annotate(
            f"{sign}{setting.exponent:.2f}",
            (start[-1], exact[-1]),
            (0, -6 - 11 * (place % 2)),  # neighbours are too near for one line of numbers
            textcoords="offset points",
            color=look.color,
            ha="right" if sign else "center",
            va="top",
        )
        sign = ""
    starts = 10.0 ** -np.array(result.config.decades)
    for setting, seen in list(zip(result.above, result.seen, strict=True))[result.config.barely :]:
        look = batch_look(setting.batch_size)
        axis.plot(starts, seen.mean(0), look.marker, markerfacecolor="none", color=look.color)
    axis.annotate("above both thresholds: all leave", (3e-5, 1.2), color=INK, ha="center", va="bottom")
    axis.annotate("between them: a power α", (3e-8, 0.3), color=INK, ha="center", va="bottom")
    axis.set(
        xscale="log",
        yscale="log",
        xlim=(2e-11, 2),
        ylim=(result.left[0].mean(0)[-1] / 3, 2.0),
        xlabel="starting distance / radius",
        ylabel="share of runs that leave",
        title="chance to leave",
    )
    axis.set_xticks((1e-9, 1e-6, 1e-3, 1))


def _exit_times(axis: Axes, result: ExitsResult) -> None:
    """Draw mean exit times and the middle half of the runs against the decades to go."""
    decades = np.array(result.config.decades)
    for setting, times in list(zip(result.above, result.times, strict=True))[result.config.barely :]:
        look, found = batch_look(setting.batch_size), [mean(column) for column in times.T]
        marks(axis, decades, found, look, label=f"{setting.batch_size}")
        axis.fill_between(decades, *np.quantile(times, (0.25, 0.75), axis=0), color=look.color, alpha=0.15, linewidth=0)
        theory(axis, decades, found[0].value + (decades - decades[0]) * np.log(10) / setting.growth)
    axis.set(xlabel="decades from start to radius", ylabel="steps", title="exit time above both", ylim=(0, None))


def dimension_gap(result: DimensionResult) -> Figure:
    """Draw the gap between the thresholds against the dimension, and the thresholds with momentum and without."""
    figure, axes = panels(2, height=3.3)
    _gap(axes[0], result)
    _thresholds(axes[1], result)
    label_panels(axes)
    return figure


def _gap(axis: Axes, result: DimensionResult) -> None:
    for k, exact in zip(result.config.batch_sizes, result.gap.T, strict=True):
        look = batch_look(k)
        line(axis, result.config.dimensions, exact, look, linewidth=1.0, label=f"batch {k}")
        places = [d for d, measured in result.features if measured == k]
        marks(axis, places, [result.measured_gap(d, k) for d in places], look)
    axis.axhline(1, color=INK, linewidth=0.8, linestyle=":")
    axis.set(
        xscale="log",
        yscale="log",
        ylim=(0.93, 4.2),
        xlabel="equally curved directions",
        ylabel="almost-sure / mean-square threshold",
        title="the gap closes",
    )
    plain_ticks(axis.xaxis, axis.yaxis)
    axis.set_yticks((1, 1.5, 2, 3, 4), ("1", "1.5", "2", "3", "4"))
    axis.set_xticks((1, 3, 10, 30, 100), ("1", "3", "10", "30", "100"))
    axis.legend(loc="upper right")


def _thresholds(axis: Axes, result: DimensionResult) -> None:
    """Draw both thresholds in one direction, without momentum (exact) and with it (almost-sure ones measured)."""
    sizes = np.array(result.config.momentum_batches)
    plain, strong = momentum_look(0.0), momentum_look(MOMENTUM)
    line(
        axis,
        sizes,
        [almost_sure_threshold(FEATURE, int(k)) for k in sizes],
        plain,
        marker=plain.marker,
        label="momentum 0",
    )
    for momentum, look in ((0.0, plain), (MOMENTUM, strong)):
        edge = mode_edge(1.0, momentum, FEATURE.variance / sizes)
        axis.plot(sizes, edge, color=look.color, linewidth=0.9, linestyle=":")
    found = [result.momentum[int(k)].almost_sure(result.lab.seed) for k in sizes]
    line(axis, sizes, [e.value for e in found], strong)
    marks(axis, sizes, found, strong, label=f"momentum {MOMENTUM:g}")
    axis.plot([], [], color=INK, linewidth=0.8, linestyle=":", label="mean-square threshold")
    axis.set(
        xscale="log",
        xlabel="batch size",
        ylabel="threshold (lr × sharpness)",
        title="one direction, almost sure",
        ylim=(0, 4),
    )
    axis.set_xticks(sizes, [str(k) for k in sizes])
    axis.minorticks_off()
    axis.legend(loc="lower right")
