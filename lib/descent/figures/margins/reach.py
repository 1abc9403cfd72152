"""Where the benefit is and where it is not: the phase diagram, one push, noise, images, and the transfer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from pandas import DataFrame

from descent.experiments.margins.heterogeneity import HeterogeneityResult
from descent.experiments.margins.images import ImagesResult
from descent.experiments.margins.kick import KickResult
from descent.experiments.margins.linear import LinearResult
from descent.experiments.margins.networks import accuracies
from descent.experiments.margins.noise import NoiseResult
from descent.experiments.margins.phase import PhaseResult, fall, fitted
from descent.experiments.margins.race import RaceResult
from descent.experiments.margins.sizes import SizesResult
from descent.experiments.margins.teacher import TeacherResult
from descent.figures import INK, label_panels, line, marks, momentum_look, panels, theory, whiskers
from descent.problems.teacher import TEACHERS
from descent.stats import Estimate, mean, paired_difference

__all__ = ["best_arms", "images", "kick_and_noise", "limits", "phase", "transfer"]

NAMES = {"digits": "digits", "mnist": "MNIST", "glyphs": "glyphs"}


def phase(result: PhaseResult) -> Figure:
    """Draw the small-margin error over learning rate and momentum, and its collapse on one number."""
    figure, axes = panels(2, height=3.2)
    config, means = result.config, result.err2.mean(axis=-1)
    rows, columns = np.arange(len(config.lrs)), np.arange(len(config.momenta))
    image = axes[0].pcolormesh(columns, rows, means, cmap="viridis", vmin=0, vmax=0.5, shading="nearest")
    axes[0].set_xticks(columns, [f"{momentum:g}" for momentum in config.momenta])
    axes[0].set_yticks(rows, [f"{lr:g}" for lr in config.lrs])
    axes[0].set(xlabel="momentum", ylabel="learning rate")
    figure.colorbar(image, ax=axes[0], label="error on small margins")
    span = np.geomspace(0.4, 100, 80)
    height = float(means[0, 0])
    near = result.near
    curve = fitted(result.inertia[:, near].ravel(), means[:, near].ravel() / height)
    theory(axes[1], span, height * fall(span, *curve))
    for j, momentum in enumerate(config.momenta):
        look = momentum_look(momentum)
        marks(
            axes[1],
            result.inertia[:, j],
            [mean(cell) for cell in result.err2[:, j]],
            look,
            label=f"momentum {momentum:g}",
        )
    axes[1].set(
        xscale="log", xlabel="λ = learning rate / (1 − momentum)", ylabel="error on small margins", xlim=(0.4, 100)
    )
    axes[1].legend(loc="upper right")
    label_panels(axes)
    return figure


def kick_and_noise(kick: KickResult, noise: NoiseResult) -> Figure:
    """Draw the error after one push of plain descent, and the error at every batch size."""
    figure, axes = panels(2, height=2.9, sharey=True)
    config = kick.config
    places = np.array(config.multiples) * config.distance
    marks(axes[0], places, [mean(cell) for cell in kick.kicked], momentum_look(0.0))
    line(axes[0], places, kick.kicked.mean(axis=1), momentum_look(0.0))
    axes[0].axhline(kick.plain.mean(), color=INK, linewidth=0.8, linestyle=":")
    axes[0].axvline(config.distance, color=INK, linewidth=0.8, linestyle="--")
    axes[0].annotate(
        "coasting\ndistance", (config.distance, 0.47), color=INK, xytext=(4, -8), textcoords="offset points"
    )
    axes[0].set(xlabel="feature after the push", ylabel="error on small margins", ylim=(-0.02, 0.5))
    names = [str(size or "full") for size in noise.config.batch_sizes]
    for rows, momentum in zip(noise.by_batch, (0.0, noise.lab.momentum), strict=True):
        look = momentum_look(momentum)
        marks(axes[1], range(len(names)), [mean(cell) for cell in rows], look, label=f"momentum {momentum:g}")
        line(axes[1], range(len(names)), rows.mean(axis=1), look, alpha=0.6)
    axes[1].set_xticks(range(len(names)), names)
    axes[1].set(xlabel="batch size")
    axes[1].legend(loc="center right")
    label_panels(axes)
    return figure


def limits(sizes: SizesResult, linear: LinearResult) -> Figure:
    """Draw the error over sizes d = N, and the gap of a linear net over losses with the line to vanishing loss."""
    figure, axes = panels(2, height=2.9)
    for arm, momentum in enumerate((0.0, sizes.lab.momentum)):
        look, found = momentum_look(momentum), [mean(stand.err2[arm]) for stand in sizes.stands]
        marks(axes[0], sizes.config.sizes, found, look, label=f"momentum {momentum:g}")
        line(axes[0], sizes.config.sizes, [one.value for one in found], look, alpha=0.6)
    axes[0].set(xscale="log", xlabel="dimension and examples, d = N", ylim=(-0.02, 0.55))
    axes[0].set(ylabel="error on small margins")
    axes[0].set_xticks(sizes.config.sizes, [str(size) for size in sizes.config.sizes])
    axes[0].minorticks_off()
    axes[0].legend(loc="center right")
    places, look = 1 / np.log(1 / np.array(linear.config.targets)), momentum_look(linear.lab.momentum)
    marks(axes[1], places, [mean(gap) for gap in linear.gaps], look)
    slope, end = np.polyfit(places, linear.gaps.mean(axis=1), 1)
    span = np.array([0.0, places.max()])
    theory(axes[1], span, end + slope * span)
    axes[1].axhline(0, color=INK, linewidth=0.8, linestyle=":")
    axes[1].set(xlabel="1 / log(1 / training loss)", ylabel="gap in error, linear net", xlim=(0, None))
    label_panels(axes)
    return figure


def images(*found: ImagesResult | None) -> Figure:
    """Draw the small-margin error on the first pair against the learning rate, plain and with strong momentum.

    What was not measured for want of data is None.
    """
    results = [result for result in found if result is not None]
    figure, axes = panels(len(results), height=2.9, sharey=True)
    for axis, result in zip(axes, results, strict=True):
        config = result.config
        for j, (momentum, rates) in enumerate(config.rates):
            look, errors = momentum_look(momentum), result.tuned[: len(rates), j]
            marks(axis, rates, [mean(cell) for cell in errors], look, label=f"momentum {momentum:g}")
            line(axis, rates, errors.mean(axis=1), look, alpha=0.6)
        title = f"{NAMES[config.data]}, {config.pairs[0].name}"
        axis.set(xscale="log", xlabel="learning rate", ylim=(0, 0.55), title=title)
    axes[0].set(ylabel="error on small margins")
    axes[0].legend(loc="lower left")
    return figure


def transfer(
    race: RaceResult,
    teacher: TeacherResult,
    other: HeterogeneityResult,
    pairs: Sequence[ImagesResult | None],
    networks: DataFrame | None = None,
) -> Figure:
    """Draw the gain from momentum on every kind of data, with its interval, in falling order.

    pairs: the results on images used as patches, None without data. networks: the table of
    `experiments.margins.networks`; the best plain arm on average against momentum.
    """
    plain, arm = race.equal.err2[0], race.arm(race.lab.momentum)
    gains: dict[str, Estimate] = {"patch data": paired_difference(plain, race.equal.err2[arm])}
    for result in filter(None, pairs):
        gains |= {
            f"{NAMES[result.config.data]} as patches, {item.name}": paired_difference(errors[0], errors[-1])
            for item, errors in zip(result.config.pairs, result.err2, strict=True)
        }
    gains |= {
        f"Gaussian inputs, {name} teacher": paired_difference(*pair)
        for name, pair in zip(TEACHERS, teacher.error, strict=True)
    }
    ratios = np.array(other.config.large_margins) / other.config.task.small_margin
    for at, name in ((1.0, "patch data, equal margins"), (2.0, "patch data, margins 2 : 1")):
        gains[name] = paired_difference(*other.by_margin[int(np.argmin(np.abs(ratios - at)))])
    if networks is not None:
        gains["small convolutional net, CIFAR-10"] = paired_difference(*best_arms(networks))
    ordered = sorted(gains.items(), key=lambda item: -item[1].value)
    figure, axes = panels(1, height=0.6 + 0.27 * len(ordered))
    for place, (_, gain) in enumerate(ordered):
        axes[0].errorbar(gain.value, place, xerr=whiskers(gain), fmt="o", color=momentum_look(0.95).color, capsize=3)
    axes[0].axvline(0, color=INK, linewidth=0.8, linestyle=":")
    axes[0].set_yticks(range(len(ordered)), [name for name, _ in ordered])
    axes[0].set(xlabel="gain in test error from momentum")
    axes[0].invert_yaxis()
    return figure


def best_arms(networks: DataFrame) -> tuple[Any, Any]:
    """Return test accuracies of momentum and of plain descent, each at the rate best on average; one per draw."""
    arms = accuracies(networks) / 100
    means = arms.mean()
    plain = means[0.0].idxmax()
    strong = means.drop(0.0, level="momentum").idxmax()
    return arms[strong].to_numpy(), arms[(0.0, plain)].to_numpy()
