"""The Gram matrix of a network: layer sums against Jacobians, and which road is taken."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.measure.gram import blocks, gram
from descent.nets.convolutional import CNN, ResNet
from descent.nets.dense import MLP, Stacked
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

ACCURACY = {torch.float32: 1e-6, torch.float64: 1e-10}


class TiedCoder(nn.Module):
    """Decodes by the transpose of the weight that encodes, so that one layer's hook sees half of its use."""

    def __init__(self) -> None:
        super().__init__()
        self.code = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(torch.tanh(self.code(x)), self.code.weight.t())


class Scaled(nn.Module):
    """Has a parameter outside any layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.scale = nn.Linear(6, 2), nn.Parameter(torch.tensor(1.5))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.layer(x)


class Twice(nn.Module):
    """Uses one layer two times."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.layer(x).tanh())


class Mixing(nn.Module):
    """Moves the examples out of the first axis before its layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(0, 1)).view(len(x), -1)


def sequential(*layers: nn.Module) -> Stacked:
    return Stacked(nn.Sequential(*layers))


GHOSTS = {
    "one output": (MLP((12, 7, 5, 1), "tanh"), (9, 12)),
    "three outputs": (MLP((12, 7, 5, 3), "relu"), (9, 12)),
    "no bias": (MLP((12, 7, 2), "tanh", bias=False), (9, 12)),
    "a lone layer": (Stacked(nn.Linear(12, 2)), (9, 12)),
    "in place": (sequential(nn.Linear(12, 5), nn.ReLU(inplace=True), nn.Linear(5, 1)), (6, 12)),
    "positions": (sequential(nn.Linear(12, 5), nn.Tanh(), nn.Linear(5, 2), nn.Flatten()), (6, 4, 12)),
    "convolutions": (CNN(channels=2, size=8, widths=(4, 6), dense=(5,), classes=3), (5, 2, 8, 8)),
    "group norm": (ResNet(blocks=(1, 1), widths=(8, 16), classes=2), (4, 3, 8, 8)),
    "wide convolutions": (
        sequential(
            nn.Conv2d(2, 40, 3, stride=2, padding=1),
            nn.Tanh(),
            nn.Conv2d(40, 30, (3, 2), bias=False),
            nn.Flatten(),
            nn.Linear(60, 2),
        ),
        (4, 2, 6, 6),
    ),
}
EXACT = {
    "also used outside": (Stacked(TiedCoder()), (5, 6)),
    "belongs to no": (Stacked(Scaled()), (5, 6)),
    "more than once": (Stacked(Twice()), (5, 6)),
    "examples first": (Stacked(Mixing()), (5, 3, 6)),
    "groups": (sequential(nn.Conv2d(2, 4, 3, groups=2), nn.Flatten(), nn.Linear(16, 1)), (5, 2, 4, 4)),
}


def drawn(model: object, shape: tuple[int, ...], dtype: torch.dtype) -> tuple[dict[str, Tensor], Tensor]:
    streams = Streams(replica_seeds(3, 2), dtype)
    return model.initial(streams), streams.normal(Purpose.DATA, 0, shape)[0]


def by_autograd(model: object, params: dict[str, Tensor], inputs: Tensor) -> Tensor:
    """Return K from one backward pass per example and output, sharing no line with the code under test."""
    module = model.module if isinstance(model, Stacked) else model.module()
    grams = []
    for r in range(2):
        leaves = {name: leaf[r].clone().requires_grad_() for name, leaf in params.items()}
        outputs = functional_call(module, leaves, (inputs,)).reshape(-1)
        rows = [torch.autograd.grad(one, list(leaves.values()), retain_graph=True) for one in outputs]
        jacobian = torch.stack([torch.cat([part.flatten() for part in row]) for row in rows])
        grams.append(jacobian @ jacobian.T)
    return torch.stack(grams)


def worst(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize(("name", "dtype"), list(product(GHOSTS, ACCURACY)))
def test_the_sum_over_layers_is_the_product_of_jacobians(name: str, dtype: torch.dtype) -> None:
    model, shape = GHOSTS[name]
    params, inputs = drawn(model, shape, dtype)
    expected = by_autograd(model, params, inputs)
    for options in ({}, {"route": "ghost", "budget": 2000}, {"route": "exact"}, {"route": "exact", "budget": 2000}):
        found = gram(model, params, inputs, **options)
        assert found.dtype == dtype
        assert worst(found, expected) < ACCURACY[dtype], options
        assert torch.equal(found, found.mT) or options.get("route") == "exact"


@pytest.mark.parametrize("reason", EXACT)
def test_what_the_layers_do_not_explain_goes_through_jacobians(reason: str) -> None:
    model, shape = EXACT[reason]
    params, inputs = drawn(model, shape, torch.float64)
    assert worst(gram(model, params, inputs), by_autograd(model, params, inputs)) < 1e-12
    with pytest.raises(ValueError, match=reason):
        gram(model, params, inputs, route="ghost")


def test_blocks_are_the_pairs_of_outputs() -> None:
    model, shape = GHOSTS["three outputs"]
    params, inputs = drawn(model, shape, torch.float64)
    found = blocks(gram(model, params, inputs), len(inputs))
    assert found.shape == (2, 9, 3, 9, 3)
    single = MLP((12, 7, 5, 1), "relu")
    last = {name: leaf[:, 1:2] if name.startswith("4.") else leaf for name, leaf in params.items()}
    torch.testing.assert_close(found[:, :, 1, :, 1], gram(single, last, inputs), rtol=1e-12, atol=1e-12)


def test_a_lone_module_brings_its_own_parameters() -> None:
    module, inputs = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)), torch.linspace(-1, 1, 15).view(5, 3)
    stacked = {name: leaf.detach()[None] for name, leaf in module.named_parameters()}
    found = gram(module, None, inputs)
    assert found.shape == (1, 5, 5)
    assert not found.requires_grad
    assert torch.equal(found, gram(module, stacked, inputs))
    assert not module[0]._forward_hooks


def test_batch_statistics_are_refused_unless_they_are_frozen() -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)).double()
    inputs = torch.linspace(-1, 1, 15, dtype=torch.float64).view(5, 3)
    with pytest.raises(ValueError, match="1 normalises by the statistics of the batch"):
        gram(module, None, inputs)
    found = gram(module.eval(), None, inputs)
    merged = [torch.autograd.grad(one, list(module.parameters()), retain_graph=True) for one in module(inputs).view(-1)]
    rows = torch.stack([torch.cat([part.flatten() for part in row]) for row in merged])
    torch.testing.assert_close(found[0], rows @ rows.T)


def test_only_networks_have_a_gram_matrix() -> None:
    with pytest.raises(ValueError, match="got float"):
        gram(1.0, None, torch.zeros(2, 3))
