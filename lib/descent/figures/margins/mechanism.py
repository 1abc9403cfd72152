"""The race of feature and memory, surgery on the buffer, and how far the feature coasts."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from descent.experiments.margins.coast import CoastResult
from descent.experiments.margins.race import RaceResult
from descent.experiments.margins.surgery import ALL as EVERYTHING
from descent.experiments.margins.surgery import COAST, HISTORIES, KEPT, PLAIN, SurgeryResult
from descent.figures import INK, SERIES, Look, label_panels, line, momentum_look, panels, theory, whiskers
from descent.stats import bounded_mean, mean
from descent.theory.inertia import coasting, coasting_distance

__all__ = ["coast", "histories", "portrait", "race"]

SIGNAL, MEMORY = Look(SERIES[4].color, "s", "-"), Look(SERIES[5].color, "X", "--")
"""What carries a small-margin logit: the feature, or noise patches learnt by heart."""


def race(result: RaceResult) -> Figure:
    """Draw the two parts of the small-margin logit over steps, for plain descent and for strong momentum."""
    figure, axes = panels(2, height=3.1, sharey=True)
    for axis, momentum in zip(axes, (0.0, result.config.strong), strict=True):
        arm = result.arm(momentum)
        for name, look, label in (("signal", SIGNAL, "by the feature"), ("noise", MEMORY, "by noise patches")):
            values = np.maximum(result.course[name][arm], 1e-4)
            line(axis, result.steps, np.median(values, axis=0), look, label=label)
            low, high = np.quantile(values, (0.1, 0.9), axis=0)
            axis.fill_between(result.steps, low, high, color=look.color, alpha=0.2, linewidth=0)
        _fitted(axis, result, arm)
        axis.set(xlabel="steps", yscale="log", ylim=(1e-4, 20), title=f"momentum {momentum:g}")
    axes[0].set(ylabel="small-margin logit")
    axes[0].legend(loc="lower right")
    label_panels(axes)
    return figure


def portrait(result: RaceResult, seeds: int = 8) -> Figure:
    """Draw every neuron's component along the feature over steps, coloured by the sign it started with."""
    figure, axes = panels(2, height=2.9, sharey=True)
    for axis, momentum in zip(axes, (0.0, result.config.strong), strict=True):
        rows = result.neurons[result.arm(momentum), :seeds].swapaxes(0, 1).reshape(len(result.steps), -1)
        for begun, look, name in ((rows[0] > 0, SIGNAL, "started above zero"), (rows[0] < 0, MEMORY, "started below")):
            drawn = axis.plot(result.steps, rows[:, begun], color=look.color, linewidth=0.7, alpha=0.7)
            drawn[0].set_label(name)
        axis.axhline(0, color=INK, linewidth=0.8, linestyle=":")
        axis.set(xlabel="steps", title=f"momentum {momentum:g}")
    axes[0].set(ylabel="neuron along the feature")
    axes[1].legend(loc="upper left")
    label_panels(axes)
    return figure


def _fitted(axis: Axes, result: RaceResult, arm: int) -> None:
    """Mark the step at which large margins are fitted, in the median."""
    below = result.course["unfitted"][arm] < result.config.fitted
    step = float(np.median(result.steps[below.argmax(axis=1)]))
    axis.axvline(step, color=INK, linewidth=0.8, linestyle=":")
    axis.annotate("large margins fitted", (step, 12), color=INK, xytext=(3, 0), textcoords="offset points")


def histories(result: SurgeryResult) -> Figure:
    """Draw the small-margin error of every history that was kept."""
    figure, axes = panels(1, height=3.9)
    places = np.arange(len(HISTORIES))
    for place, name in zip(places, HISTORIES, strict=True):
        found = bounded_mean(result.err2(name), 0, 1)
        good = name in (*KEPT, EVERYTHING, COAST)
        look = SIGNAL if good else MEMORY
        axes[0].errorbar(found.value, place, xerr=whiskers(found), fmt=look.marker, color=look.color, capsize=3)
    axes[0].axvline(mean(result.err2(PLAIN)).value, color=INK, linewidth=0.8, linestyle=":")
    axes[0].set_yticks(places, HISTORIES)
    axes[0].set(xlabel="error on small margins", xlim=(-0.02, 0.5))
    axes[0].invert_yaxis()
    return figure


def coast(result: CoastResult) -> Figure:
    """Draw the distance at rest against λ with the inertial law, and the learned feature against both margins."""
    figure, axes = panels(2, height=3.1)
    config, alpha = result.config, result.config.task.large_margin
    span = np.geomspace(0.5, 2000, 40)
    theory(axes[0], span, [coasting(value * alpha**2)[0] / alpha for value in span])
    axes[0].plot(span, [coasting_distance(value, alpha) for value in span], color=INK, linewidth=0.8, linestyle=":")
    for momentum in sorted({m for _, m in config.arms}):
        look = momentum_look(momentum)
        rows = [i for i, (_, m) in enumerate(config.arms) if m == momentum]
        axes[0].plot(
            result.inertia[rows],
            result.distance[rows].mean(axis=1),
            look.marker,
            color=look.color,
            linestyle="none",
            label=f"momentum {momentum:g}",
        )
    axes[0].set(xscale="log", yscale="log", xlabel="λ", ylabel="distance travelled by the feature")
    axes[0].legend(loc="upper left")
    for margins, found, look, name in (
        (config.large_margins, result.by_large, momentum_look(0.0), "plain, against α"),
        (config.small_margins, result.by_small, momentum_look(0.99), f"momentum {config.strong:g}, against β"),
    ):
        values = np.nanmean(found, axis=1)
        axes[1].plot(margins, values, look.marker, color=look.color, linestyle="none", label=name)
        theory(axes[1], margins, values[0] * margins[0] / np.array(margins))
    axes[1].set(xscale="log", yscale="log", xlabel="margin", ylabel="feature at equal loss")
    axes[1].legend(loc="lower left")
    label_panels(axes)
    return figure
