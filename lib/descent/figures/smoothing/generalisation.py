"""Accuracy and sharpness of networks: the race over batch sizes with its control, and what decides the sharpness."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from descent.experiments.smoothing.headline import HeadlineResult
from descent.experiments.smoothing.iso import AVERAGED, BASE, DEGREE, TEMPERATURE, IsoResult
from descent.experiments.smoothing.structure import BATCH, ISOTROPIC, NONE, StructureResult
from descent.figures import ARMS, INK, Look, label_panels, line, marks, panels
from descent.stats.intervals import mean, paired_difference

LOOKS = (ARMS["plain"], Look("#1f9d8b", "s", "--"), ARMS["momentum"], ARMS["plain, matched step"])
"""Plain, averaged, heavy ball, plain at the effective learning rate."""


def headline(result: HeadlineResult, mnist: HeadlineResult | None = None) -> Figure:
    """Draw test accuracy against batch size at fixed epochs, digits left, MNIST right where it is there."""
    results = [result] if mnist is None else [result, mnist]
    figure, axes = panels(len(results), height=3.2, sharey=True)
    for axis, one in zip(axes, results, strict=True):
        _race(axis, one)
    axes[0].set_ylabel("test accuracy, %")
    axes[0].legend(loc="lower left", fontsize=7)
    label_panels(axes)
    return figure


def _race(axis: Axes, result: HeadlineResult) -> None:
    """Draw one data set's arms, the control on top of what it explains."""
    config, sizes = result.config, np.array(result.config.batch_sizes)
    names = (
        f"plain (SGD), lr {config.lr:.3g}",
        "averaged (NSHB), same lr",
        "heavy ball (SHB), same lr",
        f"plain (SGD), lr {config.effective:.3g}",
    )
    for name, look, arm in zip(names, LOOKS, result.accuracy.swapaxes(0, 1), strict=True):
        found = [mean(values) for values in arm]
        line(axis, sizes, [f.value for f in found], look, marker=look.marker, label=name)
        marks(axis, sizes, found, look)
    axis.set(xscale="log", xlabel="batch size", title=result.title)
    axis.set_xticks(sizes, [str(size) for size in sizes])
    axis.minorticks_off()


def iso(result: IsoResult) -> Figure:
    """Draw how sharpness and accuracy move away from the base along arms that hold one combination."""
    figure, axes = panels(2, height=3.0)
    config = result.config
    held = {
        TEMPERATURE: ("equal\nlr / size", LOOKS[0]),
        DEGREE: ("equal\nlr / √size", LOOKS[2]),
        len(config.arms) - 1: ("equal\nlr", LOOKS[3]),
    }
    held = {AVERAGED: ("both equal,\naveraged", LOOKS[1]), **held} if config.momentum > 0 else held
    for axis, values in zip(axes, (result.sharpness, result.accuracy), strict=True):
        for place, (arm, (_, look)) in enumerate(held.items()):
            marks(axis, [place], [paired_difference(values[arm], values[BASE])], look)
        labels = [f"{name}\n({config.arms[arm][1]:g}, {config.arms[arm][2]})" for arm, (name, _) in held.items()]
        _places(axis, labels)
        axis.set_xlabel(f"(lr, batch size), against plain at ({config.lr:g}, {config.batch_size})")
    axes[0].set_title("shift of log sharpness")
    axes[1].set_title("gain in accuracy, points")
    label_panels(axes)
    return figure


def structure(result: StructureResult) -> Figure:
    """Draw how sharpness and accuracy move away from descent without noise, by the shape of the noise."""
    figure, axes = panels(2, height=2.6)
    arms = {BATCH: LOOKS[0], ISOTROPIC: LOOKS[2]}
    for axis, values in zip(axes, (result.sharpness, result.accuracy), strict=True):
        for place, (arm, look) in enumerate(arms.items()):
            marks(axis, [place], [paired_difference(values[arm], values[NONE])], look)
        _places(axis, ["batch noise", "isotropic noise\nof equal power"])
        axis.set_xlabel("against descent without noise")
    axes[0].set_title("shift of log sharpness")
    axes[1].set_title("gain in accuracy, points")
    label_panels(axes)
    return figure


def _places(axis: Axes, labels: list[str]) -> None:
    """Name the places along the axis and draw the level of no change."""
    axis.axhline(0, color=INK, linewidth=0.8, linestyle=":")
    axis.set_xticks(range(len(labels)), labels)
    axis.set_xlim(-0.5, len(labels) - 0.5)


__all__ = ["headline", "iso", "structure"]
