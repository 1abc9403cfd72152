"""The sign map, its cells over steps and batches, the line of ages, and the ledger of a balance."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from pandas import DataFrame

from descent.arrays import Array
from descent.experiments.synthesis.accounts import AccountsResult
from descent.experiments.synthesis.ages import MEMORIES, UPHILL, AgesResult
from descent.experiments.synthesis.border import HEAD, BorderResult, tables
from descent.experiments.synthesis.valleys import ValleysResult
from descent.figures import (
    INK,
    MAGENTA,
    MOSS,
    STEEL,
    TAUPE,
    VIOLET,
    Look,
    label_panels,
    marks,
    momentum_look,
    panels,
    plain_ticks,
    theory,
    whiskers,
)
from descent.figures.sign_map import FLATTER, SHARPER, SIGNS, sign_plane
from descent.stats import draw_mean
from descent.theory.memory import ceiling, drift_factor, momentum_factor
from descent.theory.valley import drift_crossing

__all__ = ["age_line", "balance_ledger", "convolutions", "sign_map", "step_batch_map"]

REACH = 7.0  # of the axis of eλ₁ of the sign map
FACTOR = 2.0  # of sharpness, from which colours of the cells are full
DENSE = ((Look(STEEL, "o", "-"), "", "digits, dense"), (Look(VIOLET, "s", "-"), "", "glyphs, dense"))
CONVOLUTIONAL = (
    (Look(TAUPE, "o", "--"), "none", "CIFAR-10, convolutional"),
    (Look(VIOLET, "s", "--"), "none", "glyphs, convolutional"),
)
"""Looks, fillings, and names of the kinds of data, in the order of the tables."""


def sign_map(border: BorderResult, valleys: ValleysResult) -> Figure:
    """Draw where heavy ball ends flatter and where sharper, over e·λ₁ and momentum, full batch.

    Colours and lines: the valley law; crosses: where its drifts cross by recursion and in runs; dots: nets at momentum
    0.9, filled where flatter and hollow where sharper, at the eλ₁ at which heavy ball ends, the larger the stronger.
    """
    figure, (axis,) = panels(1, height=4.0)
    sign_plane(axis, REACH)
    _crossings(axis, valleys)
    _nets(axis, border)
    for words, x, c in (
        ("flatter:\nout-drifts plain SGD", 0.85, 60.0),
        ("sharper: plain SGD is stopped at its edge", 4.4, 60.0),
        ("both leave", 5.6, 1.3),
    ):
        axis.text(x, c, words, ha="center", va="center", color=INK)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _crossings(axis: Axes, valleys: ValleysResult) -> None:
    """Mark where drifts cross: in valleys by recursion, in runs on the hyperbola."""
    config = valleys.config
    found = valleys.crossing[:, config.spreads.index(0.0)] * drift_crossing(config.exact_momenta)
    style: dict[str, Any] = {"linestyle": "none", "color": INK, "markersize": 7}
    axis.plot(found, momentum_factor(config.exact_momenta), "x", label="valley, recursion", **style)
    still = [paths for batch, paths in zip(config.batches, valleys.paths, strict=True) if batch is None]
    if still:
        place = float(drift_crossing(config.momentum) * still[0].mean())
        axis.plot(place, momentum_factor(config.momentum), "+", label="hyperbola, runs", **style)


def _nets(axis: Axes, border: BorderResult) -> None:
    """Mark nets of the scan, spread a little around momentum 0.9."""
    pairs = zip(border.steps(0), border.scan[0], strict=True)
    last = border.last
    ends = [(e * np.exp(pair.ends("sharpness", last)[1]), pair.gap("sharpness", last)) for e, pair in pairs]
    place, gap = (np.concatenate([one[part].ravel() for one in ends]) for part in (0, 1))
    height = momentum_factor(HEAD) * np.exp(0.25 * np.linspace(-1, 1, 7)[np.arange(gap.size) % 7])
    for flatter, fill, name in ((True, FLATTER, "nets, flatter"), (False, "none", "nets, sharper")):
        kept = np.isfinite(gap) & ((gap < 0) == flatter)
        color = FLATTER if flatter else SHARPER
        size = 6 + 60 * np.minimum(np.abs(gap[kept]), 1.0)
        axis.scatter(
            place[kept], height[kept], size, facecolors=fill, edgecolors=color, linewidths=1.4, zorder=3, label=name
        )


def step_batch_map(border: BorderResult) -> Figure:
    """Draw sharpness and training loss of heavy ball over plain SGD's, by step and batch, as factors.

    The line is where a row's sign turns, log-linear between cells; crosses are cells in which hardly a draw is left.
    """
    figure, axes = panels(2, height=3.4, sharey=True)
    for axis, values, title in zip(
        axes,
        (border.map_sharpness, border.map_loss),
        ("sharpness, heavy ball over SGD", "training loss, heavy ball over SGD"),
        strict=True,
    ):
        _cells(axis, border, values)
        axis.set(title=title, xlabel="batch")
    axes[0].set_ylabel("effective step")
    label_panels(axes)
    return figure


def _cells(axis: Axes, border: BorderResult, values: Array) -> None:
    config = border.config
    means = _means(values)
    norm = Normalize(-np.log(FACTOR), np.log(FACTOR))
    axis.imshow(means, cmap=SIGNS, norm=norm, aspect="auto", origin="lower")
    for (row, column), mean in np.ndenumerate(means):
        words = f"{np.exp(mean):.2f}" if np.isfinite(mean) else "×"
        axis.text(column, row, words, ha="center", va="center", color=INK)
    turns = [_turn(column) for column in means.T]
    axis.plot(np.arange(len(turns)), turns, color=INK, linewidth=1.4, alpha=0.7)
    axis.set_xticks(range(len(config.map_batches)), [str(b or "all") for b in config.map_batches])
    axis.set_yticks(range(len(config.map_steps)), [f"{e:g}" for e in config.map_steps])


def _means(values: Array) -> Array:
    """Return means over draws, (…, D, N/D) → (…), not a number where fewer than two draws are left."""
    flat = values.reshape(-1, *values.shape[-2:])
    means = [draw_mean(one).value if np.isfinite(one).any(1).sum() > 1 else np.nan for one in flat]
    return np.reshape(means, values.shape[:-2])


def _turn(column: Array) -> float:
    """Return the first place between cells at which a column changes its sign, not a number without one."""
    for row, (low, high) in enumerate(pairwise(column)):
        if low * high < 0:
            return float(row + low / (low - high))
    return float("nan")


def convolutions(border: BorderResult, record: DataFrame | None) -> Figure:
    """Draw sharpness and training loss of heavy ball over plain SGD's, full batch, against the eλ₁ of heavy ball's end.

    Filled: the dense nets of the sign map; open: the convolutional nets of record, none while there are none.
    """
    figure, axes = panels(2, height=3.4)
    for axis, name, title in zip(axes, ("sharpness", "loss"), ("sharpness", "training loss"), strict=True):
        _scans(axis, tables(border)["border"], name, DENSE)
        if record is not None:
            _scans(axis, record[record["batch"] == "all"], name, CONVOLUTIONAL)
        axis.axhline(1, color=INK, linewidth=0.8, linestyle=":")
        axis.axvline(2, color=INK, linewidth=1.0, linestyle=(0, (4, 2)), label="plain SGD's edge")
        axis.set(yscale="log", xlabel="effective step × sharpness", title=f"{title}, heavy ball over SGD")
        plain_ticks(axis.yaxis)
    theory(axes[0], [2, 4.5], [1, 2.25], label="plain SGD held at its edge")
    label_panels(axes)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _scans(axis: Axes, frame: DataFrame, name: str, looks: Sequence[tuple[Look, str, str]]) -> None:
    """Draw the factor that belongs to a logarithm, with its interval, along the scan of each kind of data."""
    for (_, scan), (look, fill, title) in zip(frame.groupby("data", sort=False), looks, strict=False):
        value, low, high = (np.exp(scan[f"{name}{end}"].to_numpy()) for end in ("", "_low", "_high"))
        style: dict[str, Any] = {"color": look.color, "markerfacecolor": fill or look.color, "elinewidth": 0.8}
        axis.errorbar(
            scan["heavy"], value, [value - low, high - value], fmt=look.marker, linestyle=look.dashes, linewidth=0.8,
            markersize=7 if fill else 4.5, label=title, **style,
        )  # fmt: skip


def age_line(result: AgesResult, data: int = 0) -> Figure:
    """Draw every rule's drift over plain descent's, and its ceiling over plain descent's, against 1 + 2k̄.

    The drift lies on the diagonal; the ceiling does so for heavy ball alone.
    """
    figure, axes = panels(2, height=3.2)
    names = [name for name in MEMORIES if name in result.drift[data]]
    for name in names:
        look, factor = _rule_look(name), drift_factor(MEMORIES[name])
        marks(axes[0], [factor], [result.over(name, data)], look, label=name)
        axes[1].plot(factor, ceiling(MEMORIES[name]) / 2, look.marker, color=look.color)
    if UPHILL in result.drift[data]:
        marks(
            axes[0], [momentum_factor(HEAD)], [result.over(UPHILL, data)], Look(INK, "*", "-"), label="uphill gradient"
        )
    for axis, title in zip(axes, ("drift over descent's", "ceiling over descent's"), strict=True):
        theory(axis, [0, 20], [0, 20])
        axis.set(title=title, xlabel="1 + 2 × mean age of the gradients", xlim=(-1, 21))
        axis.set_ylim(-1, 21)
    label_panels(axes)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _rule_look(name: str) -> Look:
    """Return the look of a rule: heavy ball as its momentum, the others apart."""
    looks = {
        "descent": momentum_look(0.0),
        "heavy ball .5": momentum_look(0.5),
        "heavy ball": momentum_look(HEAD),
        "Nesterov": Look(VIOLET, "X", "-"),
        "QHM": Look(MOSS, "D", "-"),
        "stale 4": Look(MAGENTA, "<", "-"),
        "stale 9": Look(MAGENTA, ">", "-"),
        "Adams–Bashforth": Look(TAUPE, "^", "-"),
    }
    return looks[name]


def balance_ledger(result: AccountsResult, data: int = 0) -> Figure:
    """Draw the change of the balance of a ReLU net by batch and rule: its part of signal, and what noise adds.

    The part of signal is what the rule does on the full batch; noise adds the same to both rules.
    """
    figure, axes = panels(2, height=3.0)
    config = result.config
    for axis, changes, batches, title in (
        (axes[0], result.nets[data], config.batches, "two layers"),
        (axes[1], result.norm, config.norm_batches, "normalised weights"),
    ):
        _bars(axis, changes, ["all", *map(str, batches)])
        axis.set(title=title, xlabel="batch")
    axes[0].set_ylabel("change of the balance")
    label_panels(axes)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _bars(axis: Axes, changes: Array, names: list[str]) -> None:
    """Draw pairs of bars, descent and heavy ball, (1 + B, 2, D, N/D), the full batch first."""
    place, width = np.arange(len(names)), 0.38
    for rule, (momentum, name) in enumerate(((0.0, "signal, descent"), (HEAD, "signal, heavy ball"))):
        found = [draw_mean(one) for one in changes[:, rule]]
        signal = np.full(len(found), found[0].value)
        at, color = place + (rule - 0.5) * width, momentum_look(momentum).color
        total = np.array([one.value for one in found])
        axis.bar(at, signal, 0.9 * width, color=color, label=name)
        label = "noise" if rule else None
        axis.bar(at, total - signal, 0.9 * width, signal, facecolor="none", edgecolor=INK, hatch="////", label=label)
        axis.errorbar(at, total, np.abs(whiskers(*found)), linestyle="none", color=INK, elinewidth=1, capsize=2)
    axis.set_xticks(place, names)
