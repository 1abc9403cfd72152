"""The experiments of the sign map, shrunk: they answer their claims, and their instruments measure what they say."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from descent.claims import load_paper
from descent.engine import Purpose
from descent.engine.streams import Streams, replica_seeds
from descent.experiments.lab import Experiment, Lab, Share
from descent.experiments.synthesis import accounts, ages, border, critical, plateaus, small_nets, svag, valleys
from descent.stats import Estimate
from tidy import check_answers, value_of

LAB = Lab(replicas=40, seed=7)
SHRUNK: dict[str, tuple[ModuleType, Experiment[Any, Any], dict[str, Any]]] = {
    "accounts": (
        accounts, accounts.ACCOUNTS, {"draws": 3, "replicas": 3, "norm_replicas": 9, "law_steps": 60, "time": 3.0}
    ),
    "ages": (
        ages,
        ages.AGES,
        {"draws": 3, "replicas": 3, "effective": 0.04, "time": 9.0, "look": 1.5, "losses": (0.3, 0.45)},
    ),
    "border": (
        border,
        border.BORDER,
        {"draws": 3, "replicas": 3, "time": 40.0, "map_time": 24.0, "map_steps": (0.4, 1.2), "map_batches": (4, 0),
         "loss": (0.1, 0.2), "scan": (0.2, 0.4, 0.8, 1.0), "look": 10.0},
    ),
    "critical": (critical, critical.CRITICAL, {"modes": 20, "steps": 14}),
    "plateaus": (
        plateaus, plateaus.PLATEAUS, {"draws": 3, "replicas": 3, "states": 10, "edges": 5, "time": 40.0, "since": 20.0}
    ),
    "svag": (svag, svag.SVAG, {"draws": 3, "replicas": 3, "time": 10.0, "fineness": (1, 2, 4)}),
    "valleys": (valleys, valleys.VALLEYS, {"label_steps": 200, "runs": Share(least=400), "labels": Share(least=40)}),
}  # fmt: skip


@cache
def result(name: str) -> Any:
    _, experiment, small = SHRUNK[name]
    return experiment.run(replace(experiment.small, **small), LAB)


@pytest.mark.parametrize("name", SHRUNK)
def test_estimates_speak_to_the_claims_and_tables_are_tidy(name: str) -> None:
    module, experiment, _ = SHRUNK[name]
    check_answers("S", module, result(name))
    stated = {key.partition(".")[0] for key, test in load_paper("S").tests.items() if test.by == experiment.name}
    assert {key.partition(".")[0] for key in module.estimates(result(name))} == stated


@pytest.mark.parametrize(
    ("name", "key"), [("accounts", "S-33.law"), ("valleys", "S-38.exact"), ("plateaus", "S-43.law")]
)
def test_identities_hold_to_rounding(name: str, key: str) -> None:
    assert value_of(SHRUNK[name][0].estimates(result(name)), key) < 1e-9


def test_a_crossing_without_chance_does_not_make_the_others_too_few() -> None:
    found = valleys.estimates(result("valleys"))["S-38.paths"]
    assert isinstance(found, Estimate)
    assert found.n == valleys.Valleys().sets


def test_a_level_is_passed_between_two_looks() -> None:
    loss = np.array([[0.0, -1.0, -3.0], [0.0, -0.5, -0.6], [-3.0, -4.0, -5.0]])
    values = np.array([[1.0, 2.0, 4.0]] * 3)
    np.testing.assert_allclose(small_nets.at_level(loss, values, -2.0), [3.0, np.nan, np.nan])


def test_flow_is_descent_with_small_steps() -> None:
    task = small_nets.small_task(LAB, 2)
    start = task.start(LAB.streams(2, torch.float64))
    coarse, fine = (small_nets.flow(task, start, 2.0, step, round(2 / step))[0][:, -1] for step in (0.2, 0.1))
    np.testing.assert_allclose(coarse, fine, rtol=1e-4)
    params, objective = start, task.objective()
    for _ in range(400):
        slope = objective.gradient(params, LAB.streams(2, torch.float64), 0)
        params = {name: leaf - 5e-3 * slope[name] for name, leaf in params.items()}
    np.testing.assert_allclose(fine, task.value(params).log().numpy(), rtol=5e-3)


def test_batch_sharpness_is_that_of_the_batch() -> None:
    """Against autograd: gᵀHg/|g|² of one batch at a time, H = JᵀJ/size of the same examples."""
    task, size, count = small_nets.small_task(LAB, 2), 3, 4
    params = task.start(LAB.streams(2, torch.float64))
    streams = Streams(replica_seeds(9, 2), torch.float64)
    found = plateaus.batch_sharpness(task, params, streams, size, count)
    rows = streams.integers(Purpose.PROBE, 0, 128, (count, size))
    for r in range(2):
        own = {name: leaf[r : r + 1] for name, leaf in params.items()}
        ratios = []
        for batch in rows[r]:

            def outputs(leaves: dict[str, torch.Tensor], at: torch.Tensor = task.inputs[r, batch]) -> torch.Tensor:
                return task.net.forward(leaves, at[None]).flatten()

            jacobian = torch.func.jacrev(outputs)(own)
            j = torch.cat([part.reshape(size, -1) for part in jacobian.values()], 1)
            g = j.T @ (outputs(own) - task.targets[r, batch]) / size
            ratios.append(float((j @ g).square().sum() / size / g.square().sum()))
        assert float(found[r]) == pytest.approx(np.mean(ratios), rel=1e-9)


def test_steps_to_the_target_are_those_of_the_recursion() -> None:
    config = critical.Critical(modes=5)
    i = np.arange(1, 6.0)
    h, start, e, momentum, noise = i**-1.5, i**0.5, 0.4, 0.5, 1e-3
    powers = [critical._moments(h, np.array([[e]]), momentum)]
    for _ in range(12):
        powers.append(powers[-1] @ powers[-1])
    found = critical._passed(powers, h, start, noise, config)
    x, cross, square, steps = start.copy(), np.zeros(5), np.zeros(5), 0
    pull, added = (1 - momentum) * e * h, ((1 - momentum) * e) ** 2 * h * noise
    while h @ x > config.target * (h @ start):
        d = momentum
        x, cross, square = (
            (1 - pull) ** 2 * x + 2 * (1 - pull) * d * cross + d * d * square + added,
            -pull * (1 - pull) * x + d * (1 - 2 * pull) * cross + d * d * square + added,
            pull**2 * x - 2 * pull * d * cross + d * d * square + added,
        )
        steps += 1
    assert found.tolist() == [steps]
