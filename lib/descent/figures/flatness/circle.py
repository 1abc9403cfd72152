"""The quadratic–circle sum: its landscape, who leaves the sharp ring at which step, and what momentum changes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from descent.experiments.flatness.batches import Batch
from descent.experiments.flatness.circle import RingsResult
from descent.experiments.flatness.crossover import CrossoverResult
from descent.experiments.flatness.phase import ALPHAS, PhaseResult, threshold
from descent.figures import INK, SERIES, Look, label_panels, marks, momentum_look, panels, plain_ticks, theory
from descent.figures.flatness.looks import batch_look
from descent.problems.exponents import mean_square_threshold

__all__ = ["circle_c50", "circle_landscape", "momentum_crossover", "phase_map"]


JITTER, EXACT = Look(SERIES[3].color, "o", "-"), Look(SERIES[0].color, "s", "--")
SHOWN: tuple[Batch, ...] = (1, 4, 32)
FULL = 8000.0
"""Where the full batch goes on a logarithmic axis of batch sizes."""

DENSE = np.unique(np.geomspace(1, 1500, 60).round())
"""Batch sizes at which theory is evaluated."""


def circle_landscape(result: RingsResult) -> Figure:
    """Draw the sum along a line through its centre, and the share of runs that leave the ring against the step."""
    figure, axes = panels(2, height=3.1)
    _profile(axes[0], result)
    _curves(axes[1], result)
    label_panels(axes)
    return figure


def _profile(axis: Axes, result: RingsResult) -> None:
    circle = result.config.circle
    place = np.linspace(-1.45, 1.45, 581) * circle.radius
    bowl, ring = circle.bowl * place**2 / 2, circle.ring * (np.abs(place) - circle.radius) ** 2 / 2
    axis.plot(place, np.minimum(bowl, ring), color=INK)
    axis.axvspan(-circle.boundary, circle.boundary, color=EXACT.color, alpha=0.12, linewidth=0)
    flat, sharp = f"flat bowl\ncurvature {circle.bowl:g}", f"sharp ring\ncurvature {circle.ring:g}"
    axis.plot([0, *(circle.radius * np.array([-1, 1]))], [0, 0, 0], "o", color=INK)
    axis.annotate(flat, (0, 0.12 * circle.ring * 10), ha="center", color=INK)
    axis.annotate(sharp, (circle.radius, -0.03 * circle.ring * 10), ha="center", va="top", color=INK)
    axis.set(xlabel="position on a line through the centre", ylabel="objective", title="the sum", ylim=(-16, 100))


def _curves(axis: Axes, result: RingsResult) -> None:
    for k in SHOWN:
        look = batch_look(k)
        for found, dashes in ((result.jitter, "-"), (result.exact[0], "--")):
            curve = result.curve(found, k)
            axis.plot(
                curve.lr, curve.share, color=look.color, linestyle=dashes, label=f"batch {k}" if dashes == "-" else None
            )
        edge = mean_square_threshold(result.config.circle.weights, k)
        axis.plot([edge], [0.0], look.marker, color=look.color, clip_on=False, zorder=5)
    axis.axhline(0.5, color=INK, linewidth=0.8, linestyle=":")
    axis.plot([], [], color=INK, linestyle="--", label="exact noise")
    axis.set(
        xlim=(0.9, 3.1),
        ylim=(0, 1),
        xlabel="lr × sharpness",
        ylabel="share of runs that left the ring",
        title="who leaves",
    )
    axis.legend(loc="lower right")


def circle_c50(result: RingsResult) -> Figure:
    """Draw the step half of the runs leave at, against the batch size and against the number of iterations."""
    figure, axes = panels(2, height=3.5, width_ratios=(1.45, 1))
    _by_batch(axes[0], result)
    _by_horizon(axes[1], result)
    label_panels(axes)
    return figure


def _by_batch(axis: Axes, result: RingsResult) -> None:
    law = result.config.circle.weights
    for alpha in ALPHAS:
        edge = [threshold(law, int(k), alpha) for k in DENSE]
        theory(axis, DENSE, edge)
        axis.annotate(f"α = {alpha}", (0.85, edge[0]), color=INK, ha="right", va="center")
    theory(axis, DENSE, [result.rule(int(k)) for k in DENSE], dashed=True)
    _arm(axis, [c.batch_size for c in result.exact[0].cells], result, "exact", EXACT)
    _arm(axis, [c.batch_size for c in result.jitter.cells], result, "jitter", JITTER)
    axis.plot([], [], color=INK, linewidth=1, linestyle="--", label="finite-horizon rule")
    axis.set(
        xscale="log",
        ylim=(0.9, 2.95),
        xlim=(0.33, 14000),
        xlabel="batch size",
        ylabel="lr × sharpness",
        title="half of the runs left",
    )
    axis.set_xticks((1, 4, 32, 200, 1000, FULL), ("1", "4", "32", "200", "1000", "all"))
    axis.minorticks_off()
    axis.legend(loc="lower right")


def _arm(axis: Axes, sizes: Sequence[Batch], result: RingsResult, noise: str, look: Look) -> None:
    found = result.jitter if noise == "jitter" else result.exact[0]
    steps = [result.c50(found, k) for k in sizes]
    label = "with jitter" if noise == "jitter" else "exact noise"
    marks(axis, [k or FULL for k in sizes], steps, look, label=label, mfc=look.color if noise == "jitter" else "none")


def _by_horizon(axis: Axes, result: RingsResult) -> None:
    config = result.config
    for k in config.followed:
        look, edge = batch_look(k), mean_square_threshold(config.circle.weights, k)
        found = [result.c50(result.jitter, k, steps=n) for n in config.horizons]
        marks(axis, config.horizons, found, look, label=f"batch {k}")
        theory(axis, config.horizons, [result.rule(k, n) for n in config.horizons], dashed=True)
        axis.axhline(edge, color=look.color, linewidth=0.8, linestyle=":")
    axis.set(xscale="log", ylim=(0.9, 2.95), xlabel="iterations", title="and by when")
    axis.set_xticks(config.horizons, [f"{n:g}" for n in config.horizons], rotation=45)
    axis.minorticks_off()
    axis.legend(loc="upper right", ncols=1)


def phase_map(result: PhaseResult) -> Figure:
    """Draw the share of runs that left over step and batch size, with jitter and exact noise, and the thresholds."""
    figure, axes = panels(2, height=3.5, sharey=True)
    config = result.config
    sizes = np.array(config.batch_sizes, dtype=np.float64)
    for axis, noise, title in zip(axes, ("jitter", "exact"), ("with jitter", "exact noise"), strict=True):
        shown = axis.pcolormesh(
            config.lr, sizes, result.share(noise), cmap="YlGnBu", vmin=0, vmax=1, shading="nearest", rasterized=True
        )
        for alpha in ALPHAS:
            _threshold(axis, result, alpha)
        axis.set(yscale="log", xlabel="lr × sharpness", title=title)
        axis.set(xlim=(config.lr[0], config.lr[-1]), ylim=(0.5, None))
        axis.set_yticks((1, 10, 100, 1000), ("1", "10", "100", "1000"))
    axes[0].set(ylabel="batch size")
    figure.colorbar(shown, ax=axes, shrink=0.85, label="share of runs that left")
    label_panels(axes)
    return figure


def _threshold(axis: Axes, result: PhaseResult, alpha: int) -> None:
    """Draw a threshold over the map, dark with a light rim, and its exponent below it."""
    rim = [withStroke(linewidth=2.6, foreground="white")]
    sizes = DENSE[result.config.batch_sizes[-1] >= DENSE]
    edge = [threshold(result.config.circle.weights, int(k), alpha) for k in sizes]
    axis.plot(edge, sizes, color="#222222", linewidth=1.2, path_effects=rim)
    axis.annotate(f"α = {alpha}", (edge[0], 0.69), color="#222222", ha="center", va="center", path_effects=rim)


def momentum_crossover(result: CrossoverResult) -> Figure:
    """Draw η½ with momentum over η½ without against the batch size, at equal step and at equal effective step."""
    figure, axes = panels(2, height=3.3, sharey=True)
    for axis, matched in zip(axes, (False, True), strict=True):
        for momentum in (m for m in result.momentum if m > 0):
            _ratios(axis, result, momentum, matched=matched)
        axis.axhline(1, color=INK, linewidth=0.8, linestyle=":")
        title = "equal effective step" if matched else "equal step"
        axis.set(xscale="log", yscale="log", xlabel="batch size", title=title)
        axis.set_xticks((1, 4, 16, 64, 256, FULL), ("1", "4", "16", "64", "256", "all"))
        axis.minorticks_off()
        plain_ticks(axis.yaxis)
    axes[0].set(ylabel="η½ with momentum / without")
    axes[0].legend(loc="lower right")
    label_panels(axes)
    return figure


def _ratios(axis: Axes, result: CrossoverResult, momentum: float, *, matched: bool) -> None:
    config, look = result.config, momentum_look(momentum)
    unit = 1 - momentum if matched else 1.0
    theory(axis, DENSE, [config.threshold(int(k), momentum) / config.threshold(int(k), 0.0) / unit for k in DENSE])
    sizes = result.batch_sizes
    found = [result.ratio(k, momentum, matched=matched) for k in sizes]
    marks(axis, [k or FULL for k in sizes], found, look, label=f"momentum {momentum:g}")
    if not matched:
        crossover = config.predicted(momentum)
        axis.plot([crossover] * 2, [1 / 1.12, 1.12], color=look.color, linewidth=1.5)
