"""Whether the noise of mini-batches is normal, and whether it points everywhere alike.

Lilliefors' test is that of Kolmogorov and Smirnov against the normal law of the sample's own mean and deviation, which
asks for smaller critical values. They come from simulated normal samples of the same size, or of 1000 and from there
by Stephens' factor √n − 0.01 + 0.85/√n (1974), which over the whole range would be wrong by a third of the level.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy import stats as _law
from torch import Tensor

from descent.arrays import Array
from descent.engine.probes import Params
from descent.engine.stack import leaves
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.measure.noise import example_gradients
from descent.nets.supervised import Supervised

__all__ = ["Normality", "lilliefors_pvalue", "noise_draws", "normality", "participation"]


_NULL_SEED, _NULL_RUNS, _NULL_SIZE = 1967, 10_000, 1000


@dataclass(frozen=True, eq=False)
class Normality:
    """Lilliefors' distance, its p-value and the excess kurtosis, (R, K); NaN in a coordinate without noise."""

    distance: Array  # the largest between the two distribution functions
    pvalue: Array  # of normality
    kurtosis: Array  # less 3, so that 0 is normal

    def rejected(self, level: float = 0.01) -> Array:
        """Return the share of the coordinates with noise that is rejected at a false discovery rate `level`, (R,)."""
        shares = []
        for replica, pvalues in enumerate(self.pvalue):
            live = pvalues[np.isfinite(pvalues)]
            if live.size == 0:
                raise ValueError(f"no coordinate of replica {replica} has any noise; draw more coordinates")
            shares.append(np.mean(_law.false_discovery_control(live) <= level))
        return np.array(shares)


def noise_draws(objective: Supervised, params: Params, streams: Streams, draws: int, count: int) -> Tensor:
    """Return the noise of `draws` batches at fixed parameters on `count` random coordinates, (R, draws, count).

    Each replica has coordinates of its own. Batches are those of steps 0, 1, …: give streams that the parameters were
    not trained with.
    """
    width = sum(leaf[0].numel() for leaf in leaves(params).values())
    coordinates = streams.sample(Purpose.PROBE, 0, width, min(count, width))
    gradients = example_gradients(objective, params, coordinates)
    centred = gradients - gradients.mean(dim=1, keepdim=True)
    rows = torch.arange(len(centred), device=centred.device)[:, None]
    drawn = [centred[rows, objective.indices(streams, step)].mean(dim=1) for step in range(draws)]
    return torch.stack(drawn, dim=1)


def normality(samples: Tensor) -> Normality:
    """Test samples (R, M, K) for normality along their second axis."""
    n = samples.shape[1]
    x = samples.to(torch.float64)
    x = x - x.mean(dim=1, keepdim=True)
    variance = x.square().mean(dim=1)
    silent = variance.sqrt() <= 1e-9 * samples.abs().amax(dim=1)
    distance = _distance(x).masked_fill(silent, torch.nan).cpu().numpy()
    kurtosis = (x**4).mean(dim=1).div(variance**2).sub(3).masked_fill(silent, torch.nan)
    return Normality(distance, lilliefors_pvalue(distance, n), kurtosis.cpu().numpy())


def lilliefors_pvalue(distance: ArrayLike, n: int) -> Array:
    """Return the probability that n normal numbers are at least that far from the normal law fitted to them.

    Resolved down to 1e-4. NaN stays NaN.

    distance: the largest between the distribution functions of sample and fitted normal law.
    """
    scaled = np.asarray(distance, dtype=np.float64) * _factor(n)
    at_least = _NULL_RUNS - np.searchsorted(_null(min(n, _NULL_SIZE)), scaled)
    return np.asarray(np.where(np.isnan(scaled), np.nan, (1 + at_least) / (1 + _NULL_RUNS)))


def participation(objective: Supervised, params: Params) -> Tensor:
    """Return (tr C)²/tr C² of the covariance C of the examples' gradients, (R,): how many directions share the noise.

    p would be isotropic. Sampling with or without replacement leaves it alone. Holds p numbers per example.
    """
    found = []
    named = leaves(params)
    for replica in range(len(next(iter(named.values())))):
        one = {name: leaf[replica : replica + 1] for name, leaf in named.items()}
        gradients = example_gradients(objective.subset(slice(replica, replica + 1)), one)[0]
        centred = gradients - gradients.mean(dim=0)
        gram = centred @ centred.T  # the spectrum of C beside zeros, n × n instead of p × p
        found.append(gram.trace().square() / gram.square().sum())
    return torch.stack(found)


def _distance(x: Tensor) -> Tensor:
    """Return sup|F_n − Φ| of centred x (R, M, K) over their own deviation, (R, K)."""
    n = x.shape[1]
    deviation = x.square().sum(dim=1, keepdim=True).div(n - 1).sqrt()
    law = torch.special.ndtr(x.sort(dim=1).values / deviation)
    steps = torch.arange(n + 1, dtype=x.dtype, device=x.device)[:, None] / n
    return torch.maximum(steps[1:] - law, law - steps[:-1]).amax(dim=1)


def _factor(n: int) -> float:
    return float(np.sqrt(n) - 0.01 + 0.85 / np.sqrt(n))


@lru_cache(maxsize=8)
def _null(n: int) -> Array:
    """Return Stephens' statistic of simulated normal samples of size n, rising."""
    streams = Streams(replica_seeds(_NULL_SEED, _NULL_RUNS // 10), torch.float64)
    found = []
    for part in range(10):
        samples = streams.normal(Purpose.PROBE, part, (n,)).T[None]
        found.append(_distance(samples - samples.mean(dim=1, keepdim=True))[0])
    return np.sort(torch.cat(found).numpy()) * _factor(n)
