"""Escape from shallow minima, annealing, and the critical batch size."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from descent.experiments.smoothing.arms import RULES, over_draws
from descent.experiments.smoothing.critical import CriticalResult
from descent.experiments.smoothing.escape import EscapeResult
from descent.experiments.smoothing.graduated import GraduatedResult
from descent.figures import INK, SERIES, label_panels, line, marks, panels, plain_ticks, theory
from descent.stats import draw_mean, mean

RATES = SERIES
"""One look per learning rate."""


def collapse(result: EscapeResult) -> Figure:
    """Draw the share of walkers that come home, against the degree of smoothing and against the temperature."""
    figure, axes = panels(2, height=3.5, sharey=True)
    heats = np.array(result.config.temperatures)
    for rate, home, look in zip(result.config.rates, result.home, RATES, strict=False):
        for axis, scale in zip(axes, (np.sqrt(2 * heats * rate), heats), strict=True):
            line(axis, scale, home.mean(axis=-1), look, marker=look.marker, label=f"lr = {rate:g}")
    axes[1].plot(
        heats,
        result.averaged.mean(axis=-1),
        "X",
        color=INK,
        label=f"averaged, momentum {result.config.averaged.momentum:g}",
    )
    threshold = result.config.rugged.trap_threshold("gaussian")
    axes[0].axvline(threshold, color=INK, linewidth=1, linestyle="--")
    axes[0].annotate(
        "descent on the\nsmoothed\nobjective\nis free here",
        (threshold, 0.02),
        color=INK,
        ha="right",
        va="bottom",
        xytext=(-3, 0),
        textcoords="offset points",
    )
    for axis in axes:
        axis.axhline(0.5, color=INK, linewidth=0.8, linestyle=":")
        axis.set(xscale="log", ylim=(0, 1.02))
        plain_ticks(axis.xaxis)
    axes[0].set(xlabel="degree of smoothing, lr × noise", ylabel="share of walkers at home")
    axes[1].set(xlabel="temperature, lr × noise variance / 2")
    figure.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    label_panels(axes)
    return figure


def annealed(result: GraduatedResult) -> Figure:
    """Draw the mean final objective of every rule, constant and annealed."""
    figure, (axis,) = panels(1, height=2.6)
    names = ("plain,\nlr annealed", "heavy ball (sum),\nmomentum annealed", "averaged,\nmomentum annealed")
    for row, (label, look) in enumerate(zip(("constant", "annealed"), (RATES[0], RATES[3]), strict=True)):
        found = [mean(final[row]) for final in result.final]
        marks(axis, np.arange(len(names)) + 0.12 * (2 * row - 1), found, look, label=label)
    axis.set(yscale="log", ylabel="mean final objective", xlim=(-0.5, len(names) - 0.5))
    axis.set_xticks(range(len(names)), names)
    axis.legend(loc="upper right")
    return figure


def valleys(result: CriticalResult) -> Figure:
    """Draw gradients used against batch size, and the variance the recipe reads off against the direct one."""
    figure, axes = panels(2, height=3.1)
    config = result.config
    sizes = np.array(config.batch_sizes)
    styles = zip(RATES[::3], config.rates, result.steps, strict=False)
    for look, rate, steps in styles:
        for e, goal in enumerate(config.precisions):
            used = steps[e] * sizes
            reached = np.isfinite(used).all(axis=0)
            found = [over_draws(result.sets, draw_mean)(column) for column in used[:, reached].T]
            marks(axes[0], sizes[reached], found, look, label=f"lr = {rate:g}" if e == 0 else None)
            line(axes[0], sizes[reached], [f.value for f in found], look, alpha=0.7)
            axes[0].annotate(
                f"ε = {goal:g}",
                (sizes[reached][-1], found[-1].value),
                color=look.color,
                xytext=(3, 0),
                textcoords="offset points",
                va="center",
            )
    axes[0].set(xscale="log", yscale="log", xlabel="batch size", ylabel="gradients used", xlim=(140, 1300))
    plain_ticks(axes[0].xaxis)
    axes[0].legend(loc="upper left")
    _variances(axes[1], result)
    label_panels(axes)
    return figure


def _variances(axis: Axes, result: CriticalResult) -> None:
    """Draw what the recipe reads off exact runs of three rules that share their gradient noise."""
    rules = RULES if result.lab.momentum > 0 else RULES[:1]  # the recipe for heavy ball divides by the momentum
    read = [result.virtual_recipe(rule) for rule in rules]
    positions = np.arange(len(read))
    axis.plot(positions, read, "v", color=RATES[3].color)
    theory(axis, [-0.5, len(read) - 0.5], [result.config.virtual_variance] * 2)
    axis.annotate(
        "true variance of all three",
        (len(read) - 0.55, result.config.virtual_variance),
        color=INK,
        va="bottom",
        ha="right",
        xytext=(0, 2),
        textcoords="offset points",
    )
    axis.set(
        yscale="log",
        ylabel="gradient variance read off",
        xlim=(-0.5, len(read) - 0.5),
        ylim=(0.2, 4 * result.config.virtual_variance),
    )
    axis.set_xticks(positions, ("plain", "averaged\n(NSHB)", "heavy ball\n(SHB)")[: len(read)])


__all__ = ["annealed", "collapse", "valleys"]
