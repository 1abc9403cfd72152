"""Ordinary networks of record beside the small one: what momentum gains in test accuracy at equal training loss."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame

from descent.experiments.margins.networks import Networks
from descent.figures import INK, SERIES, Look, label_panels, marks, panels
from descent.figures.margins.reach import best_arms
from descent.stats import Estimate, paired_difference

__all__ = ["ordinary"]

APART = 1.07  # factor between losses of nets that were stopped at the same one, so that their intervals stand apart


def ordinary(small: DataFrame, usual: DataFrame, dimmed: DataFrame) -> Figure:
    """Draw the gain in points of accuracy as the training loss falls: trained on usual images, and on some dimmed.

    small: the table of `experiments.margins.networks`. usual, dimmed: gains of a night, a row per net, batch size,
    group of test images and loss.
    """
    figure, axes = panels(2, height=3.6, sharex=True, sharey=True)
    gain = paired_difference(*(100 * accuracies for accuracies in best_arms(small)))
    open_mark = {"markerfacecolor": "none", "label": "(a) CNN, full, table"}
    marks(axes[0], [Networks.target * APART], [gain], Look(INK, "D", "-"), **open_mark)
    _gains(axes[0], "(a)", usual, "batch_size", SERIES)
    _gains(axes[1], "(b)", dimmed, "tests", SERIES[::-1])
    for axis, title in zip(axes, ("trained on images as they are", "trained with a tenth dimmed"), strict=True):
        axis.axhline(0, color=INK, linewidth=0.8, linestyle=":")
        axis.set(xscale="log", xlabel="training loss, falling", title=title)
    axes[0].invert_xaxis()
    axes[0].set(ylabel="gain from momentum, points")
    label_panels(axes)
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def _gains(axis: Axes, panel: str, table: DataFrame, column: str, looks: Sequence[Look]) -> None:
    """Draw a row of marks for each net and value of a column."""
    kinds = table.groupby(["data", "net", column], sort=False)
    for place, (((data, net, value), gains), look) in enumerate(zip(kinds, looks, strict=False)):
        found = [Estimate(row.gain, row.low, row.high, row.draws, "") for row in gains.itertuples()]
        name = net if data.startswith("CIFAR") else f"{net} on {data.split(',')[0]}"
        marks(axis, gains["loss"] * APART**-place, found, look, label=f"{panel} {name}, {value}")
