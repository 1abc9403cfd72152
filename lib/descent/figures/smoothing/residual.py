"""Residual nets of record over a grid of batch sizes and rules: what goes with the degree of smoothing."""

from __future__ import annotations

from matplotlib.figure import Figure
from pandas import DataFrame

from descent.experiments.smoothing.arms import NAMES
from descent.figures import label_panels, line, panels
from descent.figures.smoothing.generalisation import LOOKS

__all__ = ["residual"]

SHOWN = (("batch_size", "accuracy"), ("degree", "accuracy"), ("degree", "sharpness"))


def residual(record: DataFrame) -> Figure:
    """Draw accuracy against the batch size, and accuracy and sharpness against the measured degree of smoothing.

    record: the table of `experiments.smoothing.grid`, a row per batch size and arm. Bars are two standard errors.
    """
    figure, axes = panels(3, height=3.4)
    sizes = sorted(record["batch_size"].unique())
    for name, look in zip(NAMES, LOOKS, strict=True):
        arm = record[record["arm"] == name].sort_values("batch_size")
        for axis, (x, y) in zip(axes, SHOWN, strict=True):
            line(axis, arm[x], arm[y], look, marker=look.marker, label=name)
        axes[0].errorbar(arm["batch_size"], arm["accuracy"], 2 * arm["accuracy_error"], color=look.color, fmt="none")
    axes[0].set(xscale="log", xlabel="batch size", ylabel="test accuracy, %")
    axes[0].set_xticks(sizes, [str(size) for size in sizes])
    axes[0].minorticks_off()
    axes[1].set(xscale="log", xlabel="degree of smoothing δ", ylabel="test accuracy, %")
    axes[2].set(xscale="log", yscale="log", xlabel="degree of smoothing δ", ylabel="largest Hessian eigenvalue")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    label_panels(axes)
    return figure
