"""Trained networks: where each sits relative to its own threshold, how sharp they become, and how loose bounds are."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from descent.experiments.flatness.batches import batch_name
from descent.experiments.flatness.networks import NetworksResult, Track, bound_curves
from descent.figures import INK, Look, label_panels, line, panels, theory
from descent.figures.flatness.looks import batch_look
from descent.figures.flatness.quadratics import BOUNDS, LABELS

__all__ = ["network_bounds", "network_loads", "network_sharpness"]


def network_loads(result: NetworksResult) -> Figure:
    """Draw lr over the net's own threshold against lr over full descent's: one mark per net, line at 1."""
    figure, (axis,) = panels(1, height=3.8)
    for trained in result.groups:
        look, name = batch_look(trained.group.batch_size), batch_name(trained.group.batch_size)
        flat, load = (trained.lr * trained.sharpness / 2)[trained.found], trained.load[trained.found]
        axis.plot(flat, load, look.marker, color=look.color, markersize=3.5, alpha=0.6, markeredgewidth=0, label=name)
    axis.axhline(1, color=INK, linewidth=1)
    theory(axis, [0, 1], [0, 1], dashed=True)
    axis.annotate("above its threshold", (0.28, 1.015), color=INK, va="bottom")
    axis.annotate("both equal: no noise", (0.3, 0.27), color=INK, va="top")
    axis.set(
        xlim=(0, 1.04),
        ylim=(0, 1.12),
        xlabel="lr over full descent's threshold, lr·λ/2",
        ylabel="lr over its own threshold η*(B)",
    )
    axis.legend(title="batch size", loc="lower right")
    return figure


def network_sharpness(result: NetworksResult) -> Figure:
    """Draw sharpness on the way for single examples and the full batch at one step, and how far below C*(1) it is."""
    figure, axes = panels(2, height=3.1)
    for track, batch_size in zip(result.tracks, (1, None), strict=True):
        look = batch_look(batch_size)
        name = "full batch" if batch_size is None else "batch size 1"
        _band(axes[0], track, "sharpness", look, name)
        _band(axes[1], track, "load", look, name)
    axes[1].axhline(1, color=INK, linewidth=1)
    axes[0].set(ylabel="sharpness λ", title=f"lr = {result.config.gentle:g}", ylim=(0, None))
    axes[1].set(ylabel="lr over η*(1)", title="relative to the threshold", ylim=(0, 1.1))
    for axis in axes:
        axis.set(xlabel="step", xlim=(0, None))
        axis.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    label_panels(axes)
    return figure


def _band(axis: Axes, track: Track, name: str, look: Look, label: str) -> None:
    """Draw the median net and the middle four fifths."""
    low, middle, high = track.band(name)
    axis.fill_between(track.steps, low, high, color=look.color, alpha=0.2, linewidth=0)
    line(axis, track.steps, middle, look, marker=look.marker)
    axis.annotate(
        label,
        (track.steps[-1], middle[-1]),
        color=look.color,
        ha="right",
        va="top",
        xytext=(0, -5),
        textcoords="offset points",
    )


def network_bounds(result: NetworksResult) -> Figure:
    """Draw the threshold of one net and its bounds against the batch size, over the threshold of full descent."""
    figure, (axis,) = panels(1, height=3.4)
    frame = bound_curves(result)
    sizes, full = frame["batch_size"], frame["full_batch"]
    axis.plot(sizes, frame["threshold"] / full, color=INK, linewidth=4, alpha=0.5, label="exact threshold")
    for name, look in BOUNDS.items():
        line(axis, sizes, frame[name] / full, look, marker=look.marker, linewidth=1.2, label=LABELS[name])
    axis.axhline(1, color=INK, linewidth=0.8, linestyle=":")
    axis.set(xscale="log", yscale="log", xlabel="batch size", ylabel="lr over 2/λ₁")
    axis.xaxis.set_major_locator(FixedLocator(list(sizes)))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xticklabels([batch_name(int(k)) for k in sizes])
    axis.legend(loc="lower right")
    return figure
