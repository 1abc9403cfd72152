"""Dynamics: one mode, many modes, saddles and exits."""

from __future__ import annotations

import math
from itertools import combinations, product

import numpy as np
import torch
from scipy import linalg as dense
from scipy import special, stats
from torch import nn

from descent.oracles.common import (
    ALGEBRA,
    F64,
    SOLVED,
    Array,
    Leaves,
    Oracle,
    absolute,
    companion,
    each,
    generator,
    hermite,
    normals,
    radius,
    relative,
    streams,
    tensor,
    worst,
)
from descent.problems import diagonal, patches, pca
from descent.theory import escape, inertia, linear, mode, moments, noise_escape

__all__ = ["ORACLES"]

ROWS = normals(51, 4, 3) * np.array([[1.0], [0.5], [2.0], [1.0]])
HESSIANS = ROWS[:, :, None] * ROWS[:, None, :]


# One mode


def _modes(count: int = 60) -> tuple[Array, Array, Array]:
    """Draw lr, momentum and curvature of stable modes."""
    r = generator(53)
    beta, h = r.uniform(0, 0.95, count), np.exp(r.normal(size=count))
    return r.uniform(0.02, 0.95, count) * 2 * (1 + beta) / h, beta, h


def _lyapunov(lr: float, beta: float, h: float) -> Array:
    return np.asarray(dense.solve_discrete_lyapunov(companion(h, lr, beta), np.diag([lr**2, 0.0])))


def _stationary_variance() -> float:
    truth = [_lyapunov(*one)[0, 0] for one in zip(*_modes(), strict=True)]
    lr, beta, h = _modes()
    return each(mode.stationary_variance(h, lr, beta), truth)


def _autocorrelation() -> float:
    a, covariance = companion(1.3, 0.2, 0.8), _lyapunov(0.2, 0.8, 1.3)
    truth = [(np.linalg.matrix_power(a, lag) @ covariance)[0, 0] / covariance[0, 0] for lag in range(12)]
    return absolute(mode.autocorrelation(np.arange(12), 1.3, 0.2, 0.8), truth)


def _kernel() -> float:
    """Noise over stationary covariance of two modes: the inverse of Σ_k lr² a_k b_k of their impulse responses."""
    r, found, truth = generator(54), [], []
    for _ in range(20):
        beta, pair = r.uniform(0, 0.9), np.exp(r.normal(size=2) / 2)
        lr = r.uniform(0.1, 0.9) * 2 * (1 + beta) / pair.max()
        now, before, total = np.ones(2), np.zeros(2), 0.0
        for _ in range(1500):
            total += now.prod()
            now, before = (1 + beta - lr * pair) * now - beta * before, now
        found.append(float(mode.kernel(pair[0], pair[1], lr, beta)))
        truth.append(1 / (lr**2 * total))
    return each(found, truth)


def _growth() -> float:
    r = generator(55)
    lr, beta = np.exp(r.uniform(-6, 0, 40)), r.uniform(0, 0.99, 40)
    truth = [math.log(np.roots([1, -(1 + b + a), b]).real.max()) for a, b in zip(lr, beta, strict=True)]
    return each(mode.growth(1.0, lr, beta), truth)


# Many modes


def _with_noise(hessians: Array, lr: float, momentum: float, noise: Array) -> Array:
    """Return the fixed point of second moments over equally likely Hessians, from the matrix of their map.

    In (x, √lr·buffer): in (x_t, x_{t−1}), which are all but equal, the matrix would be two thousand times as ill
    conditioned, and this truth no better than the instrument.
    """
    d, root = hessians.shape[-1], lr**0.5
    eye, enter = np.eye(d), np.vstack([-lr * np.eye(d), root * np.eye(d)])
    maps = [np.block([[eye - lr * h, -root * momentum * eye], [root * h, momentum * eye]]) for h in hessians]
    operator, added = np.mean([np.kron(a, a) for a in maps], axis=0), enter @ noise @ enter.T
    return np.asarray(np.linalg.solve(np.eye(4 * d * d) - operator, added.ravel()).reshape(2 * d, 2 * d)[:d, :d])


def _stationary_covariance() -> float:
    root, deviations = normals(56, 3, 3), []
    for lr, momentum in ((0.05, 0.0), (0.01, 0.9)):
        truth = _with_noise(HESSIANS, lr, momentum, root @ root.T)
        found = linear.stationary_covariance(HESSIANS.mean(0), root @ root.T, lr, momentum, V=ROWS)
        deviations.append(relative(found, truth))
    return worst(*deviations)


def _mean_square_edge() -> float:
    radii = []
    for momentum in (0.0, 0.5, 0.9):
        lr = linear.mean_square_edge(ROWS, momentum)
        radii.append(radius([companion(h, lr, momentum) for h in HESSIANS]))
    return absolute(radii, 1.0)


def _aligned_edge() -> float:
    """V(M) = tr(HM)H written as the matrix vec H vec Hᵀ, and added to the map of second moments."""
    h, radii = np.array([4.0, 2.0, 1.0]), []
    for momentum, share in product((0.0, 0.9), (1.0, 0.25)):
        lr = linear.aligned_edge(h, momentum, share)
        a, place = companion(np.diag(h), lr, momentum), np.zeros((6, 6))
        place[:3, :3] = np.diag(h)
        operator = np.kron(a, a) + lr**2 * share * np.outer(place.ravel(), place.ravel())
        radii.append(float(np.abs(np.linalg.eigvals(operator)).max()))
    return absolute(radii, 1.0)


def _moments_threshold() -> float:
    radii, pairs = [], [(a + b) / 2 for a, b in combinations(HESSIANS, 2)]
    for momentum in (0.0, 0.7):
        lr = moments.threshold(HESSIANS, 2, momentum, replacement=False)
        radii.append(radius([companion(h, lr, momentum) for h in pairs]))
    return absolute(radii, 1.0)


def _growth_rate() -> float:
    truth = [math.log(radius([companion(h, 0.1, momentum) for h in HESSIANS])) / 2 for momentum in (0.0, 0.7)]
    return absolute([moments.growth_rate(ROWS, 0.1, 1, momentum) for momentum in (0.0, 0.7)], truth)


def _nesterov_threshold() -> float:
    """Curvature .2 or 1.8: v′ = (1 − Cq)((1 + β)v − βv₋)."""
    radii = []
    for momentum in (0.5, 0.9):
        lr = moments.nesterov_threshold(1.0, 1, momentum, 0.64)
        keep = 1 - lr * np.array([0.2, 1.8])
        radii.append(radius([np.array([[(1 + momentum) * k, -momentum * k], [1, 0]]) for k in keep]))
    return absolute(radii, 1.0)


def _second_moment_step() -> float:
    """All sixteen batches of two from one start."""
    curvature, rows = noise_escape.eigen_rows(torch.from_numpy(ROWS))
    w, x = np.array([0.3, -1.0, 2.0]), rows.numpy()
    ends = [w - 0.2 * np.mean([a * (a @ w) for a in batch], axis=0) for batch in product(x, repeat=2)]
    moved = noise_escape.second_moment_step(rows, torch.from_numpy(np.outer(w, w)), 0.2, 0.5)
    spectrum = np.linalg.eigvalsh(HESSIANS.mean(0))[::-1]
    return worst(relative(moved, np.mean([np.outer(end, end) for end in ends], axis=0)), relative(curvature, spectrum))


def _closure_escape() -> float:
    h, lr = 1 / np.arange(1, 21.0), 0.6
    values, vectors = np.linalg.eig(np.diag((1 - lr * h) ** 2) + lr**2 * np.outer(h**2, np.ones(20)))
    first = int(values.real.argmax())
    found = noise_escape.closure_escape(h, lr, 1.0)
    profile = vectors[:, first].real
    return worst(each(found.growth, values[first].real), relative(found.profile, profile / profile.sum()))


# Saddles and exits


def _escape_mean() -> float:
    """Carry the density inside the radius from step to step; the law is late by 0.2 % at level 8."""
    lr = 0.02
    unit = lr / math.sqrt((1 + lr) ** 2 - 1)  # the radius at level 1
    nodes, weights = np.polynomial.legendre.leggauss(200)
    nodes, weights = 8 * unit * nodes, 8 * unit * weights
    carry = stats.norm.pdf(nodes[:, None], (1 + lr) * nodes, lr) * weights
    density, total, left = stats.norm.pdf(nodes, 0, lr), 1.0, 1.0
    while left > 1e-9:
        left = float(weights @ density)
        total, density = total + left, carry @ density
    return each(escape.escape_mean(8 * unit, 1, lr, 0), total)


def _escape_quantile() -> float:
    """Look for the first step at which 2Φ(−R/s_k) reaches p, s_k² summed step by step."""
    lr, beta, p, quantiles = 0.02, 0.9, (0.1, 0.5, 0.9), list[int]()
    now, before, total, k = 1.0, 0.0, 0.0, 0
    while len(quantiles) < len(p):
        total, k = total + lr**2 * now**2, k + 1
        now, before = (1 + beta + lr) * now - beta * before, now
        if 2 * special.ndtr(-1 / math.sqrt(total)) >= p[len(quantiles)]:
            quantiles.append(k)
    return absolute(escape.escape_quantile(p, 1, 1, lr, beta), quantiles)


def _flow() -> float:
    values, start = (4.0, 3.0, 2.0, 1.0), np.array([0.1, 0.9, 0.3, 0.3])
    grown = [dense.expm(np.diag(values) * t) @ start for t in (0.5, 1.0, 3.0)]
    truth = [row / np.linalg.norm(row) for row in grown]
    return absolute(pca.StreamingPCA(values).flow(start / np.linalg.norm(start), [0.5, 1.0, 3.0]), truth)


def _race() -> float:
    """Race by averaged descent on log losses, forces by autograd: noise power pN makes them a gradient."""
    found = inertia.race(8.0, 0.9, 200, small_margin=0.4, noise_power=10.0)
    point, v, truth = torch.tensor([0.142, 0.2], dtype=F64, requires_grad=True), torch.zeros(2, dtype=F64), []
    for _ in range(201):
        s, u = point
        small = nn.functional.softplus(-((0.4 * s) ** 3 + u**3))
        loss = 0.9 * nn.functional.softplus(-((1.5 * s) ** 3)) + 0.1 * small
        truth.append([s.item(), u.item(), loss.item()])
        v = 0.9 * v + 0.1 * torch.autograd.grad(loss, point)[0]
        point = (point.detach() - 8.0 * v).requires_grad_()
    return relative(np.stack(found), np.array(truth).T)


def _coasting() -> float:
    """Integrate by Runge and Kutta's rule of fourth order at a fixed step."""
    state, step, truth = np.array([0.15, 0.0]), 0.005, 0.0

    def move(at: Array) -> Array:
        return np.array([at[1], -at[1] + 30 * at[0] ** 2 / (1 + math.exp(at[0] ** 3))])

    for _ in range(2000):
        a = move(state)
        b = move(state + step / 2 * a)
        c = move(state + step / 2 * b)
        state = state + step / 6 * (a + 2 * b + 2 * c + move(state + step * c))
        truth = max(truth, float(state[1]))
    return each(inertia.coasting(10.0, 0.15, 10.0)[0], state[0])


def _test_noise() -> float:
    weights = normals(59, 2, 3)
    points, chance = hermite(3, 5)
    outputs = ((0.5 * points @ weights.T) ** 3).sum(1)
    return each(inertia.test_noise_variance(weights, 4, 0.5), 4 * (chance @ outputs**2 - (chance @ outputs) ** 2))


def _diagonal() -> float:
    x, target, point = tensor(60, 1, 6, 3), tensor(61, 3), tensor(62, 1, 2, 3).requires_grad_()
    loss = ((x[0] @ (point[0, 0] * point[0, 1] - target)) ** 2).mean() / 2
    (truth,) = torch.autograd.grad(loss, point)
    return relative(diagonal.DiagonalNet(x, target).gradient(point.detach(), streams(1), 0), truth)


def _patches() -> float:
    data = patches.patch_data(streams(1), examples=6, small=2, patches=2, dimension=5)
    s, v = tensor(63, 1, 3).requires_grad_(), tensor(64, 1, 3, 4).requires_grad_()
    signal = (data.signal[0, :, None] * s[0]) ** 3
    outputs = signal.sum(1) + torch.einsum("md,njd->njm", v[0], data.noise[0]).pow(3).sum((1, 2))
    loss = nn.functional.softplus(-data.labels[0] * outputs).mean()
    truth = torch.autograd.grad(loss, [s, v])
    found: Leaves = patches.Patches(data).gradient({"s": s.detach(), "v": v.detach()}, streams(1), 0)
    return worst(relative(found["s"], truth[0]), relative(found["v"], truth[1]))


_P, _T = "descent.problems", "descent.theory"
_LISTED, _AUTOGRAD = "spectral radius 1 over all batches listed", "autograd of the definition"

# fmt: off
ORACLES = (
    Oracle(f"{_T}.mode.stationary_variance", "stationary variance of one mode", "discrete Lyapunov equation, SciPy",
           SOLVED, "relative", _stationary_variance),
    Oracle(f"{_T}.mode.autocorrelation", "autocorrelation of one mode", "powers of the matrix of a step", ALGEBRA,
           "absolute", _autocorrelation),
    Oracle(f"{_T}.mode.kernel", "noise over covariance of two modes", "sum over impulse responses", SOLVED,
           "relative", _kernel),
    Oracle(f"{_T}.mode.growth", "growth rate at a saddle", "roots of the polynomial, NumPy", SOLVED, "relative",
           _growth),
    Oracle(f"{_T}.linear.stationary_covariance", "stationary covariance, noise that depends on place",
           "fixed point of the map of moments, listed", SOLVED, "relative", _stationary_covariance),
    Oracle(f"{_T}.linear.mean_square_edge", "largest stable step with momentum", _LISTED, 1e-8, "absolute",
           _mean_square_edge),
    Oracle(f"{_T}.linear.aligned_edge", "largest stable step under aligned noise",
           "spectral radius 1 of the map of moments", 1e-8, "absolute", _aligned_edge),
    Oracle(f"{_T}.moments.threshold", "largest stable step, drawn without replacement", _LISTED, 1e-8, "absolute",
           _moments_threshold),
    Oracle(f"{_T}.moments.growth_rate", "growth of the mean square", "spectral radius over all examples", SOLVED,
           "absolute", _growth_rate),
    Oracle(f"{_T}.moments.nesterov_threshold", "largest stable step of Nesterov's rule", _LISTED, 1e-8, "absolute",
           _nesterov_threshold),
    Oracle(f"{_T}.noise_escape.second_moment_step", "second moment after a step", "all sixteen batches listed",
           ALGEBRA, "relative", _second_moment_step),
    Oracle(f"{_T}.noise_escape.closure_escape", "growth and profile of an escape by aligned noise",
           "eigenvector of the matrix of a step, LAPACK", SOLVED, "relative", _closure_escape),
    Oracle(f"{_T}.escape.escape_mean", "mean escape time at level 8, late by 0.2 % by its construction",
           "first passage by quadrature, step by step", 3e-3, "relative", _escape_mean),
    Oracle(f"{_T}.escape.escape_quantile", "quantiles of the escape time", "the law tried step by step", 0.0,
           "absolute", _escape_quantile),
    Oracle(f"{_P}.pca.StreamingPCA", "gradient flow of the principal component", "matrix exponential, SciPy", ALGEBRA,
           "absolute", _flow),
    Oracle(f"{_T}.inertia.race", "race of feature and memory", "averaged descent, forces by autograd", SOLVED,
           "relative", _race),
    Oracle(f"{_T}.inertia.coasting", "distance coasted", "Runge and Kutta's rule at a fixed step", 1e-7, "relative",
           _coasting),
    Oracle(f"{_T}.inertia.test_noise_variance", "variance of the noise part of an output", "exact quadrature",
           ALGEBRA, "relative", _test_noise),
    Oracle(f"{_P}.diagonal.DiagonalNet", "gradient of the diagonal net", _AUTOGRAD, ALGEBRA, "relative", _diagonal),
    Oracle(f"{_P}.patches.Patches", "gradient of the net on patches", _AUTOGRAD, ALGEBRA, "relative", _patches),
)
# fmt: on
