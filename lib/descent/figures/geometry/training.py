"""Alignment along training, examples of small margin, where SGD stays, and what a cycle of the rate flattens."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame

from descent.experiments.geometry.cifar import CifarResult
from descent.experiments.geometry.cyclic import BELOW, PHASES, CyclicResult
from descent.experiments.geometry.kept import KeptResult
from descent.experiments.geometry.looks import Course, levels
from descent.experiments.geometry.margins import NAMES, Arm, MarginsResult
from descent.experiments.geometry.resnet import NAMES as WAYS
from descent.experiments.geometry.training import TrainingResult
from descent.figures import (
    ARMS,
    INK,
    Look,
    label_panels,
    line,
    marks,
    momentum_look,
    panels,
    plain_ticks,
    theory,
    whiskers,
)
from descent.figures.geometry.alignment import RAMP
from descent.stats import Estimate, draw_mean
from descent.stats.intervals import mean

__all__ = ["along_training", "cycles", "kept", "margins", "residual"]


def along_training(result: TrainingResult, images: CifarResult | None = None) -> Figure:
    """Draw alignment against loss as it falls, and the power of the noise against the loss."""
    figure, axes = panels(2, height=3.0)
    courses: list[tuple[str, Course, list[Estimate], Look]] = [
        (f"width {width}", found, levels(result.sets, found), look)
        for width, found, look in zip(result.config.widths, result.square, RAMP, strict=False)
    ]
    if images is not None:
        courses.append(("convolutional, CIFAR-10", images.course, levels(images.sets, images.course), RAMP[4]))
    courses.append(("logistic loss", result.logistic, levels(result.sets, result.logistic), RAMP[5]))
    for name, found, aligned, look in courses:
        loss = found.loss.mean(axis=1)
        marks(axes[0], loss, aligned, look, label=name)
        line(axes[0], loss, found.uncentred.mean(axis=1), look, alpha=0.6)
        line(axes[1], loss, found.noise.mean(axis=1), look, marker=look.marker)
    axes[0].axhline(1, color=INK, linewidth=0.8, linestyle=":")
    loss, noise = (getattr(result.square[-1], name).mean(axis=1) for name in ("loss", "noise"))
    theory(axes[1], loss[1:], noise[-1] * loss[1:] / loss[-1])
    for axis in axes:
        axis.set(xscale="log", xlabel="loss, falling")
        axis.invert_xaxis()
    axes[0].set(ylabel="loss alignment A₁", ylim=(0, None))
    axes[1].set(ylabel="trace of the noise", yscale="log")
    axes[0].legend(loc="upper left")
    label_panels(axes)
    return figure


def margins(result: MarginsResult) -> Figure:
    """Draw squared residuals against scores of one net, and alignment along training for every arm."""
    figure, axes = panels(2, height=3.0)
    power, scores, small = result.points
    for kind, look, name in ((small == 0, RAMP[0], "large margin"), (small == 1, RAMP[3], "small margin")):
        axes[0].plot(
            scores[kind] / scores.mean(),
            power[kind] / power.mean(),
            look.marker,
            color=look.color,
            markersize=3,
            linestyle="none",
            label=name,
        )
    axes[0].set(yscale="log", xlabel="score / mean score", ylabel="squared residual / mean", xlim=(0, None))
    axes[0].legend(loc="lower left")
    for name, rows, look in zip(NAMES, result.alignment, (RAMP[0], RAMP[3], momentum_look(0.9)), strict=True):
        marks(axes[1], result.steps, [mean(row) for row in rows], look, label=name)
        line(axes[1], result.steps, rows.mean(axis=1), look)
    predicted = result.relative[Arm.SMALL].mean(axis=1)
    theory(axes[1], result.steps[1:], predicted[1:])
    axes[1].set(xlabel="steps", ylabel="loss alignment A₁", ylim=(0, 1.3))
    axes[1].legend(loc="center right")
    label_panels(axes)
    return figure


def kept(result: KeptResult) -> Figure:
    """Draw, for the minima SGD ended at, the learning rate over its exact edge and over the two simpler bounds."""
    figure, axes = panels(1, height=2.9)
    axis, places = axes[0], np.arange(len(result.config.arms))
    kinds = (
        (result.edge, RAMP[0], "exact edge"),
        (result.frobenius, RAMP[3], "√B/‖G‖"),
        (result.descent, RAMP[5], "full batch, 2/λ₁"),
    )
    for shift, (values, look, name) in zip((-0.2, 0.0, 0.2), kinds, strict=True):
        for place, row in zip(places, values, strict=True):
            found = row[np.isfinite(row)]
            spread = np.linspace(-0.07, 0.07, len(found))
            axis.plot(
                place + shift + spread,
                np.sort(found),
                look.marker,
                color=look.color,
                markersize=2.5,
                linestyle="none",
                label=name if place == 0 else None,
            )
    axis.axhline(1, color=INK, linewidth=0.8, linestyle=":")
    axis.set_xticks(places, [f"lr {lr:g}, batch {b}" for lr, b in result.config.arms])
    axis.set(ylabel="learning rate / bound", ylim=(0, 1.15))
    axis.legend(loc="lower right")
    return figure


def residual(course: DataFrame, small: TrainingResult, ends: KeptResult) -> Figure:
    """Draw a residual net's alignment against its loss, and how far each way of training fills the bound of its twin.

    course: the record of a night, a row per pair, arm and look. Beside it what small nets show on digits: the alignment
    of the widest, and how far the bound is filled at the ends of all arms of `ends`.
    """
    figure, axes = panels(2, height=3.4)
    plain = course[course["arm"] == WAYS[0]]
    for (pair, looks), look in zip(plain.groupby("pair", sort=False), RAMP[::2], strict=False):
        line(axes[0], looks["loss"], looks["uncentred"], look, marker=look.marker, label=f"lr, batch: {pair}")
    digits = small.square[-1]
    axes[0].plot(digits.loss.mean(1), digits.uncentred.mean(1), color=INK, linewidth=1, label="dense, digits")
    axes[0].axhline(1, color=INK, linewidth=0.8, linestyle=":")
    room = 1.5 * plain["uncentred"].max()  # for the legend
    axes[0].set(xscale="log", xlabel="loss, falling", ylabel="loss alignment A₁", ylim=(0, room))
    axes[0].invert_xaxis()
    axes[0].legend(loc="upper center", ncols=2)
    for name, look in zip(WAYS, (momentum_look(0.0), momentum_look(0.9), ARMS["plain, matched step"]), strict=True):
        for place, (_, looks) in enumerate(course[course["arm"] == name].groupby("pair", sort=False)):
            line(axes[1], looks["epoch"], looks["bound"], look, marker=look.marker, label=None if place else name)
    filled = np.nanmean(np.where(np.isfinite(ends.frobenius), ends.frobenius, np.nan), axis=1)
    axes[1].plot(
        np.full(len(filled), 1.06 * course["epoch"].max()), filled, "_", color=INK, label="dense, digits: ends"
    )
    axes[1].axhline(1, color=INK, linewidth=0.8, linestyle=":")
    axes[1].set(xlabel="epoch", ylabel="η‖G‖/√B of the twin", yscale="log")
    plain_ticks(axes[1].yaxis)
    axes[1].legend(loc="upper right")
    label_panels(axes)
    return figure


def cycles(result: CyclicResult) -> Figure:
    """Draw the relative drop of curvature after one cycle, by arm: diagonal nets, and trained nets."""
    figure, axes = panels(2, height=3.0, sharex=True, width_ratios=(1.5, 1))
    arms = [*PHASES, BELOW]
    for offset, drops, look, name in ((-0.18, result.sharp, RAMP[3], "sharpest"), (0.18, result.tail, RAMP[0], "tail")):
        _bars(axes[0], np.arange(len(arms)) + offset, [mean(drops[arm][0]) for arm in arms], look, name)
    axes[0].set_yticks(range(len(arms)), arms)
    names = list(result.network)
    found = [draw_mean(result.sets.by_draw(result.network[name])) for name in names]
    _bars(axes[1], np.arange(len(names)), found, RAMP[2], "")
    axes[1].set_yticks(range(len(names)), names)
    for axis, title in zip(axes, ("diagonal linear nets", "tanh nets, λ₂ to λ₅"), strict=True):
        axis.set(xlabel="relative drop", title=title)
        axis.invert_yaxis()
    axes[0].legend(loc="lower right")
    label_panels(axes)
    return figure


def _bars(axis: Axes, places: np.ndarray, found: list[Estimate], look: Look, name: str) -> None:
    axis.barh(
        places,
        [e.value for e in found],
        height=0.34,
        color=look.color,
        xerr=whiskers(*found),
        label=name or None,
        error_kw={"ecolor": INK, "capsize": 2, "elinewidth": 1},
    )
