"""The numbers the explorers of the site must reproduce: each evaluates a formula of this library in the browser.

`python -m descent.golden` writes chapters/_static/explorers/<name>.json.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from descent.problems.escape import variance_from_rest
from descent.problems.inertia import race
from descent.problems.linear import aligned_edge, critical_batch
from descent.problems.mode import growth, stationary_variance
from descent.problems.noise_escape import closure_step, outside
from descent.results import project_root, write_json

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
        output = [float(growth(instability, lr, momentum)),
                  float(variance_from_rest(steps, instability, lr, momentum)),
                  float(stationary_variance(curvature, lr, momentum))]
        given = {"lr": lr, "momentum": momentum, "instability": instability, "curvature": curvature, "steps": steps}
        points.append({"input": given, "output": output})
    return points


EXPLORERS: Mapping[str, Callable[[], list[dict[str, Any]]]] = {
    "geometry": geometry, "margins": margins, "saddles": saddles,
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
