"""Quadratics, stiff saddles and double wells under additive Gaussian noise.

The exact discrete theory of one direction is in `mode` (optima) and `escape` (saddles, wells); here live the
objectives and what is particular to each. `noise` is the variance σ² of the gradient noise per coordinate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from descent.arrays import Array
from descent.engine.split import Drawn, Split, placed
from descent.engine.streams import Purpose, Streams
from descent.theory.escape import escape_level
from descent.theory.mode import growth, growth_ceiling

__all__ = ["DoubleWell", "Quadratic", "StiffSaddle", "best_gain", "hops", "matching_noise"]


_LANES = 4  # normals per word of the generator


def _white(streams: Streams, step: int, like: Tensor) -> Tensor:
    """Draw standard normals shaped like `like`, (R, d); narrow ones are cut from draws of four, which cost the same."""
    width = like.shape[-1]
    if _LANES % width:
        return streams.normal(Purpose.NOISE, step, (width,))
    steps = _LANES // width
    left = step % steps * width
    return streams.normal(Purpose.NOISE, step // steps, (_LANES,))[:, left : left + width]


class _White(Split[Tensor]):
    """Under white noise ξ (R, d), of which every step has its own."""

    def draw(self, streams: Streams, step: int, like: Tensor) -> Drawn:
        """Draw ξ."""
        return {"noise": _white(streams, step, like)}


def _deviations(noise: float | Tensor, like: Tensor) -> Tensor:
    """Return √noise of one number or one per replica, (R, 1)."""
    variance = noise.to(like) if isinstance(noise, Tensor) else placed(noise, like)
    return variance.sqrt().reshape(-1, 1)


@dataclass(frozen=True)
class Quadratic(_White):
    """½ Σ_i curvature_i x_i²; a negative curvature makes a saddle. Parameters (R, d)."""

    curvatures: tuple[float, ...]
    noise: float = 1.0

    def gradient_at(self, params: Tensor, drawn: Drawn, out: Tensor) -> None:
        """Write curvature·x + √noise ξ, (R, d)."""
        torch.mul(params, placed(self.curvatures, params), out=out)
        out.add_(drawn["noise"], alpha=math.sqrt(self.noise))


@dataclass(frozen=True)
class DoubleWell(_White):
    """¼(x² − 1)²: wells of curvature 2 at ±1 under a barrier of ¼ at 0. Parameters (R, 1); noise may be (R,)."""

    noise: float | Tensor = 1.0
    barrier: float = 0.25  # its height
    instability: float = 1.0  # −F''(0)
    curvature: float = 2.0  # F''(±1)

    def gradient_at(self, params: Tensor, drawn: Drawn, out: Tensor) -> None:
        """Write x³ − x + √noise ξ, (R, 1)."""
        torch.addcmul(-params, params.square(), params, out=out)
        out.addcmul_(drawn["noise"], _deviations(self.noise, params))


@dataclass(frozen=True)
class StiffSaddle(_White):
    """½ stiffness·y² + ¼(x² − 1)²: a saddle at 0 between two wells, beside a sharp direction. Parameters (R, 2)."""

    stiffness: float = 100.0
    noise: float = 1e-4
    instability: float = 1.0

    def gradient_at(self, params: Tensor, drawn: Drawn, out: Tensor) -> None:
        """Write (x³ − x, stiffness·y) + √noise ξ, (R, 2)."""
        x, y = params[:, 0], params[:, 1]
        torch.stack([x * (x * x - 1.0), self.stiffness * y], dim=1, out=out)
        out.add_(drawn["noise"], alpha=math.sqrt(self.noise))

    def limit(self, momentum: ArrayLike) -> Array:
        """Return the largest stable lr, 2(1 + momentum)/stiffness."""
        return np.asarray(2 * (1 + np.asarray(momentum, dtype=np.float64)) / self.stiffness)


def best_gain(stiffness: ArrayLike, share: float = 0.95) -> Array:
    """Return the best growth with momentum over the best without, at a saddle of that stiffness.

    Each is held at `share` of its own stability limit. Growth and limit both rise with momentum, so the best is
    approached as momentum → 1, where lr = 4·share/stiffness: a gain of about √stiffness.

    share: of the stability limit that is used.
    """
    kappa = np.asarray(stiffness, dtype=np.float64)
    plain = growth(1.0, 2 * share / kappa, 0.0)
    return np.asarray(growth_ceiling(1.0, 4 * share / kappa) / plain)


def matching_noise(instability: float, lr: float, momentum: float) -> float:
    """Return the factor on the noise variance at which momentum starts its escape as late as plain descent does.

    Far out, a path is Z·A·z₊ᵏ with Z standard normal and A = radius/escape_level. Cut by (A(0)/A(momentum))², momentum
    keeps its faster growth and loses its larger noise.
    """
    level = escape_level(1.0, instability, lr, np.array([0.0, momentum]))
    return float((level[1] / level[0]) ** 2)


def hops(path: ArrayLike, commit: float = 0.5) -> NDArray[np.int64]:
    """Count the committed crossings of 0 in a recorded path, (T, …) → (…).

    A crossing counts once the path has come from beyond one of ±commit to beyond the other; touches of the top
    and returns do not count.

    path: positions, step by step; commit: distance from 0 beyond which a side is taken.
    """
    x = np.asarray(path)
    side = np.where(x >= commit, 1, np.where(x <= -commit, -1, 0)).astype(np.int8)
    times = np.arange(len(side), dtype=np.int64).reshape(-1, *[1] * (side.ndim - 1))
    last = np.maximum.accumulate(np.where(side != 0, times, 0), axis=0)
    held = np.take_along_axis(side, last, axis=0)
    return np.asarray((held[1:] * held[:-1] == -1).sum(axis=0))
