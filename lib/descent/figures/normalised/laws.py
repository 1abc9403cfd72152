"""Mean updates, floors and rare classes: measured, beside their laws."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from descent.experiments.lab import each
from descent.experiments.normalised.classes import ARMS as RULES
from descent.experiments.normalised.classes import ClassesResult
from descent.experiments.normalised.events import RareResult
from descent.experiments.normalised.floors import NOISES, FloorsResult
from descent.experiments.normalised.means import MeansResult
from descent.figures import ARMS, INK, Look, label_panels, line, marks, momentum_look, panels, plain_ticks, theory
from descent.problems.noisy import Unigram
from descent.stats import mean, paired_ratio
from descent.theory.polar import overlap
from descent.theory.signs import adam_rare, ema, shot_median, sign_mean

LOOKS = {
    "plain": ARMS["plain"],
    "averaged after": ARMS["step annealed"],
    "averaged before": ARMS["momentum"],
    "Adam": ARMS["momentum annealed"],
    "normalised": ARMS["momentum decayed"],
}


def overlaps(result: MeansResult) -> Figure:
    """Return the mean sign over the gradient, and the overlap of a polar factor over the signal."""
    figure, axes = panels(2, sharey=True)
    config = result.config
    for index, momentum in enumerate(config.momenta):
        look, larger = momentum_look(momentum), ema(momentum).for_mean
        points = ((axes[0], config.gradients, result.signs), (axes[1], config.signals, result.overlaps))
        for axis, x, values in points:
            wide = np.geomspace(min(x) / 1.5, max(x) * 1.5)
            law = sign_mean(wide, 1.0, larger) if axis is axes[0] else overlap(wide * math.sqrt(larger))
            theory(axis, wide, law)
            marks(axis, x, each(mean, values[index]), look, label=f"momentum {momentum:g}")
    axes[1].axvline(1, color=INK, linewidth=0.8, linestyle=":")
    axes[0].set(xscale="log", xlabel="gradient over its noise", ylabel="mean over its largest value", title="sign")
    axes[1].set(xscale="log", xlabel="signal over the edge of the noise, θ", title="polar factor, 100 × 100")
    plain_ticks(axes[0].xaxis, axes[1].xaxis)
    axes[0].legend()
    label_panels(axes)
    return figure


def floors(result: FloorsResult) -> Figure:
    """Return three ratios of floors under normal noise, and the first of them under three noises."""
    figure, axes = panels(2)
    config, seed = result.config, result.lab.seed
    controls = (
        ("matched\nresponse", result.matched[0], result.matched[0][:1]),
        ("same\nrate", result.equal, result.equal[:1]),
        ("plain at\nlarger batch", result.equal, result.larger),
    )
    for index, momentum in enumerate(config.momenta[1:], start=1):
        look, kernel, shift = momentum_look(momentum), ema(momentum), 0.2 * (index - 1.5)
        x = np.arange(3) + shift
        found = [paired_ratio(a[index], b[index if len(b) > 1 else 0], seed) for _, a, b in controls]
        marks(axes[0], x, found, look, label=f"momentum {momentum:g}")
        laws = (kernel.floor_ratio, kernel.diffusion / math.sqrt(kernel.for_mean), kernel.diffusion)
        axes[0].plot(x, laws, "o", markersize=11, color=INK, markerfacecolor="none")
        noises = [paired_ratio(each_noise[index], each_noise[0], seed) for each_noise in result.matched]
        marks(axes[1], x, noises, look)
    for axis in axes:
        axis.axhline(1, color=INK, linewidth=0.8)
    axes[0].set(yscale="log", ylabel="floor, momentum over plain", title="normal noise")
    axes[0].set_xticks(range(3), [name for name, *_ in controls])
    axes[0].legend()
    axes[1].set(ylim=(0, None), title="matched response")
    axes[1].set_xticks(range(3), [{"student": "Student t₃"}.get(name, name.title()) for name in NOISES])
    label_panels(axes)
    return figure


def classes(events: RareResult, found: ClassesResult) -> Figure:
    """Return what is learnt of single rare events, and of fifty classes."""
    figure, axes = panels(2)
    config = events.config
    wide = np.geomspace(0.25, 8)
    for per, law, values, name in (
        (config.per_memory, shot_median, events.averaged, "averaged before"),
        (config.per_second, adam_rare, events.adam, "Adam"),
    ):
        theory(axes[0], wide, law(wide), dashed=name == "Adam")
        marks(axes[0], per, each(mean, values), LOOKS[name], label=name)
    axes[0].set(
        xscale="log", xlabel="events while the rule remembers", ylabel="frequency learnt / true", title="one event"
    )
    plain_ticks(axes[0].xaxis)
    _ranks(axes[1], found)
    for axis in axes:
        axis.axhline(1, color=INK, linewidth=0.8)
        axis.legend()
    label_panels(axes)
    return figure


def _ranks(axis: Axes, found: ClassesResult) -> None:
    """Draw what every rule learnt of every class, over the frequency."""
    p = Unigram(found.config.classes).frequencies
    for name, learnt in zip(RULES, found.learnt.mean(axis=1) / p, strict=True):
        look: Look = LOOKS[name]
        line(axis, p, np.maximum(learnt, 1e-7), look, label=name, marker=look.marker, markevery=8)
    axis.set(xscale="log", yscale="log", ylim=(1e-5, 10), xlabel="frequency of the class", title="fifty classes")
