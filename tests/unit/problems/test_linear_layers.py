"""Two linear layers: gradients against autograd, the target form, and the first-order law of their drift."""

from __future__ import annotations

import pytest
import torch
from descent.engine import Purpose, Streams, heavy_ball, replica_seeds, train
from descent.problems.linear_layers import LinearLayers, imbalance
from torch import Tensor

F64 = torch.float64


def streams(replicas: int) -> Streams:
    return Streams(replica_seeds(5, replicas), F64)


INPUTS = streams(1).normal(Purpose.DATA, 0, (9, 4))[0]
TARGETS = streams(1).normal(Purpose.DATA, 1, (9, 2))[0]


def start(replicas: int) -> dict[str, Tensor]:
    given = streams(replicas)
    return {"first": given.normal(Purpose.INIT, 0, (3, 4)), "second": given.normal(Purpose.INIT, 1, (2, 3))}


def test_gradient_is_that_of_the_loss() -> None:
    params = {name: leaf.requires_grad_() for name, leaf in start(6).items()}
    problem = LinearLayers(INPUTS, TARGETS)
    slopes = torch.autograd.grad(problem.value(params).sum(), list(params.values()))
    found = problem.gradient({name: leaf.detach() for name, leaf in params.items()}, streams(6), 0)
    for slope, own in zip(slopes, found.values(), strict=True):
        torch.testing.assert_close(own, slope, rtol=1e-12, atol=1e-13)


def test_a_batch_is_what_was_drawn() -> None:
    params, given = start(6), streams(6)
    rows = given.integers(Purpose.BATCH, 4, 9, (3,))
    found = LinearLayers(INPUTS, TARGETS, batch_size=3).gradient(params, given, 4)
    for r in range(6):
        alone = LinearLayers(INPUTS[rows[r]], TARGETS[rows[r]]).gradient(
            {k: v[r : r + 1] for k, v in params.items()}, given, 0
        )
        torch.testing.assert_close(found["first"][r], alone["first"][0], rtol=1e-12, atol=1e-13)


def test_fitting_is_the_distance_to_a_matrix() -> None:
    params, target = start(6), TARGETS[:2, :].T @ INPUTS[:2]
    found = LinearLayers.fitting(target).value(params)
    expected = (params["second"] @ params["first"] - target).square().sum((1, 2)) / 2
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_drift_is_the_law_of_small_steps(momentum: float) -> None:
    e, c, problem = 0.0005, (1 + momentum) / (1 - momentum), LinearLayers(INPUTS, TARGETS)
    rates: list[Tensor] = []

    class Watched:
        def gradient(self, params: dict[str, Tensor], given: Streams, step: int) -> dict[str, Tensor]:
            rates.append(problem.drift(params))
            return problem.gradient(params, given, step)

    end = train(Watched(), start(2), heavy_ball([e * (1 - momentum)] * 2, momentum=[momentum] * 2), 4000, streams(2))
    assert isinstance(end.params, dict)
    change = imbalance(end.params) - imbalance(start(2))
    law = e * c * e * torch.stack(rates).sum(0)
    assert float((change - law).norm() / change.norm()) < 0.03


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="must have equally many rows"):
        LinearLayers(INPUTS, TARGETS[:3])
