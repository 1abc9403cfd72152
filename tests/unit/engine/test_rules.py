"""Update rules against torch.optim.SGD and their formulas; schedules against their definitions."""

import itertools

import pytest
import torch
from descent.engine import rules
from descent.engine.streams import Streams, replica_seeds
from descent.engine.train import every, train
from descent.nets.dense import MLP, CrossEntropy
from descent.nets.supervised import Supervised

F64 = torch.float64
FLAGS = [
    dict(zip(("momentum", "dampening", "nesterov", "weight_decay", "maximize"), values, strict=True))
    for values in itertools.product((0.0, 0.9), (0.0, 0.3), (False, True), (0.0, 0.02), (False, True))
    if not values[2] or (values[0] > 0 and values[1] == 0.0)  # torch refuses other Nesterov rules
]


class Quadratic:
    """½ curvature·x², no noise."""

    def __init__(self, curvature=1.0):
        self.curvature = curvature

    def gradient(self, params, streams, step):
        return self.curvature * params


def rule_of(flags, lr):
    options = {"weight_decay": flags["weight_decay"], "maximize": flags["maximize"]}
    if flags["nesterov"]:
        return rules.nesterov(lr, flags["momentum"], flags["dampening"], **options)
    if flags["dampening"]:
        return rules.dampened(lr, flags["momentum"], flags["dampening"], **options)
    return rules.heavy_ball(lr, flags["momentum"], **options)


def path(hyper, steps, start=1.0, schedule=None, curvature=1.0):
    x = torch.full((hyper.replicas,), start, dtype=F64)
    streams = Streams(replica_seeds(0, hyper.replicas), F64)
    probes = {"x": every(1, lambda x: x)}
    return train(Quadratic(curvature), x, hyper, steps, streams, probes=probes, schedule=schedule).records["x"].values


def test_every_flag_of_torch_as_one_stack():
    lrs = torch.linspace(0.02, 0.1, len(FLAGS), dtype=F64).tolist()
    hyper = rules.stack(*(rule_of(flags, lr) for flags, lr in zip(FLAGS, lrs, strict=True)))
    streams = Streams(replica_seeds(1, len(FLAGS)), F64)
    x = torch.linspace(-1, 1, 24, dtype=F64).reshape(8, 3).sin()
    y = torch.arange(8) % 2
    model = MLP((3, 4, 2), activation="tanh")
    start = model.initial(streams)
    run = train(Supervised(model, CrossEntropy(), x, y, sampling="full"), start, hyper, 200, streams)
    for r, (flags, lr) in enumerate(zip(FLAGS, lrs, strict=True)):
        module = model.module().double()
        module.load_state_dict({name: leaf[r] for name, leaf in start.items()})
        optimizer = torch.optim.SGD(module.parameters(), lr=lr, **flags)
        for _ in range(200):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(module(x), y).backward()
            optimizer.step()
        for name, parameter in module.named_parameters():
            torch.testing.assert_close(run.params[name][r], parameter.detach(), rtol=1e-10, atol=1e-10, msg=str(flags))


def annealed(optimizer, lr, momentum, factors):
    for group in optimizer.param_groups:
        group["lr"], group["momentum"] = lr * float(factors.lr), momentum * float(factors.momentum)


@pytest.mark.parametrize("options", [{}, {"weight_decay": 0.2}, {"maximize": True}], ids=["plain", "decay", "ascent"])
def test_dampening_ends_where_a_schedule_ends_the_momentum(options):
    """As in torch, replica by replica: some are at 0 from the start, some are brought there, some never."""
    lr, momenta, dampenings = [0.1, 0.2, 0.15, 0.3], [0.0, 0.5, 0.9, 0.9], [0.4, 0.4, 0.9, 0.3]
    slowly = rules.drop(5, 0.7)
    ends = [
        rules.constant(),
        rules.anneal_momentum(8),
        lambda step: rules.Factors(momentum=max(0.0, 1 - step / 10)),
        rules.product(slowly, rules.anneal_momentum(6, 0.5)),
    ]
    hyper = rules.dampened(lr, momenta, dampenings, **options)
    found = path(hyper, 30, schedule=rules.per_arm(*ends, replicas=1), curvature=0.8)
    for r in range(4):
        x = torch.nn.Parameter(torch.ones((), dtype=F64))
        optimizer = torch.optim.SGD([x], lr=lr[r], momentum=momenta[r], dampening=dampenings[r], **options)
        for step in range(30):
            assert x.item() == pytest.approx(found[step, r].item(), rel=1e-12, abs=1e-14)
            annealed(optimizer, lr[r], momenta[r], ends[r](step))
            x.grad = 0.8 * x.detach()
            optimizer.step()
        assert x.item() == pytest.approx(found[30, r].item(), rel=1e-12, abs=1e-14)


def test_where_momentum_returns_the_buffer_holds_the_last_gradient():
    def schedule(step):
        return rules.Factors(momentum=float(step != 1))

    found = path(rules.dampened(0.1, 0.5, 0.4), 3, schedule=schedule)[:, 0]
    assert found.tolist() == pytest.approx([1, 0.9, 0.81, 0.81 - 0.1 * (0.5 * 0.9 + 0.6 * 0.81)], rel=1e-12)


def test_ema_and_qhm_against_their_formulas():
    lr, beta, nu = 0.1, 0.8, 0.7
    hyper = rules.stack(
        rules.ema(lr, beta), rules.qhm(lr, beta, nu), rules.qhm(lr, beta, 1.0), rules.qhm(lr, beta, 0.0)
    )
    found = path(hyper, 50)
    x, v = torch.ones(4, dtype=F64), torch.zeros(4, dtype=F64)
    weight = torch.tensor([1.0, nu, 1.0, 0.0], dtype=F64)
    for step in range(51):
        torch.testing.assert_close(found[step], x, rtol=1e-12, atol=1e-14)
        g = x.clone()
        v = beta * v + (1 - beta) * g
        x = x - lr * ((1 - weight) * g + weight * v)
    assert torch.equal(found[:, 0], found[:, 2])
    torch.testing.assert_close(found[:, 3], path(rules.sgd(lr), 50)[:, 0], rtol=1e-12, atol=0)


def test_sgd_is_heavy_ball_without_momentum():
    assert torch.equal(path(rules.sgd(0.1), 30), path(rules.heavy_ball(0.1, 0.0), 30))
    torch.testing.assert_close(path(rules.sgd(0.1), 30)[:, 0], 0.9 ** torch.arange(31, dtype=F64))


def test_ema_is_heavy_ball_at_a_scaled_rate():
    torch.testing.assert_close(path(rules.ema(0.1, 0.9), 60), path(rules.heavy_ball(0.01, 0.9), 60))


def test_first_gradient_undampened_or_not():
    torchlike = path(rules.dampened(0.1, 0.9, 0.5), 1)
    empty = path(rules.dampened(0.1, 0.9, 0.5, first="zero"), 1)
    assert torchlike[1].item() == pytest.approx(0.9)
    assert empty[1].item() == pytest.approx(0.95)


def test_buffers_differ_when_the_rate_moves():
    """x = 1, curvature 1, momentum .9, lr .05 → .005 from step 10."""
    arms = rules.stack(rules.heavy_ball(0.05, 0.9, buffer="displacement"), rules.heavy_ball(0.05, 0.9))
    found = path(arms, 13, schedule=rules.drop(10, lr=0.1))
    torch.testing.assert_close(found[:11, 0], found[:11, 1], rtol=1e-12, atol=1e-14)
    expected = torch.tensor([[-0.408, -0.494, -0.569], [-0.319, -0.325, -0.329]], dtype=F64).T
    torch.testing.assert_close(found[11:], expected, rtol=0, atol=5e-4)


def test_buffers_agree_when_the_rate_stays():
    for make in (rules.nesterov, rules.heavy_ball, rules.ema):
        a, b = (path(make(0.07, 0.9, buffer=form, weight_decay=0.1), 80) for form in ("displacement", "gradient"))
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-13)


def test_repeat_is_arm_major():
    hyper = rules.repeat(rules.heavy_ball([0.1, 0.2], 0.5), 3)
    assert hyper.lr.tolist() == [0.1] * 3 + [0.2] * 3
    assert hyper.subset(slice(2, 4)).lr.tolist() == [0.1, 0.2]


def test_momentum_schedule_carries_what_follows_the_momentum():
    moved = rules.Factors(momentum=0.5)
    assert rules.ema(0.1, 0.8).scaled(moved).gain.item() == pytest.approx(0.6)
    assert rules.nesterov(0.1, 0.8).scaled(moved).carry.item() == pytest.approx(0.4)
    assert rules.dampened(0.1, 0.8, 0.3).scaled(moved).gain.item() == pytest.approx(0.7)
    assert rules.qhm(0.1, 0.8, 0.7).scaled(moved).carry.item() == pytest.approx(0.7)


def test_momentum_annealed_to_zero_is_plain_descent_from_there():
    found = path(rules.heavy_ball(0.1, 0.9), 20, schedule=rules.anneal_momentum(10))[:, 0]
    torch.testing.assert_close(found[11:] / found[10:-1], torch.full((10,), 0.9, dtype=F64))


def lr_factors(schedule, steps):
    return [float(schedule(step).lr) for step in steps]


def test_schedules():
    assert lr_factors(rules.constant(0.5), [0, 9]) == [0.5, 0.5]
    assert lr_factors(rules.drop([10, 20], 0.1), [9, 10, 19, 20]) == pytest.approx([1, 0.1, 0.1, 0.01])
    assert lr_factors(rules.cosine(100, 0.2), [0, 50, 100, 200]) == pytest.approx([1, 0.6, 0.2, 0.2])
    assert lr_factors(rules.cyclic(10, 0.1, 1.1), [0, 5, 10, 12]) == pytest.approx([0.1, 1.1, 0.1, 0.5])
    both = rules.product(rules.drop(5, 0.5), rules.anneal_momentum(7, 0.3))
    assert (both(7).lr, both(7).momentum) == (0.5, 0.3)


def test_schedules_per_arm_and_absolute():
    hyper = rules.repeat(rules.heavy_ball([0.1, 0.2], 0.9), 2)
    arms = rules.per_arm(rules.constant(), rules.drop(3, 0.5), replicas=2)
    assert hyper.scaled(arms(3)).lr.tolist() == pytest.approx([0.1, 0.1, 0.1, 0.1])
    assert hyper.scaled(arms(2)).lr.tolist() == pytest.approx([0.1, 0.1, 0.2, 0.2])
    fixed = rules.absolute(hyper, lr=lambda step: 0.01 * (step + 1), momentum=lambda step: 0.5)
    assert hyper.scaled(fixed(4)).lr.tolist() == pytest.approx([0.05] * 4)
    assert hyper.scaled(fixed(4)).momentum.tolist() == pytest.approx([0.5] * 4)
    with pytest.raises(ValueError, match="positive base momentum"):
        rules.absolute(rules.sgd(0.1), momentum=lambda step: 0.5)


def test_a_schedule_acts_arm_by_arm_in_a_run():
    hyper = rules.heavy_ball([0.1, 0.1], 0.5)
    both = path(hyper, 20, schedule=rules.per_arm(rules.constant(), rules.drop(5, 0.3), replicas=1))
    assert torch.equal(both[:, 0], path(rules.heavy_ball(0.1, 0.5), 20)[:, 0])
    assert torch.equal(both[:, 1], path(rules.heavy_ball(0.1, 0.5), 20, schedule=rules.drop(5, 0.3))[:, 0])


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="lr must not be negative"):
        rules.sgd(-0.1)
    with pytest.raises(ValueError, match="momentum must be a finite"):
        rules.heavy_ball(0.1, float("nan"))
    with pytest.raises(ValueError, match="buffer"):
        rules.heavy_ball(0.1, 0.9, buffer="torch")
    with pytest.raises(ValueError, match="first"):
        rules.ema(0.1, 0.9, first="one")
