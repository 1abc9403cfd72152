"""Stacks of networks against the torch modules they stand for, one by one, in float64."""

from itertools import pairwise

import pytest
import torch
from descent.engine.streams import Streams, replica_seeds
from descent.nets.dense import MLP, CrossEntropy, SquaredError, Stacked
from descent.nets.supervised import Supervised
from torch import nn

F64 = torch.float64
MODELS = {
    "mlp": MLP((6, 5, 4, 3)),
    "tanh": MLP((6, 5, 3), activation="tanh"),
    "linear, no bias": MLP((6, 3), bias=False),
    "identity": MLP((6, 2, 3), activation="identity"),
    "stacked mlp": Stacked(MLP((6, 5, 3)).module().double()),
    "layer norm": Stacked(nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.GELU(), nn.Linear(5, 3)).double()),
}


def module_of(model):
    return model.module if isinstance(model, Stacked) else model.module().double()


def fixed(*shape):
    return torch.linspace(-3, 3, torch.Size(shape).numel(), dtype=F64).mul(1.7).sin().reshape(shape)


@pytest.mark.parametrize("loss", [CrossEntropy(), SquaredError(), SquaredError(factor=1.0)], ids=["ce", "half", "one"])
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_forward_and_gradient_equal_the_module(model, loss):
    streams = Streams(replica_seeds(0, 7), F64)
    x = fixed(20, 6)
    y = torch.arange(20) % 3 if isinstance(loss, CrossEntropy) else fixed(20, 3)
    params = model.initial(streams)
    objective = Supervised(model, loss, x, y, 5)
    inputs, targets = objective.batch(streams, 3)
    outputs = model.forward(params, inputs)
    gradient = objective.gradient(params, streams, 3)
    for r in range(7):
        module = module_of(model)
        module.load_state_dict({name: leaf[r] for name, leaf in params.items()})
        module.zero_grad()
        alone = module(inputs[r])
        torch.testing.assert_close(outputs[r], alone.detach(), rtol=1e-12, atol=1e-12)
        if isinstance(loss, CrossEntropy):
            value = nn.functional.cross_entropy(alone, targets[r])
        else:
            value = loss.factor * (alone - targets[r]).square().sum() / 5
        value.backward()
        for name, parameter in module.named_parameters():
            torch.testing.assert_close(gradient[name][r], parameter.grad, rtol=1e-12, atol=1e-12)


def test_convolutions_with_group_norm_equal_the_module():
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3)
    ).double()
    model, streams = Stacked(module), Streams(replica_seeds(1, 3), F64)
    objective = Supervised(model, CrossEntropy(), fixed(12, 1, 8, 8), torch.arange(12) % 3, 4)
    params = model.initial(streams)
    inputs, targets = objective.batch(streams, 0)
    gradient = objective.gradient(params, streams, 0)
    for r in range(3):
        module.load_state_dict({name: leaf[r] for name, leaf in params.items()})
        module.zero_grad()
        nn.functional.cross_entropy(module(inputs[r]), targets[r]).backward()
        for name, parameter in module.named_parameters():
            torch.testing.assert_close(gradient[name][r], parameter.grad, rtol=1e-12, atol=1e-12)


def test_batch_norm_on_batch_statistics_works_and_running_statistics_are_refused():
    module = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 3)).double()
    model, streams = Stacked(module), Streams(replica_seeds(1, 3), F64)
    params = model.initial(streams)
    x = fixed(3, 10, 6)
    outputs = model.forward(params, x)
    for r in range(3):
        module.load_state_dict({name: leaf[r] for name, leaf in params.items()})
        torch.testing.assert_close(outputs[r], module(x[r]).detach(), rtol=1e-12, atol=1e-12)
    with pytest.raises(ValueError, match="track_running_stats=False"):
        Stacked(nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4)))


def test_initial_values_follow_torch_and_the_seed():
    streams = Streams(replica_seeds(0, 500), F64)
    params = MLP((16, 8, 3)).initial(streams)
    weight = params["0.weight"]
    assert float(weight.abs().max()) < 0.25
    assert weight.square().mean().item() == pytest.approx(0.25**2 / 3, rel=5 * (0.8 / weight.numel()) ** 0.5)
    again = Stacked(MLP((16, 8, 3)).module()).initial(streams)
    assert all(torch.equal(leaf, again[name]) for name, leaf in params.items())
    part = MLP((16, 8, 3)).initial(streams.subset(slice(3, 5)))
    assert torch.equal(part["2.bias"], params["2.bias"][3:5])


def test_gradients_do_not_depend_on_the_stack():
    model, streams = MLP((64, 64, 10)), Streams(replica_seeds(0, 40))
    objective = Supervised(model, CrossEntropy(), fixed(100, 64).float(), torch.arange(100) % 10, 8)
    params = model.initial(streams)
    whole = objective.gradient(params, streams, 0)
    for rows in (slice(0, 1), slice(3, 20), slice(39, 40)):
        part = {name: leaf[rows] for name, leaf in params.items()}
        found = objective.gradient(part, streams.subset(rows), 0)
        assert all(torch.equal(found[name], whole[name][rows]) for name in found)


def test_value_is_the_mean_loss_over_all_examples():
    model, streams = MLP((6, 5, 3)), Streams(replica_seeds(0, 4), F64)
    x, y = fixed(20, 6), torch.arange(20) % 3
    params = model.initial(streams)
    value = Supervised(model, CrossEntropy(), x, y, 5).value(params)
    for r in range(4):
        module = model.module().double()
        module.load_state_dict({name: leaf[r] for name, leaf in params.items()})
        assert value[r].item() == pytest.approx(nn.functional.cross_entropy(module(x), y).item(), rel=1e-12)


def test_footprint_of_any_module_grows_by_what_one_example_leaves_behind():
    module = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)).double()
    data = fixed(1000, 6)
    found = [Stacked(module).footprint(data, size) for size in (1, 2, 3, 50)]
    example = 2 * 8 * (6 + 5)  # the inputs of both layers, twice; not the data set they were picked from
    assert [b - a for a, b in pairwise(found)] == [example, example, 47 * example]
    assert found[0] >= 3 * 8 * (6 * 5 + 5 + 5 * 3 + 3) + example
    halved = Stacked(module).footprint(data.float(), 50)  # a module of another type than its examples
    assert halved == found[3] / 2


def test_cross_entropy_survives_large_outputs():
    outputs = torch.tensor([[[1000.0, 0.0, -1000.0]]])
    target = torch.tensor([[1]])
    assert CrossEntropy()(outputs, target).item() == 1000.0
    assert CrossEntropy().slope(outputs.clone(), target).tolist() == [[[1.0, -1.0, 0.0]]]


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="at least an input"):
        MLP((3,))
    with pytest.raises(ValueError, match="activation"):
        MLP((3, 2), activation="swish")
    objective = Supervised(MLP((3, 2)), CrossEntropy(), fixed(4, 3), torch.zeros(4, dtype=torch.int64), 2)
    with pytest.raises(ValueError, match="dictionary of tensors"):
        objective.gradient(torch.zeros(2, 3), Streams(replica_seeds(0, 2)), 0)
