"""The numbers the explorers of the site must reproduce: each evaluates a formula of this library in the browser.

`python -m descent.oracles.explorers` writes chapters/_static/explorers/<name>.json.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any, get_args

import numpy as np

from descent.engine import rules
from descent.problems.exponents import almost_sure_threshold, exponent
from descent.results import project_root, write_json
from descent.theory.averages import Skewed
from descent.theory.drift import uv_path
from descent.theory.escape import variance_from_rest
from descent.theory.inertia import race
from descent.theory.linear import aligned_edge, critical_batch
from descent.theory.matched import STATES, Held, Setting, badges, gauges
from descent.theory.memory import Memory
from descent.theory.mode import critical_damping, growth, mode_edge, stationary_variance
from descent.theory.moments import moment_operator
from descent.theory.noise_escape import closure_step, outside
from descent.theory.search_noise import Rule, Variant, bound, degree, flat_lag, stationary_moments
from descent.theory.signs import ema
from descent.theory.valley import memory_crossing, memory_drift, memory_edge, valley_drift, valley_edge
from descent.theory.weights import Gamma, lyapunov

__all__ = ["EXPLORERS", "golden"]

TOLERANCE = 1e-9


def margins() -> list[dict[str, Any]]:
    """Return feature, memory and loss of the two-coordinate race after some steps."""
    points = []
    for lr, momentum, steps in itertools.product((0.1, 1.0, 8.0, 64.0), (0.0, 0.7, 0.95, 0.995), (10, 400)):
        for large, small, memory in ((1.5, 0.15, 0.2), (3.0, 0.05, 0.6)):
            found = race(lr, momentum, steps, start=(0.142, memory), large_margin=large, small_margin=small)
            given = {"lr": lr, "momentum": momentum, "large": large, "small": small, "memory": memory, "steps": steps}
            points.append({"input": given, "output": [float(part[steps]) for part in found]})
    return points


def geometry() -> list[dict[str, Any]]:
    """Return edge and critical batch; without momentum also the loss and D_1 after some steps of the closure."""
    points = []
    for batch, momentum, decay, modes in itertools.product((1, 64, 4096), (0.0, 0.9, 0.99), (0.05, 2.0), (2, 200)):
        curvature = np.arange(1, modes + 1.0) ** -decay
        edge = aligned_edge(curvature, momentum, 1 / batch)
        output = [edge, float(critical_batch(curvature, momentum))]
        lr, steps, losses = 1.2 * edge, 20, curvature.copy()
        if momentum == 0:
            for _ in range(steps):
                losses = closure_step(curvature, losses, lr, 1 / batch)
            output += [float(losses.sum() / 2), float(outside(losses, 1))]
        given = {"lr": lr, "momentum": momentum, "batch": batch, "decay": decay, "modes": modes, "steps": steps}
        points.append({"input": given, "output": output})
    return points


def saddles() -> list[dict[str, Any]]:
    """Return growth rate and variance on a saddle, and the stationary variance at an optimum, unit noise."""
    points = []
    for lr, momentum, instability in itertools.product((0.001, 0.1, 1.0), (0.0, 0.5, 0.9, 0.99), (0.05, 2.0)):
        steps, curvature = 30, 1.0
        output = [
            float(growth(instability, lr, momentum)),
            float(variance_from_rest(steps, instability, lr, momentum)),
            float(stationary_variance(curvature, lr, momentum)),
        ]
        given = {"lr": lr, "momentum": momentum, "instability": instability, "curvature": curvature, "steps": steps}
        points.append({"input": given, "output": output})
    return points


def hero() -> list[dict[str, Any]]:
    """Return what the explorer of saddles is checked by, and the momentum from which the mode rings."""
    points = saddles()
    for point in points:
        given = point["input"]
        point["output"].append(float(critical_damping(given["momentum"])))
    return points


def flatness() -> list[dict[str, Any]]:
    """Return both thresholds, the mean square after some steps, the Lyapunov exponent, and the exponent as e^−α."""
    points = []
    for lr, momentum, batch, variance in itertools.product((0.3, 1.2, 3.9), (0.0, 0.9), (1, 16, 1024), (0.1, 1.0, 2.0)):
        law, steps = Gamma(1 / variance), 40
        edge = float(mode_edge(1.0, momentum, variance / batch))
        output = [
            edge,
            _mean_square(lr, batch, momentum, variance, steps),
            lyapunov(law, lr, batch),
            almost_sure_threshold(law, batch),
            float(np.exp(-exponent(law, lr, batch))),
        ]
        given = {"lr": lr, "momentum": momentum, "batch": batch, "variance": variance, "steps": steps}
        points.append({"input": given, "output": output})
    return points


def _mean_square(lr: float, batch_size: int, momentum: float, variance: float, steps: int) -> float:
    """Return E x² after some steps from x = 1 at rest, two kinds of example having that variance."""
    spread = variance**0.5
    step = moment_operator(np.array([1 - spread, 1 + spread])[:, None, None], lr, batch_size, momentum)
    return float((np.linalg.matrix_power(step, steps) @ np.ones(len(step)))[0])


def smoothing() -> list[dict[str, Any]]:
    """Return powers of the direction's noise, its lag, the spread of the iterate, and degrees: exact and both formulas.

    One sharp and one flat direction with noise of variance one per example, on a floor of constant slope.
    """
    points, names = [], ("rule", "lr", "momentum", "nu", "batch", "ratio", "slope")
    memories, valleys = ((0.0, 0.7), (0.5, 1.0), (0.99, 0.7)), ((1, 1.0, 0.0), (16, 10.0, 0.2), (8192, 100.0, 1.0))
    kinds: tuple[Rule, ...] = ("sgd", "heavy_ball", "ema", "qhm")
    for rule, lr, (momentum, nu), valley in itertools.product(range(4), (0.001, 0.1, 1.5), memories, valleys):
        output = _direction(kinds[rule], lr, momentum, nu, *valley)
        points.append({"input": dict(zip(names, (rule, lr, momentum, nu, *valley), strict=True)), "output": output})
    return points


def _direction(
    rule: Rule, lr: float, momentum: float, nu: float, batch: int, ratio: float, slope: float
) -> list[float]:
    """Return what is known of one rule in one valley."""
    hyper = {
        "sgd": rules.sgd(lr),
        "heavy_ball": rules.heavy_ball(lr, momentum),
        "ema": rules.ema(lr, momentum),
        "qhm": rules.qhm(lr, momentum, nu),
    }[rule]
    curvatures = np.array([1.0, 1 / ratio])
    variance, power = (part[0] for part in stationary_moments(hyper, curvatures, 1 / batch))
    lag, gradient = flat_lag(hyper)[0] * slope**2, (slope**2 + curvatures**2 @ variance) ** 0.5
    variants: tuple[Variant, ...] = ("submission", "repository")
    formulas = [bound(rule, 2 / batch, momentum=momentum, gradient=gradient, nu=nu, variant=each) for each in variants]
    degrees = [degree(lr, each) for each in (power.sum() + lag, *formulas)]
    return [float(value) for value in (*power, lag, variance.sum(), *degrees)]


def synthesis() -> list[dict[str, Any]]:
    """Return seven log ratios (0 where there is none), eh, λh, B/k×, the load as e^−Λ, and seven states by number."""
    points, ways = [], get_args(Held)
    names = ("held", "lr", "momentum", "batch", "curvature", "instability", "multiplicative", "sigma")
    lands = ((1, 1.0, 1.0, 0.25, 1.0), (32, 1.0, 1.0, 4.0, 3.5), (4, 8.0, 0.5, 1.0, 0.5))
    for held, lr, momentum, land in itertools.product(range(3), (0.01, 0.3), (0.0, 0.5, 0.95), lands):
        setting = Setting(lr, momentum, *land[:-1], noise=land[-1] ** 2)
        found, (*marks, load) = gauges(setting, ways[held]), badges(setting, ways[held])
        output = [*np.nan_to_num(found.log_ratio), *marks, np.exp(-load), *(STATES.index(each) for each in found.state)]
        given = dict(zip(names, (held, lr, momentum, *land), strict=True))
        points.append({"input": given, "output": [float(value) for value in output]})
    return points


def border() -> list[dict[str, Any]]:
    """Return one over both drifts, border and edges, and u² − v² and sharpness at the ends of both paths on uv."""
    slow, noisy = (0.002, 4000, 0.0, 1.0, 1.0), (0.05, 400, 0.5, 0.1, 0.4)
    cases: list[tuple[float, ...]] = [(0, momentum, *slow) for momentum in (0.5, 0.8, 0.9)]
    cases += [(0, 0.9, effective, 800, 0.0, 1.0, 9.2 * effective) for effective in (0.2, 0.3)]
    cases += [(0, 0.99, *noisy), (0, 0.5, 0.2, 400, 2.0, 1.0, 0.3), (1, 0.5, *slow), (1, 0.9, 0.2, 400, 0, 1, 1.84)]
    cases += [
        (1, 0.9, *noisy),
        (1, 0.99, *noisy),
        (2, 0.5, 0.05, 400, 0.25, 1.0, 0.4),
        (2, 0.9, 0.01, 800, 0.5, 1, 0.1),
    ]
    points, names = [], ("kind", "momentum", "effective", "steps", "spread", "share", "z")
    for case, (u, v) in itertools.product(cases, ((3.0, 0.05), (1.5, 1.2))):
        kind, momentum, effective, steps, *valley = case
        ways = (Memory.heavy_ball(momentum), Memory.nesterov(momentum), Memory.stale(round(momentum / (1 - momentum))))
        output = [*_valley(ways[int(kind)], *valley)]
        for rule, step in ((ways[int(kind)], effective), (Memory.heavy_ball(0.0), valley[1] * effective)):
            first, second = uv_path(rule, (u, v), step, int(steps))[-1] ** 2
            output += [float(first - second), float(first + second)]
        points.append({"input": {**dict(zip(names, case, strict=True)), "u": u, "v": v}, "output": output})
    return points


def _valley(rule: Memory, spread: float, share: float, z: float) -> list[float]:
    """Return one over the drifts of a rule and of plain descent at a share of its step, the border, both edges."""
    drifts = memory_drift(rule, z, spread), float(valley_drift(share * z, 0.0, spread))
    edges = memory_edge(rule, spread), float(valley_edge(0.0, spread)) / share
    return [*(1 / drift for drift in drifts), memory_crossing(rule, spread, share), *edges]


def normalised() -> list[dict[str, Any]]:
    """Return mean sign, place of rest and floor over the rate of one coordinate, plain and averaged before the sign."""
    points = []
    for momentum, batch, skew, place in itertools.product((0.0, 0.5, 0.95), (1, 8, 64), (0.25, 2.0, 4.0), (-0.3, 0.1)):
        kernel, output = ema(momentum), []
        for noise, power in (
            (Skewed(1.0, skew).averaged(ema(0.0), batch), 1.0),
            (Skewed(1.0, skew).averaged(kernel, batch), kernel.diffusion),
        ):
            output += [float(noise.mean_sign(place)), -noise.median, power / (4 * noise.density)]
        given = {"momentum": momentum, "batch": batch, "skew": skew, "place": place}
        points.append({"input": given, "output": output})
    return points


EXPLORERS: Mapping[str, Callable[[], list[dict[str, Any]]]] = {
    "border": border,
    "flatness": flatness,
    "geometry": geometry,
    "hero": hero,
    "margins": margins,
    "normalised": normalised,
    "saddles": saddles,
    "smoothing": smoothing,
    "synthesis": synthesis,
}
"""The points of every explorer by its name."""


def golden(name: str) -> dict[str, Any]:
    """Return what is written for an explorer; differences are relative, and absolute below one."""
    return {"tolerance": TOLERANCE, "points": EXPLORERS[name]()}


def main() -> None:
    """Write them all."""
    for name in EXPLORERS:
        write_json(project_root() / "chapters" / "_static" / "explorers" / f"{name}.json", golden(name))


if __name__ == "__main__":
    main()
