"""The kernel, the search for counterexamples, the control table, and what inertia and lag decide."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, LogNorm
from matplotlib.figure import Figure

from descent.experiments.synthesis.features import FeaturesResult
from descent.experiments.synthesis.hopping import HoppingResult
from descent.experiments.synthesis.lineup import COLUMNS, NAMES, TITLES, Cell, Rows, all_cells
from descent.experiments.synthesis.rescaling import RescalingResult
from descent.experiments.synthesis.theory import STEPS_UP, TheoryResult
from descent.experiments.synthesis.warmup import WarmupResult
from descent.figures import ARMS, INK, SERIES, Look, label_panels, line, marks, momentum_look, panels, theory
from descent.theory.mode import inertial_efficiency, matched_lr
from descent.theory.mode import kernel as kernel_of

__all__ = ["control_table", "inertia", "kernel", "rescaling", "search"]

BLUES = LinearSegmentedColormap.from_list("kernel", ["#2f6ea822", "#2f6ea8"])
FLOOR = 1e-3  # where a ratio of zero is drawn


def kernel(momentum: float = 0.9, effective: float = 0.1) -> Figure:
    """Draw K(h_i, h_j) without and with momentum at equal effective step, and the part that is dephasing."""
    figure, axes = panels(3, height=2.5, sharey=True)
    h = np.linspace(0.05, 10, 120)
    parts = [kernel_of(h[:, None], h[None, :], matched_lr(effective, m), m) for m in (0.0, momentum)]
    dephasing = momentum / (1 - momentum**2) * (h[:, None] - h[None, :]) ** 2
    titles = ("plain SGD", f"momentum {momentum:g}", "of which dephasing")
    norm = LogNorm(1, 600)
    for axis, values, title in zip(axes, (*parts, dephasing), titles, strict=True):
        mesh = axis.pcolormesh(h, h, np.maximum(values, 1e-3), cmap=BLUES, norm=norm, shading="auto", rasterized=True)
        axis.contour(h, h, values, levels=[10, 30, 90, 300], colors=INK, linewidths=0.7, norm=None)
        axis.set(title=title, xlabel="curvature h", aspect="equal", xticks=[2, 6, 10], yticks=[2, 6, 10])
    axes[0].set_ylabel("curvature h′")
    figure.colorbar(mesh, ax=axes, shrink=0.85, label="K(h, h′)")
    label_panels(axes)
    return figure


def search(result: TheoryResult) -> Figure:
    """Draw edges at matched step over plain SGD's, and what climbers find: never a load above 1, but floors."""
    figure, axes = panels(2, height=2.9)
    ladder = (0.3, 0.7, 0.95)
    for i, m in enumerate(ladder, start=1):
        ratio = np.sort(result.edge[..., i].ravel())
        line(axes[0], ratio, np.arange(1, len(ratio) + 1) / len(ratio), momentum_look(m), label=f"momentum {m:g}")
    axes[0].axvline(1, color=INK, linewidth=0.8, linestyle=":")
    axes[0].set(xscale="log", xlabel="edge over plain SGD's, effective steps", ylabel="share of random problems")
    axes[0].legend(loc="lower right")
    looks = (SERIES[0], SERIES[5])
    climbed = (found.max(axis=(1, 2)) for found in (result.load_search, result.floor_search))
    for (low, high), load, floor in zip(STEPS_UP, *climbed, strict=True):
        dashes = "-" if low == 0.5 else "--"
        for values, look, name in ((load, looks[0], "load"), (floor, looks[1], "floor")):
            line(
                axes[1],
                np.arange(len(values)),
                values,
                Look(look.color, look.marker, dashes),
                label=f"{name}, {low:g} → {high:g}",
            )
    axes[1].axhline(1, color=INK, linewidth=0.8, linestyle=":")
    axes[1].set(xlabel="rounds of the search", ylabel="largest ratio found")
    figure.legend(*axes[1].get_legend_handles_labels(), loc="outside lower right", ncols=4)
    label_panels(axes)
    return figure


def control_table(*results: Rows) -> Figure:
    """Draw every ratio to plain SGD: filled marks measured, rings predicted, one panel per control."""
    (figure, axes), cells = panels(4, height=4.3, sharey=True), all_cells(*results)
    for axis, column, title in zip(axes, COLUMNS, TITLES, strict=True):
        for cell in cells:
            if cell.column == column and cell.momentum:
                _cell(axis, cell)
        axis.axvline(1, color=INK, linewidth=0.8, linestyle=":")
        axis.set(xscale="log", title=title, xlim=(FLOOR / 2, 1000), xticks=[1e-3, 1, 1000], xlabel="ratio to plain SGD")
        axis.tick_params(axis="y", length=0)
    axes[0].set_yticks(range(len(NAMES)), list(NAMES.values()))
    axes[0].invert_yaxis()
    for m in (0.5, 0.9, 0.99):
        look = momentum_look(m)
        axes[0].plot([], [], look.marker, color=look.color, linestyle="none", label=f"momentum {m:g}")
    axes[0].plot([], [], "o", markerfacecolor="none", color=INK, linestyle="none", label="predicted")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    label_panels(axes)
    return figure


def _cell(axis: Axes, cell: Cell) -> None:
    place = list(NAMES).index(cell.mechanism) + {0.5: -0.24, 0.9: 0.0, 0.99: 0.24}[cell.momentum]
    look = momentum_look(cell.momentum)
    if cell.predicted is not None:
        axis.plot(max(cell.predicted, FLOOR), place, "o", markersize=8, markerfacecolor="none", color=INK)
    if cell.measured is not None:
        value, low, high = (max(v, FLOOR) for v in (cell.measured.value, cell.measured.low, cell.measured.high))
        marker = "<" if cell.measured.value < FLOOR else look.marker
        axis.errorbar(value, place, xerr=[[value - low], [high - value]], fmt=marker, color=look.color, elinewidth=1)


def inertia(theories: TheoryResult, hopping: HoppingResult, features: FeaturesResult) -> Figure:
    """Draw three things that inertia decides, each on its own axis of λ: growth, noise-free crossing, small margins."""
    figure, axes = panels(3, height=2.9)
    config = theories.config
    for m, row in zip(config.close, theories.efficiency, strict=True):
        look = momentum_look(m) if m < 0.999 else Look(INK, "*", "-")
        axes[0].plot(config.inertia, row, look.marker, color=look.color, linestyle="none", label=f"momentum {m:g}")
    lam = np.geomspace(0.005, 200, 100)
    theory(axes[0], lam, inertial_efficiency(lam))
    axes[0].set(title="growth over eb", xlabel="λ × instability", ylim=(0, 1.05))
    axes[0].legend(loc="upper right")
    bowl = hopping.home["rugged bowl"].mean(axis=-1)
    for i, e in enumerate(hopping.config.effective):
        look = SERIES[i]
        line(axes[1], hopping.config.lams, bowl[i], look, marker=look.marker, label=f"e = {e:g}")
    axes[1].set(title="runs that cross, no noise", xlabel="λ", ylim=(0, 1))
    axes[1].legend(loc="lower right")
    _margins(axes[2], features)
    for axis in axes:
        axis.set_xscale("log")
    axes[1].set_xticks([0.3, 1, 4], ["0.3", "1", "4"])
    axes[1].minorticks_off()
    label_panels(axes)
    return figure


def _margins(axis: Axes, features: FeaturesResult) -> None:
    """Draw the error on small margins against λ = α/(1 − β)²: heavy ball and averages as one, plain descent apart."""
    rows = sorted(
        (arm.lr / (1 - arm.momentum) ** 2, float(features.of(key).mean()), key[0])
        for key, arm in features.config.arms.items()
        if key[0] != "noisy"
    )
    names = {"heavy": "heavy ball", "average": "average", "plain": "plain, larger step"}
    looks = {"heavy": ARMS["momentum"], "average": ARMS["average"], "plain": ARMS["plain"]}
    for kinds, dashes in ((("heavy", "average"), "-"), (("plain",), "--")):
        lam, error = zip(*((x, y) for x, y, kind in rows if kind in kinds), strict=True)
        line(axis, lam, error, Look(looks[kinds[0]].color, "", dashes))
    for kind, marker in (("heavy", "v"), ("average", "s"), ("plain", "o")):
        lam, error = zip(*((x, y) for x, y, own in rows if own == kind), strict=True)
        axis.plot(lam, error, marker, color=looks[kind].color, linestyle="none", label=names[kind])
    axis.set(title="error on small margins", xlabel="λ", ylim=(-0.02, 0.52))
    axis.legend(loc="upper right")


def rescaling(result: RescalingResult, warmup: WarmupResult) -> Figure:
    """Draw how much later the weak feature is learnt, and what an average loses and regains in its first steps."""
    figure, axes = panels(2, height=2.9)
    speed = 1 / (1 - np.array(result.config.strong))
    for i, (start, row) in enumerate(zip(result.config.seeds, result.delay_ratio, strict=True)):
        look = SERIES[i]
        line(axes[0], speed, row, look, marker=look.marker, label=f"start {start:g}")
    axes[0].set(xscale="log", xlabel="1/(1 − momentum)", ylabel="delay of the weak feature over the strong")
    axes[0].legend()
    arms = (
        ("average", 0.9, "-"),
        ("corrected", 0.9, "--"),
        ("strong average", 0.99, "-"),
        ("strong corrected", 0.99, "--"),
    )
    budgets = warmup.config.budgets
    for arm, m, dashes in arms:
        own = momentum_look(m)
        look = Look(own.color, own.marker, dashes)
        found = [warmup.gain(arm, budget) for budget in budgets]
        marks(axes[1], budgets, found, look)
        label = f"momentum {m:g}" + (", corrected" if dashes == "--" else "")
        line(axes[1], budgets, [e.value for e in found], look, label=label)
    axes[1].axhline(0, color=INK, linewidth=0.8, linestyle=":")
    axes[1].set(xscale="log", xlabel="steps", ylabel="accuracy less plain SGD's, points")
    axes[1].set_xticks(budgets, [str(b) for b in budgets])
    axes[1].minorticks_off()
    axes[1].legend(loc="lower right")
    label_panels(axes)
    return figure
