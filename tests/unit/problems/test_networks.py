"""The initial saddle of a net and the minimum of logistic regression against autograd, dense Hessians and loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from descent.engine.rules import heavy_ball, repeat
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.engine.train import every, train
from descent.nets.dense import MLP, CrossEntropy
from descent.nets.supervised import Supervised
from descent.problems.networks import FreshLabelNoise, InitialSaddle, Logistic, Logistics

# Forward-mode differentiation imports a part of torch that still scripts itself.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script`:FutureWarning")


def _data(n: int = 240, width: int = 6, classes: int = 4, seed: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    """Gaussian clouds, one per class, centred."""
    streams = Streams(replica_seeds(seed, 1), torch.float64)
    labels = torch.arange(n) % classes
    centres = streams.normal(Purpose.DATA, 0, (classes, width))[0]
    inputs = centres[labels] + streams.normal(Purpose.DATA, 1, (n, width))[0]
    return inputs - inputs.mean(0), labels


@pytest.fixture(scope="module")
def saddle() -> InitialSaddle:
    return InitialSaddle.of(*_data(), 4)


def test_the_hessian_at_the_saddle_has_the_stated_unstable_curvatures(saddle: InitialSaddle) -> None:
    inputs, labels = _data()
    hidden = 3
    net = MLP((6, hidden, 4), "tanh").module().double()
    with torch.no_grad():
        for leaf in net.parameters():
            leaf.zero_()
        net[2].bias.copy_(torch.from_numpy(saddle.bias))
    leaves = dict(net.named_parameters())
    sizes = [leaf.numel() for leaf in leaves.values()]

    def loss(flat: torch.Tensor) -> torch.Tensor:
        parts = {k: v.view_as(leaves[k]) for k, v in zip(leaves, flat.split(sizes), strict=True)}
        outputs = torch.func.functional_call(net, parts, (inputs,))
        return torch.nn.functional.cross_entropy(outputs, labels)

    point = torch.cat([leaf.detach().flatten() for leaf in leaves.values()])
    assert float(torch.func.grad(loss)(point).norm()) < 1e-12  # a critical point
    values = torch.linalg.eigvalsh(torch.func.hessian(loss)(point)).numpy()
    expected = np.repeat(saddle.instability[:3], hidden)  # one copy of each mode per hidden unit
    np.testing.assert_allclose(np.sort(-values)[::-1][: len(expected)], expected, rtol=1e-9)


def test_each_mode_grows_at_its_own_predicted_rate(saddle: InitialSaddle) -> None:
    """Full batches, no noise: the growth between late steps is log z₊ for every mode, with and without momentum."""
    inputs, labels = _data()
    net = MLP((6, 5, 4), "tanh")
    problem = Supervised(net, CrossEntropy(), inputs, labels, sampling="full")
    streams = Streams(replica_seeds(0, 3).repeat(2), torch.float64)
    hyper = repeat(heavy_ball([0.05, 0.05], [0.0, 0.8]), 3)
    run = train(
        problem,
        saddle.start(5, 1e-12, streams),
        hyper,
        120,
        streams,
        probes={"a": every(1, lambda net: saddle.amplitudes(net, 3))},
    )
    logs = run.records["a"].values.log()
    growth = (logs[120] - logs[100]).view(2, 3, 3) / 20
    expected = saddle.growth([0.05, 0.05], [0.0, 0.8], 3)[:, None]
    np.testing.assert_allclose(growth.numpy(), np.broadcast_to(expected, (2, 3, 3)), rtol=2e-4)


def test_amplitudes_follow_their_definition(saddle: InitialSaddle) -> None:
    net = saddle.start(5, 0.1, Streams(replica_seeds(1, 2), torch.float64))
    found = saddle.amplitudes(net, 2)
    for r in range(2):
        for k in range(2):
            u, v = torch.from_numpy(saddle.left[:, k]), torch.from_numpy(saddle.right[:, k])
            vector = net["0.weight"][r] @ u + net["2.weight"][r].T @ v
            assert float(found[r, k]) == pytest.approx(float(vector.norm()), rel=1e-12)


def test_instability_scales_with_the_inputs(saddle: InitialSaddle) -> None:
    inputs, labels = _data()
    np.testing.assert_allclose(InitialSaddle.of(3 * inputs, labels, 4).instability, 3 * saddle.instability, rtol=1e-9)


def test_inputs_off_centre_and_absent_classes_are_refused() -> None:
    inputs, labels = _data()
    with pytest.raises(ValueError, match="mean 0"):
        InitialSaddle.of(inputs + 1, labels, 4)
    with pytest.raises(ValueError, match=r"classes \[4\] have no examples"):
        InitialSaddle.of(inputs, labels, 5)


def test_fresh_label_noise_replaces_the_stated_share() -> None:
    inputs, labels = _data()
    noisy = FreshLabelNoise(MLP((6, 3, 4)), CrossEntropy(), inputs, labels, 200, "with_replacement", 0.2, 4)
    clean = Supervised(noisy.model, noisy.loss, inputs, labels, 200)
    assert isinstance(noisy.subset(slice(0, 2)), FreshLabelNoise)
    streams = Streams(replica_seeds(0, 100))
    (x, y), (same_x, truth) = noisy.batch(streams, 3), clean.batch(streams, 3)
    assert torch.equal(x, same_x)
    wrong, error = float((y != truth).double().mean()), (0.15 * 0.85 / 20_000) ** 0.5
    assert abs(wrong - 0.2 * 3 / 4) < 4 * error
    assert not torch.equal(noisy.batch(streams, 4)[1] != clean.batch(streams, 4)[1], y != truth)  # fresh
    counts = torch.bincount(y[y != truth], minlength=4).double()
    assert float((counts / counts.sum() - 0.25).abs().max()) < 4 * (0.1875 / 3000) ** 0.5


def test_no_share_means_clean_labels() -> None:
    inputs, labels = _data()
    noisy = FreshLabelNoise(MLP((6, 3, 4)), CrossEntropy(), inputs, labels, 50, share=0.0, classes=4)
    streams = Streams(replica_seeds(0, 2))
    index = noisy.indices(streams, 0)
    assert torch.equal(noisy.batch(streams, 0)[1], labels[index])


@pytest.fixture(scope="module")
def logistic() -> Logistic:
    return Logistic(*_data(), classes=4, decay=0.2, batch_size=8)


def test_the_minimum_against_autograd(logistic: Logistic) -> None:
    inputs, labels = _data()
    inputs = torch.cat([inputs, torch.ones(len(inputs), 1)], dim=1)

    def loss(weights: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(inputs @ weights, labels) + 0.1 * weights.square().sum()

    minimum = logistic.minimum
    assert float(torch.func.grad(loss)(minimum.params).norm()) < 1e-12
    assert minimum.loss == pytest.approx(float(loss(minimum.params)), rel=1e-13)
    hessian = torch.func.hessian(loss)(minimum.params).reshape(28, 28)
    np.testing.assert_allclose(minimum.curvatures, torch.linalg.eigvalsh(hessian).numpy(), rtol=1e-10)
    rows = torch.func.vmap(torch.func.grad(lambda w, x, y: torch.nn.functional.cross_entropy(x @ w, y)), (None, 0, 0))
    each = rows(minimum.params, inputs, labels).flatten(1)
    assert minimum.noise == pytest.approx(float(each.var(0, correction=0).sum()), rel=1e-10)


def test_the_batch_gradient_is_that_of_its_examples(logistic: Logistic) -> None:
    streams = Streams(replica_seeds(2, 3), torch.float64)
    weights = streams.normal(Purpose.INIT, 0, (7, 4))
    index = streams.integers(Purpose.BATCH, 9, 240, (8,))
    found = logistic.gradient(weights, streams, 9)
    for r in range(3):
        part = Logistic(logistic.inputs[index[r]], logistic.labels[index[r]], 4, 0.2, 8)
        free = weights[r : r + 1].clone().requires_grad_()
        (expected,) = torch.autograd.grad(part.loss(free).sum(), free)
        np.testing.assert_allclose(found[r].numpy(), expected[0].numpy(), rtol=1e-10, atol=1e-14)


def test_every_row_is_trained_on_its_own_draw() -> None:
    inputs, labels = _data()
    parts = [slice(0, 80), slice(80, 160), slice(160, 240)]
    each = [Logistic(inputs[part], labels[part], classes=4, decay=0.2, batch_size=8) for part in parts]
    together, streams = Logistics(tuple(each)), Streams(replica_seeds(2, 6), torch.float64)
    weights = streams.normal(Purpose.INIT, 0, (7, 4))
    found, losses = together.gradient(weights, streams, 9), together.loss(weights)
    for r in range(6):
        one, row = each[r % 3], slice(r, r + 1)
        torch.testing.assert_close(found[row], one.gradient(weights[row], streams.subset(row), 9))
        torch.testing.assert_close(losses[row], one.loss(weights[row]))
    with pytest.raises(ValueError, match="4 rows cannot share 3 draws"):
        together.gradient(weights[:4], streams.subset(slice(0, 4)), 0)


def test_the_excess_loss_is_the_predicted_one(logistic: Logistic) -> None:
    """Small steps, 5 standard errors plus the 2 % that steps of this size leave."""
    minimum, replicas = logistic.minimum, 32
    streams = Streams(replica_seeds(3, replicas).repeat(2), torch.float64)
    hyper = repeat(heavy_ball([0.02, 0.004], [0.0, 0.8]), replicas)
    start = minimum.params.expand(2 * replicas, -1, -1)
    run = train(
        logistic, start, hyper, 4000, streams, probes={"loss": every(10, lambda w: logistic.loss(w) - minimum.loss)}
    )
    excess = run.records["loss"].values[150:].mean(0).view(2, replicas)
    ratio = excess / torch.from_numpy(minimum.excess_loss([0.02, 0.004], [0.0, 0.8], 8)).unsqueeze(1)
    error = ratio.std(dim=1) / replicas**0.5
    assert float(error.max()) < 0.02
    assert bool(((ratio.mean(1) - 1).abs() < 5 * error + 0.02).all())


def test_without_decay_separable_data_have_no_minimum() -> None:
    inputs = torch.tensor([[-1.0], [1.0]], dtype=torch.float64)
    with pytest.raises((ValueError, RuntimeError), match=r"decay|singular"):
        _ = Logistic(inputs, torch.tensor([0, 1]), 2, 0.0, 1).minimum
