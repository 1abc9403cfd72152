"""Figures of the saddle chapter: each function takes results of its experiments and draws them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from pandas import DataFrame

from descent.experiments.lab import each
from descent.experiments.saddles import annealed_networks as late_loss
from descent.experiments.saddles import annealing as schedules
from descent.experiments.saddles import hopping, stiff
from descent.experiments.saddles.arms import SIX, Arm
from descent.experiments.saddles.cifar import CifarResult
from descent.experiments.saddles.cifar import tables as cifar_tables
from descent.experiments.saddles.escape import HALF, EscapeResult
from descent.experiments.saddles.features import FeaturesResult
from descent.experiments.saddles.initial_saddle import DepartureResult, Track
from descent.experiments.saddles.ladder import LadderResult, exact
from descent.experiments.saddles.limits import FlowResult
from descent.experiments.saddles.linear import LinearResult, speedups
from descent.experiments.saddles.logistic import LogisticResult
from descent.experiments.saddles.optimum import OptimumResult
from descent.experiments.saddles.tradeoff import NEAR, TradeoffResult
from descent.figures import (
    ARMS,
    INK,
    SERIES,
    Look,
    label_panels,
    line,
    marks,
    momentum_look,
    panels,
    paper_scale,
    plain_ticks,
    theory,
)
from descent.stats import draw_mean, mean, ratio_of_means
from descent.theory.diffusion import diffusion_mean
from descent.theory.escape import escape_mean
from descent.theory.mode import stationary_variance

RATES = SERIES
"""One look per learning rate, where learning rates share an axis."""

NETWORK = (
    momentum_look(0.0), momentum_look(0.5), momentum_look(0.9), ARMS["plain, matched step"],
    replace(momentum_look(0.9), dashes="--"),
)  # fmt: skip
"""One look per arm of a network at its initial saddle."""


def speedup(result: LinearResult, large: DataFrame | None = None) -> Figure:
    """Draw speed-up over plain descent against 1/(1 − momentum): measured, exact, diffusion, ceiling, paper scale."""
    figure, (axis,) = panels(1, height=3.4)
    arms, found = np.array(result.momentum), speedups(result)
    dense = 1 - np.geomspace(1, 0.004, 120)
    for index, (saddle, look) in enumerate(zip(result.config.saddles, RATES, strict=False)):
        exact = escape_mean(saddle.radius, 1.0, saddle.lr, dense)
        theory(axis, 1 / (1 - dense), exact[0] / exact)
        limit = diffusion_mean(saddle.radius, 1.0, saddle.lr, dense)
        trusted = limit > 0.2 * exact  # beyond, the diffusion formula is not even positive
        theory(axis, 1 / (1 - dense[trusted]), limit[0] / limit[trusted], dashed=True)
        marks(axis, 1 / (1 - arms), found[index], look, label=f"lr = {saddle.lr:g}")
        axis.axhline(result.ceiling[index], color=look.color, linewidth=0.8, linestyle=":")
    paper_scale(axis, large, "momentum", ("speedup", "low", "high"))
    axis.set(xscale="log", yscale="log", ylim=(0.8, 400), xlabel="1 / (1 − momentum)", ylabel="speed-up over plain SGD")
    axis.plot([], [], color=INK, linewidth=1, label="exact law")
    axis.plot([], [], color=INK, linewidth=1, linestyle="--", label="diffusion limit")
    axis.plot([], [], color=INK, linewidth=0.8, linestyle=":", label="ceiling of the growth rate")
    axis.legend(loc="upper left")
    return figure


def escape_paths(result: EscapeResult) -> Figure:
    """Draw paths of plain descent and of the headline arm, and the distribution of escape times of every arm."""
    figure, axes = panels(3, height=2.9)
    for axis, momentum in zip(axes[:2], (0.0, result.lab.momentum), strict=True):
        _paths(axis, result, result.arm(momentum))
    axis = axes[2]
    for row, momentum in enumerate(result.momentum):
        look = momentum_look(momentum)
        times = np.sort(result.times[row, HALF])
        line(axis, times, np.arange(1, len(times) + 1) / len(times), look, label=f"{momentum:g}")
        theory(axis, result.law_steps[row], result.law[row])
    axis.set(xscale="log", xlim=(6, None), xlabel="iterations (log)", ylabel="fraction escaped", title="escape times")
    axis.legend(title="momentum", loc="upper left", handlelength=1.4)
    label_panels(axes)
    return figure


def _paths(axis: Axes, result: EscapeResult, row: int) -> None:
    momentum = result.momentum[row]
    low, median, high = result.bands[row, 1]
    axis.plot(
        result.path_steps,
        result.paths[row].T,
        color=momentum_look(momentum).color,
        linewidth=0.4,
        alpha=0.5,
        rasterized=True,
    )
    axis.axvspan(low, high, color=INK, alpha=0.18, linewidth=0)
    axis.axvline(median, color=INK, linewidth=1)
    shown = min(1.6 * result.bands[row, 1, 2], float(result.path_steps[-1]))
    axis.set(
        xlim=(0, shown),
        ylim=(0, 1),
        xlabel="iterations",
        ylabel="squared overlap with the optimum",
        title="plain SGD" if momentum == 0 else f"momentum {momentum:g}",
    )


def ladder(result: LadderResult) -> Figure:
    """Draw variance and escape time over the diffusion limit against the inertia of the step, with the exact law."""
    figure, axes = panels(2, height=3.0)
    config = result.config
    for axis, quantity, ladders in zip(axes, ("variance", "escape"), (config.early, config.late), strict=True):
        for (momentum, rungs), values in zip(ladders, getattr(result, quantity), strict=True):
            marks(axis, rungs, [mean(rung) for rung in values], momentum_look(momentum), label=f"{momentum:g}")
            dense = np.geomspace(max(rungs), min(rungs), 40)
            theory(axis, dense, [exact(config, quantity, momentum, inertia) for inertia in dense])
        axis.axhline(1, color=INK, linewidth=0.8, linestyle=":")
        axis.set(xscale="log", xlabel="inertia lr·b / (1 − momentum)²", ylabel="over the diffusion limit")
        axis.legend(title="momentum")
    axes[0].set(title="variance")
    axes[1].set(title="mean escape time")
    label_panels(axes)
    return figure


def flow(result: FlowResult) -> Figure:
    """Draw distances to the gradient flow against the effective step, with guides of slope one and one half."""
    figure, (axis,) = panels(1, height=3.2)
    steps = np.array(result.config.effective)
    for label, values, look in (("one noisy path", result.spread, RATES[1]), ("norm minus one", result.norm, RATES[2])):
        marks(axis, steps, each(mean, values.T), look, label=label)
    axis.plot(steps, result.mean_path, RATES[3].marker, color=RATES[3].color, label="mean path")
    axis.plot(steps, result.quiet[1], RATES[0].marker, color=RATES[0].color, label="noise-free path")
    for anchor, slope in ((result.spread.mean(0)[-1], 0.5), (result.quiet[1, -1], 1.0)):
        theory(axis, steps, anchor * (steps / steps[-1]) ** slope)
        end = (steps[0], anchor * (steps[0] / steps[-1]) ** slope)
        axis.annotate(f"slope {slope:g} ", end, color=INK, ha="right", va="bottom")
    axis.set(
        xscale="log", yscale="log", xlabel="effective step lr / (1 − momentum)", ylabel="largest distance to the flow"
    )
    axis.legend(loc="lower right")
    return figure


def networks(departure: DepartureResult, compressed: FeaturesResult) -> Figure:
    """Draw the growth of a net's leading mode on its predicted slopes, and the ratio of two modes' growth rates."""
    figure, axes = panels(2, height=3.1)
    for track, rate, look in zip(departure.tracks, departure.predicted.mean(1), NETWORK, strict=True):
        _amplitude(axes[0], track, rate, look, departure.config.begin)
    axes[0].set(yscale="log", xlabel="step", ylabel="amplitude of the leading mode", title="leaving the saddle")
    axes[0].legend()
    for row, look in enumerate((NETWORK[0], NETWORK[2], momentum_look(0.99), NETWORK[3])):
        found = draw_mean(compressed.sets.by_draw(compressed.ratio[row]))
        marks(axes[1], [row], [found], look)
        axes[1].plot([row - 0.3, row + 0.3], [compressed.predicted_ratio[row].mean()] * 2, color=INK, linewidth=1)
    names = [f"μ = {track.momentum:g}\nlr {track.lr:.3g}" for track in compressed.tracks]
    axes[1].set_xticks(range(len(names)), names)
    axes[1].set(ylabel="growth of mode 1 over mode 4", title="feature speeds", xlim=(-0.6, len(names) - 0.4))
    label_panels(axes)
    return figure


def _amplitude(axis: Axes, track: Track, rate: float, look: Look, begin: float) -> None:
    """Draw the mean amplitude of one arm, and the predicted slope through the start of the fit."""
    amplitude = np.exp(np.log(track.amplitudes[:, :, 0]).mean(0))
    steps = np.arange(len(amplitude))
    line(axis, steps[1:], amplitude[1:], look, label=f"lr {track.lr:.3g}, momentum {track.momentum:g}")
    first = int((amplitude >= amplitude[0] * np.exp(begin)).argmax())
    straight = amplitude[first] * np.exp(rate * (steps[first:] - first))
    theory(axis, steps[first:][straight < 5], straight[straight < 5])


def annealed_networks(late: late_loss.LateLossResult, cifar: CifarResult | None) -> Figure:
    """Draw late fluctuations of a digits net, and training loss on CIFAR-10 where its images are present."""
    figure, axes = panels(2, height=3.4)
    for arm, name in enumerate(late_loss.ARMS):
        for side in range(2):
            found, place = draw_mean(late.sets.by_draw(late.fluctuation[side, arm])), side + 0.12 * (arm - 1.5)
            marks(axes[0], [place], [found], ARMS[name], label=name if side == 0 else None)
    axes[0].set_xticks((0, 1), ("clean labels", "20 % fresh label noise"))
    axes[0].set(yscale="log", ylabel="detrended fluctuation of the loss", title="digits", xlim=(-0.5, 1.5))
    if cifar is None:
        axes[0].legend()
        axes[1].text(0.5, 0.5, "not tested here: data missing", ha="center", color=INK)
        axes[1].set(title="CIFAR-10 (JPEG)", xticks=(), yticks=())
    else:
        for arm, name in enumerate(SIX):
            line(axes[1], cifar.steps, cifar.curve[arm], ARMS[name], label=name)
        axes[1].set(xlabel="step", ylabel="training loss", title=cifar.title)
        figure.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    label_panels(axes)
    return figure


def residual(arms: DataFrame, curve: DataFrame, edge: DataFrame, cifar: CifarResult | None) -> Figure:
    """Draw a residual net's training loss, both nets' final losses by arm, and e·λ₁ before the cut at two steps.

    Of the small net where its images are present.
    """
    figure, axes = panels(3, height=3.4, width_ratios=(1.2, 1, 0.8))
    for name in SIX:
        course = curve[curve["arm"] == name]
        line(axes[0], course["step"], course["loss"], ARMS[name], label=name, marker=ARMS[name].marker, markevery=3)
    axes[0].set(xlabel="step", ylabel="training loss", title="a residual net")
    nets = {"small net": cifar_tables(cifar)["cifar"]} if cifar is not None else {}
    nets["ResNet-8"] = arms
    for place, rows in enumerate(nets.values()):
        for arm, name in enumerate(SIX):
            found = rows[rows["arm"] == name].to_dict("records")[0]
            _mark(axes[1], place + 0.11 * (arm - 2.5), found, "loss", ARMS[name])
    axes[1].set_xticks(range(len(nets)), list(nets))
    axes[1].set(ylabel="final training loss", title="six arms", xlim=(-0.5, len(nets) - 0.5))
    for place, found in enumerate(edge.to_dict("records")):
        _mark(axes[2], place - 0.1, found, "momentum", ARMS[Arm.HEAD])
        _mark(axes[2], place + 0.1, found, "plain", ARMS[Arm.MATCHED])
    axes[2].axhline(2, color=INK, linewidth=1.0, linestyle=(0, (4, 2)))
    axes[2].set_xticks(range(len(edge)), [f"{step:.3g}" for step in edge["effective"]])
    axes[2].set(
        yscale="log", xlabel="effective step", ylabel="effective step × sharpness", title="before the cut",
        xlim=(-0.5, len(edge) - 0.5),
    )  # fmt: skip
    plain_ticks(axes[2].yaxis)
    label_panels(axes)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _mark(axis: Axes, place: float, row: Mapping[str, Any], name: str, look: Look) -> None:
    """Draw one number of a table with its interval."""
    value, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
    style: dict[str, Any] = {"color": look.color, "capsize": 2, "elinewidth": 1}
    axis.errorbar([place], [value], [[value - low], [high - value]], fmt=look.marker, **style)


def floors(hovering: OptimumResult, logistic: LogisticResult) -> Figure:
    """Draw stationary errors of streaming PCA and of logistic regression, and the map of the variance ratio."""
    figure, axes = panels(3, height=3.0)
    _pca_floor(axes[0], hovering)
    _logistic_floor(axes[1], logistic)
    _noise_map(axes[2], hovering)
    label_panels(axes)
    return figure


def _pca_floor(axis: Axes, result: OptimumResult) -> None:
    arms = np.array(result.momentum)
    for hover, level, look in zip(result.hovers, result.floor, RATES[1:], strict=False):
        marks(axis, 1 / (1 - arms), each(mean, hover.error), look, label=f"lr = {hover.lr:g}")
        theory(axis, 1 / (1 - arms), level)
    axis.set(xscale="log", yscale="log", xlabel="1 / (1 − momentum)", ylabel="stationary error", title="streaming PCA")
    axis.legend(loc="upper left")


def _logistic_floor(axis: Axes, result: LogisticResult) -> None:
    law = result.predicted.mean(axis=1)
    for lr, momentum, excess, predicted in zip(result.lr, result.momentum, result.excess, law, strict=True):
        matched = momentum == 0 and lr != result.config.lr
        look = ARMS[Arm.MATCHED] if matched else momentum_look(momentum)
        label = f"plain, lr {lr:.3g}" if momentum == 0 else f"momentum {momentum:g}"
        marks(axis, [predicted], [draw_mean(excess)], look, label=label)
    ends = np.array([law.min() / 3, law.max() * 3])
    theory(axis, ends, ends)
    axis.set(
        xscale="log",
        yscale="log",
        xlabel="predicted excess loss",
        ylabel="measured excess loss",
        title="logistic regression",
    )
    for side in (axis.xaxis, axis.yaxis):
        side.set_minor_formatter(NullFormatter())
    axis.legend(loc="lower right", handlelength=0.8, borderaxespad=0)


def _noise_map(axis: Axes, result: OptimumResult) -> None:
    """Draw log₁₀ of the exact variance ratio over (lr × curvature, momentum), its zero line, the simulated points."""
    sharpness, arms = np.linspace(0.02, 1.98, 99), np.linspace(0.0, 0.95, 96)
    ratio = stationary_variance(1.0, sharpness, arms[:, None]) / stationary_variance(1.0, sharpness, 0.0)
    shown = axis.pcolormesh(sharpness, arms, np.log10(ratio), cmap="vlag", vmin=-1.5, vmax=1.5)
    axis.plot(1 + arms, arms, color=INK, linewidth=1.2)
    points = [(s, m) for s in result.config.sharpness for m in result.config.grid_momentum]
    axis.plot(*zip(*points, strict=True), "x", color="#222222", markersize=5)
    axis.set(xlim=(0.02, 1.98), xlabel="lr × curvature", ylabel="momentum", title="noise ratio, log₁₀")
    axis.figure.colorbar(shown, ax=axis, shrink=0.85)


def tradeoff(result: TradeoffResult, large: DataFrame | None = None) -> Figure:
    """Draw the plane of escape time and floor, and arrival times over plain descent's at equal effective step."""
    figure, axes = panels(2, height=3.2)
    for momentum, times, variance in zip(result.momentum, result.plane_time, result.plane_variance, strict=True):
        line(axes[0], times, variance, momentum_look(momentum), label=f"{momentum:g}")
    axes[0].set(
        xscale="log", yscale="log", xlabel="mean escape time", ylabel="stationary variance", title="exact plane"
    )
    axes[0].legend(title="momentum")
    arms = np.array(result.momentum)
    for row, (effective, look) in enumerate(zip(result.config.effective, RATES, strict=False)):
        times, exact = result.times[row, :, NEAR], result.exact_times[row, :, NEAR]
        found = each(ratio_of_means, times[1:], times[:1], seed=result.lab.seed)
        marks(axes[1], 1 / (1 - arms[1:]), found, look, label=f"e = {effective:g}")
        theory(axes[1], 1 / (1 - arms), exact / exact[0])
    paper_scale(axes[1], large, "momentum", ("near_ratio", "near_low", "near_high"))
    axes[1].axhline(1, color=INK, linewidth=0.8, linestyle=":")
    axes[1].set(
        xscale="log", xlabel="1 / (1 − momentum)", ylabel="arrival time over plain SGD's", title="equal effective step"
    )
    axes[1].legend()
    label_panels(axes)
    return figure


def annealing(result: schedules.AnnealingResult) -> Figure:
    """Draw the mean error of every schedule with the two stationary errors, and final errors over plain descent's."""
    figure, axes = panels(2, height=3.6, width_ratios=(1.8, 1))
    for name, error in zip(schedules.ARMS, result.mean_error, strict=True):
        if name is not Arm.LATE:
            line(axes[0], result.steps, error, ARMS[name], label=name)
    for level in result.floor:
        axes[0].axhline(level, color=INK, linewidth=0.8)
    axes[0].axvline(result.config.steps(result.lab, result.config.switch), color=INK, linewidth=0.8, linestyle=":")
    axes[0].set(yscale="log", xlabel="iterations", ylabel="mean error (log)", title="schedules")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    for place, name in enumerate(schedules.ARMS[1:]):
        marks(axes[1], [place], [schedules.ratio(result, name)], ARMS.get(name, ARMS[Arm.STEP]))
    axes[1].axhline(1, color=INK, linewidth=0.8, linestyle=":")
    axes[1].set_xticks(range(len(schedules.ARMS) - 1), schedules.ARMS[1:], rotation=50, ha="right")
    axes[1].set(yscale="log", ylabel="final error over plain SGD's", title="in the end")
    label_panels(axes)
    return figure


def stiff_and_hopping(saddle: stiff.StiffResult, wells: hopping.HoppingResult) -> Figure:
    """Draw escape from a stiff saddle at two ways to set the step, and hopping times at equal effective step."""
    figure, axes = panels(2, height=3.1)
    inertia = 1 / (1 - np.array(saddle.momentum))
    for way, (name, look) in enumerate((("plain SGD's limit", RATES[0]), ("its own limit", RATES[1]))):
        marks(axes[0], inertia, each(mean, saddle.times[way]), look, label=f"lr at 0.95 of {name}")
        theory(axes[0], inertia, saddle.exact[way])
    axes[0].set(
        xscale="log",
        yscale="log",
        ylim=(20, None),
        xlabel="1 / (1 − momentum)",
        ylabel="mean escape time",
        title=f"saddle of stiffness {saddle.config.problem.stiffness:g}",
    )
    plain_ticks(axes[0].yaxis)
    axes[0].legend(loc="upper right")
    inertia, found = 1 / (1 - np.array(wells.momentum)), hopping.slower(wells)
    for row, (effective, look) in enumerate(zip(wells.config.effective, RATES, strict=False)):
        marks(axes[1], inertia[1:], list(found[row, 1:]), look, label=f"e = {effective:g}")
        theory(axes[1], inertia, wells.slowing[row], dashed=True)
    axes[1].axhline(1, color=INK, linewidth=0.8, linestyle=":")
    axes[1].set(
        xscale="log",
        yscale="log",
        xlabel="1 / (1 − momentum)",
        ylabel="hopping time over plain SGD's",
        title="barrier, equal effective step",
    )
    plain_ticks(axes[1].yaxis)
    axes[1].legend(loc="upper left")
    label_panels(axes)
    return figure
