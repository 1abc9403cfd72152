"""Ways of taking a gradient: objectives that wrap an objective, to be descended by any rule.

    train(Uphill(objective, 0.1), start, sgd(lr), steps, streams)

What a linear rule cannot hold in one buffer, a gradient some steps old or a difference of two, is a `Lagged` gradient
under plain descent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Generic, cast

import torch
from torch import Tensor

from descent.engine.probes import P
from descent.engine.stack import Chunked, Leaves, Objective, joined, leaves
from descent.engine.streams import Streams

__all__ = ["Lagged", "Svag", "Uphill", "adams_bashforth", "stale"]

_BROKEN = 1e30  # in the place of what is not finite: breaks a replica at once, and its neighbours' sums never


@dataclass(frozen=True, eq=False)
class _Wrapped(Generic[P]):
    """An objective that is cut into chunks as the one inside it asks for."""

    objective: Objective[P]

    @property
    def period(self) -> int:
        """After how many replicas the draws of the data come round again."""
        return int(getattr(self.objective, "period", 1))

    @property
    def remembers(self) -> bool:
        """Whether something is remembered that no checkpoint holds."""
        return bool(getattr(self.objective, "remembers", False))

    def chunks(self, replicas: int, budget: int) -> Sequence[slice]:
        """Cut the stack as the objective asks for, or leave it whole."""
        if isinstance(self.objective, Chunked):
            return self.objective.chunks(replicas, budget)
        return [slice(0, replicas)]

    def subset(self, rows: slice) -> _Wrapped[P]:
        """Return the same of the replicas `rows`."""
        inner = self.objective
        return replace(self, objective=inner.subset(rows) if isinstance(inner, Chunked) else inner)


@dataclass(frozen=True, eq=False)
class Uphill(_Wrapped[P]):
    """The gradient taken at x + reach·g(x), both on the same batch: SAM's, not normalised.

    For reach·h ≪ 1 it drifts as heavy ball does with reach = e·momentum/(1 − momentum).
    """

    reach: float  # how far uphill, in units of the gradient

    def gradient(self, params: P, streams: Streams, step: int) -> P:
        """Return g(x + reach·g(x))."""
        slope = leaves(self.objective.gradient(params, streams, step))
        there = {name: leaf + self.reach * slope[name] for name, leaf in leaves(params).items()}
        return self.objective.gradient(cast(P, joined(there)), streams, step)  # the names stay


@dataclass(frozen=True, eq=False)
class Svag(_Wrapped[P]):
    """½(1 + s)g₁ + ½(1 − s)g₂ with s = √(2ℓ − 1), of two batches drawn apart (Li, Malladi and Arora 2021).

    Its mean is the gradient's and its noise ℓ times as powerful: ℓ steps of e/ℓ make the noise of one step of e with a
    ℓ-th of its discreteness. With ℓ = 1 it is the objective's own gradient, on the draws of the even steps.
    """

    fineness: int  # ℓ, the steps that one is cut into

    def __post_init__(self) -> None:
        if self.fineness < 1:
            raise ValueError(f"fineness counts the steps that one is cut into: at least 1, got {self.fineness}")
        if getattr(self.objective, "sampling", None) == "shuffled_epochs":
            raise ValueError('two batches of one epoch are not drawn apart; use sampling="with_replacement"')

    def gradient(self, params: P, streams: Streams, step: int) -> P:
        """Return the mixture of the gradients at steps 2·step and 2·step + 1 of the streams."""
        # an objective may hand out one buffer again and again, so each gradient is weighed before the next is asked for
        s = (2 * self.fineness - 1) ** 0.5
        first = _times(leaves(self.objective.gradient(params, streams, 2 * step)), (1 + s) / 2)
        if self.fineness > 1:
            second = leaves(self.objective.gradient(params, streams, 2 * step + 1))
            first = {name: leaf.add_(second[name], alpha=(1 - s) / 2) for name, leaf in first.items()}
        return cast(P, joined(first))  # the names are those of params


@dataclass(frozen=True, eq=False)
class Lagged(_Wrapped[P]):
    """Σ_k weights[k]·g_{t−k}, where gradients from before the first step are zero.

    It remembers: steps must be asked for one after the other, and a step that does not follow the last one begins anew.
    A probe that wants a gradient asks `objective`.
    """

    weights: tuple[float, ...]
    remembers: ClassVar[bool] = True  # what it holds no checkpoint does
    _past: _Past = field(default_factory=lambda: _Past(), init=False, repr=False)

    def __post_init__(self) -> None:
        if not self.weights or not sum(self.weights) > 0:
            raise ValueError(f"the weights of a rule must sum to a positive step, got {self.weights}")

    def gradient(self, params: P, streams: Streams, step: int) -> P:
        """Return the weighted sum of this gradient and the last ones."""
        fresh = leaves(self.objective.gradient(params, streams, step))
        past = self._past.push(step, fresh, len(self.weights))
        total = {name: torch.zeros_like(leaf) for name, leaf in fresh.items()}
        for weight, old in zip(self.weights, past, strict=False):
            if weight:
                total = {name: leaf.add_(old[name], alpha=weight) for name, leaf in total.items()}
        return cast(P, joined(total))  # the names are those of params


class _Past:
    """The last gradients, the newest first."""

    def __init__(self) -> None:
        self.step, self.gradients = -1, list[Leaves]()

    def push(self, step: int, gradient: Leaves, most: int) -> list[Leaves]:
        """Put a gradient in front and return at most `most` of them; those of another run are forgotten."""
        if step != self.step + 1:
            self.gradients = []
        kept = {name: _finite(leaf) for name, leaf in gradient.items()}
        self.step, self.gradients = step, [kept, *self.gradients[: most - 1]]
        return self.gradients


def stale(objective: Objective[P], delay: int) -> Lagged[P]:
    """Return the gradient of `delay` steps ago; the first `delay` steps stand still.

    delay: the age of the gradient in steps.
    """
    if delay < 0:
        raise ValueError(f"delay counts steps back from now: it must not be negative, got {delay}")
    return Lagged(objective, (*[0.0] * delay, 1.0))


def adams_bashforth(objective: Objective[P]) -> Lagged[P]:
    """Return 3/2 g_t − 1/2 g_{t−1}: descent without its drift, gradient flow to second order at descent's price."""
    return Lagged(objective, (1.5, -0.5))


def _times(gradient: Leaves, factor: float) -> Leaves:
    return {name: leaf * factor for name, leaf in gradient.items()}


def _finite(leaf: Tensor) -> Tensor:
    """Copy a gradient; a memory of what is not finite would go on after its replica was put aside."""
    return torch.nan_to_num(leaf, nan=_BROKEN, posinf=_BROKEN, neginf=-_BROKEN).clamp_(-_BROKEN, _BROKEN)
