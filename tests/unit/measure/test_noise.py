"""Noise instruments against brute force: torch modules example by example, torch.optim.SGD step by step."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from descent.engine import rules
from descent.engine.streams import Streams, replica_seeds
from descent.engine.train import train
from descent.measure import noise
from descent.measure.noise import (
    SearchNoise,
    batch_noise,
    example_gradients,
    example_squares,
    flat,
    full_gradient,
    gradient_noise,
    smoothing_degree,
)
from descent.nets.augment import Augment
from descent.nets.convolutional import CNN
from descent.nets.dense import MLP, CrossEntropy, SquaredError, Stacked
from descent.nets.supervised import Supervised
from descent.problems.saddle import Quadratic
from descent.theory.search_noise import conditional_power, flat_power, shuffled_power, stationary_moments
from torch import nn

F64 = torch.float64
TIGHT = {"rtol": 1e-10, "atol": 1e-13}
N = 30


def streams(replicas: int, seed: int = 0) -> Streams:
    return Streams(replica_seeds(seed, replicas), F64)


def fixed(*shape):
    return torch.linspace(-3, 3, torch.Size(shape).numel(), dtype=F64).mul(1.7).sin().reshape(shape)


IMAGES, ROWS, LABELS = fixed(N, 1, 8, 8), fixed(N, 6), torch.arange(N) % 3
GROUP_NORM = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).double()
CASES = {
    "mlp": Supervised(MLP((6, 5, 4, 3)), CrossEntropy(), ROWS, LABELS, 5),
    "tanh": Supervised(MLP((6, 5, 3), activation="tanh"), SquaredError(), ROWS, fixed(N, 3), 5),
    "no bias": Supervised(MLP((6, 5, 3), bias=False), CrossEntropy(), ROWS, LABELS, 5),
    "stacked mlp": Supervised(Stacked(MLP((6, 5, 3)).module().double()), CrossEntropy(), ROWS, LABELS, 5),
    "stacked cnn": Supervised(Stacked(GROUP_NORM), CrossEntropy(), IMAGES, LABELS, 5),
    "cnn": Supervised(CNN(widths=(2,), dense=(), size=8, channels=1, classes=3), CrossEntropy(), IMAGES, LABELS, 5),
}
EVERY_CASE = pytest.mark.parametrize("objective", CASES.values(), ids=CASES)


def one_by_one(objective: Supervised, params, replica: int) -> torch.Tensor:
    """The gradient of every example from the torch module of one replica, (n, p)."""
    model = objective.model
    module = model.module if isinstance(model, Stacked) else model.module().double()
    module.load_state_dict({name: leaf[replica] for name, leaf in params.items()})
    found = []
    for x, y in zip(objective.inputs, objective.targets, strict=True):
        module.zero_grad()
        objective.loss(module(x[None])[None], y[None, None]).sum().backward()
        found.append(torch.cat([parameter.grad.flatten() for parameter in module.parameters()]))
    return torch.stack(found)


@EVERY_CASE
@pytest.mark.parametrize("budget", [1 << 28, 20_000])
def test_gradient_noise_is_that_of_the_modules_one_by_one(objective, budget, monkeypatch):
    monkeypatch.setattr(noise, "_BUDGET", budget)  # a small one cuts replicas and examples
    params = objective.model.initial(streams(3))
    gradients = torch.stack([one_by_one(objective, params, r) for r in range(3)])
    torch.testing.assert_close(example_gradients(objective, params), gradients, **TIGHT)
    torch.testing.assert_close(example_squares(objective, params), gradients.square().sum(2), **TIGHT)
    torch.testing.assert_close(flat(full_gradient(objective, params)), gradients.mean(1), **TIGHT)
    expected = gradients.var(1, correction=0).sum(1)
    torch.testing.assert_close(gradient_noise(objective, params), expected, **TIGHT)


def test_ghost_norms_equal_the_general_way():
    objective = CASES["mlp"]
    params = objective.model.initial(streams(4))
    general = example_gradients(objective, params).square().sum(2)
    torch.testing.assert_close(example_squares(objective, params), general, **TIGHT)


def test_chosen_coordinates():
    objective = CASES["mlp"]
    params = objective.model.initial(streams(2))
    chosen = torch.tensor([[0, 7, 70], [3, 3, 1]])
    whole = example_gradients(objective, params)
    found = example_gradients(objective, params, chosen)
    assert torch.equal(found, torch.stack([whole[r][:, chosen[r]] for r in range(2)]))


def test_the_full_gradient_is_bit_for_bit_the_full_batch():
    objective = CASES["mlp"]
    params = objective.model.initial(streams(5))
    full = replace(objective, batch_size=None, sampling="full").gradient(params, streams(5), 0)
    found = full_gradient(objective, params)
    assert all(torch.equal(found[name], leaf) for name, leaf in full.items())


def test_batch_norm_and_augmentation_are_refused():
    net = CNN(widths=(8,), dense=(), size=8, channels=1, classes=3, norm="batch")
    objective = Supervised(net, CrossEntropy(), IMAGES, LABELS, 5)
    with pytest.raises(ValueError, match="group norm"):
        gradient_noise(objective, net.initial(streams(2)))
    module = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 3)).double()
    tied = Supervised(Stacked(module), CrossEntropy(), ROWS, LABELS, 5)
    with pytest.raises(ValueError, match="batch norm"):
        example_squares(tied, tied.model.initial(streams(2)))
    shifted = replace(CASES["cnn"], augment=Augment())
    with pytest.raises(ValueError, match="augment=None"):
        full_gradient(shifted, shifted.model.initial(streams(2)))


@pytest.mark.parametrize("sampling", ["with_replacement", "without_replacement", "shuffled_epochs"])
def test_noise_of_a_batch_by_draws(sampling):
    draws = 4000
    objective = replace(CASES["mlp"], batch_size=12, sampling=sampling)
    params = objective.model.initial(streams(1))
    expected = batch_noise(objective, gradient_noise(objective, params)).item()
    many = {name: leaf.expand(draws, *leaf.shape[1:]) for name, leaf in params.items()}
    xi = flat(objective.gradient(many, streams(draws), 1)) - flat(full_gradient(objective, params))
    powers = xi.square().sum(1)
    assert powers.mean().item() == pytest.approx(expected, abs=4 * powers.std().item() / draws**0.5)


def test_noise_of_a_batch_per_replica_and_of_none():
    objective = replace(CASES["mlp"], batch_size=[2, 2, 10])
    assert batch_noise(objective, torch.ones(3, dtype=F64)).tolist() == [0.5, 0.5, 0.1]
    full = replace(objective, batch_size=None, sampling="full")
    assert batch_noise(full, torch.ones(3)).tolist() == [0.0, 0.0, 0.0]


def test_the_whole_data_set_without_replacement_has_no_noise():
    objective = replace(CASES["mlp"], batch_size=N, sampling="without_replacement")
    assert batch_noise(objective, torch.ones(2)).tolist() == [0.0, 0.0]


OPTIONS = {
    "sgd": (rules.sgd(0.1), {}),
    "heavy ball": (rules.heavy_ball(0.05, 0.8, first="gradient"), {"momentum": 0.8}),
    "dampened": (rules.dampened(0.1, 0.8, 0.5), {"momentum": 0.8, "dampening": 0.5}),
    "decay": (rules.heavy_ball(0.05, 0.8, weight_decay=0.1), {"momentum": 0.8, "weight_decay": 0.1}),
    "nesterov": (rules.nesterov(0.05, 0.8), {"momentum": 0.8, "nesterov": True}),
    "ascent": (rules.heavy_ball(0.01, 0.8, maximize=True), {"momentum": 0.8, "maximize": True}),
}


@pytest.mark.parametrize(("hyper", "options"), OPTIONS.values(), ids=OPTIONS)
def test_omega_is_the_step_of_torch_minus_the_full_gradient(hyper, options):
    """For 9 steps: ω = (x_t − x_{t+1})/lr − ∇f(x_t), ∇f with decay and sign as torch feels them."""
    objective, replicas, lr = CASES["tanh"], 3, hyper.lr.item()
    hyper, source = rules.repeat(hyper, replicas), streams(replicas)
    start = objective.model.initial(source)
    probe = SearchNoise(objective, partial(full_gradient, objective), hyper, source, every=1)
    run = train(objective, start, hyper, 9, source, probes={"omega": probe})
    for r in range(replicas):
        module = objective.model.module().double()
        module.load_state_dict({name: leaf[r] for name, leaf in start.items()})
        optimizer = torch.optim.SGD(module.parameters(), lr=lr, **options)
        for step in range(9):
            x = torch.cat([p.detach().flatten() for p in module.parameters()])
            full = felt(module, objective.loss, objective.inputs, objective.targets, x, options)
            index = objective.indices(source, step)[r]
            felt(module, objective.loss, objective.inputs[index], objective.targets[index], x, options)
            optimizer.step()
            after = torch.cat([p.detach().flatten() for p in module.parameters()])
            omega = (x - after) / lr - full
            named = {name: run.records[f"omega.{name}"] for name in ("power", "gradient", "along")}
            found = {name: series.values[step, r].item() for name, series in named.items()}
            assert found["power"] == pytest.approx((omega @ omega).item(), rel=1e-10)
            assert found["gradient"] == pytest.approx((full @ full).item(), rel=1e-10)
            assert found["along"] == pytest.approx((omega @ full).item(), rel=1e-8, abs=1e-14)


def felt(module, loss, inputs, targets, x, options) -> torch.Tensor:
    """Backpropagate the mean loss; return the gradient with torch's sign and decay."""
    module.zero_grad()
    loss(module(inputs)[None], targets[None]).mean().backward()
    gradient = torch.cat([p.grad.flatten() for p in module.parameters()])
    return (-1 if options.get("maximize") else 1) * gradient + options.get("weight_decay", 0.0) * x


RULES = {
    "heavy ball": rules.heavy_ball(0.05, 0.8),
    "ema": rules.ema(0.2, 0.8),
    "qhm": rules.qhm(0.2, 0.8, 0.6),
    "inside": rules.heavy_ball(0.05, 0.8, buffer="displacement"),
}


@pytest.mark.parametrize("hyper", RULES.values(), ids=RULES)
def test_the_parts_are_the_filtered_noises_and_gradients_of_the_path(hyper):
    """The weights w_k of the gradients of age k, applied to ξ and to ∇f along the recorded path."""
    objective, replicas, steps = CASES["mlp"], 2, 8
    hyper, source = rules.repeat(hyper, replicas), streams(replicas)
    start = objective.model.initial(source)
    probe = SearchNoise(objective, partial(full_gradient, objective), hyper, source, every=1, window=steps)
    parts = probe.parts(0, start, {name: torch.zeros_like(leaf) for name, leaf in start.items()})
    gradients, xis, params, velocity = [], [], start, None
    for step in range(steps + 1):
        gradients.append(flat(full_gradient(objective, params)))
        xis.append(flat(objective.gradient(params, source, step)) - gradients[-1])
        run = train(objective, params, hyper, step + 1, source, velocity=velocity, begin=step)
        params, velocity, before = run.params, run.velocity, params
    numbers = hyper.coefficients()
    first = ((numbers.direct + numbers.carry * numbers.inflow) / hyper.lr)[0].item()
    later = (numbers.carry * numbers.inflow / hyper.lr)[0].item()
    w = [first] + [later * 0.8**k for k in range(1, steps + 1)]
    fresh = w[0] * xis[-1]
    carried = sum(w[k] * xis[-1 - k] for k in range(1, steps + 1))
    lag = sum(w[k] * gradients[-1 - k] for k in range(steps + 1)) - gradients[-1]
    for found, expected in ((parts.fresh, fresh), (parts.carried, carried), (parts.lag, lag)):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    direction = (flat(before) - flat(params)) / hyper.lr[:, None]
    torch.testing.assert_close(parts.omega, direction - parts.gradient, rtol=1e-9, atol=1e-12)


def test_looking_ahead_does_not_move_the_run_and_sees_what_it_will_do():
    objective, source = CASES["mlp"], streams(3)
    hyper = rules.repeat(rules.ema(0.3, 0.7), 3)
    schedule = rules.drop([7], lr=0.3, momentum=0.5)
    start, full = objective.model.initial(source), partial(full_gradient, objective)
    watch = partial(SearchNoise, objective, full, hyper, source, schedule=schedule)
    probes = {"far": watch(every=5, window=4), "near": watch(every=1)}
    run = train(objective, start, hyper, 11, source, probes=probes, schedule=schedule)
    alone = train(objective, start, hyper, 11, source, schedule=schedule)
    assert all(torch.equal(run.params[name], leaf) for name, leaf in alone.params.items())
    ahead, near = run.records["far.power"], run.records["near.power"]
    assert ahead.steps.tolist() == [0, 5, 10, 11]
    for index, step in enumerate((0, 5)):
        torch.testing.assert_close(ahead.values[index], near.values[step + 4], rtol=1e-9, atol=0)


SCHEDULES = {"cosine": rules.cosine(8), "cyclic": rules.cyclic(4)}


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_the_direction_is_seen_where_a_schedule_stands_still(schedule):
    """A cosine ends at rate 0, a cycle starts there: ω is what a vanishing rate would have shown."""
    hyper = rules.stack(rules.sgd(0.1), rules.nesterov(0.1, 0.8), rules.ema(0.1, 0.8), rules.dampened(0.1, 0.8, 0.4))
    objective, source, steps = CASES["mlp"], streams(4), 8
    start = objective.model.initial(source)

    def above(step):
        return rules.Factors(lr=max(schedule(step).lr, 1e-9))

    def powers(own, window):
        probe = SearchNoise(objective, partial(full_gradient, objective), hyper, source, 1, window, own)
        run = train(objective, start, hyper, steps, source, probes={"w": probe}, schedule=own)
        return {name: run.records[f"w.{name}"].values for name in ("power", "fresh", "carried", "lag", "along")}

    for window in (0, 2):
        found, expected = powers(schedule, window), powers(above, window)
        for name, values in found.items():
            torch.testing.assert_close(values, expected[name], rtol=1e-5, atol=1e-12)


def test_full_batches_leave_only_lag():
    objective = replace(CASES["mlp"], batch_size=None, sampling="full")
    hyper, source = rules.repeat(rules.stack(rules.sgd(0.1), rules.heavy_ball(0.1, 0.9)), 2), streams(4)
    probe = SearchNoise(objective, partial(full_gradient, objective), hyper, source, every=10, window=5)
    records = train(objective, objective.model.initial(source), hyper, 10, source, probes={"w": probe}).records
    assert torch.equal(records["w.fresh"].values, torch.zeros(2, 4, dtype=F64))
    assert torch.equal(records["w.carried"].values, torch.zeros(2, 4, dtype=F64))
    assert torch.equal(records["w.power"].values[:, :2], torch.zeros(2, 2, dtype=F64))
    assert (records["w.lag"].values[:, 2:] > 0).all()


@pytest.mark.parametrize("sampling", ["with_replacement", "shuffled_epochs"])
def test_frozen_parameters_reach_the_flat_power(sampling):
    """A learning rate of nothing: |ω|² is the filtered noise of a net that stands still."""
    objective, replicas = replace(CASES["mlp"], batch_size=7, sampling=sampling), 1500
    hyper, source = rules.repeat(rules.ema(1e-12, 0.6), replicas), streams(replicas)
    start = {name: leaf.expand(replicas, *leaf.shape[1:]) for name, leaf in objective.model.initial(streams(1)).items()}
    probe = SearchNoise(objective, partial(full_gradient, objective), hyper, source, every=1)
    powers = []
    end = train(objective, start, hyper, 32, source)
    for step in range(32, 36):  # the four places of an epoch
        powers.append(probe.parts(step, end.params, end.velocity).powers()["power"])
        end = train(objective, end.params, hyper, step + 1, source, velocity=end.velocity, begin=step)
    found = torch.stack(powers).mean(0) / (gradient_noise(objective, objective.model.initial(streams(1))) / 7)
    expected = flat_power(hyper)[0] if sampling == "with_replacement" else shuffled_power(hyper, 7, N)[0]
    assert found.mean().item() == pytest.approx(expected, abs=4 * found.std().item() / replicas**0.5)


def test_on_a_quadratic_the_probe_finds_the_stationary_moments_and_the_identity():
    """Any objective will do, not only supervised ones; the degree of smoothing is lr·√E|ω|²."""
    curvatures, variance, replicas = (0.4, 3.0), 2.0, 4000
    hyper, source = rules.repeat(rules.ema(0.3, 0.8), replicas), streams(replicas)
    problem = Quadratic(curvatures, variance)
    start = torch.zeros(replicas, 2, dtype=F64)
    slope = torch.tensor(curvatures, dtype=F64)
    probe = SearchNoise(problem, lambda x: slope * x, hyper, source, every=40, window=1)
    records = train(problem, start, hyper, 160, source, probes={"w": probe}).records
    power = records["w.power"].values[-1]
    expected = stationary_moments(rules.ema(0.3, 0.8), curvatures, variance).power.sum()
    assert power.mean().item() == pytest.approx(expected, abs=4 * power.std().item() / replicas**0.5)
    identity = conditional_power(hyper, 2 * variance, records["w.memory"].values[-1].numpy())
    gap = power.numpy() - identity
    assert gap.mean() == pytest.approx(0.0, abs=4 * gap.std() / replicas**0.5)
    late = smoothing_degree(records["w.power"], hyper.lr, since=80)
    root = (records["w.power"].values[2:].mean(0)).sqrt()
    torch.testing.assert_close(late, 0.3 * root)
