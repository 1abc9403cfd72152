"""A smoothed objective f_δ(x) = E f(x − δu), by Monte Carlo, for any model and loss.

`Ball` and `Gaussian` are the kernels of `descent.problems.smoothed`, of unit size in any number p of parameters;
`BatchNoise` takes u from the mini-batch noise of one point, in units of its root mean square, so that δ is that of
a step of SGD, lr·√E|ξ|². Draws depend on the seed alone: two degrees, two places or two functions see the same
directions, and their difference is paired, draw by draw.

    near, far = (samples(objective.value, params, degree, Ball(), 400, streams) for degree in (0.05, 0.1))
    estimates(far - near)                              # f_0.1 − f_0.05, one Estimate per replica
    estimates(far - objective.value(params)[:, None])  # f_0.1 − f
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol, cast

import torch
from torch import Tensor

from descent.engine.probes import P, Params
from descent.engine.stack import joined, leaves
from descent.engine.streams import Purpose, Streams
from descent.measure.noise import batch_noise, flat, full_gradient, gradient_noise
from descent.nets.supervised import Supervised
from descent.stats.estimate import Estimate
from descent.stats.intervals import mean

__all__ = ["Ball", "BatchNoise", "Drift", "Gaussian", "Kernel", "drift", "estimates", "samples", "slopes"]

_BLOCK = 1 << 16  # numbers drawn at a time for one replica; part of what a seed means


class Kernel(Protocol):
    """A law of directions u."""

    @property
    def symmetric(self) -> bool:
        """Whether −u is as likely as u: then every draw is evaluated together with its mirror image."""

    def directions(self, size: int, streams: Streams, block: int, count: int) -> Tensor:
        """Return the first `count` directions of a block, (R, count, size)."""


@dataclass(frozen=True)
class Gaussian:
    """u ~ N(0, I/p)."""

    symmetric: bool = True

    def directions(self, size: int, streams: Streams, block: int, count: int) -> Tensor:
        """Return the first `count` directions of a block, (R, count, size)."""
        return streams.normal(Purpose.PROBE, 2 * block, (count, size)).div_(size**0.5)


@dataclass(frozen=True)
class Ball:
    """u uniform in the unit ball: a normal direction at the radius U^(1/p)."""

    symmetric: bool = True

    def directions(self, size: int, streams: Streams, block: int, count: int) -> Tensor:
        """Return the first `count` directions of a block, (R, count, size)."""
        u = streams.normal(Purpose.PROBE, 2 * block, (count, size))
        radius = streams.uniform(Purpose.PROBE, 2 * block + 1, (count, 1)).pow_(1 / size)
        return u.mul_(radius / u.norm(dim=2, keepdim=True))


@dataclass(frozen=True, eq=False)
class BatchNoise:
    """u = ξ/scale, ξ the noise of the objective's batches at fixed parameters; made by `at`.

    gradient (R, p): ∇f there; scale (R,): √E|ξ|². Give streams that the parameters were not trained with.
    """

    objective: Supervised
    params: Params
    gradient: Tensor
    scale: Tensor
    symmetric: bool = False

    @classmethod
    def at(cls, objective: Supervised, params: Params) -> BatchNoise:
        """Measure the gradient and the noise at the parameters."""
        scale = batch_noise(objective, gradient_noise(objective, params)).sqrt()
        if bool((scale == 0).any()):
            raise ValueError(
                "the batches have no noise here, so there is no direction to smooth along; "
                "use smaller batches, or another kernel"
            )
        return cls(objective, params, flat(full_gradient(objective, params)), scale)

    def directions(self, size: int, streams: Streams, block: int, count: int) -> Tensor:
        """Return the first `count` directions of a block, (R, count, size)."""
        first = block * (_BLOCK // size)
        drawn = [flat(self.objective.gradient(self.params, streams, first + k)) - self.gradient for k in range(count)]
        return torch.stack(drawn, dim=1) / self.scale[:, None, None]


def samples(
    value: Callable[[P], Tensor], params: P, degree: float | Tensor, kernel: Kernel, draws: int, streams: Streams
) -> Tensor:
    """Return f(x − δu) for every draw of u, (R, draws); the mean over draws is f_δ(x).

    value: (R, …) → (R,), for any multiple of the replicas. degree: δ, one for all or (R,). With a symmetric kernel a
    draw is the mean of f(x − δu) and f(x + δu), which leaves no error of first order in δ.
    """
    found = []
    for points, mirrored in _points(params, degree, kernel, draws, streams):
        values = value(points)
        if mirrored is not None:
            values = (values + value(mirrored)) / 2
        found.append(values.view(-1, streams.replicas).T)
    return torch.cat(found, dim=1)


def slopes(
    gradient: Callable[[P], Params],
    params: P,
    degree: float | Tensor,
    kernel: Kernel,
    draws: int,
    streams: Streams,
    along: Tensor,
) -> Tensor:
    """Return ⟨∇f(x − δu), along⟩ for every draw of u, (R, draws), `along` (R, p) as in `noise.flat`.

    The mean over draws is the slope of f_δ in that direction; the rest as in `samples`.

    gradient: from points to gradients, for any multiple of the replicas; degree: δ, one for all or (R,); along: the
    direction, one per replica.
    """

    def projected(points: P) -> Tensor:
        each = flat(gradient(points)).view(-1, *along.shape)
        return (each * along).sum(dim=2).flatten()

    return samples(projected, params, degree, kernel, draws, streams)


def estimates(values: Tensor) -> list[Estimate]:
    """Return the mean over draws with its Monte Carlo error, one Estimate per row of (R, draws)."""
    return [mean(row.to("cpu", torch.float64).numpy()) for row in values.detach()]


class Drift(NamedTuple):
    """Slopes along ∇f(y) after one step, y = x − lr·∇f(x): what SGD, a smoothing kernel and plain descent feel there.

    sgd, smoothed (R, draws); plain (R,) = |∇f(y)|.
    """

    sgd: Tensor  # what batches feel
    smoothed: Tensor  # what a smoothing kernel feels
    plain: Tensor  # what plain descent feels


def drift(objective: Supervised, params: Params, lr: float, kernel: Kernel, draws: int, streams: Streams) -> Drift:
    """Compare one step of SGD in the mean with one of gradient descent on f_δ, δ = lr·√E|ξ|².

    SGD goes from x to y − lr·ξ, and from there its descent point moves on by −lr·(∇f(y − lr·ξ) + ξ), ξ the noise of
    the batch at x. As E ξ = 0, in the mean it descends the objective smoothed by its own noise, exactly; `smoothed` is
    that with `kernel` in place of the noise, at equal root mean square.
    """
    noise = BatchNoise.at(objective, params)
    y = _moved(params, noise.gradient[:, None], lr)

    def full(points: Params) -> Params:
        return full_gradient(objective, points)

    slope = flat(full(y))
    plain = slope.norm(dim=1)
    along, degree = slope / plain[:, None], lr * noise.scale
    sgd, smoothed = (slopes(full, y, degree, law, draws, streams, along) for law in (noise, kernel))
    return Drift(sgd, smoothed, plain)


def _points(
    params: P, degree: float | Tensor, kernel: Kernel, draws: int, streams: Streams
) -> Iterator[tuple[P, P | None]]:
    """Yield x − δu for some draws at a time, (count·R, …), and x + δu if the kernel is symmetric."""
    size = flat(params).shape[1]
    most = max(1, _BLOCK // size)
    for block in range(-(-draws // most)):
        u = kernel.directions(size, streams, block, min(most, draws - block * most))
        yield _moved(params, u, degree), _moved(params, u, -degree) if kernel.symmetric else None


def _moved(params: P, directions: Tensor, degree: float | Tensor) -> P:
    """Return x − degree·u for directions (R, count, p), leaves (count·R, …), so that row k·R + r is of replica r."""
    named, count = leaves(params), directions.shape[1]
    scale = torch.as_tensor(degree).to(directions).reshape(-1, 1, 1)
    steps, start = (scale * directions).transpose(0, 1).flatten(0, 1), 0
    moved = {}
    for name, leaf in named.items():
        part = steps.narrow(1, start, leaf[0].numel())
        moved[name] = leaf.repeat(count, *[1] * (leaf.ndim - 1)) - part.view(-1, *leaf.shape[1:])
        start += leaf[0].numel()
    return cast(P, joined(moved))  # the names stay
