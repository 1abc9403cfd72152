"""Noise of the search direction: its level and its parts, the law on a parabola, its shape."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import stats as law

from descent.engine import ema
from descent.experiments.smoothing.arms import RULES, Arm, over_draws
from descent.experiments.smoothing.noise import PARTS, NoiseResult, gain
from descent.experiments.smoothing.normality import ShapeResult
from descent.experiments.smoothing.quadratic import ParabolaResult
from descent.figures import ARMS, INK, SERIES, label_panels, line, marks, momentum_look, panels, theory
from descent.stats import draw_mean, mean
from descent.theory.search_noise import flat_power, stationary_ratio

LOOKS = (ARMS["plain"], ARMS["average"], ARMS["momentum"])
"""Plain, averaged, heavy ball."""

TITLES = ("plain (SGD)", "averaged (NSHB)", "heavy ball (SHB)")
SHORT = ("SGD", "NSHB", "SHB")
SHADES = tuple(look.color for look in (SERIES[4], SERIES[2], SERIES[3]))
"""Fresh, carried, lag."""


def direction(result: NoiseResult) -> Figure:
    """Draw the power of ω against batch size under the paper's bounds, and what it is made of."""
    figure, axes = panels(2, height=3.5)
    _levels(axes[0], result)
    _shares(axes[1], result)
    label_panels(axes)
    return figure


def _levels(axis: Axes, result: NoiseResult) -> None:
    """Draw measured powers as solid marks and the bounds as hollow ones, at the smallest rate."""
    config, rate = result.config, result.config.slowest
    sizes = np.array(config.sizes)
    for arm, name, look in zip(map(Arm, range(len(RULES))), TITLES, LOOKS, strict=True):
        found = [over_draws(result.sets, draw_mean)(values) for values in result.power[rate, :, arm]]
        bounds = np.nanmean(result.bound(arm)[rate], axis=-1)
        there = slice(None, -1) if arm == Arm.PLAIN else slice(None)  # plain descent has no noise at full batch
        line(axis, sizes[there], [f.value for f in found][there], look, label=name)
        marks(axis, sizes[there], found[there], look)
        if arm != Arm.PLAIN:
            hollow = bounds > 0
            axis.plot(
                sizes[hollow],
                bounds[hollow],
                look.marker,
                color=look.color,
                markerfacecolor="none",
                markersize=7,
                zorder=4,
            )
    axis.plot([], [], "o", color=INK, markerfacecolor="none", label="the paper's bound")
    axis.set(xscale="log", yscale="log", xlabel="batch size", title=f"power of the noise, lr {config.rates[rate]:g}")
    axis.set_ylim(top=axis.get_ylim()[1] * 3)
    axis.set_xticks(sizes, [*(str(size) for size in sizes[:-1]), "all"])
    axis.minorticks_off()
    axis.legend(loc="lower left")


def _shares(axis: Axes, result: NoiseResult) -> None:
    """Draw the parts of ω as shares of their sum, stacked, one bar per batch size and arm."""
    sizes, width = result.config.sizes, 0.27
    for part, (name, shade) in enumerate(zip(PARTS, SHADES, strict=True)):
        for arm in range(len(RULES)):
            powers = np.nanmean(result.parts[:, arm, : len(PARTS)], axis=-1)
            total = powers.sum(axis=1)
            share = np.divide(100 * powers.T, total, out=np.zeros_like(powers.T), where=total > 0).T
            at = np.arange(len(sizes)) + (arm - 1) * 1.1 * width
            axis.bar(
                at,
                share[:, part],
                width,
                bottom=share[:, :part].sum(axis=1),
                color=shade,
                label=name if arm == Arm.PLAIN else None,
            )
    for arm, name in enumerate(SHORT):
        axis.text((arm - 1) * 1.1 * width, 101, name, color=INK, rotation=90, ha="center", va="bottom")
    axis.set_xticks(range(len(sizes)), [*(str(size) for size in sizes[:-1]), "all"])
    axis.set_yticks([0, 25, 50, 75, 100])
    axis.set(ylim=(0, 145), xlabel="batch size", title="what it is made of, %")
    axis.legend(loc="upper right", ncols=3, columnspacing=1, handlelength=1, borderaxespad=0)


def crossing(result: ParabolaResult, networks: NoiseResult | None = None) -> Figure:
    """Draw the noise of an average over that of plain descent, on a parabola against z, in networks against size."""
    options = {"width_ratios": [3, 2]} if networks else {}
    figure, axes = panels(2 if networks else 1, height=3.2, sharey=True, gridspec_kw=options)
    axes[0].axhline(1, color=INK, linewidth=0.8, linestyle=":")
    axes[0].axvline(2, color=INK, linewidth=0.8, linestyle=":")
    axes[0].annotate(
        "plain descent\nunstable", (2, 0.004), color=INK, xytext=(4, 0), textcoords="offset points", va="bottom"
    )
    for momentum in sorted({m for _, m in result.cells}):
        look = momentum_look(momentum)
        grid = np.geomspace(0.03, 0.95 * 2 * (1 + momentum) / (1 - momentum), 300)
        theory(axes[0], grid, stationary_ratio(grid, momentum))
        cells = [(z, mean(power)) for (z, m), power in zip(result.cells, result.power, strict=True) if m == momentum]
        marks(axes[0], [z for z, _ in cells], [f for _, f in cells], look, label=f"momentum {momentum:g}")
    axes[0].set(
        xscale="log",
        yscale="log",
        xlabel="lr × curvature",
        ylim=(0.004, 100),
        title="parabola",
        ylabel="noise power, averaged / plain",
    )
    axes[0].legend(loc="upper left")
    if networks:
        _networks(axes[1], networks)
        label_panels(axes)
    return figure


def _networks(axis: Axes, result: NoiseResult) -> None:
    """Draw the ratio of powers in networks, with its flat limit and the paper's equality."""
    config = result.config
    sizes = np.array(config.batch_sizes)
    axis.axhline(1, color=INK, linewidth=0.8, linestyle=":")
    flat = float(flat_power(ema(1.0, result.lab.momentum))[0])
    theory(axis, sizes[[0, -1]], [flat, flat])
    for text, height in (("the paper: equal", 1.0), ("flat objective", flat)):
        axis.annotate(
            text, (sizes[-1], height), color=INK, ha="right", va="top", xytext=(0, -4), textcoords="offset points"
        )
    looks = (SERIES[0], SERIES[3], SERIES[4])
    for rate, found, look in zip(config.rates, gain(result, Arm.AVERAGED), looks, strict=False):
        marks(axis, sizes, found, look, label=f"lr {rate:g}")
    axis.set(xscale="log", xlabel="batch size", title=f"digits, momentum {result.lab.momentum:g}")
    axis.set_xticks(sizes, [str(size) for size in sizes])
    axis.minorticks_off()
    axis.legend(loc="upper left", bbox_to_anchor=(0, 1))


def shape(result: ShapeResult) -> Figure:
    """Draw the quantiles of one coordinate against normal ones, and the spectrum of the noise."""
    figure, axes = panels(2, height=3.1)
    looks = (SERIES[0], SERIES[3])
    names = ("before training", "after training")
    count = result.sample.shape[1]
    normal = law.norm.ppf((np.arange(count) + 0.5) / count)
    theory(axes[0], normal[[0, -1]], normal[[0, -1]])
    for name, look, sample, spectrum in zip(names, looks, result.sample, result.spectrum, strict=True):
        axes[0].plot(normal, sample, look.marker, color=look.color, markersize=2.5, label=name)
        mass = spectrum.mean(axis=0)
        mass = mass[mass > 1e-6]
        line(axes[1], np.arange(1, len(mass) + 1), mass, look, label=name)
    level = 1 / result.parameters
    theory(axes[1], [1, result.spectrum.shape[-1]], [level, level])
    axes[1].annotate("isotropic noise", (1, level), color=INK, xytext=(0, 3), textcoords="offset points")
    axes[0].set(xlabel="quantile of the normal law", title="one coordinate, standardised", ylabel="quantile, measured")
    axes[1].set(xscale="log", yscale="log", xlabel="direction", title="share of the noise power")
    axes[0].legend(loc="upper left")
    label_panels(axes)
    return figure


__all__ = ["crossing", "direction", "shape"]
