"""Noise of the search direction: exact second moments of every linear rule, and the formulas of Sato and Iiduka.

A step is x ← x − lr·d, and ω = d − ∇f(x) is the noise of its direction. With g = ∇f(x) + ξ and a rule of `rules`

    d = w·g + u·v,    ω = w·ξ + [(w − 1)·∇f(x) + u·v],

v the buffer before the step: the bracket is the mean of ω given the past. `noise` is E|ξ|², that of one step, with
the batch already in it; `variance` is C² = E|∇f_i − ∇f|², that of one example. Exact statements take a `Hyper` of
R arms, made by the constructors of `rules`, which says how gradients are summed and how the buffer starts; its lr
is the rule's own, and in d and ω the gradient is the one it feels, with its sign and its weight decay. The formulas
of the paper (arXiv 2402.02325) take the rule by its name there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.linalg import solve_discrete_lyapunov
from torch import Tensor

from descent.arrays import Array
from descent.engine.rules import Coefficients, Hyper
from descent.theory.mode import _momentum, convert, search_noise_power

__all__ = [
    "Moments",
    "Rule",
    "Stopping",
    "Variant",
    "Weights",
    "beta_hat",
    "bound",
    "conditional_power",
    "degree",
    "flat_lag",
    "flat_power",
    "floor_factor",
    "recipe_batch",
    "recipe_factor",
    "recipe_variance",
    "shuffled_power",
    "stationary_moments",
    "stationary_ratio",
    "violation_threshold",
    "virtual_steps",
    "weights",
]

Rule = Literal["sgd", "heavy_ball", "ema", "qhm"]
"""The update rule by name."""

Variant = Literal["submission", "repository"]
"""Which of the paper's two forms is meant: that of the text, or that of the public code."""

Stopping = Literal["inner_product", "minibatch_gradient"]
"""What a run watches to stop."""


class Weights(NamedTuple):
    """d = fresh·g + carried·v, after which v ← momentum·v + inflow·g; each (R,)."""

    fresh: Tensor  # weight of the gradient in the direction
    carried: Tensor  # weight of the buffer in the direction
    momentum: Tensor
    inflow: Tensor


def weights(hyper: Hyper, starting: bool = False) -> Weights:
    """Return what the search direction is made of; `starting` marks the step that fills an empty buffer.

    At rate 0 it is what it is at any other, but for a buffer of displacements: that moves on without a rate, and its
    `carried` is infinite there.

    starting: whether it is the step that fills an empty buffer.
    """
    steady = _steady(hyper)
    own, carried = (part / steady.lr for part in _moves(steady.coefficients(starting)))
    endless = (hyper.lr == 0) & hyper.displacement & (carried != 0)
    momentum, inflow, _, _ = hyper.coefficients(starting)
    return Weights(own, carried.masked_fill(endless, torch.inf), momentum, inflow)


def _steady(hyper: Hyper) -> Hyper:
    """Return the rules with rate 1 where it is 0: how a direction weighs gradients does not depend on a steady rate."""
    return replace(hyper, lr=torch.where(hyper.lr == 0, torch.ones_like(hyper.lr), hyper.lr))


def conditional_power(hyper: Hyper, noise: ArrayLike, memory: ArrayLike) -> Array:
    """Return E|ω|² given the past, w²·noise + memory, memory = |(w − 1)∇f + u·v|²: any loss, anywhere on any path.

    Not for shuffled epochs, whose batches depend on one another. All of them (R,).

    noise: power of the fresh noise; memory: power of what is remembered.
    """
    fresh = weights(hyper).fresh.cpu().numpy()
    return np.asarray(fresh**2 * np.asarray(noise, dtype=np.float64) + np.asarray(memory, dtype=np.float64))


def flat_power(hyper: Hyper) -> Array:
    """Return E|ω|² over the noise at parameters that stand still, Σ_k w_k², (R,).

    heavy_ball 1/(1 − β²), ema (1 − β)/(1 + β), qhm (1 − νβ)² + ν²β²(1 − β)/(1 + β).
    """
    fresh, later, beta = _memory(hyper)
    return np.asarray(fresh**2 + later**2 / (1 - beta**2))


def flat_lag(hyper: Hyper) -> Array:
    """Return |E ω|² over |∇f|² at parameters that stand still, (Σ_k w_k − 1)²: (β/(1 − β))² for heavy_ball, (R,)."""
    fresh, later, beta = _memory(hyper)
    return np.asarray((fresh + later / (1 - beta) - 1) ** 2)


def shuffled_power(hyper: Hyper, batch_size: int, population: int) -> Array:
    """Return E|ω|² over C²/B in shuffled epochs, at parameters that stand still, (R,).

    (B/(n − 1))·[(n/B) Σ_k w_k² − Σ_epochs (Σ_{k in the epoch} w_k)²], averaged over the ⌊n/B⌋ places in an epoch. The
    batches of an epoch are disjoint, so they disagree with one another; plain SGD: (n − B)/(n − 1).
    """
    if not 0 < batch_size <= population:
        raise ValueError(f"batch_size must lie between 1 and the population {population}, got {batch_size}")
    fresh, later, beta = (part[:, None] for part in _memory(hyper))
    length = population // batch_size
    place = np.arange(length)
    current = fresh + later * (1 - beta**place) / (1 - beta)
    earlier = later**2 * beta ** (2 * place) * (1 - beta**length) ** 2 / ((1 - beta) ** 2 * (1 - beta ** (2 * length)))
    epochs = (current**2 + earlier).mean(axis=1)
    return np.asarray((population * flat_power(hyper) - batch_size * epochs) / (population - 1))


def _memory(hyper: Hyper) -> tuple[Array, Array, Array]:
    """Return w₀, w₁ and β: a gradient of age k has the weight w_k = w₁β^(k−1)."""
    fresh, carried, momentum, inflow = (part.cpu().numpy() for part in weights(_steady(hyper)))
    return fresh, carried * inflow, momentum


def stationary_ratio(z: ArrayLike, momentum: ArrayLike, convention: Literal["heavy_ball", "ema"] = "ema") -> Array:
    """Return E ω² over the noise in one mode at its optimum; z = lr·curvature with the lr of the convention.

    ema: R = (2(1 − β) + z(3β − 1))/(2(1 + β) − z(1 − β)), below 1 exactly where z < 2, where plain SGD is stable;
    heavy_ball: 1 + 2β²/((1 − β)(2(1 + β) − z)). Infinite where the iteration is unstable.

    convention: whose rate and direction, "heavy_ball" or "ema".
    """
    return search_noise_power(1.0, convert(z, momentum, convention).lr, momentum, convention=convention)


def violation_threshold(momentum: ArrayLike) -> Array:
    """Return z above which an ema's E ω² exceeds noise/(1 − β), 2((1 + β) − (1 − β)²)/(3β(1 − β)); momentum > 0."""
    beta = _moving(momentum)
    return np.asarray(2 * ((1 + beta) - (1 - beta) ** 2) / (3 * beta * (1 - beta)))


class Moments(NamedTuple):
    """E x² and E ω² at stationarity per arm and mode, (R, d); infinite where there is none."""

    variance: Array
    power: Array


def stationary_moments(hyper: Hyper, curvatures: ArrayLike, noise: ArrayLike = 1.0) -> Moments:
    """Solve the discrete Lyapunov equation of the state (x, v) for every arm and mode of ½ Σ curvature·x².

    curvatures (d,), noise (d,): variances along the eigenvectors. Any rule, any spectrum; sums over modes are traces.
    The curvature is the one the rule feels: weight decay adds to it, ascent turns its sign.
    """
    h = np.atleast_1d(np.asarray(curvatures, dtype=np.float64))
    variances = np.broadcast_to(np.asarray(noise, dtype=np.float64), h.shape)
    matrices, inputs, outputs = _recursion(hyper, h)
    found = np.full((2, *matrices.shape[:2]), np.inf)
    for arm, mode in np.ndindex(matrices.shape[:2]):
        a, b, c = matrices[arm, mode], inputs[arm], outputs[arm, mode]
        if np.abs(np.linalg.eigvals(a)).max() < 1:
            state = solve_discrete_lyapunov(a, variances[mode] * np.outer(b, b))
            fresh = weights(hyper).fresh[arm].item()
            found[:, arm, mode] = state[0, 0], c @ state @ c + fresh**2 * variances[mode]
    return Moments(*found)


def _recursion(hyper: Hyper, h: Array, starting: bool = False) -> tuple[Array, Array, Array]:
    """Return A (R, d, 2, 2), b (R, 2), c (R, d, 2): (x, v) ← A(x, v) + bξ and ω = c·(x, v) + wξ, curvatures h (d,)."""
    fresh, carried, momentum, inflow = (part.cpu().numpy()[:, None] for part in weights(hyper, starting))
    sign, decay = (part.cpu().numpy()[:, None] for part in (hyper.sign, hyper.weight_decay))
    step, kept = (part.cpu().numpy()[:, None] for part in _moves(hyper.coefficients(starting)))
    h = sign * h[None, :] + decay  # as the rule feels it; noise has no sign
    rows = [[1 - step * h, -kept + 0 * h], [inflow * h, momentum + 0 * h]]
    matrices = np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
    inputs = np.concatenate([-step, inflow], axis=-1)
    return matrices, inputs, np.stack([(fresh - 1) * h, carried + 0 * h], axis=-1)


def _moves(numbers: Coefficients) -> tuple[Tensor, Tensor]:
    """Return how far a step goes by its own gradient and by the buffer before it, finite also at rate 0; each (R,)."""
    return numbers.direct + numbers.carry * numbers.inflow, numbers.carry * numbers.momentum


def beta_hat(momentum: ArrayLike) -> Array:
    """Return β̂ = β(β² − β + 1)/(1 − β)², the factor of the paper's heavy-ball bound."""
    beta = _momentum(momentum)
    return np.asarray(beta * (beta**2 - beta + 1) / (1 - beta) ** 2)


def bound(
    rule: Rule,
    noise: ArrayLike,
    *,
    momentum: ArrayLike = 0.0,
    gradient: ArrayLike = 0.0,
    nu: ArrayLike = 1.0,
    variant: Variant = "submission",
) -> Array:
    """Return the paper's bound on E|ω|², noise = C²/B, gradient = K the bound on the gradient norm.

    sgd: noise; heavy_ball: (1 + β̂)·noise + β̂K²; ema, in two variants that disagree: noise/(1 − β) (submission of
    2024), or noise + 4β²(noise + K²) (public code of May 2024). qhm is not the paper's: the triangle inequality for
    ω = (1 − ν)ω_sgd + νω_ema.

    rule: "sgd", "heavy_ball", "ema" or "qhm"; noise: C²/B, the power of a batch's noise; gradient: K, the bound on the
    gradient's norm; variant: which of the two texts.
    """
    s2, k2, beta = (np.asarray(v, dtype=np.float64) for v in (noise, np.square(gradient), _momentum(momentum)))
    if variant not in ("submission", "repository"):
        raise ValueError(f'variant must be "submission" or "repository", got {variant!r}')
    average = s2 / (1 - beta) if variant == "submission" else s2 + 4 * beta**2 * (s2 + k2)
    share = np.asarray(nu, dtype=np.float64)
    bounds = {
        "sgd": s2,
        "heavy_ball": (1 + beta_hat(beta)) * s2 + beta_hat(beta) * k2,
        "ema": average,
        "qhm": ((1 - share) * np.sqrt(s2) + share * np.sqrt(average)) ** 2,
    }
    return np.asarray(bounds[_known(rule, tuple(bounds))])


def degree(lr: ArrayLike, power: ArrayLike) -> Array:
    """Return the degree of smoothing δ = lr·√E|ω|²; with a `bound` in place of E|ω|² it is the paper's formula."""
    return np.asarray(np.asarray(lr, dtype=np.float64) * np.sqrt(np.asarray(power, dtype=np.float64)))


def recipe_factor(rule: Rule, momentum: ArrayLike = 0.0) -> Array:
    """Return κ in the paper's critical batch lr·κ·C²/ε²: sgd 1, ema 1/(1 − β), heavy_ball β̂/β² (momentum > 0).

    rule: "sgd", "heavy_ball", "ema" or "qhm".
    """
    beta = _momentum(momentum)
    if _known(rule, ("sgd", "heavy_ball", "ema")) == "heavy_ball":
        return np.asarray(beta_hat(_moving(momentum)) / beta**2)
    return np.asarray(1 / (1 - beta) if rule == "ema" else np.ones_like(beta))


def floor_factor(rule: Rule, momentum: ArrayLike = 0.0) -> Array:
    """Return κ of the true noise floor E⟨x, ∇f⟩ → lr·κ·C²/(2B) for small lr: sgd 1, ema 1, heavy_ball 1/(1 − β).

    rule: "sgd", "heavy_ball", "ema" or "qhm".
    """
    beta = _momentum(momentum)
    heavy = _known(rule, ("sgd", "heavy_ball", "ema")) == "heavy_ball"
    return np.asarray(1 / (1 - beta) if heavy else np.ones_like(beta))


def recipe_batch(variance: ArrayLike, lr: ArrayLike, precision: ArrayLike, factor: ArrayLike) -> Array:
    """Return the critical batch lr·κ·C²/ε².

    variance: C² of one example's gradient; precision: ε, the norm of the gradient that is to be reached; factor: κ of
    the rule.
    """
    c2, eta, epsilon, kappa = (np.asarray(v, dtype=np.float64) for v in (variance, lr, precision, factor))
    return np.asarray(eta * kappa * c2 / epsilon**2)


def recipe_variance(critical_batch: ArrayLike, lr: ArrayLike, precision: ArrayLike, factor: ArrayLike) -> Array:
    """Return the gradient variance the recipe reads off a critical batch, C² = B*ε²/(lr·κ).

    critical_batch: B*, the batch size; precision: ε, the norm of the gradient that is to be reached; factor: κ of the
    rule.
    """
    return np.asarray(np.asarray(critical_batch, dtype=np.float64) / recipe_batch(1.0, lr, precision, factor))


def virtual_steps(
    hyper: Hyper,
    batch_sizes: ArrayLike,
    *,
    variance: float,
    start: float,
    precision: float,
    curvature: float = 1.0,
    stopping: Stopping = "inner_product",
    limit: int = 20_000,
) -> Array:
    """Return the steps to a precision on ½ curvature·x² from x = `start`, by exact second moments, (R, B).

    A run ends when the mean over its steps of E⟨x, ∇f⟩ ("inner_product") or of E|g|², g the mini-batch gradient
    ("minibatch_gradient", whose floor C²/B knows neither lr nor rule), is at most precision². Infinite at the limit.
    Weight decay moves the runs; ∇f and g, by which they are judged, are those of the loss alone.

    stopping: what is compared with the precision; limit: steps at most; variance: C² of one example's gradient;
    precision: the norm of the gradient that is to be reached.
    """
    noise = variance / np.atleast_1d(np.asarray(batch_sizes, dtype=np.float64))
    if stopping not in ("inner_product", "minibatch_gradient"):
        raise ValueError(f'stopping must be "inner_product" or "minibatch_gradient", got {stopping!r}')
    first, then = (_transport(hyper, curvature, starting) for starting in (True, False))
    state = np.zeros((hyper.replicas, len(noise), 3))
    state[..., 0] = start**2
    total, steps = np.zeros(state.shape[:2]), np.full(state.shape[:2], np.inf)
    for step in range(limit):
        inner = curvature * state[..., 0]
        total += inner if stopping == "inner_product" else curvature * inner + noise
        steps[np.isinf(steps) & (total <= precision**2 * (step + 1))] = step + 1
        if np.isfinite(steps).all():
            break
        moments, entering = first if step == 0 else then
        state = state @ moments + noise[:, None] * entering
    return steps


def _transport(hyper: Hyper, curvature: float, starting: bool) -> tuple[Array, Array]:
    """Return the step of (E x², E xv, E v²), (R, 3, 3) acting from the right, and what one unit of noise adds."""
    matrices, inputs, _ = _recursion(hyper, np.array([curvature]), starting)
    (a, b), (c, d) = np.moveaxis(matrices[:, 0], 0, -1)
    p, q = inputs.T
    moved = [[a * a, a * c, c * c], [2 * a * b, a * d + b * c, 2 * c * d], [b * b, b * d, d * d]]
    return np.moveaxis(np.array(moved), -1, 0), np.stack([p * p, p * q, q * q], axis=-1)[:, None]


def _known(rule: str, rules: tuple[str, ...]) -> str:
    if rule not in rules:
        raise ValueError(f"rule must be one of {', '.join(rules)}, got {rule!r}")
    return rule


def _moving(momentum: ArrayLike) -> Array:
    beta = _momentum(momentum)
    if (beta == 0).any():
        raise ValueError("momentum must be positive: at 0 the formula divides by it")
    return beta
