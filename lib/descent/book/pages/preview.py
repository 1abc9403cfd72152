"""The picture other sites show beside a link to the book: its question, drawn, and how its claims stand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from descent.claims import Record, standing

GROUND, INK, PLAIN, MOMENTUM = "#14181d", "#e6e9ec", "#7ab3e8", "#f0935a"


def draw(path: Path, title: str, records: Sequence[Record]) -> None:
    """Write a picture of 1200 × 630 points: a heavy ball and plain descent in one valley, title and standing."""
    figure = Figure(figsize=(12, 6.3), dpi=100, facecolor=GROUND)
    axis = figure.add_axes((0, 0, 1, 1), facecolor=GROUND)
    x, y = np.meshgrid(np.linspace(-3, 3, 200), np.linspace(-1.6, 1.6, 120))
    axis.contour(x, y, (0.15 * x**2 + 2 * y**2) / 2, levels=12, colors=INK, alpha=0.18, linewidths=1)
    for momentum, colour in ((0.0, PLAIN), (0.9, MOMENTUM)):
        axis.plot(*_descent(momentum).T, color=colour, linewidth=3)
    axis.text(-2.85, 1.22, title, color=INK, fontsize=44, weight="bold")
    lines = "Five papers on SGD, re-executed. " + standing(records, sources=True).replace("; ", "\n")
    axis.text(-2.85, -1.5, lines, color=INK, fontsize=17, linespacing=1.4, va="bottom")
    axis.set(xlim=(-3, 3), ylim=(-1.6, 1.6))
    axis.set_axis_off()
    figure.savefig(path, facecolor=GROUND, dpi=100, metadata={"Software": None})


def _descent(momentum: float, lr: float = 0.1, steps: int = 120) -> np.ndarray:
    """Return the path of x ← x − lr·Hx + momentum·(x − x before) from the left slope, (steps + 1, 2)."""
    curvature, path = np.array([0.15, 2.0]), [np.array([-2.6, 0.9])] * 2
    for _ in range(steps):
        path.append(path[-1] - lr * curvature * path[-1] + momentum * (path[-1] - path[-2]))
    return np.array(path[1:])
