"""Random quadratics: growth of the mean square and of single runs, what samples miss, bounds around the threshold."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter, ScalarFormatter

from descent.arrays import Array
from descent.experiments.flatness.growth import ATOMS, FEATURES, WEIGHTS, Cell, RatesResult
from descent.experiments.flatness.samples import SamplesResult
from descent.experiments.flatness.sandwich import LOWER, MEAN, STEEP, THRESHOLD, TOP, UPPER, SandwichResult
from descent.figures import INK, SERIES, Look, label_panels, line, marks, momentum_look, panels, theory
from descent.figures.flatness.looks import batch_look
from descent.problems.quadratics import FOUR_ATOMS, Problem, growth_rate, threshold

__all__ = ["bound_ratios", "bounds_by_batch", "growth_rates", "mean_and_runs"]


ENSEMBLES = {
    name: Look(look.color, look.marker, "-") for name, look in zip((ATOMS, FEATURES, WEIGHTS), SERIES[:3], strict=True)
}
SAMPLED, RESAMPLED = SERIES[1].color, SERIES[5].color
STRONG = momentum_look(0.9)
BOUNDS = {
    "lower": Look(SERIES[1].color, "o", "--"),
    "upper": Look(SERIES[5].color, "X", "--"),
    "top": Look(SERIES[4].color, "s", "-."),
    "mean": Look(SERIES[2].color, "^", (5.0, 1.5)),
}
LABELS = {"lower": "one step, lower", "upper": "one step, upper", "top": "cheap, sharpest", "mean": "cheap, mean"}

MULTIPLE = "lr over the mean-square threshold"


def mean_and_runs(result: SamplesResult) -> Figure:
    """Draw single runs, their median, sample means of ever more runs, resampled runs, and the exact mean error."""
    figure, (axis,) = panels(1, height=3.8)
    steps = np.arange(result.config.steps + 1)
    axis.plot(steps, result.paths.T, color=INK, linewidth=0.4, alpha=0.35)
    axis.plot(steps, result.median, color=INK, linewidth=2.2)
    theory(axis, steps, np.log10(result.theory))
    axis.plot(steps, result.resampled_path, "v", color=RESAMPLED, markersize=4)
    ends = [("exact mean", float(np.log10(result.theory[-1])), INK), ("median run", float(result.median[-1]), INK)]
    strengths = np.linspace(0.25, 1, len(result.sizes))
    for size, values, strength in zip(result.sizes, np.log10(result.means), strengths, strict=True):
        axis.plot(steps, values, color=SAMPLED, alpha=strength, linewidth=1.4)
        ends.append((f"mean of {size:,}".replace(",", " "), float(values[-1]), SAMPLED))
    axis.annotate(
        "resampled runs",
        (steps[-9], result.resampled_path[-9]),
        color=RESAMPLED,
        ha="right",
        xytext=(-6, 4),
        textcoords="offset points",
    )
    _label_ends(axis, steps[-1], ends, gap=1.1)
    axis.set(xlabel="step", ylabel="log₁₀ of the error", xlim=(0, steps[-1] * 1.24), ylim=(-18, ends[0][1] + 1.5))
    axis.set_xticks(steps[::4])
    return figure


def _label_ends(axis: Axes, x: float, ends: list[tuple[str, float, str]], gap: float) -> None:
    """Write each name at the end of its curve, no two closer than `gap`."""
    place = np.inf
    for name, y, color in sorted(ends, key=lambda end: -end[1]):
        place = min(y, place - gap)
        axis.annotate(name, (x, place), color=color, xytext=(5, 0), textcoords="offset points", va="center")


def growth_rates(result: RatesResult) -> Figure:
    """Draw how far measured growth of the mean square is from exact, and single runs beside it, exponential weights."""
    figure, axes = panels(2, height=3.2)
    _differences(axes[0], result)
    _beside(axes[1], result.of(WEIGHTS))
    label_panels(axes)
    return figure


def _differences(axis: Axes, result: RatesResult) -> None:
    """Draw all cells at one multiple of the threshold side by side, rising batch sizes of one ensemble together."""
    multiples = result.config.multiples
    width = 0.8 * len(multiples) / len(result.cells)
    first = -0.4 + width / 2
    for case in result.cases:
        look = STRONG if case.momentum else ENSEMBLES[case.name]
        cells = result.of(case.name, case.momentum)
        offsets = {k: first + width * index for index, k in enumerate(case.batch_sizes)}
        first += width * len(offsets)
        name = f"{case.name}, momentum {case.momentum:g}" if case.momentum else case.name
        places = [multiples.index(cell.multiple) + offsets[cell.batch_size] for cell in cells]
        marks(axis, places, [cell.deviation for cell in cells], look, label=name, markersize=3)
    axis.axhline(0, color=INK, linewidth=1)
    axis.set_xticks(range(len(multiples)), [f"{multiple:g}" for multiple in multiples])
    axis.set_yticks((-0.01, -0.005, 0, 0.005, 0.01))
    axis.set(xlabel=MULTIPLE, ylabel="measured minus exact growth", title="mean square, all cells", ylim=(-0.01, 0.01))
    axis.legend(loc="upper left", handletextpad=0.2)


def _beside(axis: Axes, cells: list[Cell]) -> None:
    """Draw growth against the step: filled marks the mean square, open ones single runs."""
    case = cells[0].case
    dense = np.linspace(0.45, 1.55, 100)
    for k in case.batch_sizes:
        look, edge = batch_look(k), threshold(case.problem, k)
        some = [cell for cell in cells if cell.batch_size == k]
        multiples = [cell.multiple for cell in some]
        line(axis, dense, [growth_rate(case.problem, x * edge, k) for x in dense], look, linewidth=1)
        line(axis, dense, [case.single_runs(x * edge, k) for x in dense], look, linewidth=0.7, alpha=0.7)
        marks(axis, multiples, [cell.growth.mean_square for cell in some], look, label=f"batch {k}")
        marks(axis, multiples, [cell.growth.lyapunov for cell in some], look, markerfacecolor="none")
    axis.axhline(0, color=INK, linewidth=0.8, linestyle=":")
    axis.plot([], [], "o", color=INK, label="mean square")
    axis.plot([], [], "o", color=INK, markerfacecolor="none", label="single runs")
    axis.set(xlabel=MULTIPLE, ylabel="growth per step", title=case.name, ylim=(-1.9, 0.85))
    axis.legend(loc="lower right", ncols=2, handletextpad=0.2, columnspacing=0.8)


def bounds_by_batch(result: SandwichResult) -> Figure:
    """Draw the threshold and its bounds against the batch size, over the threshold of full-batch descent."""
    figure, axes = panels(2, height=3.2)
    named: tuple[tuple[str, Problem, Array], ...] = (
        ("four atoms", FOUR_ATOMS, result.atoms),
        ("Gaussian, curvatures 10, 1, 0.1", STEEP, result.steep),
    )
    for axis, (name, problem, curve) in zip(axes, named, strict=True):
        over = curve / threshold(problem, np.inf)
        axis.plot(result.config.curve, over[:, THRESHOLD], color=INK, linewidth=4, alpha=0.5, label="exact threshold")
        for label, column in (("lower", LOWER), ("upper", UPPER), ("top", TOP), ("mean", MEAN)):
            line(axis, result.config.curve, over[:, column], BOUNDS[label], linewidth=1.2, label=LABELS[label])
        axis.axhline(1, color=INK, linewidth=0.8, linestyle=":")
        axis.set(xscale="log", yscale="log", xlabel="batch size", title=name)
    axes[0].set(ylabel="lr over 2/λ₁")
    axes[0].yaxis.set_major_locator(FixedLocator([0.3, 0.5, 1, 2]))
    axes[0].yaxis.set_major_formatter(ScalarFormatter())
    axes[0].yaxis.set_minor_formatter(NullFormatter())
    axes[0].legend(loc="lower right")
    label_panels(axes)
    return figure


def bound_ratios(result: SandwichResult) -> Figure:
    """Draw how far the bounds are from the threshold over random ensembles: share of ensembles within a factor."""
    figure, (axis,) = panels(1, height=3.0)
    for label, values in result.ratios.items():
        ordered = np.sort(values)
        line(axis, ordered, np.arange(1, len(ordered) + 1) / len(ordered), BOUNDS[label], label=LABELS[label])
    axis.set(
        xscale="log",
        xlim=(0.97, 3000),
        ylim=(0, 1.02),
        xlabel="distance from the exact threshold, as a factor",
        ylabel="share of ensembles",
    )
    axis.legend(loc="lower right")
    return figure
