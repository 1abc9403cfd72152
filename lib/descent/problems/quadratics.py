"""Stochastic quadratics to descend: finite ensembles, Gaussian features, one quadratic under random weights.

Each holds what it descends; the exact mean-square theory of all three is in `moments`, re-exported here. Single runs
of a quadratic in one direction are in `exponents`. `batch_size` is one number or one per equal consecutive block of
replicas, None for all examples; replicas that share a seed see the same luck at every size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy import special
from torch import Tensor

from descent.engine.split import Drawn, Split, placed
from descent.engine.stack import Objective
from descent.engine.streams import Purpose, Streams
from descent.problems.exponents import Features, Law
from descent.theory.moments import (
    Bounds,
    CheapBounds,
    Finite,
    Gaussian,
    Moments,
    Problem,
    Weighted,
    bounds,
    cheap_bounds,
    gaussian_threshold,
    growth_rate,
    moment_operator,
    nesterov_growth,
    nesterov_threshold,
    noise_floor,
    noise_range,
    residuals,
    step_range,
    threshold,
)
from descent.theory.weights import BatchSize, Gamma, WeightLaw, lyapunov

__all__ = [
    "FOUR_ATOMS", "Atoms", "Bounds", "CheapBounds", "Ensemble", "Finite", "Gaussian", "GaussianFeatures", "Moments",
    "Problem", "RandomWeights", "Weighted", "bounds", "cheap_bounds", "gaussian_threshold", "growth_rate",
    "moment_operator", "nesterov_growth", "nesterov_threshold", "noise_floor", "noise_range", "residuals", "sampled",
    "single_growth", "step_range", "threshold",
]  # fmt: skip


FOUR_ATOMS = ((2.0, 0.0), (1.0, 1.0), (1.0, -1.0), (0.0, 0.5))
"""Rows of a small ensemble in which all thresholds and bounds differ."""

Atoms = tuple[tuple[float, ...], ...]
"""Rows of a finite ensemble."""

_TABLE = 1 << 16  # batches that are listed rather than drawn example by example


@dataclass(frozen=True, eq=False)
class Ensemble(Split[Tensor]):
    """n equally likely quadratics ½ θᵀQ_iθ + r_i·θ; parameters (R, d).

    examples: rows (n, d) for Q = x xᵀ, or Hessians (n, d, d); offsets: r, (n, d), None where all share the minimiser 0.
    """

    examples: ArrayLike
    batch_size: BatchSize = 1
    offsets: ArrayLike | None = None
    replacement: bool = True

    def __post_init__(self) -> None:
        shape = np.shape(self.examples)
        if len(shape) not in (2, 3) or (len(shape) == 3 and shape[1] != shape[2]):
            raise ValueError(f"examples must be rows (n, d) or Hessians (n, d, d), got shape {shape}")
        if self.offsets is not None and np.shape(self.offsets) != shape[:2]:
            raise ValueError(f"offsets must have shape {shape[:2]}, one per example, got {np.shape(self.offsets)}")
        most = math.inf if self.replacement else shape[0]
        if not all(size is None or 1 <= size <= most for size in _sizes(self.batch_size)):
            raise ValueError(f"batch sizes must lie between 1 and {most:g}, got {self.batch_size}")

    def draw(self, streams: Streams, step: int, like: Tensor) -> Drawn:
        """Draw which share of its batch each example makes up, (R, n)."""
        return {"shares": _shares(self, streams, step).to(like)}

    def gradient_at(self, params: Tensor, drawn: Drawn, out: Tensor) -> None:
        """Write the mean over a batch of Q_iθ + r_i, (R, d)."""
        examples, offsets = _placed(self, params.dtype, params.device)
        shares = drawn["shares"]
        if examples.ndim == 2:
            torch.mm((params @ examples.T).mul_(shares), examples, out=out)
        else:
            torch.sum(torch.einsum("nab,rb->rna", examples, params).mul_(shares[:, :, None]), 1, out=out)
        if offsets is not None:
            out.addmm_(shares, offsets)

    def shares(self, streams: Streams, step: int) -> Tensor:
        """Return which share of its batch each example makes up, (R, n), rows of sum 1."""
        sizes = _sizes(self.batch_size)
        length, left = divmod(streams.replicas, len(sizes))
        if left:
            raise ValueError(
                f"{streams.replicas} replicas cannot be cut into {len(sizes)} equal blocks, one per "
                "batch size; give a multiple"
            )
        blocks = (slice(i * length, (i + 1) * length) for i in range(len(sizes)))
        parts = [self._drawn(size, rows, streams, step) for size, rows in zip(sizes, blocks, strict=True)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _drawn(self, size: int | None, rows: slice, streams: Streams, step: int) -> Tensor:
        """Return the shares of a block of replicas: from the list of all batches where it is short."""
        n, count = np.shape(self.examples)[0], rows.stop - rows.start
        if size is None:
            return torch.full((count, n), 1 / n, dtype=streams.dtype, device=streams.device)
        if _batches(n, size, self.replacement) <= _TABLE:
            shares, edges = (part.to(streams.device, streams.dtype) for part in _table(n, size, self.replacement))
            return shares[torch.searchsorted(edges, streams.uniform(Purpose.BATCH, step)[rows])]
        if self.replacement:
            picked = streams.integers(Purpose.BATCH, step, n, (size,))[rows]
        else:
            picked = streams.sample(Purpose.BATCH, step, n, size)[rows]
        one = torch.full((1, 1), 1 / size, dtype=streams.dtype, device=streams.device).expand(picked.shape)
        return torch.zeros(count, n, dtype=streams.dtype, device=streams.device).scatter_add_(1, picked, one)


@dataclass(frozen=True)
class GaussianFeatures(Split[Tensor]):
    """½ (x·θ)² with x ~ N(0, diag(spectrum)); parameters (R, d). Its moments are `Gaussian(spectrum)`.

    A batch costs d + 1 normals whatever its size: with a = √Σ θ, the k numbers x·θ and the k features across a enter
    through c = χ²_k/k and one normal vector ξ, as √Σ(c a + |a|√(c/k)(ξ − the part of ξ along a)).
    """

    spectrum: tuple[float, ...]
    batch_size: BatchSize = 1

    def draw(self, streams: Streams, step: int, like: Tensor) -> Drawn:
        """Draw c (R, 1) and ξ (R, d)."""
        along = _batch_mean(Gamma(0.5), streams, step, _sizes(self.batch_size))[:, None]
        across = streams.normal(Purpose.NOISE, step, (len(self.spectrum),))
        return {"along": along.to(like), "across": across.to(like)}

    def gradient_at(self, params: Tensor, drawn: Drawn, out: Tensor) -> None:
        """Write the mean over a batch of x(x·θ), (R, d)."""
        along, across = drawn["along"], drawn["across"]
        root = placed(self.spectrum, params).sqrt()
        a = root * params
        size: Tensor = torch.linalg.vector_norm(a, dim=1, keepdim=True)
        unit = a / size.clamp_min(torch.finfo(a.dtype).tiny)
        across = across - (across * unit).sum(1, keepdim=True) * unit
        torch.mul(root, along * a + size * (along * _inverses(self.batch_size, a)).sqrt() * across, out=out)


@dataclass(frozen=True)
class RandomWeights(Split[Tensor]):
    """w·½ Σ_i spectrum_i θ_i² with random weights w of mean 1; parameters (R, d).

    Its moments are `Weighted(spectrum, law.variance)`.
    """

    law: WeightLaw
    spectrum: tuple[float, ...] = (1.0,)
    batch_size: BatchSize = 1

    def draw(self, streams: Streams, step: int, like: Tensor) -> Drawn:
        """Draw the mean weight of a batch, (R, 1)."""
        return {"weight": _batch_mean(self.law, streams, step, _sizes(self.batch_size))[:, None].to(like)}

    def gradient_at(self, params: Tensor, drawn: Drawn, out: Tensor) -> None:
        """Write the mean weight of a batch times the full gradient, (R, d)."""
        torch.mul(drawn["weight"] * placed(self.spectrum, params), params, out=out)


def sampled(problem: Atoms | Gaussian | Weighted, batch_size: BatchSize) -> Objective[Tensor]:
    """Return what is descended where these are the moments; the weights are Gamma distributed."""
    if isinstance(problem, Gaussian):
        return GaussianFeatures(problem.spectrum, batch_size)
    if isinstance(problem, Weighted):
        return RandomWeights(Gamma(1 / problem.variance), problem.spectrum, batch_size)
    return Ensemble(problem, batch_size)


def single_growth(problem: Atoms | Gaussian | Weighted, lr: float, batch_size: int) -> float | None:
    """Return the exact growth of single runs, where one is known: one direction, or equally curved ones."""
    if isinstance(problem, tuple) or len(set(problem.spectrum)) > 1:
        return None
    law: Law = Gamma(1 / problem.variance) if isinstance(problem, Weighted) else Features(len(problem.spectrum))
    return lyapunov(law, lr * problem.spectrum[0], batch_size)


# Two populations on the same random numbers ask for the same draw one after the other.


@lru_cache(maxsize=1)
def _shares(ensemble: Ensemble, streams: Streams, step: int) -> Tensor:
    return ensemble.shares(streams, step)


@lru_cache(maxsize=1)
def _batch_mean(law: WeightLaw, streams: Streams, step: int, sizes: tuple[int | None, ...]) -> Tensor:
    return law.batch_mean(streams, step, sizes)


def _sizes(batch_size: BatchSize) -> tuple[int | None, ...]:
    """Return the batch size of each block of replicas."""
    return (batch_size,) if isinstance(batch_size, int | None) else tuple(batch_size)


def _inverses(batch_size: BatchSize, like: Tensor) -> Tensor:
    """Return 1/k of every replica, (R, 1)."""
    inverses = placed(tuple(0.0 if size is None else 1 / size for size in _sizes(batch_size)), like)
    return inverses.repeat_interleave(len(like) // len(inverses))[:, None]


def _batches(n: int, size: int, replacement: bool) -> int:
    """Return how many batches there are, as multisets."""
    return math.comb(n + size - 1, size) if replacement else math.comb(n, size)


@lru_cache(maxsize=64)
def _table(n: int, size: int, replacement: bool) -> tuple[Tensor, Tensor]:
    """List all batches: the share of each example (L, n), and the cumulative probabilities (L,)."""
    if replacement:  # stars and bars: the gaps between n − 1 bars among size + n − 1 places count the stars
        bars = np.array(list(combinations(range(size + n - 1), n - 1)), dtype=np.int64).reshape(-1, n - 1)
        counts = np.diff(bars, axis=1, prepend=-1, append=size + n - 1) - 1
        logs = special.gammaln(size + 1) - special.gammaln(counts + 1).sum(1) - size * math.log(n)
        chances = np.exp(logs)
    else:
        chosen = np.array(list(combinations(range(n), size)))
        counts = np.zeros((len(chosen), n))
        np.put_along_axis(counts, chosen, 1.0, axis=1)
        chances = np.ones(len(chosen))
    edges = chances.cumsum() / chances.sum()
    return torch.from_numpy(counts / size), torch.from_numpy(edges)


@lru_cache(maxsize=16)
def _placed(ensemble: Ensemble, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor | None]:
    """Return examples and offsets as tensors."""
    examples = _tensor(ensemble.examples).to(device, dtype)
    return examples, None if ensemble.offsets is None else _tensor(ensemble.offsets).to(device, dtype)


def _tensor(values: ArrayLike | Tensor) -> Tensor:
    """Return numbers, or a tensor on any device, as a tensor in double precision."""
    return values.double() if isinstance(values, Tensor) else torch.as_tensor(np.asarray(values, dtype=np.float64))
