"""Networks: the step held equal, with noise as it is and symmetric; and Adam's two moments."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame

from descent.experiments.normalised.adam import AdamFirstResult
from descent.experiments.normalised.classes import MOMENTA, WAYS, ClassesResult
from descent.experiments.normalised.control import ARMS as ARM_NAMES
from descent.experiments.normalised.control import MATCHED, MOMENTUM, PLAIN, ControlResult, Followed
from descent.figures import ARMS, INK, label_panels, line, marks, momentum_look, panels, whiskers

LOOKS = ((MOMENTUM, "momentum 0.9", ARMS["momentum"]), (MATCHED, "plain, same reach", ARMS["plain, matched step"]),
         (PLAIN, "plain, same rate", ARMS["plain"]))  # fmt: skip
SHORT_NAMES = ("sign", "sign, other draws", "Muon", "normalised", "sign, long", "sign, long")


def control(result: ControlResult, record: DataFrame | None = None) -> Figure:
    """Return the loss of three arms with the noise as it is and symmetric, and what a match leaves of momentum.

    record: what the larger nets left, their table; drawn below the small ones with open marks.
    """
    figure, axes = panels(3, height=3.2)
    raw, fair = result.found[-2:]
    for axis, found, title in ((axes[0], raw, "noise as it is"), (axes[1], fair, "noise made symmetric")):
        _curves(axis, found, title)
    low = min(axis.get_ylim()[0] for axis in axes[:2])
    for axis in axes[:2]:
        axis.set_ylim(low, 1)
    axes[0].set_ylabel("log training loss, sign")
    figure.legend(*axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    _left(axes[2], result)
    if record is not None:
        _of_record(axes[2], [case.name for case in result.config.cases], record)
    label_panels(axes)
    return figure


def _curves(axis: Axes, found: Followed, title: str) -> None:
    for arm, label, look in LOOKS:
        line(axis, found.steps, np.nanmean(found.losses[arm], axis=(0, 1)), look, label=label)
    axis.set(xlabel="steps", title=title)


def _left(axis: Axes, result: ControlResult) -> None:
    """Draw the matched arm less momentum at the end of every case, and the unmatched one."""
    rows = np.arange(len(result.found))
    for arm, look, label in ((MATCHED, ARMS["plain, matched step"], "same reach"), (PLAIN, ARMS["plain"], "same rate")):
        found = [case.less(arm, MOMENTUM) for case in result.found]
        axis.errorbar(
            [e.value for e in found], rows, xerr=whiskers(*found), label=label,
            fmt=look.marker, color=look.color, capsize=2, elinewidth=1,
        )  # fmt: skip
    noise = ["symmetric" if case.symmetric else "raw" for case in result.config.cases]
    axis.set_yticks(rows, [f"{name}\n{kind}" for name, kind in zip(SHORT_NAMES, noise, strict=True)])
    axis.invert_yaxis()
    axis.axvline(0, color=INK, linewidth=0.8)
    axis.set(xlabel="plain less momentum", title="at the end")


def _of_record(axis: Axes, cases: Sequence[str], record: DataFrame) -> None:
    """Draw the matched arm of the larger nets, a wide one as a square and one with convolutions as a diamond."""
    color, matched = ARMS["plain, matched step"].color, record[record["arm"] == ARM_NAMES[MATCHED]]
    for (_, kind), marker, offset in zip(matched.groupby("data", sort=False), "sD", (0.25, 0.45), strict=True):
        value, low, high = (kind[f"log_loss{end}"].to_numpy() for end in ("", "_low", "_high"))
        rows = [cases.index(name) + offset for name in kind["case"]]
        axis.errorbar(
            value, rows, xerr=[value - low, high - value], fmt=marker, color=color, markerfacecolor="none",
            elinewidth=0.8,
        )  # fmt: skip


def adam(result: AdamFirstResult, classes: ClassesResult) -> Figure:
    """Return what the first moment changes by the second, and the bias by batch size under two rules."""
    figure, axes = panels(2)
    config = result.config
    for lr, look in zip(config.lr, (ARMS["step annealed"], ARMS["momentum annealed"]), strict=True):
        found = [result.gain(second, lr) for second in config.second]
        marks(axes[0], 1 / (1 - np.array(config.second)), found, look, label=f"rate {lr:g}")
    axes[0].axhline(0, color=INK, linewidth=0.8)
    axes[0].set(xscale="log", xlabel="memory of the second moment, steps", ylabel="log loss, β₁ = 0.9 less 0")
    axes[0].set_title("the first moment")
    for way, name in enumerate(WAYS):
        for index, momentum in enumerate(MOMENTA):
            look = momentum_look(momentum)
            style = "-" if way == 0 else ":"
            axes[1].plot(
                classes.config.batches, classes.bias[:, way, index], style, color=look.color, marker=look.marker,
                label=f"{name}, β₁ = {momentum:g}",
            )  # fmt: skip
    axes[1].set(
        xscale="log", yscale="log", xlabel="batch size", ylabel="bias (KL of the mean)", title="the second moment"
    )
    axes[0].legend()
    figure.legend(*axes[1].get_legend_handles_labels(), title="(b)", loc="outside lower center", ncols=4)
    label_panels(axes)
    return figure
