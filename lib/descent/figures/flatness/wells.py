"""Where runs end: outcomes at two wells, selection of one minimiser in 1024, sharpness along the hyperbola."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from descent.arrays import Array
from descent.experiments.flatness.batches import batch_name
from descent.experiments.flatness.hyperbola import EDGE, ContinuumResult
from descent.experiments.flatness.selection import EXPONENTIAL, HEAD_LR, JITTER, LAWS, NARROW, WIDE, SelectionResult
from descent.experiments.flatness.wells import ABOVE, INSIDE, OUTCOMES, WellsResult
from descent.figures import INK, SERIES, Look, label_panels, line, marks, momentum_look, panels, plain_ticks, theory
from descent.figures.flatness.looks import batch_look
from descent.problems.styblinski import FLAT, SHARP
from descent.theory.weights import WeightLaw

__all__ = ["continuum", "outcomes", "selection", "selection_controls"]


SHARP_COLOR, FLAT_COLOR = SERIES[0].color, SERIES[5].color
BARS = ((SHARP_COLOR, ""), (FLAT_COLOR, ""), (SHARP_COLOR, "////"), (FLAT_COLOR, "////"), (INK, "xx"))
"""Colour and hatching per outcome: slate is the sharp side, magenta the flat one, hatched what never settles."""

BATCHES = (1, 2, 4, 8, 16, None)
"""Places of the batch sizes on the axis of the controls."""

JITTERED = SERIES[5]
JITTERS = ((0.0, SERIES[0]), (0.001, SERIES[1]), (JITTER, SERIES[5]))
WEIGHTS = ((WIDE, SERIES[0]), (NARROW, SERIES[2]), (EXPONENTIAL, SERIES[3]))


def outcomes(result: WellsResult) -> Figure:
    """Draw how runs released at the sharp minimiser ended, a bar per batch size, at three steps above its threshold."""
    figure, axes = panels(3, height=3.0, sharey=True)
    for axis, multiple in zip(axes, (INSIDE, ABOVE, max(result.config.multiples)), strict=True):
        _bars(axis, result, multiple)
        axis.set(xlabel="batch size", title=f"{multiple:g} × threshold")
    axes[0].set(ylabel="share of runs", ylim=(0, 1))
    axes[0].yaxis.set_major_formatter(PercentFormatter(1))
    label_panels(axes)
    keys = [Patch(**_fill(*bar), label=name) for name, bar in zip(OUTCOMES, BARS, strict=True)]
    figure.legend(handles=keys, loc="outside lower center", ncols=3)
    return figure


def _bars(axis: Axes, result: WellsResult, multiple: float) -> None:
    """Stack the outcomes of every batch size, leaving out those that did not occur."""
    sizes = result.config.batch_sizes
    bottom = np.zeros(len(sizes))
    for outcome, bar in enumerate(BARS):
        share = np.array([result.share(k, multiple, outcome).value for k in sizes])
        there = share > 0
        axis.bar(np.flatnonzero(there), share[there], 0.75, bottom[there], **_fill(*bar))
        bottom += share
    axis.set_xticks(range(len(sizes)), [batch_name(k) for k in sizes])


def _fill(color: str, hatch: str) -> dict[str, Any]:
    """Return a full patch, or an open one with hatching."""
    return {"facecolor": "none" if hatch else color, "edgecolor": color, "hatch": hatch, "linewidth": 0.8}


def selection(result: SelectionResult) -> Figure:
    """Draw the share of coordinates in the flat well along the way, and the loss, which rises with it."""
    figure, axes = panels(1, 2, height=2.7, sharex=True)
    for k in result.config.grids[0].batch_sizes:
        arm, look = result.arm(k), batch_look(k)
        line(axes[0], result.steps, arm.share, look, label=f"{batch_name(k)}: {arm.chosen.value:.0%}")
        line(axes[1], result.steps, arm.loss, look)
    for well, name in ((FLAT, "flattest and highest minimiser"), (SHARP, "sharpest and deepest minimiser")):
        level = result.config.dimension * well.value
        theory(axes[1], result.steps[[0, -1]], [level, level])
        axes[1].annotate(name, (result.steps[-1], level), color=INK, ha="right", va="bottom")
    axes[0].set(ylim=(0.4, 1.02), ylabel="coordinates in the flat well", title=f"selection at lr = {HEAD_LR:g}")
    axes[0].yaxis.set_major_formatter(PercentFormatter(1))
    axes[1].set(ylim=(-405, -235), xlabel="step", ylabel="mean loss", title="the loss rises")
    label_panels(axes)
    heading = "batch size: share of runs that end in the flattest of 1024 minimisers"
    figure.legend(title=heading, loc="outside lower center", ncols=5)
    return figure


def selection_controls(result: SelectionResult) -> Figure:
    """Draw the share of runs in the flattest minimiser against the batch size, for several jitters and weight laws."""
    figure, axes = panels(2, height=3.0, sharey=True)
    for jitter, look in JITTERS:
        _shares(axes[0], result, WIDE, jitter, look, f"{jitter:g}")
    for weights, look in WEIGHTS:
        _shares(axes[1], result, weights, 0.0, look, LAWS[weights])
    for axis, name in zip(axes, ("gradient jitter", "law of the weights"), strict=True):
        axis.set_xticks(range(len(BATCHES)), [batch_name(k) for k in BATCHES])
        axis.set(xlabel="batch size", title=name)
        axis.legend(loc="upper right", ncols=3, columnspacing=1, handlelength=1.6)
    axes[0].set(ylim=(-0.03, 1.2), ylabel="runs in the flattest of 1024")
    axes[0].yaxis.set_major_formatter(PercentFormatter(1))
    axes[0].set_yticks((0, 0.25, 0.5, 0.75, 1))
    label_panels(axes)
    return figure


def _shares(axis: Axes, result: SelectionResult, weights: WeightLaw, jitter: float, look: Look, name: str) -> None:
    """Draw the arms of one jitter and one weight law at the claimed step."""
    arms = result.arms_at(weights, jitter)
    places = [BATCHES.index(arm.batch_size) for arm in arms]
    line(axis, places, [arm.chosen.value for arm in arms], look, linewidth=1.0)
    marks(axis, places, [arm.chosen for arm in arms], look, label=name)


def continuum(result: ContinuumResult) -> Figure:
    """Draw how many converged runs ended beyond a sharpness, and the sharpest per cent against the batch size."""
    figure, axes = panels(2, height=3.2)
    _tails(axes[0], result)
    sizes = result.config.batch_sizes
    for momentum in result.momentum:
        look = momentum_look(momentum)
        top = [float(np.quantile(result.arm(k, momentum).kept, 0.99)) for k in sizes]
        line(axes[1], range(len(sizes)), top, look, marker=look.marker, label=f"momentum {momentum:g}")
    axes[1].axhline(EDGE, color=INK, linewidth=0.8, linestyle=":")
    axes[1].set_xticks(range(len(sizes)), [batch_name(k) for k in sizes])
    axes[1].set(yscale="log", xlabel="batch size", ylabel="effective step × sharpness", title="sharpest 1 %")
    plain_ticks(axes[1].yaxis)
    axes[1].legend(loc="upper left")
    label_panels(axes)
    return figure


def _tails(axis: Axes, result: ContinuumResult) -> None:
    """Draw the share of converged runs beyond each sharpness, without momentum, and the same for gradient flow."""
    jitter = result.config.jitter
    curves = (
        (result.arm(None), batch_look(None), "all examples"),
        (result.arm(4), batch_look(4), "4"),
        (result.arm(1), batch_look(1), "1"),
        (result.arm(1, jitter=jitter), JITTERED, f"1, jitter {jitter:g}"),
    )
    for arm, look, name in curves:
        line(axis, *_survival(arm.kept), look, label=name)
    theory(axis, *_survival(result.flow), dashed=True, label="gradient flow")
    axis.axvline(EDGE, color=INK, linewidth=0.8, linestyle=":")
    axis.annotate(" stable limit,\n all examples", (EDGE, 0.5), color=INK, va="center")
    axis.set(
        yscale="log",
        xlim=(0, 3.2),
        ylim=(3e-4, 1.1),
        xlabel="effective step × sharpness",
        ylabel="share of runs beyond",
        title="without momentum",
    )
    axis.legend(title="batch size", loc="lower left", handlelength=1.6)


def _survival(values: Array) -> tuple[Array, Array]:
    """Return rising values and the share of all that are at least as large."""
    return np.sort(values), 1 - np.arange(len(values)) / len(values)
