"""Closed-form Gram matrices against autograd, and the bound on the alignment of two-layer nets."""

from __future__ import annotations

import pytest
import torch
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.measure.alignment import loss_alignment
from descent.theory.features import ACTIVATIONS, alignment_floor, deep_linear, two_layer
from torch import Tensor


def _draw(*shape: int, step: int = 0, replicas: int = 1) -> Tensor:
    return Streams(replica_seeds(5, replicas), torch.float64).normal(Purpose.DATA, step, shape)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_two_layer_gram_equals_autograd(name: str) -> None:
    inputs, inner, outer = _draw(6, 3)[0], _draw(5, 3, step=1)[0].requires_grad_(), _draw(5, step=2)[0]
    outputs, gram = two_layer(ACTIVATIONS[name], inputs, inner, outer)
    rows = torch.stack([torch.autograd.grad(f, inner, retain_graph=True)[0].flatten() for f in outputs])
    assert torch.allclose(gram, rows @ rows.T, rtol=1e-12, atol=1e-14)


def test_deep_linear_gram_equals_autograd() -> None:
    inputs = _draw(6, 3)[0]
    weights = [_draw(*s, step=i)[0].requires_grad_() for i, s in enumerate([(4, 3), (5, 4), (1, 5)], 1)]
    outputs, gram = deep_linear(inputs, weights)
    rows = [torch.autograd.grad(f, weights, retain_graph=True) for f in outputs]
    jacobian = torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])
    assert torch.allclose(gram, jacobian @ jacobian.T, rtol=1e-12)


@pytest.mark.parametrize("name", ["linear", "leaky"])
def test_alignment_respects_its_floor(name: str) -> None:
    inputs, inner, outer = _draw(12, 4, replicas=40), _draw(9, 4, step=1, replicas=40), _draw(9, step=2, replicas=40)
    gram = two_layer(ACTIVATIONS[name], inputs, inner, outer)[1]
    floor = alignment_floor(ACTIVATIONS[name], inputs)
    scores = loss_alignment(gram, _draw(12, step=3, replicas=40)).scores
    worst = scores.amin(-1) / scores.mean(-1)
    assert (worst >= floor * (1 - 1e-12)).all()
    assert worst.min() < 20 * floor.mean()  # the bound is of the right order, not empty
    assert float(alignment_floor(ACTIVATIONS["relu"], inputs).max()) == 0
