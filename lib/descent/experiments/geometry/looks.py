"""What is looked at along the training of networks of one output: their noise against loss and curvature."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Self, cast

import numpy as np
import torch
from pandas import DataFrame
from torch import Tensor

from descent.arrays import Array, BoolArray, IntArray
from descent.data.draws import Draws
from descent.engine import ArmRun, Arms, every
from descent.engine.arms import in_parts
from descent.engine.probes import Leaves, Params
from descent.measure.alignment import directional_alignment, loss_alignment, trace_of_noise, weighted
from descent.measure.gram import gram
from descent.nets import LogisticError, Loss, Supervised
from descent.stats import Estimate, draw_mean


@dataclass(frozen=True, eq=False)
class Course:
    """N nets along training, (T, N) where nothing else is said."""

    steps: IntArray  # (T,)
    uncentred: Array
    centred: Array
    loss: Array
    noise: Array  # its trace
    stable_rank: Array  # ‖G‖²/λ₁²
    curvature: Array  # (T, N, q): the leading ones
    along: Array  # (T, N, q): the centred alignment along their eigenvectors

    @classmethod
    def of(cls, run: ArmRun, arm: int = 0) -> Self:
        """Return what an arm's probe "" has seen, `look` and whatever else this course has fields for."""
        seen = {name: run[f".{name}"][arm].swapaxes(0, 1) for name in cls._seen()}
        return cls(run.at(".loss"), **seen)

    @property
    def within(self) -> BoolArray:
        """Whether noise along an eigenvector is within a factor three of loss times curvature, (T, N, q)."""
        return np.asarray((self.along > 1 / 3) & (self.along < 3))

    @property
    def tracking(self) -> Array:
        """The exponent of the noise along an eigenvector in its curvature, at the end, (N,)."""
        curvature = self.curvature[-1]
        return fitted_slopes(curvature.T, (curvature * self.along[-1].clip(1e-12)).T)

    def among(self, who: BoolArray) -> Self:
        """Return the course of some of the nets."""
        return replace(self, **{name: getattr(self, name)[:, who] for name in self._seen()})

    def table(self) -> DataFrame:
        """Return means over the nets, one row per look."""
        columns = ("uncentred", "centred", "loss", "noise", "stable_rank")
        means = {name: getattr(self, name).mean(axis=1) for name in columns}
        return DataFrame({"step": self.steps} | means | {"within": self.within.mean(axis=(1, 2))})

    @classmethod
    def _seen(cls) -> list[str]:
        return [item.name for item in fields(cls) if item.name != "steps"]


def follow(problem: Supervised, arms: Arms, steps: int, looks: int, directions: int) -> Course:
    """Train one arm from the model's own initial weights and look at it along the way."""
    probe = every(steps // looks, look(problem, directions))
    return Course.of(arms.run(problem, problem.model.initial, steps, probes={"": probe}))


def fitted_slopes(x: Array, y: Array) -> Array:
    """Return the least-squares slope of log y on log x along the first axis, (…)."""
    u, v = np.log(x), np.log(y)
    u, v = u - u.mean(axis=0), v - v.mean(axis=0)
    return np.asarray((u * v).sum(axis=0) / (u * u).sum(axis=0))


def levels(sets: Draws, *courses: Course) -> list[Estimate]:
    """Return the mean uncentred alignment over the draws of the data, of every look of every course."""
    return [draw_mean(sets.by_draw(row)) for found in courses for row in found.uncentred]


def look(problem: Supervised, keep: int) -> Callable[[Params], Mapping[str, Tensor]]:
    """Return the probe (R, …) of what a `Course` holds; under logistic loss the loss itself normalises alignment."""
    footprint = problem.model.footprint(problem.inputs, len(problem.data))

    def measured(params: Params) -> Mapping[str, Tensor]:
        leaves = cast(Leaves, params)
        kernel = gram(problem.model, leaves, problem.inputs, rows=problem.rows).double()
        seen = in_parts(lambda rows: outputs(problem, leaves, rows), len(kernel), footprint).double()
        kernel, residuals, twice = square_form(problem.loss, kernel, *seen.unbind(-1))
        found = loss_alignment(kernel, residuals, twice)
        along = directional_alignment(kernel, residuals, keep, twice)
        return {
            "uncentred": found.uncentred,
            "centred": found.centred,
            "loss": twice / 2,
            "noise": trace_of_noise(kernel, residuals),
            "curvature": along.curvature,
            "along": along.centred,
            "stable_rank": found.scores.mean(-1) / along.curvature[:, 0].square(),
        }

    return measured


def outputs(problem: Supervised, leaves: Leaves, rows: slice) -> Tensor:
    """Return the one output, and its target, of some nets of a stack for all of their own examples, (r, n, 2)."""
    some = {name: leaf[rows] for name, leaf in leaves.items()}
    inputs, targets = problem.data.seen(rows)
    return torch.stack([problem.model.forward(some, inputs)[..., 0], targets[..., 0]], dim=-1)


def square_form(loss: Loss, kernel: Tensor, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return Gram matrix, residuals and 2L of the square-loss problem with the same curvature and noise.

    outputs, targets: (R, n).
    """
    if not isinstance(loss, LogisticError):
        residuals = outputs - targets
        return kernel, residuals, residuals.square().mean(-1)
    slopes = -targets * torch.sigmoid(-targets * outputs)
    curvatures = (slopes.abs() * (1 - slopes.abs())).clamp_min(1e-300)
    twice = 2 * torch.nn.functional.softplus(-targets * outputs).mean(-1)
    return *weighted(kernel, slopes, curvatures), twice
