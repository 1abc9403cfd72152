"""Alignment against sample size, width and direction, and the directions along which SGD escapes."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from descent.experiments.geometry.directions import SQUARES, DirectionsResult
from descent.experiments.geometry.edge import EdgeResult
from descent.experiments.geometry.escape import EscapeResult
from descent.experiments.geometry.nets import NetsResult
from descent.experiments.geometry.samples import SamplesResult
from descent.experiments.geometry.width import DEEP, FEATURES, WidthResult
from descent.figures import INK, SERIES, label_panels, line, marks, momentum_look, panels, plain_ticks, theory
from descent.stats.intervals import mean
from descent.theory.noise_escape import closure_escape

RAMP = SERIES
"""One look per value, cold to warm, where values share an axis."""


def sample_sizes(result: SamplesResult) -> Figure:
    """Draw worst-case and typical alignment against the number of examples, one curve per spectrum."""
    figure, axes = panels(2, height=3.0, sharey=True)
    config, limits = result.config, result.limits[0]
    for decay, worst, typical, look in zip(config.decays, result.low, result.typical, RAMP, strict=False):
        name = "flat spectrum" if decay == 0 else f"1/i^{decay:g}"
        marks(axes[0], config.examples, [mean(cell) for cell in worst], look, label=name)
        line(axes[0], config.examples, worst.mean(axis=1), look)
        marks(axes[1], config.examples, [mean(cell) for cell in typical], look)
        line(axes[1], config.examples, typical.mean(axis=1), look)
    theory(axes[0], [config.examples[0], config.examples[-1]], [limits.mean()] * 2)
    axes[0].annotate("whole population", (config.examples[0], limits.mean()), color=INK, va="bottom")
    for axis, title in zip(axes, ("worst parameters", "random parameters"), strict=True):
        axis.axvline(config.dimension, color=INK, linewidth=0.8, linestyle=":")
        axis.set(xscale="log", ylim=(0, None), xlabel="examples", title=title)
    axes[0].annotate("n = d", (config.dimension, 1.5), color=INK, xytext=(3, 0), textcoords="offset points")
    axes[0].set(ylabel="loss alignment A₁")
    axes[0].legend(loc="upper left", bbox_to_anchor=(0.0, 0.9))
    label_panels(axes)
    return figure


def widths(result: WidthResult) -> Figure:
    """Draw typical and worst-score alignment of every architecture against its number of parameters."""
    figure, axes = panels(2, height=3.4)
    names = (*result.config.activations, DEEP, FEATURES)
    for name, look in zip(names, RAMP, strict=False):
        marks(axes[0], result.parameters[name], [mean(row) for row in result.typical[name]], look, label=name)
        line(axes[0], result.parameters[name], result.typical[name].mean(axis=1), look, alpha=0.6)
        line(axes[1], result.parameters[name], result.worst[name].mean(axis=1), look, marker=look.marker, label=name)
    axes[0].axhline(1, color=INK, linewidth=0.8, linestyle=":")
    axes[0].set(ylabel="loss alignment A₁", ylim=(0, 2), title="random parameters")
    axes[1].set(ylabel="least score / mean score", ylim=(0, 1), title="worst residuals of all")
    for axis in axes:
        axis.set(xscale="log", xlabel="parameters")
    figure.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    label_panels(axes)
    return figure


def directions(result: DirectionsResult) -> Figure:
    """Draw least and largest directional alignment against the scaled number of examples: dimensions collapse."""
    figure, axes = panels(2, height=2.9)
    config = result.config
    for d, low, high, square, look in zip(
        config.dimensions, result.low, result.high, result.squares, RAMP, strict=False
    ):
        marks(axes[0], config.ratios, [mean(cell) for cell in low], look, label=f"d = {d}")
        line(axes[0], config.ratios, low.mean(axis=1), look)
        sizes = np.array([*np.array(config.ratios) / d, *SQUARES])
        order = np.argsort(sizes)
        found = [mean(cell) for cell in np.concatenate([high, square])[order]]
        marks(axes[1], sizes[order], found, look, label=f"d = {d}")
        line(axes[1], sizes[order], [e.value for e in found], look)
    axes[1].axhline(2, color=INK, linewidth=0.8, linestyle=":")
    axes[0].set(ylabel="least alignment", xlabel="examples per dimension, n/d", ylim=(0, 1))
    axes[1].set(ylabel="largest alignment", xlabel="examples per squared dimension, n/d²", yscale="log")
    for axis in axes:
        axis.set(xscale="log")
        axis.legend(loc="upper left" if axis is axes[0] else "upper right")
    plain_ticks(axes[0].xaxis, axes[1].xaxis, axes[1].yaxis)
    label_panels(axes)
    return figure


def fingerprint(result: EscapeResult, nets: NetsResult) -> Figure:
    """Draw where the escaping loss goes: along the spectrum of one regression, and D_1 of trained networks."""
    figure, axes = panels(2, height=3.2)
    config, h = result.config, result.curvature[0]
    for j, look in ((0, RAMP[1]), (2, RAMP[2]), (4, RAMP[3])):
        multiple = config.multiples[j]
        squares = result.losses[0, j, -1, 0] / h
        axes[0].plot(
            h,
            squares / squares.max(),
            look.marker,
            color=look.color,
            markersize=3,
            linestyle="none",
            label=f"SGD, {multiple:g} × edge",
        )
        profile = closure_escape(h, result.edge[0, 0] * multiple, 1.0).profile / h
        theory(axes[0], h, profile / profile.max())
    even = closure_escape(h, result.edge[0, 0] * config.multiples[2], 1.0, isotropic=True).profile / h
    theory(axes[0], h, even / even.max(), dashed=True)
    squares = result.descent[config.steps // 2, 0] / h
    axes[0].plot(h, squares / squares.max(), "X", color=RAMP[0].color, markersize=3, linestyle="none", label="descent")
    axes[0].set(xscale="log", yscale="log", ylim=(3e-5, 2), xlabel="curvature", ylabel="squared displacement, relative")
    axes[0].legend(loc="lower right")
    _networks(axes[1], nets)
    label_panels(axes)
    return figure


def _networks(axis: Axes, nets: NetsResult) -> None:
    for losses, look, name in ((nets.stochastic, momentum_look(0.0), "SGD"), (nets.descent, RAMP[0], "full batch")):
        ratio = np.sort(nets.ratio(losses))
        line(axis, ratio, np.arange(1, len(ratio) + 1) / len(ratio), look, marker=look.marker, markersize=3, label=name)
    axis.axvline(1, color=INK, linewidth=0.8, linestyle=":")
    axis.set(
        xscale="log",
        xlabel="escaping loss outside / along the sharpest",
        ylabel="share of trained nets",
        ylim=(0, 1.02),
    )
    axis.legend(loc="center")


def batches_and_momentum(result: EdgeResult) -> Figure:
    """Draw D_1 at the exact edge against the batch, and against the batch over its critical value: momenta collapse."""
    figure, axes = panels(2, height=3.0, sharey=True)
    sizes = np.array(result.config.batch_sizes)
    for j, momentum in enumerate(result.momenta):
        look = momentum_look(momentum)
        found = [mean(cell) for cell in result.outside[j]]
        for axis, x in zip(axes, (sizes, (sizes[:, None] / result.critical[j]).mean(axis=1)), strict=True):
            marks(axis, x, found, look, label=f"momentum {momentum:g}")
            line(axis, x, [e.value for e in found], look)
    for axis, label in zip(axes, ("batch size", "batch size / critical batch"), strict=True):
        axis.set(xscale="log", yscale="log", xlabel=label)
    plain_ticks(axes[0].xaxis, axes[0].yaxis)
    axes[0].set(ylabel="escaping loss outside / along the sharpest")
    axes[0].legend(loc="lower left")
    label_panels(axes)
    return figure


__all__ = ["batches_and_momentum", "directions", "fingerprint", "sample_sizes", "widths"]
