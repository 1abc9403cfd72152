"""Problems whose noise has a shape: a bowl or a saddle under skewed or heavy-tailed noise, and rare classes.

What sign-like rules make of them is in `descent.theory.signs` and `descent.theory.averages`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from descent.arrays import Array
from descent.engine.split import Drawn, Split
from descent.engine.streams import Purpose, Streams
from descent.theory.averages import LAWS, Law

__all__ = ["Bowl", "Events", "Unigram", "noise_of"]


def noise_of(law: Law, streams: Streams, step: int, shape: tuple[int, ...]) -> Tensor:
    """Return independent draws of mean 0 and variance 1, (R, …).

    shape: of one replica's draw.
    """
    if law == "normal":
        return streams.normal(Purpose.DATA, step, shape)
    if law == "exponential":
        return -streams.uniform(Purpose.DATA, step, shape).log() - 1
    if law == "laplace":
        size = streams.uniform(Purpose.DATA, step, shape).log() / math.sqrt(2)
        return size * streams.signs(Purpose.NOISE, step, shape)
    size = (streams.uniform(Purpose.DATA, step, shape) ** (-2 / 3) - 1).sqrt()  # Bailey's polar form, t₃ over √3
    return size * (2 * math.pi * streams.uniform(Purpose.NOISE, step, shape)).cos()


@dataclass(frozen=True)
class Bowl(Split[Tensor]):
    """½ curvature x² in every coordinate, with noise of standard deviation `size`; parameters (R, d).

    A negative curvature makes it a saddle.
    """

    law: Law = "normal"
    size: float = 1.0
    curvature: float = 1.0

    def __post_init__(self) -> None:
        if self.law not in LAWS:
            raise ValueError(f"law must be one of {', '.join(LAWS)}, got {self.law!r}")

    def full(self, params: Tensor) -> Tensor:
        """Return the gradient without noise."""
        return self.curvature * params

    def draw(self, streams: Streams, step: int, like: Tensor) -> Drawn:
        """Draw the noise of every coordinate, (R, d)."""
        return {"noise": noise_of(self.law, streams, step, tuple(like.shape[1:]))}

    def gradient_at(self, params: Tensor, drawn: Drawn, out: Tensor) -> None:
        """Write the gradient with noise."""
        torch.add(self.full(params), self.size * drawn["noise"], out=out)


@dataclass(frozen=True)
class Unigram:
    """The bias of a softmax over classes of frequencies p ∝ 1/rank: g = q − counts/B; parameters (R, K)."""

    classes: int = 50
    batch_size: int = 8

    @cached_property
    def frequencies(self) -> Array:
        """The frequencies p, (K,), falling."""
        weights = 1 / np.arange(1, self.classes + 1)
        return np.asarray(weights / weights.sum())

    def full(self, params: Tensor) -> Tensor:
        """Return q − p."""
        return params.softmax(1) - self._p(params)

    def gradient(self, params: Tensor, streams: Streams, step: int) -> Tensor:
        """Return q less the shares of the classes in a batch."""
        drawn = streams.uniform(Purpose.DATA, step, (self.batch_size,))
        edges = self._p(params).cumsum(0).to(drawn)
        label = torch.searchsorted(edges, drawn).clamp(max=self.classes - 1)
        counts = torch.zeros_like(params).scatter_add_(1, label, torch.ones_like(drawn, dtype=params.dtype))
        return params.softmax(1) - counts / self.batch_size

    def divergence(self, params: Tensor) -> Tensor:
        """Return KL(p, q), (R,)."""
        p = self._p(params)
        return (p * (p.log() - params.log_softmax(1))).sum(1)

    def _p(self, like: Tensor) -> Tensor:
        return torch.as_tensor(self.frequencies).to(like)


@dataclass(frozen=True)
class Events:
    """Events of frequencies p in batches, each with a logit of its own: g = q − count/B; parameters (R, K)."""

    frequencies: tuple[float, ...]  # p of every event
    batch_size: int = 8

    @cached_property
    def edges(self) -> Array:
        """Chance of at most j events in a batch, (K, B)."""
        p, size = np.asarray(self.frequencies)[:, None], self.batch_size
        j = np.arange(size)
        choose = np.array([math.comb(size, int(k)) for k in j])
        return np.asarray(np.cumsum(choose * p**j * (1 - p) ** (size - j), axis=1))

    def full(self, params: Tensor) -> Tensor:
        """Return q − p."""
        return params.sigmoid() - torch.as_tensor(self.frequencies).to(params)

    def gradient(self, params: Tensor, streams: Streams, step: int) -> Tensor:
        """Return q less the shares of the events in a batch."""
        drawn = streams.uniform(Purpose.DATA, step, (len(self.frequencies),))
        counts = (drawn.unsqueeze(-1) > torch.as_tensor(self.edges).to(drawn)).sum(-1)
        return params.sigmoid() - counts / self.batch_size

    def start(self) -> Tensor:
        """Return the logits of the frequencies, (1, K)."""
        p = torch.tensor([self.frequencies])
        return p.log() - (-p).log1p()
