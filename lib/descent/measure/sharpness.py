"""How much the loss rises nearby: in the worst direction of a ball, and on average over Gaussian perturbations.

Both for any size of perturbation, where curvature speaks of the smallest only, and both adaptive on request: every
parameter is then perturbed in proportion to its own size, which makes them blind to rescaling one layer against the
next (Kwon et al. 2021; the definitions are those of Andriushchenko et al. 2023, arXiv 2302.07011, over all examples and
without normalised outputs).

    worst_case(objective, params, 0.05, streams, norm="linf", adaptive=True).increase        # (R,)
    average_case(objective, params, 0.05, streams).estimate(0)                               # an Estimate
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from descent.engine.probes import Leaves
from descent.engine.streams import Purpose, Streams
from descent.measure.curvature import BUDGET, value, value_and_gradient
from descent.measure.operators import flatten, unflatten
from descent.measure.parts import trained
from descent.measure.traces import Sampled
from descent.nets.supervised import Supervised

__all__ = ["Norm", "WorstCase", "average_case", "worst_case"]

Norm = Literal["l2", "linf"]
"""In which norm a perturbation is bounded."""

_DRAWS = 2 << 20  # draws are numbered from here, apart from those of other instruments at the same step


@dataclass(frozen=True, eq=False)
class WorstCase:
    """The largest rise of the loss found, (R,), and the perturbation that makes it, leaves (R, …).

    Found by ascent: the true maximum over the ball may be higher. NaN where the loss itself is not finite.
    """

    increase: Tensor  # of the loss
    perturbation: Leaves  # what makes it


def worst_case(
    objective: Supervised,
    params: Leaves,
    radius: float,
    streams: Streams,
    *,
    norm: Norm = "l2",
    adaptive: bool = False,
    steps: int = 20,
    restarts: int = 1,
    step: int = 0,
    budget: int = BUDGET,
) -> WorstCase:
    """Climb max L(w + cγ) − L(w) over ‖γ‖ ≤ radius, with c = |w| by parameter if adaptive, else 1.

    Every climb has a random place of the sphere, or corner of the cube. The first starts where the gradient there
    points to (at w itself it is round-off if w is a minimum, and may name the direction in which the loss rises least),
    each of the further `restarts` − 1 at the place itself. Every step costs one gradient over all examples.

    norm: "l2" for a ball, "linf" for a cube; restarts: number of climbs.
    """
    if norm not in _DIRECTIONS:
        raise ValueError(f'norm must be "l2" or "linf", got {norm!r}')
    hill = _Hill(objective, params, radius, norm, adaptive, budget)
    base = hill.value(torch.zeros_like(hill.scale))
    best, where = torch.zeros_like(base), torch.zeros_like(hill.scale)
    for start in range(restarts):
        begun = hill.outermost(_draw(streams, step, start, hill.scale))
        if start == 0:
            begun = hill.outermost(hill(begun)[1])
        height, place = _climb(hill, begun, steps)
        better = height - base > best
        best, where = torch.where(better, height - base, best), torch.where(better.unsqueeze(1), place, where)
    best = torch.where(base.isfinite(), best, torch.nan)
    return WorstCase(best, unflatten(where * hill.scale, trained(params)))


def average_case(
    objective: Supervised,
    params: Leaves,
    radius: float,
    streams: Streams,
    *,
    adaptive: bool = False,
    draws: int = 32,
    step: int = 0,
    budget: int = BUDGET,
) -> Sampled:
    """Sample E L(w + radius·c·g) − L(w) over normal g, with c = |w| by parameter if adaptive, else 1.

    Every sample (R, draws) is the mean over g and −g, which takes out what is odd in g. For a quadratic loss the mean
    is ½ radius² Σ c_i² H_ii.

    draws: number of perturbations.
    """
    hill = _Hill(objective, params, radius, "l2", adaptive, budget)
    base, samples = hill.value(torch.zeros_like(hill.scale)), []
    for index in range(draws):
        g = _draw(streams, step, index, hill.scale) * radius
        samples.append((hill.value(g) + hill.value(-g)) / 2 - base)
    return Sampled(torch.stack(samples, dim=1))


class _Hill:
    """The loss around w as a function of γ (R, p)."""

    def __init__(
        self, objective: Supervised, params: Leaves, radius: float, norm: Norm, adaptive: bool, budget: int
    ) -> None:
        if radius <= 0:
            raise ValueError(f"radius must be positive, got {radius}")
        self._objective, self._params, self._radius, self._norm, self._budget = objective, params, radius, norm, budget
        self._centre = flatten({name: leaf.detach() for name, leaf in trained(params).items()})
        self.scale = self._centre.abs() if adaptive else torch.ones_like(self._centre)

    def __call__(self, place: Tensor) -> tuple[Tensor, Tensor]:
        """Return L (R,) and its slope in γ (R, p)."""
        height, slopes = value_and_gradient(self._objective, self._at(place), budget=self._budget)
        return height, flatten(slopes) * self.scale

    def value(self, place: Tensor) -> Tensor:
        """Return L (R,)."""
        return value(self._objective, self._at(place), budget=self._budget)

    def outermost(self, slope: Tensor) -> Tensor:
        """Return the point of the ball farthest along a slope."""
        return _DIRECTIONS[self._norm](slope) * self._radius

    def inside(self, place: Tensor) -> Tensor:
        """Return the nearest point of the ball."""
        if self._norm == "linf":
            return place.clamp(-self._radius, self._radius)
        shrink = torch.clamp(self._radius / place.norm(dim=1, keepdim=True), max=1.0)
        return place * shrink

    def _at(self, place: Tensor) -> Leaves:
        return self._params | unflatten(self._centre + place * self.scale, trained(self._params))


_DIRECTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "l2": lambda slope: torch.nn.functional.normalize(slope, dim=1),
    "linf": torch.sign,
}


def _draw(streams: Streams, step: int, index: int, like: Tensor) -> Tensor:
    """Draw normals (R, p)."""
    if streams.replicas != len(like):
        raise ValueError(f"the parameters have {len(like)} replicas and the streams {streams.replicas}")
    return streams.normal(Purpose.PROBE, step + ((_DRAWS + index) << 32), (like.shape[1],)).to(like)


def _climb(hill: _Hill, place: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Move towards the outermost point along the slope, by more after a rise and by less after a fall."""
    height, slope = hill(place)
    pace = torch.full_like(height, 2.0)
    for _ in range(steps):
        there = hill.inside(place + pace.unsqueeze(1) * hill.outermost(slope))
        found, steeper = hill(there)
        rose = found > height
        rows = rose.unsqueeze(1)
        height, place = torch.where(rose, found, height), torch.where(rows, there, place)
        slope = torch.where(rows, steeper, slope)
        pace = torch.where(rose, 2.0 * pace, pace / 4.0).clamp(max=16.0)
    return height, place
