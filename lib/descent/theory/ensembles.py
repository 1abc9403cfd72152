"""Many small random quadratics at once, for a search: loads, edges and floors of heavy ball, written out densely.

rows (E, n, d): E problems of n equally likely examples with Hessians x xᵀ. A problem at a time, of any size, is in
`linear`, with the same conventions: raw lr, `share` p of the noise of one example that a batch keeps. lr, momentum and
share broadcast over the problems.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from descent.arrays import Array
from descent.theory.mode import kernel

__all__ = ["ceiling", "edges", "loads", "loss_floors", "random_rows"]


_NULL = 1e-10  # eigenvalues of H below this share of the largest count as zero
_HALVINGS = 60


class _Modes(NamedTuple):
    """Eigenvalues (E, d) of H, examples in its eigenbasis (E, n, d), the basis, and which modes any step moves."""

    values: Array
    rows: Array
    basis: Array
    kept: NDArray[np.bool_]


def random_rows(rng: np.random.Generator, problems: int, examples: int, dimension: int) -> Array:
    """Draw problems with heavy-tailed rows: lengths of Student's t with two degrees of freedom, unequal directions.

    rng: numpy's generator; problems: how many.
    """
    directions = rng.normal(size=(problems, examples, dimension)) * rng.uniform(0.1, 1, size=(problems, 1, dimension))
    return np.asarray(directions * rng.standard_t(2, size=(problems, examples, 1)))


def ceiling(rows: Array, momentum: ArrayLike = 0.0) -> Array:
    """Return the largest lr that is stable without noise, 2(1 + β)/λ₁, (E,).

    rows: the examples of every problem, (E, n, d).
    """
    return np.asarray(2 * (1 + np.asarray(momentum)) / _modes(rows).values[:, -1])


def loads(rows: Array, lr: ArrayLike, momentum: ArrayLike, share: ArrayLike = 1.0) -> Array:
    """Return the mean-square load Λ, the largest eigenvalue of S ↦ pV(S)/K, (E,); infinite above the ceiling.

    rows: the examples of every problem, (E, n, d).
    """
    return _loads(_modes(rows), lr, momentum, share)


def edges(rows: Array, momentum: ArrayLike, share: ArrayLike = 1.0) -> Array:
    """Return the largest mean-square stable lr, at which the load is 1, by bisection, (E,).

    rows: the examples of every problem, (E, n, d).
    """
    modes, top = _modes(rows), ceiling(rows, momentum)
    low, high = np.zeros_like(top), np.ones_like(top)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        calm = _loads(modes, middle * top, momentum, share) < 1
        low, high = np.where(calm, middle, low), np.where(calm, high, middle)
    return np.asarray(low * top)


def loss_floors(rows: Array, noise: Array, lr: ArrayLike, momentum: ArrayLike, share: ArrayLike = 1.0) -> Array:
    """Return the stationary tr(HM), K∘M − pV(M) = pΣ with Σ = `noise` (E, d, d), (E,); H must have full rank.

    rows: the examples of every problem, (E, n, d). noise: Σ of one example's gradient.
    """
    modes = _modes(rows)
    count, d = modes.values.shape
    k, spread = _kernel(modes, lr, momentum), _spread(modes, share)
    with np.errstate(invalid="ignore"):  # not a number where H lacks a rank: there is no floor
        matrix = k.reshape(count, -1, 1) * np.eye(d * d) - spread
    turned = modes.basis.mT @ noise @ modes.basis
    drive = np.broadcast_to(np.asarray(share), count)[:, None] * turned.reshape(count, -1)
    moment = np.linalg.solve(matrix, drive[..., None]).reshape(count, d, d)
    return np.asarray((modes.values * np.diagonal(moment, axis1=1, axis2=2)).sum(axis=1))


def _modes(rows: Array) -> _Modes:
    values, basis = np.linalg.eigh(rows.mT @ rows / rows.shape[1])
    return _Modes(values, rows @ basis, basis, values > _NULL * values[:, -1:])


def _loads(modes: _Modes, lr: ArrayLike, momentum: ArrayLike, share: ArrayLike) -> Array:
    root = np.sqrt(_kernel(modes, lr, momentum)).reshape(len(modes.values), -1)
    root = np.where(np.isfinite(root), root, np.inf)
    scaled = _spread(modes, share) / root[:, :, None] / root[:, None, :]
    stable = np.asarray(lr) * modes.values[:, -1] < 2 * (1 + np.asarray(momentum))
    scaled = np.where(stable[:, None, None], scaled, 0.0)
    return np.where(stable, np.linalg.eigvalsh(scaled)[:, -1], np.inf)


def _kernel(modes: _Modes, lr: ArrayLike, momentum: ArrayLike) -> Array:
    """Return K (E, d, d), infinite where a mode is in the null space: nothing happens there."""
    h = modes.values
    rates, momenta = (np.broadcast_to(np.asarray(v, dtype=float), len(h))[:, None, None] for v in (lr, momentum))
    pairs = modes.kept[:, :, None] & modes.kept[:, None, :]
    found = kernel(h[:, :, None], h[:, None, :], np.maximum(rates, 1e-300), momenta)
    return np.where(pairs & (found > 0), found, np.inf)


def _spread(modes: _Modes, share: ArrayLike) -> Array:
    """Return p[E(x_a x_b x_c x_d) − h_a h_b δ_ac δ_bd] as matrices, (E, d², d²)."""
    count, n, d = modes.rows.shape
    pairs = (modes.rows[..., :, None] * modes.rows[..., None, :]).reshape(count, n, d * d)
    outer = (modes.values[:, :, None] * modes.values[:, None, :]).reshape(count, d * d)
    whole = pairs.mT @ pairs / n - outer[:, :, None] * np.eye(d * d)
    return np.asarray(np.broadcast_to(np.asarray(share, dtype=float), count)[:, None, None] * whole)
