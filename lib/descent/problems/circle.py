"""Quadratic–circle sums: f_i = w_i min{½ bowl ‖θ‖², ½ ring (‖θ‖ − radius)²}, a bowl inside a ring of minimisers.

Piecewise quadratic, so that all theory of a quadratic is exact until a run leaves its piece, and flat far out wherever
the flatter piece is, so that nothing blows up. With ring > bowl the sharp minimisers are the ring (curvature `ring`
across, 0 along), with bowl > ring it is the centre. `Section` is the same sum along a line through the centre.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from descent.engine.streams import Purpose, Streams
from descent.problems import exponents
from descent.problems.styblinski import noise_scale
from descent.theory.mode import mode_edge
from descent.theory.weights import BatchSize, Gamma, WeightLaw

__all__ = ["Circle", "Pieces", "Section"]


_EXPONENTIAL = Gamma(1.0)


class Pieces(NamedTuple):
    """One number per piece."""

    bowl: float  # inside
    ring: float  # outside


@dataclass(frozen=True)
class Circle:
    """The sum in any dimension d, seen through fresh batches. Parameters (R, …, d).

    Axes between the first and the last hold points of one replica that share its random numbers. batch_size: examples
    per step, None for all of them (weight 1, no noise), or one size per equal block of replicas. jitter: standard
    deviation per coordinate and example of gradient noise that does not vanish at the minimisers.
    """

    bowl: float = 1.0  # curvature of the inner piece
    ring: float = 10.0  # curvature of the outer piece
    radius: float = 10.0
    weights: WeightLaw = _EXPONENTIAL
    batch_size: BatchSize = 1
    jitter: float = 0.0

    def __post_init__(self) -> None:
        if min(self.bowl, self.ring, self.radius) <= 0 or self.bowl == self.ring:
            raise ValueError(
                "bowl, ring and radius must be positive, and one piece sharper than the other; got "
                f"bowl {self.bowl}, ring {self.ring}, radius {self.radius}"
            )

    def gradient(self, params: Tensor, streams: Streams, step: int) -> Tensor:
        """Return w̄∇F + jitter/√k ξ, shaped like the parameters, one w̄ and one ξ (d,) per replica."""
        return self.sample(self.slope(params), streams, step, 1)

    def slope(self, point: Tensor) -> Tensor:
        """Return ∇F."""
        far = torch.linalg.vector_norm(point, dim=-1, keepdim=True)
        across = far - self.radius
        in_ring = self.ring * across.square() < self.bowl * far.square()
        return point * torch.where(in_ring, self.ring * across / far, self.bowl)

    def sample(self, slope: Tensor, streams: Streams, step: int, coordinates: int) -> Tensor:
        """Turn a slope into the gradient over a batch, in place; its last axes are `coordinates`."""
        if self.batch_size is None:
            return slope
        between = [1] * (slope.ndim - 1 - coordinates)
        own = slope.shape[1 + len(between) :]
        slope.mul_(self.weights.batch_mean(streams, step, self.batch_size).view(-1, *[1] * (slope.ndim - 1)))
        if self.jitter == 0:
            return slope
        noise = streams.normal(Purpose.NOISE, step, own).view(len(slope), -1)
        noise.mul_(noise_scale(self.batch_size, noise))
        return slope.add_(noise.view(-1, *between, *own), alpha=self.jitter)

    def loss(self, params: Tensor) -> Tensor:
        """Return F, (R, …, d) → (R, …)."""
        far: Tensor = torch.linalg.vector_norm(params, dim=-1)
        least: Tensor = torch.minimum(self.bowl * far.square(), self.ring * (far - self.radius).square())
        return least / 2

    def in_bowl(self, params: Tensor) -> Tensor:
        """Tell which points gradient flow takes to the centre, (R, …, d) → (R, …) bool; the others go to the ring."""
        far: Tensor = torch.linalg.vector_norm(params, dim=-1)
        return far < self.boundary

    @property
    def minimisers(self) -> Pieces:
        """Distances of the minimisers from the centre."""
        return Pieces(0.0, self.radius)

    @property
    def curvatures(self) -> Pieces:
        """The one curvature of a minimiser that is not 0."""
        return Pieces(self.bowl, self.ring)

    def hessian(self, minimiser: Tensor) -> Tensor:
        """Return the Hessian at a minimiser (d,): bowl·I at the centre, ring·x̂x̂ᵀ on the ring, (d, d)."""
        if not minimiser.any():
            return self.bowl * torch.eye(len(minimiser), dtype=minimiser.dtype)
        return self.ring * torch.outer(minimiser, minimiser) / torch.dot(minimiser, minimiser)

    @property
    def boundary(self) -> float:
        """Distance from the centre at which the basins meet, radius·√ring/(√ring + √bowl)."""
        return self.radius * math.sqrt(self.ring) / (math.sqrt(self.ring) + math.sqrt(self.bowl))

    @property
    def outer(self) -> float:
        """Distance from which on the bowl is the lower piece again; infinite where the bowl is the sharper one.

        It slopes towards the ring there: this is the far side of the ring's basin, not of another one.
        """
        gap = math.sqrt(self.ring) - math.sqrt(self.bowl)
        return self.radius * math.sqrt(self.ring) / gap if gap > 0 else math.inf

    @property
    def sharp_ring(self) -> bool:
        """Whether the ring is the sharper of the two."""
        return self.ring > self.bowl

    @property
    def sharpness(self) -> float:
        """Curvature λ of the sharper minimiser."""
        return max(self.bowl, self.ring)

    @property
    def room(self) -> float:
        """Distance from the sharper minimiser to the boundary of its basin, radius·√flat/(√ring + √bowl)."""
        return self.radius - self.boundary if self.sharp_ring else self.boundary

    def thresholds(self, batch_size: int | None, momentum: float = 0.0) -> Pieces:
        """Return the largest mean-square stable lr at either minimiser, 2(1 + β)/(λ(1 + (1 + β)/(1 − β)·σ²/k))."""
        spread = self.weights.variance / batch_size if batch_size else 0.0
        return Pieces(*(float(mode_edge(c, momentum, c**2 * spread)) for c in self.curvatures))

    def finite_horizon(self, batch_size: int, steps: int) -> float:
        """Return the lr at which half of the runs have left the sharper minimiser, α = ln N / ln(room·λ√k/jitter)."""
        if self.jitter == 0:
            raise ValueError("the finite-horizon rule is about jitter, which is 0 here; give one above 0")
        own = self.jitter / self.sharpness
        return exponents.finite_horizon(self.weights, batch_size, self.room, own, steps) / self.sharpness


@dataclass(frozen=True)
class Section:
    """The sum along a line through the centre, which exact noise never leaves, seen from the sharper minimiser.

    Parameters (R, …): signed distances from it, which a run may halve a thousand times over without ever meeting the
    rounding errors of a position.
    """

    circle: Circle  # the sum that is cut

    def gradient(self, params: Tensor, streams: Streams, step: int) -> Tensor:
        """Return w̄F′ + jitter/√k ξ, shaped like the parameters, one w̄ and one ξ per replica."""
        return self.circle.sample(self.slope(params), streams, step, 0)

    def slope(self, distance: Tensor) -> Tensor:
        """Return F′. Signs take the place of comparisons, which are several times slower on a CPU."""
        circle, place = self.circle, self.place(distance)
        if circle.sharp_ring:  # across: the signed distance from the ring, on the side of the centre the point is on
            across = torch.add(distance, 1 - place.sign(), alpha=circle.radius)
        else:
            across = torch.sub(distance, place.sign(), alpha=circle.radius)
        bowl_above = (place.square() * circle.bowl).addcmul_(across, across, value=-circle.ring)
        in_ring = bowl_above.sign_().relu_()
        ring = (across * circle.ring).mul_(in_ring)
        return ring.addcmul_(place, 1 - in_ring, value=circle.bowl)

    def place(self, distance: Tensor) -> Tensor:
        """Return the coordinate with the centre at 0."""
        return distance + self.circle.radius if self.circle.sharp_ring else distance

    def left(self, params: Tensor) -> Tensor:
        """Tell which points are outside the basin of the sharper minimiser, (R, …) bool."""
        inside = self.place(params).abs() < self.circle.boundary
        return inside if self.circle.sharp_ring else ~inside
