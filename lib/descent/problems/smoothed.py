"""Rugged objectives along one direction, and what is left of them when they are smoothed.

f(x) = ½ curvature·x² + amplitude·(1 − cos wavenumber·x) in each coordinate. Smoothing, f_δ(x) = E f(x − δu), keeps
the parabola, lifts it by a constant and multiplies the ripples by E cos(wavenumber·δ·u₁): a smoothed objective is
another of the same family. Kernels have unit size in every dimension d: "ball" is u uniform in the unit ball,
"gaussian" is u ~ N(0, I/d).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy import optimize, special
from torch import Tensor

from descent.arrays import Array
from descent.engine.split import Drawn
from descent.problems.saddle import _deviations, _White
from descent.theory.mode import Convention, convert

__all__ = ["Kernel", "Rugged", "characteristic", "rastrigin", "second_moment"]

Kernel = Literal["ball", "gaussian"]
"""Over what is averaged: a ball, or a Gaussian."""

_TANGENCY = 4.493409457909064  # smallest positive root of tan z = z
_RIPPLES = -_TANGENCY / math.sin(_TANGENCY)  # 4.6033: below it z + r sin z has no zero but 0
_LARGEST_BALL = 300  # dimensions; beyond, scipy's function overflows


@dataclass(frozen=True, eq=False)
class Rugged(_White):
    """½ curvature·x² + amplitude·(1 − cos wavenumber·x) + offset, summed over coordinates; parameters (R, d).

    noise: the variance σ² of the gradient noise per coordinate, one number or one per replica (R,).
    """

    curvature: float = 1.0
    amplitude: float = 0.1  # half the height of a ripple
    wavenumber: float = 10.0  # of the ripples
    noise: float | Tensor = 0.0
    offset: float = 0.0  # added to the whole

    def gradient_at(self, params: Tensor, drawn: Drawn, out: Tensor) -> None:
        """Write curvature·x + amplitude·wavenumber·sin(wavenumber·x) + √noise ξ, (R, d)."""
        torch.mul(params, self.wavenumber, out=out).sin_().mul_(self.amplitude * self.wavenumber)
        out.add_(params, alpha=self.curvature).addcmul_(drawn["noise"], _deviations(self.noise, params))

    def value(self, x: ArrayLike) -> Array:
        """Return f in every coordinate, shaped like x."""
        at = np.asarray(x, dtype=np.float64)
        ripples = self.amplitude * (1 - np.cos(self.wavenumber * at))
        return np.asarray(self.curvature / 2 * at**2 + ripples + self.offset)

    def slope(self, x: ArrayLike) -> Array:
        """Return f′ in every coordinate, shaped like x."""
        at = np.asarray(x, dtype=np.float64)
        ripples = self.amplitude * self.wavenumber * np.sin(self.wavenumber * at)
        return np.asarray(self.curvature * at + ripples)

    def smoothed(self, degree: float, kernel: Kernel, dimension: int = 1) -> Rugged:
        """Return f_δ for δ = `degree`, with the noise of f; `dimension` is that of the kernel's u."""
        left = float(characteristic(kernel, self.wavenumber * degree, dimension))
        lift = self.curvature / 2 * degree**2 * second_moment(kernel, dimension)
        offset = self.offset + lift + self.amplitude * (1 - left)
        return replace(self, amplitude=self.amplitude * left, offset=offset)

    @property
    def roughness(self) -> float:
        """Curvature of the ripples over that of the parabola; with more than 4.6033 there are minima beside 0."""
        return self.amplitude * self.wavenumber**2 / self.curvature

    @property
    def home(self) -> float:
        """Half-width π/wavenumber of the well at 0, from crest to crest of the ripples."""
        return math.pi / self.wavenumber

    def trap_threshold(self, kernel: Kernel, dimension: int = 1) -> float:
        """Return the smallest degree at which f_δ has no minimum but 0, so that descent on it comes home.

        It is 0 if f has none. A start closer than 4.4934/wavenumber comes home without smoothing. A much wider ball
        turns the ripples over: its characteristic function is negative there.
        """
        left = _RIPPLES / self.roughness
        if left >= 1:
            return 0.0
        if kernel == "gaussian":
            return math.sqrt(-2 * dimension * math.log(left)) / self.wavenumber

        def excess(size: float) -> float:
            return float(characteristic(kernel, size, dimension)) - left

        order = dimension / 2
        beyond = order + 1.86 * order ** (1 / 3) + 1.1 * order ** (-1 / 3) + 0.5  # just past the first zero of J
        return float(optimize.brentq(excess, 0.0, beyond, xtol=1e-14)) / self.wavenumber

    def stability_limit(self, momentum: float = 0.0, convention: Convention = "heavy_ball") -> float:
        """Return the largest lr, in the convention, at which descent is stable where f is most curved."""
        unit = float(convert(1.0, momentum, convention).lr)
        return 2 * (1 + momentum) / (unit * self.curvature * (1 + abs(self.roughness)))

    def temperature(self, lr: ArrayLike, momentum: ArrayLike = 0.0, convention: Convention = "heavy_ball") -> Array:
        """Return effective step × noise/2: for small steps the density is ∝ exp(−f/temperature)."""
        noise = np.asarray(torch.as_tensor(self.noise, dtype=torch.float64).cpu())
        return np.asarray(convert(lr, momentum, convention).effective * noise / 2)


def rastrigin(noise: float | Tensor = 0.0) -> Rugged:
    """Return x² − 10 cos 2πx + 10."""
    return Rugged(2.0, 10.0, 2 * math.pi, noise)


def characteristic(kernel: Kernel, size: ArrayLike, dimension: int = 1) -> Array:
    """Return E cos(k·u) for |k| = `size`.

    gaussian: exp(−k²/2d); ball: Γ(d/2 + 1)(2/k)^{d/2} J_{d/2}(k), sin(k)/k in one dimension.
    """
    k = np.asarray(size, dtype=np.float64)
    if _checked(kernel, dimension) == "gaussian":
        return np.asarray(np.exp(-(k**2) / (2 * dimension)))
    return np.asarray(special.hyp0f1(dimension / 2 + 1, -(k**2) / 4))


def second_moment(kernel: Kernel, dimension: int = 1) -> float:
    """Return E u₁²: 1/d for the gaussian, 1/(d + 2) for the ball."""
    return 1 / (dimension + 2 * (_checked(kernel, dimension) == "ball"))


def _checked(kernel: str, dimension: int) -> str:
    if kernel not in ("ball", "gaussian"):
        raise ValueError(f'kernel must be "ball" or "gaussian", got {kernel!r}')
    if dimension < 1 or (kernel == "ball" and dimension > _LARGEST_BALL):
        raise ValueError(
            f"dimension must be at least 1 and for a ball at most {_LARGEST_BALL}, got {dimension}; "
            "beyond, use the gaussian: the two differ by less than 1 %"
        )
    return kernel
