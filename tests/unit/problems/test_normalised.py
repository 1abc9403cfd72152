"""Regression on normalised weights: gradients against autograd, orthogonal to the weights on every batch."""

from __future__ import annotations

import pytest
import torch
from descent.engine import Purpose, Streams, replica_seeds
from descent.problems.normalised import NormalisedRegression

STREAMS = Streams(replica_seeds(7, 5), torch.float64)
INPUTS = STREAMS.normal(Purpose.DATA, 0, (11, 4))[0]
TARGETS = STREAMS.normal(Purpose.DATA, 1, (11,))[0]


def test_gradient_is_that_of_the_loss() -> None:
    x = STREAMS.normal(Purpose.INIT, 0, (4,)).requires_grad_()
    problem = NormalisedRegression(INPUTS, TARGETS)
    (slope,) = torch.autograd.grad(problem.value(x).sum(), x)
    torch.testing.assert_close(problem.gradient(x.detach(), STREAMS, 0), slope, rtol=1e-11, atol=1e-13)


def test_a_batch_pulls_at_right_angles_to_the_weights() -> None:
    x, problem = STREAMS.normal(Purpose.INIT, 0, (4,)), NormalisedRegression(INPUTS, TARGETS, batch_size=2)
    rows = STREAMS.integers(Purpose.BATCH, 3, 11, (2,))
    found = problem.gradient(x, STREAMS, 3)
    assert float((found * x).sum(-1).abs().max()) < 1e-13
    alone = NormalisedRegression(INPUTS[rows[0]], TARGETS[rows[0]]).gradient(x[:1], STREAMS, 0)
    torch.testing.assert_close(found[:1], alone, rtol=1e-12, atol=1e-13)


def test_replicas_take_their_draws_in_turn() -> None:
    x, streams = STREAMS.normal(Purpose.INIT, 0, (4,))[:4], STREAMS.subset(slice(0, 4))
    inputs, targets = (torch.stack([part, part.roll(1, 0) * 2]) for part in (INPUTS, TARGETS))
    for batch in (None, 2):
        found = NormalisedRegression(inputs, targets, batch).gradient(x, streams, 3)
        for r in range(4):
            alone = NormalisedRegression(inputs[r % 2], targets[r % 2], batch)
            own = alone.gradient(x[r : r + 1], streams.subset(slice(r, r + 1)), 3)
            torch.testing.assert_close(found[r : r + 1], own, rtol=1e-11, atol=1e-13)
    with pytest.raises(ValueError, match="cannot share 2 draws of the data evenly"):
        NormalisedRegression(inputs, targets).value(x[:3])


def test_the_loss_knows_no_scale() -> None:
    x, problem = STREAMS.normal(Purpose.INIT, 0, (4,)), NormalisedRegression(INPUTS, TARGETS)
    torch.testing.assert_close(problem.value(x), problem.value(3 * x), rtol=1e-12, atol=0)


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="must have equally many rows"):
        NormalisedRegression(INPUTS, TARGETS[:3])
