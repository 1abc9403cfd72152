"""The still picture of every explorer, for readers without scripts: its default state from exact formulas.

Unlike other figures these compute what they draw: a closed form evaluated on a grid, the same the explorer evaluates.
`python -m descent.figures.stills FOLDER` writes <name>.png for each.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from descent.engine import rules
from descent.figures import ARMS, INK, SERIES, label_panels, line, panels, theory, use_style
from descent.figures.sign_map import sign_plane
from descent.problems.exponents import almost_sure_threshold
from descent.theory.averages import Skewed
from descent.theory.drift import uv_path
from descent.theory.escape import variance_from_rest
from descent.theory.inertia import race
from descent.theory.linear import aligned_edge
from descent.theory.matched import Held, Setting, gauges
from descent.theory.memory import Memory, momentum_factor
from descent.theory.mode import critical_damping, mode_edge
from descent.theory.noise_escape import closure_step, outside
from descent.theory.search_noise import degree, stationary_moments
from descent.theory.signs import ema
from descent.theory.weights import Gamma

__all__ = ["STILLS", "write"]

GAUGE_NAMES = (
    "noise of the direction",
    "largest stable step",
    "time to leave a saddle",
    "noise floor",
    "feature after equal steps",
    "flat part of the escape",
    "time to cross a barrier",
)
"""The seven consequences as the explorer of the synthesis names them."""

PLAIN, MOMENTUM, MATCHED = ARMS["plain"], ARMS["momentum"], ARMS["plain, matched step"]


def hero() -> Figure:
    """Return the spread of runs on a saddle, and what the rule does along the rising direction."""
    figure, axes = panels(2)
    steps = np.arange(1, 201)
    for lr, momentum, look, label in (
        (0.01, 0.9, MOMENTUM, "momentum 0.9"),
        (0.01, 0.0, PLAIN, "plain, same step"),
        (0.1, 0.0, MATCHED, "plain, same effective step"),
    ):
        spread = 0.3 * np.sqrt(variance_from_rest(steps, 1.0, lr, momentum))
        line(axes[0], steps, spread, look, label=label, markevery=50)
    axes[0].set(yscale="log", ylim=(1e-3, 1), xlabel="steps", ylabel="distance from the saddle", title="leaving")
    axes[0].legend()
    momenta = np.linspace(0, 0.999, 200)
    theory(axes[1], critical_damping(momenta), momenta)
    theory(axes[1], 2 * (1 + momenta), momenta, dashed=True)
    axes[1].set(xscale="log", xlim=(1e-3, 40), xlabel="step times curvature", ylabel="momentum", title="settling")
    for words, x, y in (("crawls", 0.003, 0.4), ("rings", 0.3, 0.65), ("diverges", 12, 0.35)):
        axes[1].text(x, y, words, ha="center")
    label_panels(axes)
    return figure


def saddles() -> Figure:
    """Return the spread of runs on a saddle and at an optimum, with momentum and without."""
    figure, axes = panels(2)
    steps = np.arange(1, 301)
    for lr, momentum, look, label in (
        (0.01, 0.9, MOMENTUM, "momentum 0.9"),
        (0.01, 0.0, PLAIN, "plain, same step"),
        (0.1, 0.0, MATCHED, "plain, same effective step"),
    ):
        line(axes[0], steps, np.sqrt(variance_from_rest(steps, 1.0, lr, momentum)), look, label=label, markevery=75)
        line(axes[1], steps, np.sqrt(displacement_from_rest(steps, lr, momentum)), look, markevery=75)
    for axis, title in zip(axes, ("on a saddle", "at an optimum"), strict=True):
        axis.set(yscale="log", ylim=(3e-3, 30), xlabel="steps", ylabel="distance (root mean square)", title=title)
    axes[0].legend()
    label_panels(axes)
    return figure


def displacement_from_rest(steps: NDArray[np.int64], lr: float, momentum: float) -> NDArray[np.float64]:
    """Return E x² after some steps from rest at an optimum of curvature one, by its recursion."""
    keep, found = 1 + momentum - lr, [(0.0, 0.0, 0.0)]
    for _ in range(int(steps.max())):
        now, cross, before = found[-1]
        moved = keep**2 * now - 2 * keep * momentum * cross + momentum**2 * before + lr**2
        found.append((moved, keep * now - momentum * cross, now))
    return np.array([found[step][0] for step in steps])


def flatness() -> Figure:
    """Return the two thresholds over batch size, without momentum and with it."""
    figure, axes = panels(2, sharey=True)
    batches, law = np.array([2**k for k in range(11)]), Gamma(1.0)
    line(axes[0], batches, [mode_edge(1.0, 0.0, 1 / k) for k in batches], PLAIN, label="mean square")
    line(axes[0], batches, [almost_sure_threshold(law, int(k)) for k in batches], MATCHED, label="single runs")
    line(axes[1], batches, [mode_edge(1.0, 0.0, 1 / k) for k in batches], PLAIN, label="no momentum")
    line(axes[1], batches, [mode_edge(1.0, 0.9, 1 / k) for k in batches], MOMENTUM, label="momentum 0.9")
    for axis, title in zip(axes, ("two thresholds", "momentum, mean square"), strict=True):
        axis.set(xscale="log", xlabel="batch size", ylabel="step times curvature", title=title, ylim=(0, 4))
        axis.legend()
    label_panels(axes)
    return figure


def margins() -> Figure:
    """Return the two parts of a small-margin logit along training, without momentum and with it."""
    figure, axes = panels(2, sharey=True)
    for axis, momentum in zip(axes, (0.0, 0.95), strict=True):
        found = race(1.0, momentum, 1000)
        steps = np.arange(1, 1002)
        line(axis, steps, (0.15 * found[0]) ** 3, SERIES[4], label="by the feature", markevery=(0.1, 0.2))
        line(axis, steps, found[1] ** 3, MATCHED, label="by heart", markevery=(0.1, 0.2))
        axis.set(
            xscale="log",
            yscale="log",
            ylim=(1e-4, 100),
            xlabel="steps",
            ylabel="small-margin logit",
            title=f"momentum {momentum:g}",
        )
    axes[0].legend()
    label_panels(axes)
    return figure


def geometry() -> Figure:
    """Return the loss outside the sharpest direction over that along it, SGD and descent just beyond their edges."""
    figure, (axis,) = panels(1)
    curvature = np.arange(1, 51.0) ** -0.5
    for share, lr, look, label in (
        (1.0, 1.05 * aligned_edge(curvature, 0.0, 1.0), MOMENTUM, "SGD, batch 1"),
        (0.0, 2.1, PLAIN, "full batch, as far beyond its own edge"),
    ):
        parts = [curvature.copy()]
        for _ in range(60):
            parts.append(closure_step(curvature, parts[-1], float(lr), share))
        line(axis, np.arange(61), outside(np.array(parts), 1), look, label=label, markevery=10)
    axis.set(yscale="log", xlabel="steps", ylabel="loss outside / along the sharpest")
    axis.legend()
    return figure


def smoothing() -> Figure:
    """Return the degree of smoothing over momentum by both conventions, at equal step and equal effective step."""
    figure, axes = panels(2, sharey=True)
    momenta = torch.linspace(0, 0.98, 50, dtype=torch.float64)
    lr = torch.full_like(momenta, 0.3)
    for axis, own, title in ((axes[0], lr, "learning rate"), (axes[1], lr * (1 - momenta), "effective step")):
        arms = (
            (rules.sgd(lr), PLAIN, "SGD"),
            (rules.heavy_ball(own, momenta), MOMENTUM, "heavy ball"),
            (rules.ema(lr, momenta), MATCHED, "running average"),
        )
        for hyper, look, label in arms:
            power = stationary_moments(hyper, (1.0, 0.1)).power.sum(axis=1) / 16
            line(axis, momenta, degree(hyper.lr, power), look, label=label)
        axis.set(yscale="log", xlabel="momentum", ylabel="degree of smoothing", title=f"at equal {title}")
    axes[0].legend()
    label_panels(axes)
    return figure


def synthesis() -> Figure:
    """Return seven consequences of momentum as bars, ratios to plain SGD at equal step and at equal effective step."""
    figure, axes = panels(2, sharey=True)
    setting = Setting(0.05, 0.9, 32, multiplicative=4.0, noise=3.5**2)
    ways: tuple[tuple[Held, str], ...] = (("lr", "learning rate"), ("effective", "effective step"))
    for axis, (held, title) in zip(axes, ways, strict=True):
        ratio = np.exp(gauges(setting, held).log_ratio)
        axis.barh(GAUGE_NAMES, ratio - 1, left=1, height=0.5, color=MOMENTUM.color)
        axis.axvline(1, color=INK, linewidth=0.8)
        for row, value in enumerate(ratio):
            axis.text(2500, row, f"×{value:.3g}" if value > 1e-3 else "<10⁻³", ha="right", va="center")
        axis.set(xscale="log", xlim=(5e-3, 3000), xlabel="momentum over plain SGD", title=f"same {title}")
    axes[0].invert_yaxis()
    label_panels(axes)
    return figure


def border() -> Figure:
    """Return the sign map with two points of it, and the runs of plain SGD and heavy ball at both."""
    figure, (plane, *places) = panels(3)
    sign_plane(plane, 6.0)
    flow = float(np.hypot(3.0**2 - 0.05**2, 2))  # the sharpness that gradient flow from there ends in
    for words, x, y in (("flatter", 0.95, 70), ("sharper", 4.0, 70), ("both leave", 4.4, 1.3)):
        plane.text(x, y, words, ha="center", color=INK)
    product = np.linspace(0.2, 4, 100)
    for axis, effective in zip(places, (0.2, 0.3), strict=True):
        plane.plot(effective * flow, momentum_factor(0.9), "o", color=INK)
        theory(axis, product, 1 / product)
        for momentum, look, label in ((0.0, PLAIN, "plain SGD"), (0.9, MOMENTUM, "momentum 0.9")):
            path = uv_path(Memory.heavy_ball(momentum), (3.0, 0.05), effective, 600)
            name = f"{label}: {np.square(path[-1]).sum():.2f}"
            axis.plot(*path.T, color=look.color, linewidth=0.9, label=name)
            axis.plot(*path[-1], look.marker, color=look.color, markersize=7)
        axis.set(xlim=(0.5, 3.6), ylim=(-0.6, 2.4), xlabel="u", title=f"effective step {effective:g}")
        axis.legend(title="sharpness at the end", loc="upper right")
    places[0].set_ylabel("v")
    label_panels([plane, *places])
    return figure


def normalised() -> Figure:
    """Return the mean step of a sign over the place under skewed noise, and where each rule hovers."""
    figure, axes = panels(2)
    x, lr = np.linspace(-1, 1, 201), 0.01
    rows = (("plain", 0.0, PLAIN), ("averaged before", 0.9, MOMENTUM))
    for row, (label, momentum, look) in enumerate(rows):
        kernel = ema(momentum)
        noise = Skewed(1.0, 2.0).averaged(kernel)
        line(axes[0], x, -noise.mean_sign(x), look, label=label)
        wide = (lr * kernel.diffusion / (4 * noise.density)) ** 0.5
        axes[1].errorbar(-noise.median, row, xerr=wide, fmt=look.marker, color=look.color, capsize=4)
    after = Skewed(1.0, 2.0)
    line(axes[0], x, -after.mean_sign(x), ARMS["step annealed"], label="averaged after")
    look, wide = ARMS["step annealed"], (lr / (4 * after.density)) ** 0.5
    axes[1].errorbar(-after.median, 2, xerr=wide, fmt=look.marker, color=look.color, capsize=4)
    for axis in axes:
        axis.axvline(0, color=INK, linewidth=0.8)
    axes[0].axhline(0, color=INK, linewidth=0.8)
    axes[0].set(xlabel="place", ylabel="mean step over the rate", title="drift")
    axes[1].set(xlabel="place", xlim=(-0.3, 0.6), ylim=(2.6, -0.6), title="where it hovers")
    axes[1].set_yticks(range(3), ["plain", "before", "after"])
    axes[0].legend()
    label_panels(axes)
    return figure


STILLS: Mapping[str, Callable[[], Figure]] = {
    "border": border,
    "flatness": flatness,
    "geometry": geometry,
    "hero": hero,
    "margins": margins,
    "normalised": normalised,
    "saddles": saddles,
    "smoothing": smoothing,
    "synthesis": synthesis,
}
"""The still picture of every explorer by its name."""


def write(folder: Path) -> None:
    """Write all of them as <name>.png."""
    use_style()
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in STILLS.items():
        draw().savefig(folder / f"{name}.png", metadata={"Software": None})


if __name__ == "__main__":
    write(Path(sys.argv[1]))
