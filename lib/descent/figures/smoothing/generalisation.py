"""Accuracy and sharpness of networks: the race over batch sizes with its control, and what decides the sharpness."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from descent.experiments.smoothing.arms import over_draws
from descent.experiments.smoothing.headline import HeadlineResult
from descent.experiments.smoothing.iso import Held, Iso
from descent.experiments.smoothing.minima import Minima
from descent.experiments.smoothing.structure import Noise, Structure
from descent.figures import ARMS, INK, SERIES, Look, label_panels, line, marks, panels
from descent.stats import draw_mean

LOOKS = (ARMS["plain"], ARMS["average"], ARMS["momentum"], ARMS["plain, matched step"])
"""Plain, averaged, heavy ball, plain at the effective learning rate."""


def headline(*results: HeadlineResult | None) -> Figure:
    """Draw test accuracy against batch size at fixed epochs, one panel for each kind of data that is there."""
    there = [result for result in results if result is not None]
    figure, axes = panels(len(there), height=3.4, sharey=True)
    for axis, one in zip(axes, there, strict=True):
        _race(axis, one)
    axes[0].set_ylabel("test accuracy, %")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    label_panels(axes)
    return figure


def _race(axis: Axes, result: HeadlineResult) -> None:
    """Draw one data set's arms, the control on top of what it explains."""
    config, sizes = result.config, np.array(result.config.batch_sizes)
    names = (
        f"plain (SGD), lr {float(config.rule(result.lab.momentum).lr[0]):.3g}",
        "averaged (NSHB), same lr",
        "heavy ball (SHB), same lr",
        f"plain (SGD), lr {config.effective:.3g}",
    )
    for name, look, arm in zip(names, LOOKS, result.accuracy.swapaxes(0, 1), strict=True):
        found = [over_draws(result.sets, draw_mean)(values) for values in arm]
        line(axis, sizes, [f.value for f in found], look, marker=look.marker, label=name)
        marks(axis, sizes, found, look)
    axis.set(xscale="log", xlabel="batch size", title=result.title.rpartition(", ")[0])
    axis.set_xticks(sizes, [str(size) for size in sizes])
    axis.minorticks_off()


def iso(result: Minima[Iso]) -> Figure:
    """Draw how sharpness and accuracy move away from the base along arms that hold one combination."""
    config = result.config
    held = {
        Held.AVERAGED: ("both equal,\naveraged", LOOKS[1]),
        Held.TEMPERATURE: ("equal\nlr / size", SERIES[0]),
        Held.DEGREE: ("equal\nlr / √size", SERIES[3]),
        len(config.arms) - 1: ("equal\nlr", SERIES[4]),
    }
    named = {
        arm: (f"{name}\n({config.arms[arm][1]:g}, {config.arms[arm][2]})", look) for arm, (name, look) in held.items()
    }
    label = f"(lr, batch size), against plain at ({config.lr:g}, {config.batch_size})"
    return _moved(result, Held.BASE, named, label, height=3.0)


def structure(result: Minima[Structure]) -> Figure:
    """Draw how sharpness and accuracy move away from descent without noise, by the shape of the noise."""
    arms = {
        int(Noise.BATCH): ("batch noise", SERIES[0]),
        int(Noise.ISOTROPIC): ("isotropic noise\nof equal power", SERIES[3]),
    }
    return _moved(result, Noise.NONE, arms, "against descent without noise", height=2.6)


def _moved(result: Minima[Any], base: int, arms: Mapping[int, tuple[str, Look]], label: str, height: float) -> Figure:
    """Draw the shift of log sharpness and the gain in accuracy of named arms over the base."""
    figure, axes = panels(2, height=height)
    titles = ("shift of log sharpness", "gain in accuracy, points")
    for axis, values, title in zip(axes, (result.sharpness, result.accuracy), titles, strict=True):
        shifts = result.shifts(values, base)
        for place, (arm, (_, look)) in enumerate(arms.items()):
            marks(axis, [place], [shifts[arm]], look)
        axis.axhline(0, color=INK, linewidth=0.8, linestyle=":")
        axis.set_xticks(range(len(arms)), [name for name, _ in arms.values()])
        axis.set(xlim=(-0.5, len(arms) - 0.5), xlabel=label, title=title)
    label_panels(axes)
    return figure


__all__ = ["headline", "iso", "structure"]
