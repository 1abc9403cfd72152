"""Muon: the average gradient of a matrix with its singular values made equal, for all replicas at once.

The polar factor UVᵀ of G = USVᵀ comes from a quintic Newton–Schulz iteration, as torch.optim.Muon does it, or exactly
from the singular values. The quintic leaves singular values between about 0.7 and 1.1; theory is tested with "exact".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from descent.engine.normalised import _Averaged
from descent.engine.probes import Leaves
from descent.engine.rule import Reads, Rule, broadcast, over
from descent.engine.rules import Values

__all__ = ["Polar", "Scale", "muon", "newton_schulz", "polar_factor"]

Polar = Literal["quintic", "exact"]
"""How the polar factor is found: by the quintic iteration, or exactly."""

Scale = Literal["spectral", "rms"]
"""How long a step is: of spectral norm one, or of a given root mean square."""

_QUINTIC = (3.4445, -4.7750, 2.0315)
_LEAST = 1e-7


@dataclass(frozen=True, eq=False)
class _Muon(_Averaged):
    nesterov: bool
    iterations: int
    polar: Polar
    scale: Scale
    dtype: torch.dtype | None

    @property
    def reads(self) -> Reads:
        """A whole matrix."""
        return "leaf"

    def init(self, params: Leaves) -> Leaves:
        """Return averages of nothing; raise ValueError for a leaf that is no matrix."""
        for name, leaf in params.items():
            if leaf.ndim < 3:  # (R, n): one vector per replica, which looks like one matrix
                raise ValueError(
                    f"muon moves matrices, and {name or 'the parameters'} is {tuple(leaf.shape[1:])} in a replica; "
                    "use by_leaf(muon(…), otherwise=adamw(…), where=lambda name, shape: len(shape) > 1)"
                )
        return super().init(params)

    def update(self, gradient: Leaves, state: Leaves, params: Leaves, age: Tensor) -> tuple[Leaves, Leaves]:
        """Return −lr·scale·polar(m); a filter bank (R, out, in, …) counts as the matrix (R, out, in·…)."""
        steps, after = {}, {}
        for name, g in gradient.items():
            fresh = over(1 - self.momentum, g)
            m = torch.lerp(state[f"m/{name}"], g, fresh)
            taken = (torch.lerp(m, g, fresh) if self.nesterov else m).flatten(2)
            found = polar_factor(taken, self.polar, self.iterations, self.dtype).view_as(g)
            steps[name] = found * over(-self.lr * _factor(self.scale, *taken.shape[1:]), g)
            after[f"m/{name}"] = m
        return steps, after


def muon(
    lr: Values,
    momentum: Values = 0.95,
    nesterov: bool = True,
    iterations: int = 5,
    polar: Polar = "quintic",
    scale: Scale = "spectral",
    dtype: torch.dtype | None = None,
) -> Rule:
    """Return Muon without weight decay (`decayed` adds torch's): −lr·scale·polar(m), every leaf a matrix.

    scale: "spectral" √max(1, out/in), "rms" 0.2·√max(out, in). dtype: of the iteration's products; torch.bfloat16 is
    what torch.optim.Muon takes, None the parameters' own. nesterov: whether the newest gradient enters once more.
    """
    if polar not in ("quintic", "exact") or scale not in ("spectral", "rms"):
        raise ValueError(f'polar is "quintic" or "exact", scale "spectral" or "rms"; got {polar!r} and {scale!r}')
    numbers = broadcast(lr=lr, momentum=momentum)
    return _Muon(**numbers, nesterov=nesterov, iterations=iterations, polar=polar, scale=scale, dtype=dtype)


def polar_factor(
    matrices: Tensor, polar: Polar = "exact", iterations: int = 5, dtype: torch.dtype | None = None
) -> Tensor:
    """Return UVᵀ of every matrix USVᵀ, (…, out, in); 0 for a matrix of zeros.

    matrices: (…, out, in).
    """
    if polar == "quintic":
        return newton_schulz(matrices, iterations, dtype)
    u, s, vh = torch.linalg.svd(matrices, full_matrices=False)
    kept = s > s[..., :1] * max(matrices.shape[-2:]) * torch.finfo(s.dtype).eps
    factor: Tensor = (u * kept.unsqueeze(-2)) @ vh
    return factor


def newton_schulz(matrices: Tensor, iterations: int = 5, dtype: torch.dtype | None = None) -> Tensor:
    """Return X after iterations of X ← aX + (bA + cA²)X with A = XXᵀ, from G/|G|, all matrices (R, out, in) at once.

    matrices: G, such as gradients.

    >>> found = newton_schulz(torch.eye(2).unsqueeze(0) * 7)
    >>> bool((found.diagonal(dim1=1, dim2=2) > 0.6).all())
    True
    """
    a, b, c = _QUINTIC
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x.to(dtype or x.dtype, copy=True)
    x = x / x.flatten(1).norm(dim=1).clamp(min=_LEAST).view(-1, 1, 1)
    for _ in range(iterations):
        gram = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    found: Tensor = (x.mT if tall else x).to(matrices.dtype)
    return found


def _factor(scale: Scale, rows: int, columns: int) -> float:
    if scale == "rms":
        return 0.2 * math.sqrt(max(rows, columns))
    return math.sqrt(max(1.0, rows / columns))
