"""Noise: of gradients, of search directions, of weights; its normality, its smoothing and its geometry."""

from __future__ import annotations

import math
from functools import partial
from itertools import combinations, permutations

import numpy as np
import torch
from scipy import integrate, optimize, special, stats
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

from descent.engine import rules
from descent.engine.train import train
from descent.measure import noise, normality, smoothing
from descent.nets.dense import MLP, Stacked
from descent.nets.supervised import Supervised
from descent.oracles.common import (
    ALGEBRA,
    CHANCE,
    F64,
    SOLVED,
    Array,
    Leaves,
    Oracle,
    absolute,
    each,
    errors,
    generator,
    hermite,
    module_of,
    normals,
    relative,
    score,
    slope,
    slopes,
    streams,
    task,
    tensor,
    worst,
)
from descent.problems import exponents, quadratics, smoothed
from descent.theory import isserlis, search_noise, weights

__all__ = ["ORACLES"]

N = 12


def _net(batch_size: int = 4) -> tuple[Supervised, Leaves, MLP]:
    net = MLP((4, 5, 3), "tanh")
    return *task(net, tensor(31, N, 4), 3, batch_size), net


def _images() -> tuple[Supervised, Leaves, nn.Module]:
    """Return a net with group norm, whose examples have no short cut."""
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.Tanh(), nn.Flatten(), nn.Linear(16, 3)).double()
    return *task(Stacked(net), tensor(32, N, 1, 4, 4), 3, 4), net


def _example_gradients() -> float:
    objective, params, net = _images()
    return relative(noise.example_gradients(objective, params), slopes(objective, params, net))


def _example_squares() -> float:
    objective, params, net = _net()
    return relative(noise.example_squares(objective, params), slopes(objective, params, net.module()).square().sum(2))


def _gradient_noise() -> float:
    objective, params, net = _net()
    each_one = slopes(objective, params, net.module())
    return each(noise.gradient_noise(objective, params), each_one.var(1, correction=0).sum(1))


def _batch_noise() -> float:
    """Compare with all 220 batches of three of twelve, drawn without replacement."""
    objective, params, net = _net()
    objective = Supervised(net, objective.loss, objective.inputs, objective.targets, 3, "without_replacement")
    g = slopes(objective, params, net.module())
    batches = torch.stack([g[:, list(chosen)].mean(1) for chosen in combinations(range(N), 3)])
    truth = (batches - g.mean(1)).square().sum(2).mean(0)
    return each(noise.batch_noise(objective, noise.gradient_noise(objective, params)), truth)


def _search_noise() -> float:
    """Compare with (x_t − x_{t+1})/lr − ∇f(x_t) along the steps of torch's Nesterov with weight decay."""
    (objective, params, net), source, steps = _net(), streams(2), 6
    hyper = rules.repeat(rules.nesterov(0.05, 0.8, weight_decay=0.1), 2)
    probe = noise.SearchNoise(objective, partial(noise.full_gradient, objective), hyper, source, every=1)
    found = train(objective, params, hyper, steps, source, probes={"w": probe}).records["w.power"].values[:steps]
    truth = torch.empty(steps, 2, dtype=F64)
    for r in range(2):
        own = module_of(net.module(), params, r)
        optimizer = torch.optim.SGD(own.parameters(), lr=0.05, momentum=0.8, nesterov=True, weight_decay=0.1)
        for step in range(steps):
            x = parameters_to_vector(own.parameters()).detach().clone()
            full = slope(own, objective.inputs, objective.targets) + 0.1 * x
            batch = objective.indices(source, step)[r]
            slope(own, objective.inputs[batch], objective.targets[batch])
            optimizer.step()
            after = parameters_to_vector(own.parameters()).detach()
            truth[step, r] = ((x - after) / 0.05 - full).square().sum()
    return each(found, truth)


def _distance() -> float:
    samples = generator(33).uniform(size=(50, 3))
    truth = [stats.kstest(x, stats.norm(x.mean(), x.std(ddof=1)).cdf).statistic for x in samples.T]
    return absolute(normality.normality(torch.from_numpy(samples)[None]).distance[0], truth)


def _pvalue() -> float:
    """Count normal samples below four levels; the table of the test is simulated from 10 000 samples itself."""
    count, levels = 20_000, np.array([0.05, 0.2, 0.5, 0.8])
    x = np.sort(normals(34, count, 30), axis=1)
    law = special.ndtr((x - x.mean(1, keepdims=True)) / x.std(1, ddof=1, keepdims=True))
    place = np.arange(31) / 30
    distance = np.maximum(place[1:] - law, law - place[:-1]).max(1)
    below = np.mean(normality.lilliefors_pvalue(distance, 30)[:, None] <= levels, axis=0)
    return score(below, levels, np.sqrt(levels * (1 - levels) * (1 / count + 1 / 10_000)))


def _participation() -> float:
    objective, params, net = _net()
    spectra = [np.linalg.eigvalsh(np.cov(g.numpy().T)) for g in slopes(objective, params, net.module())]
    return each(normality.participation(objective, params), [s.sum() ** 2 / np.sum(s**2) for s in spectra])


def _rastrigin(x: Tensor) -> Tensor:
    return (x.square() - 10 * (2 * math.pi * x).cos() + 10).sum(1)


def _smoothed_samples() -> float:
    """Use that in a ball of three dimensions E cos(ku₁) = 3(sin k − k cos k)/k³ and E u₁² = 1/5."""
    x, degree = normals(35, 3, 3), np.array([0.1, 0.25, 0.5])
    k = (2 * np.pi * degree)[:, None]
    waves = 3 * (np.sin(k) - k * np.cos(k)) / k**3 * np.cos(2 * np.pi * x)
    truth = np.sum(x**2 + degree[:, None] ** 2 / 5 - 10 * waves + 10, axis=1)
    found = smoothing.samples(
        _rastrigin, torch.from_numpy(x), torch.from_numpy(degree), smoothing.Ball(), 4000, streams(3)
    )
    return errors(found, truth)


def _drift() -> float:
    """Compare with (y − y′)/lr − ξ, y = x − lr∇f(x) before and after one literal step of SGD."""
    (objective, params, net), source, lr, count = _net(), streams(2, 5), 0.5, 4
    found, truth = smoothing.drift(objective, params, lr, smoothing.Gaussian(), count, source).sgd, []
    for r in range(2):
        own = module_of(net.module(), params, r)
        x, full = parameters_to_vector(own.parameters()).detach().clone(), partial(_full, own, objective)
        y, mean = x - lr * full(x), full(x)
        for step in range(count):
            batch = objective.indices(source, step)[r]
            g = slope(own, objective.inputs[batch], objective.targets[batch], at=x)
            after = x - lr * g
            felt = (y - after + lr * full(after)) / lr - (g - mean)
            truth.append(float(felt @ full(y) / full(y).norm()))
    return relative(found, np.reshape(truth, (2, count)))


def _full(module: nn.Module, objective: Supervised, at: Tensor) -> Tensor:
    return slope(module, objective.inputs, objective.targets, at=at)


def _characteristic() -> float:
    """Integrate over the first coordinate of a uniform point, of density ∝ (1 − t²)^((d − 1)/2)."""
    found, truth = [], []
    for dimension in (1, 2, 5, 12):
        power = (dimension - 1) / 2
        wave, whole = (
            integrate.quad(lambda t, k=k, p=power: (1 - t * t) ** p * math.cos(k * t), -1, 1, epsabs=1e-13)[0]
            for k in (4.0, 0.0)
        )
        truth.append(wave / whole)
        found.append(float(smoothed.characteristic("ball", 4.0, dimension)))
    return absolute(found, truth)


def _trap() -> float:
    """Bisect for the δ at which the slope x + e^{−(10δ)²/2} sin 10x touches zero beside 0, on a grid of x."""
    x = np.linspace(1e-3, 2, 100_001)

    def lowest(degree: float) -> float:
        return float(np.min(1 + math.exp(-50 * degree**2) * np.sin(10 * x) / x))

    truth = optimize.brentq(lowest, 0.01, 1.0, xtol=1e-12)
    return each(smoothed.Rugged(1.0, 0.1, 10.0).trap_threshold("gaussian"), truth)


def _gamma() -> float:
    z, found, truth = np.linspace(-6, 6, 2001), [], []
    for batch_size in (1, 16):
        found.append(weights.Gamma(0.5).mean_of(torch.from_numpy(z), batch_size).numpy())
        below = stats.gamma.ppf(special.ndtr(z), batch_size / 2, scale=2 / batch_size)
        truth.append(np.where(z < 0, below, stats.gamma.isf(special.ndtr(-z), batch_size / 2, scale=2 / batch_size)))
    return absolute(found, truth)


def _lyapunov() -> float:
    lr = np.array([0.1, 0.7, 1.0, 2.7, 40.0])
    return absolute([weights.lyapunov(weights.Gamma(1.0), a) for a in lr], -np.exp(-1 / lr) * special.expi(1 / lr))


def _exponent() -> float:
    """Use E|1 − lr·w| = 1 where 2e^{−1/lr} = 1, and E|1 − lr·w̄|² = 1 at lr = 2k/(k + 1)."""
    law = weights.Gamma(1.0)
    return each(
        [exponents.exponent(law, 1 / math.log(2)), *(exponents.exponent(law, 2 * k / (k + 1), k) for k in (1, 4, 16))],
        [1, 2, 2, 2],
    )


def _almost_sure() -> float:
    """Use the zero of the logarithmic integral, and |1 − 1.8lr||1 − 0.2lr| = 1 for two points."""
    found = [exponents.almost_sure_threshold(law) for law in (weights.Gamma(1.0), weights.TwoPoint(0.8))]
    return each(found, [1 / math.log(1.4513692348833810), (2 - math.sqrt(1.12)) / 0.72])


def _features() -> float:
    """Take one step of plain descent from a unit vector, the feature vectors drawn in full."""
    batch_size, dimension, lr = 2, 3, 0.8
    x = normals(37, 40_000, batch_size, dimension)
    v = np.eye(dimension)[0] - lr / batch_size * np.einsum("rki,rk->ri", x, x[:, :, 0])
    size, chance = exponents.Features(dimension).factors(lr, batch_size)
    logs = np.log(np.linalg.norm(v, axis=1))
    return errors([logs, np.exp(logs)], [np.log(size) @ chance, size @ chance])


def _gaussian_features() -> float:
    """Use that a batch of k has mean Hθ and second moment (1 + 1/k)HθθᵀH + θᵀHθ H/k."""
    h, theta, k = np.diag([1.0, 0.4]), np.array([0.7, -1.2]), 3
    problem = quadratics.GaussianFeatures((1.0, 0.4), k)
    g = problem.gradient(torch.from_numpy(theta).expand(40_000, 2), streams(40_000), 0).numpy().T
    pull = h @ theta
    second = (1 + 1 / k) * np.outer(pull, pull) + theta @ pull * h / k
    return errors([*g, g[0] ** 2, g[0] * g[1], g[1] ** 2], [*pull, second[0, 0], second[0, 1], second[1, 1]])


def _responses(steps: int = 300) -> Array:
    """Return what one unit of gradient adds to later search directions of torch's heavy ball, Nesterov, dampened."""
    rows = []
    for options in ({}, {"nesterov": True}, {"dampening": 0.3}):
        x = nn.Parameter(torch.zeros(1, dtype=F64))
        optimizer = torch.optim.SGD([x], lr=0.1, momentum=0.8, **options)
        path = []
        for gradient in [0.0, 1.0] + [0.0] * steps:  # the first step fills the buffer
            x.grad = torch.tensor([gradient], dtype=F64)
            optimizer.step()
            path.append(x.item())
        rows.append(-np.diff(path) / 0.1)
    return np.array(rows)


def _flat_power() -> float:
    hyper = rules.stack(rules.heavy_ball(0.1, 0.8), rules.nesterov(0.1, 0.8), rules.dampened(0.1, 0.8, 0.3))
    w = _responses()
    lag = search_noise.flat_lag(hyper)
    return worst(each(search_noise.flat_power(hyper), np.sum(w**2, axis=1)), each(lag, (w.sum(1) - 1) ** 2))


def _shuffled_power() -> float:
    """List all orders of five examples, batches of two, and sum an average's weights over 60 epochs."""
    values, beta = normals(38, 5), 0.7
    values = values - values.mean()
    batches = np.array([values[list(order[:4])].reshape(2, 2).mean(1) for order in permutations(range(5))])
    covariance = batches.T @ batches / len(batches)
    w, powers = (1 - beta) * beta ** np.arange(120), []
    for place in range(2):
        mine, earlier = w[place::-1], w[place + 1 : place + 119].reshape(-1, 2)[:, ::-1]
        now = mine @ covariance[: place + 1, : place + 1] @ mine
        powers.append(now + np.einsum("ei,ij,ej->", earlier, covariance, earlier))
    found = search_noise.shuffled_power(rules.ema(0.1, beta), 2, 5)
    return each(found, np.mean(powers) / (values.var() / 2))


def _stationary_moments() -> float:
    """Sum the squares of x and ω over the answer to one unit of noise, two rules typed out."""
    beta, nu, curvatures, truth = 0.8, 0.6, (0.5, 3.0), np.zeros((2, 2, 2))
    for arm, h in np.ndindex(2, 2):
        lr, x, v = (0.3, 0.2)[arm], 0.0, 0.0
        for step in range(1500):
            pull = curvatures[h] * x
            g = pull + (step == 0)
            v = beta * v + (1 - beta if arm == 0 else 1.0) * g
            direction = (1 - nu) * g + nu * v if arm == 0 else g + beta * v
            truth[:, arm, h] += x**2, (direction - pull) ** 2
            x -= lr * direction
    hyper = rules.stack(rules.qhm(0.3, beta, nu), rules.nesterov(0.2, beta))
    return each(np.stack(search_noise.stationary_moments(hyper, curvatures)), truth)


def _isserlis() -> float:
    """Write out the matrices of three inputs in two dimensions, and average by an exact quadrature."""
    covariance, u = np.array([[1.0, 0.3], [0.3, 0.5]]), np.array([1.0, -2.0])
    points, chance = hermite(6, 4)
    x = points.reshape(-1, 3, 2) @ np.linalg.cholesky(covariance).T
    gradients = (x @ u)[:, :, None] * x
    g, mean = x.swapaxes(1, 2) @ x / 3, gradients.mean(1)
    power, drift = np.einsum("nia,nab,nib->n", gradients, g, gradients) / 3, np.einsum("na,nab,nb->n", mean, g, mean)
    truth = [chance @ part for part in (power, np.sum(g**2, axis=(1, 2)), drift)]
    found = isserlis.expected_alignment(covariance, u, 3)
    return each([found.noise, found.frobenius, found.drift, found.twice_loss], [*truth, u @ covariance @ u])


_M, _P, _T = "descent.measure", "descent.problems", "descent.theory"
_ONE_BY_ONE = "gradients of torch's module, example by example"

# fmt: off
ORACLES = (
    Oracle(f"{_M}.noise.example_gradients", "gradient of every example, a net with group norm", _ONE_BY_ONE, ALGEBRA,
           "relative", _example_gradients),
    Oracle(f"{_M}.noise.example_squares", "squared norms of the examples' gradients, without the gradients",
           _ONE_BY_ONE, ALGEBRA, "relative", _example_squares),
    Oracle(f"{_M}.noise.gradient_noise", "variance of one example's gradient", _ONE_BY_ONE, ALGEBRA, "relative",
           _gradient_noise),
    Oracle(f"{_M}.noise.batch_noise", "variance of a batch without replacement", "all 220 batches listed", ALGEBRA,
           "relative", _batch_noise),
    Oracle(f"{_M}.noise.SearchNoise", "noise of the search direction in a run", "steps of torch.optim.SGD, Nesterov",
           SOLVED, "relative", _search_noise),
    Oracle(f"{_M}.normality.normality", "Lilliefors' distance to a normal law", "kstest of SciPy", ALGEBRA,
           "absolute", _distance),
    Oracle(f"{_M}.normality.lilliefors_pvalue", "p-values of 20 000 normal samples", "the uniform law", CHANCE,
           "standard errors", _pvalue),
    Oracle(f"{_M}.normality.participation", "number of directions that share the noise",
           "eigenvalues of the covariance matrix", SOLVED, "relative", _participation),
    Oracle(f"{_M}.smoothing.samples", "Rastrigin's function smoothed in a ball, by draws",
           "sine and cosine of the ball in closed form", CHANCE, "standard errors", _smoothed_samples),
    Oracle(f"{_M}.smoothing.drift", "slope that SGD feels after a step", "literal steps of SGD on torch's module",
           SOLVED, "relative", _drift),
    Oracle(f"{_P}.smoothed.characteristic", "waves smoothed in a ball of 1 to 12 dimensions",
           "quadrature of the marginal density", SOLVED, "absolute", _characteristic),
    Oracle(f"{_P}.smoothed.Rugged", "smallest smoothing that leaves no trap", "bisection over a grid of slopes", 1e-6,
           "relative", _trap),
    Oracle(f"{_T}.weights.Gamma", "quantiles of mean weights from the table", "gamma law of SciPy", SOLVED,
           "absolute", _gamma),
    Oracle(f"{_T}.weights.lyapunov", "growth of single runs under exponential weights", "exponential integral",
           SOLVED, "absolute", _lyapunov),
    Oracle(f"{_P}.exponents.exponent", "exponent of the tail under exponential weights", "closed forms at 1 and 2",
           SOLVED, "relative", _exponent),
    Oracle(f"{_P}.exponents.almost_sure_threshold", "step at which single runs leave",
           "root of the logarithmic integral; a quadratic equation", SOLVED, "relative", _almost_sure),
    Oracle(f"{_P}.exponents.Features", "stretching of a distance by Gaussian features", "simulated steps", CHANCE,
           "standard errors", _features),
    Oracle(f"{_P}.quadratics.GaussianFeatures", "batch gradients from d + 1 numbers", "moments in closed form",
           CHANCE, "standard errors", _gaussian_features),
    Oracle(f"{_T}.search_noise.flat_power", "noise and lag of the direction at fixed parameters",
           "impulse response of torch.optim.SGD", ALGEBRA, "relative", _flat_power),
    Oracle(f"{_T}.search_noise.shuffled_power", "noise of the direction in shuffled epochs", "all orders listed",
           ALGEBRA, "relative", _shuffled_power),
    Oracle(f"{_T}.search_noise.stationary_moments", "stationary variance and direction noise, two rules",
           "impulse response of the textbook's rules", SOLVED, "relative", _stationary_moments),
    Oracle(f"{_T}.isserlis.expected_alignment", "expected noise geometry of Gaussian inputs",
           "exact quadrature of explicit matrices", ALGEBRA, "relative", _isserlis),
)
# fmt: on
