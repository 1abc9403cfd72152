"""The nets of the sign map: tanh 64–16–1 on draws of 128 noisy images, square loss, in double precision.

Effects of a small step are a thousandth of a logarithm: single precision and rough eigenvalues would hide them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from descent.arrays import Array
from descent.engine import Params, Streams
from descent.experiments.lab import Lab
from descent.experiments.synthesis.task import DataSet, Task, sharpness

EXAMPLES, HIDDEN = 128, 16
SCALES: dict[DataSet, float] = {"digits": 1.0, "glyphs": 0.6}
"""A factor on steps: along gradient flow nets on glyphs become so much sharper than those on digits."""
ITERATIONS = 60  # of the power method: three digits of what an effect is


def small_task(lab: Lab, draws: int, data: DataSet = "digits", flips: float = 0.0) -> Task:
    """Return draws of images and the net."""
    task = Task.of(
        lab, draws, examples=EXAMPLES, hidden=HIDDEN, flips=(flips,), faint=0.0, loss="square", data_set=data
    )
    parts = ("inputs", "targets", "test_inputs", "test_targets")
    return replace(task, **{name: getattr(task, name).double() for name in parts})


def log_sharpness(task: Task, params: Params) -> Tensor:
    """Return the logarithm of the largest curvature of G, (R,)."""
    return sharpness(task.curvature_gram(params), ITERATIONS).log()


def looks(task: Task, params: Params) -> dict[str, Tensor]:
    """Return log loss and log sharpness, (R,) each."""
    return {"loss": task.value(params).log(), "sharpness": log_sharpness(task, params)}


def at_level(log_loss: Array, values: Array, level: float) -> Array:
    """Return the value (…,) at which a falling log loss (…, T) first passes a level, linear between two looks.

    Not a number where it does not, or is there from the start.
    """
    below = log_loss <= level
    here = below.argmax(-1)[..., None]
    before = np.maximum(here - 1, 0)
    high, low = (np.take_along_axis(log_loss, at, -1)[..., 0] for at in (before, here))
    a, b = (np.take_along_axis(values, at, -1)[..., 0] for at in (before, here))
    with np.errstate(invalid="ignore", divide="ignore"):
        found = a + (b - a) * (high - level) / (high - low)
    return np.asarray(np.where(below.any(-1) & (here[..., 0] > 0), found, np.nan))


def flow(task: Task, start: dict[str, Tensor], time: float, step: float, every: int) -> tuple[Array, Array]:
    """Return log loss and log sharpness along gradient flow by Runge and Kutta, (R, T) each, every so many steps."""
    objective, streams = task.objective(), Streams(torch.arange(len(start["0.bias"])), torch.float64)
    x, seen = dict(start), [looks(task, start)]

    def slope(at: dict[str, Tensor], along: dict[str, Tensor] | None, reach: float) -> dict[str, Tensor]:
        there = at if along is None else {name: leaf - reach * along[name] for name, leaf in at.items()}
        return objective.gradient(there, streams, 0)

    for t in range(1, round(time / step) + 1):
        k1 = slope(x, None, 0.0)
        k2 = slope(x, k1, step / 2)
        k3 = slope(x, k2, step / 2)
        k4 = slope(x, k3, step)
        x = {n: leaf - step / 6 * (k1[n] + 2 * k2[n] + 2 * k3[n] + k4[n]) for n, leaf in x.items()}
        if t % every == 0:
            seen.append(looks(task, x))
    loss, sharp = (torch.stack([look[name] for look in seen], dim=-1).numpy() for name in ("loss", "sharpness"))
    return loss, sharp
