"""Nets on digits and glyphs: instruments along training, interventions, and the same samples in larger batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from descent.experiments.synthesis.batches import HEAD, BatchesResult, Case
from descent.experiments.synthesis.network import NetworkResult
from descent.figures import ARMS, INK, RED, SERIES, Look, label_panels, line, marks, momentum_look, panels, whiskers
from descent.stats import Estimate

__all__ = ["batches", "instruments", "interventions"]

LOOKS = {
    "SGD": ARMS["plain"],
    "average": ARMS["average"],
    "SGD + blue noise": SERIES[5],
    "heavy ball": ARMS["momentum"],
    "SGD, large step": ARMS["plain, matched step"],
    "GD, large step": SERIES[0],
    "heavy-ball GD": Look(RED, "^", (5.0, 1.5)),
}
PANELS = (
    ("loss", "training loss", "log"),
    ("direction", "noise of the direction", "log"),
    ("gradient_noise", "gradient noise C²", "log"),
    ("sharpness", "sharpness λ₁", "linear"),
    ("alignment", "loss alignment", "linear"),
    ("accuracy", "test accuracy, %", "linear"),
)


def instruments(result: NetworkResult, family: int = 0) -> Figure:
    """Draw every record of every arm along training, means over draws; dotted, descent's limit 2/e at a large step."""
    figure, axes = panels(3, 2, height=2.4)
    found = result.families[family]
    for axis, (record, title, scale) in zip(axes, PANELS, strict=True):
        for i, arm in enumerate(result.config.arms):
            if arm.name in LOOKS:
                values = found.records[record][i].mean(axis=1)[1:]
                if record == "direction":
                    values = np.where(values > 1e-9, values, np.nan)
                line(axis, found.steps[i, 1:] * arm.lr / (1 - arm.momentum), values, LOOKS[arm.name], label=arm.name)
        axis.set(title=title, yscale=scale, xscale="log")
    axes[3].axhline(2 / 0.4, color=INK, linewidth=0.8, linestyle=":")
    for axis in axes[3:]:
        axis.set_xlabel("effective step × steps")
    label_panels(axes)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


BANDS = {"accuracy": 0.5, "sharpness": 0.05, "loss": 0.1}
"""Half the width of the bands: the smallest differences that matter, in points and logarithms, of margins.yaml."""

INTERVENTIONS = (
    ("SGD + blue noise", "SGD", "noise of the direction\nraised"),
    ("average", "SGD", "momentum, same\nsmall step"),
    ("heavy-ball GD", "GD, large step", "momentum, same large\nstep, full batch"),
    ("heavy ball", "SGD, large step", "momentum, same large\nstep"),
    ("heavy ball", "SGD", "momentum, same\nlearning rate"),
)


KINDS = (
    (SERIES[3], "digits, a tenth of the labels wrong"),
    (SERIES[0], "digits, clean labels"),
    (SERIES[4], "glyphs, a tenth of the labels wrong"),
    (SERIES[1], "glyphs, clean labels"),
)
"""Looks and names of the families, in the order of `network.Kind`."""


def interventions(result: NetworkResult) -> Figure:
    """Draw what each intervention does to the noise of the direction, to the sharpness and to the accuracy."""
    figure, axes = panels(3, height=4.2, sharey=True)
    config = result.config
    for d, (family, (look, _)) in enumerate(zip(result.families, KINDS, strict=False)):
        for row, (arm, control, _) in enumerate(INTERVENTIONS):
            place = row + (d - 1.5) * 0.2
            a, b = (config.place(name) for name in (arm, control))
            for axis, record in ((axes[0], "direction"), (axes[1], "sharpness")):
                one, other = family.last(record)[a], family.last(record)[b]
                if (other > 1e-9).all() and (one > 1e-9).all():
                    axis.plot(one.mean() / other.mean(), place, look.marker, color=look.color)
            found = result.difference(d, "accuracy", arm, control)
            if found is not None:
                _bar(axes[2], found, place, look)
    for axis, title, centre in zip(
        axes, ("noise, ratio", "sharpness, ratio", "accuracy, points"), (1, 1, 0), strict=True
    ):
        axis.axvline(centre, color=INK, linewidth=0.8, linestyle=":")
        axis.set_title(title)
    axes[0].set_xscale("log")
    axes[2].axvspan(-BANDS["accuracy"], BANDS["accuracy"], color=INK, alpha=0.15, linewidth=0)
    axes[0].set_yticks(range(len(INTERVENTIONS)), [name for _, _, name in INTERVENTIONS])
    axes[0].invert_yaxis()
    for look, name in KINDS[: len(result.families)]:
        axes[0].plot([], [], look.marker, color=look.color, linestyle="none", label=name)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    label_panels(axes)
    return figure


def _bar(axis: Axes, found: Estimate, place: float, look: Look) -> None:
    axis.errorbar(found.value, place, xerr=whiskers(found), fmt=look.marker, color=look.color, elinewidth=1, capsize=2)


def batches(result: BatchesResult) -> Figure:
    """Draw what is left of the reference as the batch grows at fixed samples: its sharpness, loss and accuracy."""
    figure, axes = panels(3, 2, height=2.5)
    for axis, record, title in (
        (axes[0], "sharpness", "log sharpness"),
        (axes[1], "loss", "log training loss"),
        (axes[2], "accuracy", "accuracy, points"),
    ):
        _against(axis, result, Case.FLIPS, record)
        axis.set_title(title)
    axes[0].set_ylabel("large step:\nless the reference's")
    for axis, case, title in ((axes[3], Case.SMALL_STEP, "small step"), (axes[4], Case.LOGISTIC, "logistic loss")):
        _against(axis, result, case, "sharpness")
        axis.set_title(title)
    axes[3].set_ylabel("log sharpness:\nless the reference's")
    _scan(axes[5], result)
    for axis in axes[3:]:
        axis.sharey(axes[0])  # what is compared stands on one axis
    axes[0].set_ylim(-1.05, 0.15)
    for axis in axes[:5]:
        axis.set(xscale="log", xlabel="batch")
        axis.set_xticks([2, 6, 18, 38], ["2", "6", "18", "38"])
        axis.minorticks_off()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    label_panels(axes)
    return figure


def _against(axis: Axes, result: BatchesResult, case: Case, record: str) -> None:
    setting = result.config.settings[case]
    twins = [setting.twin(m) for m in result.config.momenta]
    plain = [setting.at(0.0, arm.batch) for arm in twins]
    axis.axhspan(-BANDS[record], BANDS[record], color=INK, alpha=0.15, linewidth=0)
    for arms, look, name in (
        (plain, momentum_look(0.0), "plain SGD, linear scaling"),
        (twins, momentum_look(HEAD), "heavy ball of the equivalence"),
    ):
        _series(axis, [(arm.batch, result.against(case, arm, record)) for arm in arms], look, name)


def _series(axis: Axes, found: Sequence[tuple[float, Estimate | None]], look: Look, name: str) -> None:
    kept = [(place, value) for place, value in found if value is not None]
    marks(axis, [place for place, _ in kept], [value for _, value in kept], look)
    line(axis, [place for place, _ in kept], [value.value for _, value in kept], look, label=name)


def _scan(axis: Axes, result: BatchesResult) -> None:
    """Draw the sharpness against momentum at the headline batch and the same effective step."""
    setting, twin = result.config.settings[Case.FLIPS], result.config.settings[Case.FLIPS].twin(HEAD)
    momenta = sorted({0.0, *result.config.scan, HEAD})
    arms = [setting.at(m, twin.batch) for m in momenta]
    axis.axhspan(-BANDS["sharpness"], BANDS["sharpness"], color=INK, alpha=0.15, linewidth=0)
    found = [(1 / (1 - arm.momentum), result.against(Case.FLIPS, arm)) for arm in arms]
    _series(axis, found, ARMS["momentum"], "")
    axis.set(xscale="log", xlabel="1/(1 − momentum)", title=f"batch {twin.batch}")
