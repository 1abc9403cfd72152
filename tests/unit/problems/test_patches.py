"""The patch net: closed forms against autograd, structure, and the theory of coasting at the stated digits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from descent.engine.rules import ema, heavy_ball, repeat, sgd, stack
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.engine.train import train
from descent.problems.patches import PatchData, Patches, patch_data, random_start
from descent.theory import inertia
from torch import Tensor

S, A, M = 3, 2, 4
STREAMS = Streams(replica_seeds(0, S), torch.float64)
DATA = patch_data(STREAMS, examples=9, small=3, patches=2, dimension=6)
ROWS = Streams(replica_seeds(0, S).repeat(A), torch.float64)


def start(scale: float = 0.5) -> dict[str, Tensor]:
    params = random_start(STREAMS, M, 6, scale, arms=A)
    return {"s": params["s"] + torch.linspace(0, 0.3, A * S)[:, None], "v": params["v"]}


def loss(params: dict[str, Tensor], power: int) -> Tensor:
    """The loss as it is defined, one row at a time."""
    rows = []
    for row in range(A * S):
        seed = row % S
        weights = torch.cat([params["s"][row][:, None], params["v"][row]], dim=1)
        signal = torch.zeros(9, 1, 6, dtype=torch.float64)
        signal[:, 0, 0] = DATA.signal[seed]
        noise = torch.cat([torch.zeros(9, 2, 1, dtype=torch.float64), DATA.noise[seed]], dim=2)
        outputs = torch.einsum("md,njd->nmj", weights, torch.cat([signal, noise], dim=1)).pow(power).sum((1, 2))
        rows.append(torch.log1p(torch.exp(-DATA.labels[seed] * outputs)).mean())
    return torch.stack(rows)


@pytest.mark.parametrize("power", [1, 3])
def test_value_and_gradient_are_those_of_the_definition(power: int) -> None:
    problem = Patches(DATA, A, power=power)
    params = {name: leaf.requires_grad_() for name, leaf in start().items()}
    expected = loss(params, power)
    wanted = dict(zip(params, torch.autograd.grad(expected.sum(), list(params.values())), strict=True))
    plain = {name: leaf.detach() for name, leaf in params.items()}
    assert torch.allclose(problem.value(plain), expected, rtol=1e-12)
    for name, leaf in problem.gradient(plain, ROWS, 0).items():
        assert torch.allclose(leaf, wanted[name], rtol=1e-10, atol=1e-14)


def test_a_start_at_zero_is_degenerate() -> None:
    zero = {name: torch.zeros_like(leaf) for name, leaf in start().items()}
    assert torch.allclose(Patches(DATA, A).value(zero), torch.tensor(np.log(2)))
    assert all(float(leaf.abs().max()) == 0 for leaf in Patches(DATA, A).gradient(zero, ROWS, 0).values())


def test_order_of_patches_does_not_matter() -> None:
    flipped = PatchData(DATA.signal, DATA.noise.flip(2), DATA.labels, DATA.small)
    for ours, theirs in zip(*(Patches(d, A).gradient(start(), ROWS, 0).values() for d in (DATA, flipped)), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-12)


def test_weights_of_subsets_add_up_and_batches_are_unbiased() -> None:
    problem, params = Patches(DATA, A), start()
    parts = [problem.gradient_of(params, mask.double()) for mask in (DATA.small, ~DATA.small)]
    whole = problem.gradient(params, ROWS, 0)
    for name, leaf in whole.items():
        assert torch.allclose(parts[0][name] + parts[1][name], leaf, rtol=1e-12)
    batched = Patches(DATA, A, batch_sizes=(3, None))
    mean = torch.stack([batched.gradient(params, ROWS, step)["s"] for step in range(4000)]).mean(0)
    assert torch.allclose(mean[:S], whole["s"][:S], atol=0.04 * float(whole["s"].abs().max()))
    assert torch.equal(batched.gradient(params, ROWS, 5)["s"][S:], whole["s"][S:])


def test_test_error_counts_what_is_not_positive() -> None:
    problem, params = Patches(DATA, A), start()
    noise = STREAMS.normal(Purpose.PROBE, 0, (50, 2, 5)) / 6**0.5
    found = problem.test_error(params, 0.4, noise)
    for row in range(A * S):
        seed = row % S
        outputs = (0.4 * params["s"][row]).pow(3).sum() + (noise[seed] @ params["v"][row].mT).pow(3).sum((1, 2))
        assert float(found[row]) == pytest.approx(float((outputs <= 0).double().mean()))
    broken = {name: torch.full_like(leaf, torch.nan) for name, leaf in params.items()}
    assert bool((problem.test_error(broken, 0.4, noise) == 1).all())


def test_conventions() -> None:
    """Momentum 0 is plain descent; EMA(η, γ) is heavy ball(η(1 − γ), γ)."""
    problem = Patches(DATA, A)
    both = stack(repeat(ema(0.5, 0.8), S), repeat(heavy_ball(0.1, 0.8), S))
    found = train(problem, start(0.3) | {"s": random_start(STREAMS, M, 6, 0.3, arms=A)["s"]}, both, 40, ROWS).params
    assert isinstance(found, dict)
    assert torch.allclose(found["v"][:S], found["v"][S:], rtol=1e-10)
    plain = stack(repeat(ema(0.5, 0.0), S), repeat(sgd(0.5), S))
    again = train(problem, random_start(STREAMS, M, 6, 0.3, arms=A), plain, 40, ROWS).params
    assert isinstance(again, dict)
    assert torch.allclose(again["s"][:S], again["s"][S:], rtol=1e-12)


def test_no_neuron_crosses_zero_in_small_steps() -> None:
    params = random_start(STREAMS, M, 6, 0.2, arms=A)
    found = train(Patches(DATA, A), params, repeat(sgd(0.02), A * S), 400, ROWS).params
    assert isinstance(found, dict)
    assert not bool(((params["s"] < 0) & (found["s"] > 0)).any())


def test_noise_variance_is_isserlis() -> None:
    assert inertia.test_noise_variance(np.ones((1, 1)), 1, 1.0) == 15
    weights = np.random.default_rng(0).normal(size=(3, 4))
    draws = np.random.default_rng(1).normal(size=(400_000, 2, 4)) * 0.5
    sampled = ((draws @ weights.T) ** 3).sum((1, 2)).var()
    assert inertia.test_noise_variance(weights, 2, 0.5) == pytest.approx(sampled, rel=0.05)


@pytest.mark.parametrize(
    ("strength", "start_at", "far", "peak"),
    [
        (1, 0.15, 2.144210, 0.604969),
        (10, 0.15, 4.520774, 2.908231),
        (100, 0.15, 12.524893, 10.773095),
        (1000, 0.15, 37.9413, 36.063104),
        (1, 0.2, 2.145325, None),
        (10, 0.2, 4.519165, None),
        (100, 0.2, 12.511555, None),
    ],
)
def test_coasting_oracles(strength: float, start_at: float, far: float, peak: float | None) -> None:
    distance, speed = inertia.coasting(strength, start_at)
    assert distance == pytest.approx(far, rel=2e-6)
    assert speed < np.sqrt(2 * strength * np.log(2))
    if peak is not None:
        assert speed == pytest.approx(peak, rel=2e-6)


def test_coasting_on_the_way_and_the_gradient_flow() -> None:
    assert inertia.coasting(10, horizon=5.0)[0] == pytest.approx(4.4035, abs=5e-5)
    assert inertia.coasting(10, horizon=10.0)[0] == pytest.approx(4.5200, abs=5e-5)
    assert inertia.feature_flow(1.0) == pytest.approx(3.98246167, rel=1e-7)
    assert inertia.feature_flow(2.0) == pytest.approx(30.16029661, rel=1e-7)


def test_catapult_constant() -> None:
    v = np.linspace(0.9, 0.96, 60_001)
    assert pytest.approx(float((3 * v ** (2 / 3) / (1 + np.exp(v))).max()), abs=1e-7) == inertia.CATAPULT


@pytest.mark.parametrize(
    ("lr", "momentum", "step", "feature", "memory", "share"),
    [
        (1, 0, 337, 1.789817, 1.310723, 0.008520),
        (1, 0.5, 343, 2.444285, 1.305844, 0.021654),
        (1, 0.9, 439, 7.800885, 0.866419, 0.711260),
        (1, 0.95, 351, 8.661986, 0.395640, 0.972541),
        (1, 0.99, 145, 8.739898, 0.237248, 0.994108),
        (0.5, 0.8, 700, 3.247171, 1.288725, 0.051224),
        (0.25, 0.99, 1209, 8.690016, 0.334842, 0.983332),
    ],
)
def test_reduced_model(lr: float, momentum: float, step: int, feature: float, memory: float, share: float) -> None:
    found = inertia.race(lr, momentum, 1300)
    stop = int((found.loss < 0.01).argmax())
    assert stop == step
    assert found.feature[stop] == pytest.approx(feature, rel=1e-6)
    assert found.memory[stop] == pytest.approx(memory, rel=1e-5)
    signal = 0.15**3 * found.feature[stop] ** 3
    assert signal / (signal + found.memory[stop] ** 3) == pytest.approx(share, rel=1e-4)
