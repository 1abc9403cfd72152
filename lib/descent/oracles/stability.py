"""Mean-square stability at a minimum against the moments of all batches, listed."""

from __future__ import annotations

from functools import cache
from itertools import product

import numpy as np
import torch
from torch import Tensor

from descent.measure import several_outputs, stability
from descent.oracles.common import Array, Oracle, absolute, companion, each, normals, radius, tensor

__all__ = ["ORACLES"]

CLASSES = 3
ATOMS = np.array([(2.0, 0.0), (1.0, 1.0), (1.0, -1.0), (0.0, 0.5)])


def _threshold() -> float:
    k, radii = torch.from_numpy(ATOMS @ ATOMS.T)[None], []
    for size, momentum in product((1, 2), (0.0, 0.9)):
        lr = float(stability.threshold(k, size, momentum))
        means = [np.mean([np.outer(x, x) for x in batch], axis=0) for batch in product(ATOMS, repeat=size)]
        radii.append(radius([companion(h, lr, momentum) for h in means]))
    return absolute(radii, 1.0)


def _load() -> float:
    """Divide the noise in the map of moments by the load: what is left is at the edge, a radius of one."""
    rows, radii = normals(26, 5, 3), []
    for size, momentum, lr in ((1, 0.0, 0.3), (2, 0.0, 0.6), (1, 0.9, 0.05), (2, 0.9, 0.4)):
        steps = [companion(np.outer(x, x), lr, momentum) for x in rows]
        quiet = np.kron(np.mean(steps, axis=0), np.mean(steps, axis=0))
        noise = np.mean([np.kron(a, a) for a in steps], axis=0) - quiet
        found = float(stability.load(torch.from_numpy(rows @ rows.T)[None], lr, size, momentum, iterations=400))
        radii.append(np.abs(np.linalg.eigvals(quiet + noise / (size * found))).max())
    return absolute(radii, 1.0)


@cache
def _several() -> tuple[Tensor, list[Array]]:
    """Return K̃ of softmax regression with three classes and the examples' Hessians, off the null space, (n, q, q)."""
    x, labels = tensor(27, 6, 2), torch.tensor([0, 1, 2, 0, 1, 2])
    logits, n = x @ tensor(28, 2, CLASSES), len(x)
    jacobian = torch.einsum("ni,ab->naib", x, torch.eye(CLASSES).to(x)).flatten(2)
    p = logits.softmax(dim=1)
    curves = torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)
    hessians = torch.einsum("nap,nab,nbq->npq", jacobian, curves, jacobian)
    values, basis = torch.linalg.eigh(hessians.mean(0))
    inside = basis[:, values > 1e-10]
    rows = jacobian.flatten(0, 1)
    seen = several_outputs.cross_entropy(logits, labels).seen(rows @ rows.mT)
    return seen, [(inside.mT @ h @ inside).numpy() for h in hessians[:n]]


def _block_threshold() -> float:
    seen, hessians = _several()
    radii = []
    for size, momentum in product((1, 2), (0.0, 0.9)):
        lr = several_outputs.block_threshold(seen, CLASSES, momentum, share=1 / size)
        means = [np.mean(batch, axis=0) for batch in product(hessians, repeat=size)]
        radii.append(radius([companion(h, lr, momentum) for h in means]))
    return absolute(radii, 1.0)


def _block_load() -> float:
    """Divide the noise in the map of moments by the load: what is left is at the edge, a radius of one."""
    seen, hessians = _several()
    radii = []
    for size, momentum, lr in ((1, 0.0, 0.6), (2, 0.9, 0.8)):
        steps = [companion(h, lr, momentum) for h in hessians]
        quiet = np.kron(np.mean(steps, axis=0), np.mean(steps, axis=0))
        noise = np.mean([np.kron(a, a) for a in steps], axis=0) - quiet
        found = several_outputs.block_load(seen, CLASSES, lr, momentum, share=1 / size)
        radii.append(np.abs(np.linalg.eigvals(quiet + noise / (size * found))).max())
    return absolute(radii, 1.0)


def _bounds() -> float:
    """Compare 2λ/(λ² + t) with the extremes of the noise t over directions tried one by one."""
    angle = np.arange(20_000) * np.pi / 20_000
    v, hessians = np.stack([np.cos(angle), np.sin(angle)]), [np.outer(x, x) for x in ATOMS]
    mean = np.mean(hessians, axis=0)
    spread = np.mean([h @ mean @ h for h in hessians], axis=0) - mean @ mean @ mean
    noise = np.einsum("ai,ab,bi->i", v, spread, v) / np.einsum("ai,ab,bi->i", v, mean, v)
    values = np.linalg.eigvalsh(mean)
    truth = [np.min(2 * values / (values**2 + noise.max())), np.max(2 * values / (values**2 + noise.min()))]
    found = stability.bounds(torch.from_numpy(ATOMS @ ATOMS.T)[None], 1)
    return each([float(found.lower), float(found.upper)], truth)


_M = "descent.measure"

# fmt: off
ORACLES: tuple[Oracle, ...] = (
    Oracle(f"{_M}.stability.threshold", "largest stable step from the Gram matrix, with and without momentum",
           "spectral radius 1 over all batches listed", 1e-7, "absolute", _threshold),
    Oracle(f"{_M}.stability.load", "mean-square load at a step, with and without momentum",
           "spectral radius 1 where the noise is divided by it", 1e-8, "absolute", _load),
    Oracle(f"{_M}.several_outputs.block_threshold", "largest stable step of several outputs, cross-entropy",
           "spectral radius 1 over all batches listed", 1e-7, "absolute", _block_threshold),
    Oracle(f"{_M}.several_outputs.block_load", "mean-square load of several outputs, cross-entropy",
           "spectral radius 1 where the noise is divided by it", 1e-8, "absolute", _block_load),
    Oracle(f"{_M}.stability.bounds", "one-step bounds on the largest stable step",
           "the formula, with the noise of 20 000 directions", 1e-6, "relative", _bounds),
)
# fmt: on
