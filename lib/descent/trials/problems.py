"""Small problems on which rules differ: a net on digits, a noisy bowl, a saddle, and rare classes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from descent.engine.probes import Params
from descent.engine.streams import Purpose, Streams
from descent.nets.dense import MLP, CrossEntropy
from descent.nets.supervised import Supervised
from descent.problems.noisy import Bowl, Unigram

__all__ = ["PROBLEMS", "Problem", "problem"]


@dataclass(frozen=True)
class Problem:
    """What rules are tried on. score: of parameters (R,), the lower the better; what says what it is.

    objective: from streams of the draws (D,) to what is descended; replica r sees draw r mod D.
    """

    name: str
    what: str  # the score in words
    steps: int
    rates: tuple[float, float, int]  # lowest, highest and how many to try
    objective: Callable[[Streams], Any]
    start: Callable[[Streams], Params]
    score: Callable[[Any, Any], Tensor]
    decays: bool = True  # whether the rate falls to 0 along the run


class Saddle(Bowl):
    """−½x² + ¼x⁴ in 16 coordinates, from x = 0, with normal noise."""

    def full(self, params: Tensor) -> Tensor:
        """Return x³ − x, its growth held beyond |x| = 2."""
        near = params.clamp(-2, 2)
        return near**3 - near


_NET = MLP((64, 32, 10), "tanh")


@lru_cache(maxsize=1)
def _images() -> tuple[Tensor, Tensor]:
    """Return the 1797 digits that come with scikit-learn, (n, 64), and their labels."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return torch.tensor(found.data / 16, dtype=torch.float32), torch.tensor(found.target)


def _digits(draws: Streams) -> Supervised:
    """Return the digits, 256 images in every draw."""
    x, y = _images()
    rows = draws.permutation(Purpose.ORDER, 0, len(x), slice(0, 256))
    return Supervised(_NET, CrossEntropy(), x, y, 8, rows=rows)


def _still(size: int, value: float) -> Callable[[Streams], Tensor]:
    return lambda streams: torch.full((streams.replicas, size), value, dtype=streams.dtype)


PROBLEMS = {
    found.name: found
    for found in (
        Problem("digits", "log training loss", 400, (3e-4, 3e-2, 5), _digits, _NET.initial,
                lambda o, x: o.value(x).clamp_min(1e-30).log()),
        Problem("quadratic", "log mean square distance", 1000, (1e-3, 1e-1, 5), lambda _: Bowl("exponential"),
                _still(16, 0.5), lambda o, x: x.square().mean(1).clamp_min(1e-30).log(), decays=False),
        Problem("saddle", "log loss above the minimum", 300, (1e-3, 1e-1, 5), lambda _: Saddle(), _still(16, 0.0),
                lambda o, x: (x.square() - 1).square().mean(1).clamp_min(1e-30).log()),
        Problem("rare", "log KL of classes and softmax", 1000, (1e-3, 1e-1, 5), lambda _: Unigram(), _still(50, 0.0),
                lambda o, x: o.divergence(x).clamp_min(1e-12).log()),
    )
}  # fmt: skip
"""By name."""


def problem(name: str) -> Problem:
    """Return a problem by name; raise KeyError naming those there are."""
    if name not in PROBLEMS:
        raise KeyError(f"there is no problem {name!r}; there are {', '.join(PROBLEMS)}")
    return PROBLEMS[name]
