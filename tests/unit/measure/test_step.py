"""The step of a rule: exact for linear rules, known for signs and Adam, matched within a run, symmetrised."""

import math
from dataclasses import replace

import pytest
import torch
from descent.engine import Streams, adam, ema, heavy_ball, nesterov, qhm, repeat, replica_seeds, sgd, sign, stack, train
from descent.engine.streams import Purpose
from descent.measure.step import Reaching, Symmetrised, full_gradient, matched, step_of
from descent.nets import MLP, CrossEntropy, Supervised

F64 = torch.float64


class Skewed:
    """½x² with noise Exp(1) − 1, or none."""

    def __init__(self, noise=1.0):
        self.noise = noise

    def full(self, params):
        return params

    def gradient(self, params, streams, step):
        uniform = streams.uniform(Purpose.DATA, step, tuple(params.shape[1:]))
        return params + self.noise * (-uniform.log() - 1)


class Gaussian(Skewed):
    def gradient(self, params, streams, step):
        return params + self.noise * streams.normal(Purpose.DATA, step, tuple(params.shape[1:]))


def at(value, rows=8, size=3):
    return torch.full((rows, size), value, dtype=F64), Streams(replica_seeds(4, rows), F64)


LINEAR = [
    (sgd(0.1), 0.1, 0), (heavy_ball(0.1, 0.8), 0.5, 4), (nesterov(0.1, 0.8), 0.5, 3.2), (ema(0.1, 0.8), 0.1, 4),
    (qhm(0.1, 0.8, 0.7), 0.1, 2.8),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "step", "lag"), LINEAR)
@pytest.mark.parametrize("objective", [Skewed(), Skewed(0.0)], ids=["noisy", "constant"])
def test_linear_rules_have_the_step_of_the_book(rule, step, lag, objective):
    params, streams = at(0.7)
    found = step_of(rule, objective, params, streams=streams, steps=20, rings=3, burn=200)
    torch.testing.assert_close(found.response, torch.full((8,), step, dtype=F64), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.lag, torch.full((8,), float(lag), dtype=F64), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found.temperature, step * found.noise / 2, rtol=1e-10, atol=1e-12)
    if objective.noise == 0:
        torch.testing.assert_close(found.reach, torch.full((8,), step, dtype=F64), rtol=1e-12, atol=1e-12)
        assert float(found.bias.abs().max()) < 1e-12


def test_a_sign_responds_as_the_density_at_zero_says_and_averaging_as_a_larger_batch():
    params, streams = at(0.0, rows=32, size=20)
    plain = step_of(sign(0.1), Gaussian(), params, streams=streams, steps=200, rings=2)
    mixed = step_of(sign(0.1, 0.5), Gaussian(), params, streams=streams, steps=200, rings=2)
    density = 0.1 * 2 / math.sqrt(2 * math.pi)
    for found, larger in ((plain, 1), (mixed, 3)):
        guess = found.estimate("response")
        assert abs(guess.value - density * math.sqrt(larger)) < 0.03 * guess.value
        assert float(found.rms.mean()) == pytest.approx(0.1)
    assert bool(plain.reach.isnan().all())


def test_skewed_noise_takes_the_reach_of_a_sign_and_symmetric_noise_gives_it_back():
    params, streams = at(0.2, rows=16)
    found = step_of(sign(0.1), Skewed(), params, streams=streams, steps=200, rings=2)
    fair = step_of(sign(0.1), Symmetrised(Skewed()), params, streams=streams, steps=200, rings=2)
    assert float(found.reach.mean()) < 0 < float(fair.reach.mean())
    assert found.estimate("bias").value > 1
    assert abs(fair.estimate("bias").value) < 0.2


def test_adams_reach_does_not_know_its_momentum():
    params, streams = at(0.3, rows=8)
    found = [step_of(adam(0.1, m, 0.99), Gaussian(), params, streams=streams, steps=200, rings=2) for m in (0.0, 0.8)]
    assert float((found[0].reach / found[1].reach).mean()) == pytest.approx(1, abs=0.02)
    assert found[1].estimate("lag").value - found[0].estimate("lag").value == pytest.approx(4, abs=1.5)
    torch.testing.assert_close(matched(found[0], found[1]), found[1].reach / found[0].reach)
    assert "reach" in str(found[0])


def test_no_step_matches_where_one_does_not_descend():
    params, streams = at(0.2, rows=16)
    stuck = step_of(sign(0.1), Skewed(), params, streams=streams, steps=200, rings=2)
    assert bool(matched(stuck, stuck).isnan().all())


def problem(rows):
    x = torch.linspace(-1, 1, 120, dtype=F64).reshape(24, 5).sin()
    model = MLP((5, 6, 3), "tanh")
    streams = Streams(replica_seeds(1, rows), F64)
    return Supervised(model, CrossEntropy(), x, torch.arange(24) % 3, 4), model.initial(streams), streams


def test_a_control_gives_plain_descent_the_step_of_momentum():
    objective, start, streams = problem(8)
    objective = replace(objective, batch_size=16)
    rule = stack(heavy_ball([0.02] * 4, 0.9), sgd([0.02] * 4))
    control = Reaching(slice(4, 8), heavy_ball(0.02, 0.9), every=10, burn=150, steps=24)
    run = train(objective, start, rule, 40, streams, control=control)
    factors = run.records["control"].values
    assert factors.shape == (5, 8)
    assert bool((factors[:, :4] == 1).all())
    assert int(factors.isnan().sum()) <= 3  # now and then two rings of noise climb
    torch.testing.assert_close(
        factors[:, 4:].nan_to_num(10.0), torch.full((5, 4), 10.0, dtype=F64), rtol=1e-4, atol=0.0
    )
    plain = train(objective, start, stack(heavy_ball([0.02] * 4, 0.9), sgd([0.02] * 4)), 40, streams)
    assert torch.equal(run.params["0.weight"][:4], plain.params["0.weight"][:4])
    assert not torch.equal(run.params["0.weight"][4:], plain.params["0.weight"][4:])


def test_a_control_gives_plain_descent_the_response_of_momentum_at_every_look():
    objective, start, streams = problem(8)
    rule = stack(heavy_ball([0.02] * 4, 0.9), sgd([0.02] * 4))
    control = Reaching(slice(4, 8), heavy_ball(0.02, 0.9), every=10, burn=150, steps=24, by="response")
    factors = train(objective, start, rule, 20, streams, control=control).records["control"].values
    torch.testing.assert_close(factors[:, 4:], torch.full((3, 4), 10.0, dtype=F64), rtol=1e-6, atol=0.0)


def test_a_control_gives_plain_descent_the_root_mean_square_of_momentum():
    params, streams = at(0.0, rows=4, size=50)  # noise alone, whose average has 1/√(1 − μ²) of plain descent's length
    rule = stack(heavy_ball([0.01] * 2, 0.6), sgd([0.01] * 2))
    control = Reaching(slice(2, 4), heavy_ball(0.01, 0.6), every=5, burn=30, steps=200, by="rms")
    factors = train(Skewed(), params, rule, 5, streams, control=control).records["control"].values
    assert factors[:, 2:].numpy() == pytest.approx(1.25, rel=0.02)


def test_a_control_holds_its_factor_where_no_step_matches():
    params, streams = at(0.2, rows=4)
    control = Reaching(slice(0, 4), sign(0.001, 0.9), every=5, steps=150)
    run = train(Skewed(), params, repeat(sign(0.001), 4), 10, streams, control=control)
    assert bool(run.records["control"].values.isnan().all())
    free = train(Skewed(), params, repeat(sign(0.001), 4), 10, streams)
    assert torch.equal(run.params, free.params)


def test_symmetric_noise_has_the_same_mean_and_no_odd_moment():
    params, streams = at(0.3, rows=2000, size=1)
    g = torch.cat([Symmetrised(Skewed()).gradient(params, streams, step) for step in range(5)]) - 0.3
    assert abs(float(g.mean())) < 0.05
    assert abs(float(g.pow(3).mean())) < 0.6  # 2 before
    assert float(g.square().mean()) == pytest.approx(1, abs=0.15)


def test_what_has_no_full_gradient_is_refused():
    class Bare:
        def gradient(self, params, streams, step):
            return params

    with pytest.raises(ValueError, match=r"give it a method full"):
        full_gradient(Bare(), at(0.1)[0])
    with pytest.raises(ValueError, match="give one, or as many"):
        step_of(sign([0.1, 0.2]), Skewed(), at(0.1)[0], streams=at(0.1)[1])


class Counted:
    """A bowl that counts how often it is asked for its full gradient."""

    def __init__(self):
        self.asked = 0

    def full(self, params):
        self.asked += 1
        return params

    def gradient(self, params, streams, step):
        return params - streams.uniform(Purpose.DATA, step, tuple(params.shape[1:])).log() - 1


def test_symmetric_noise_at_held_parameters_asks_for_the_full_gradient_once():
    counted = Counted()
    streams = Streams(replica_seeds(0, 4))
    held = step_of(sign(1.0), Symmetrised(counted), torch.ones(4, 3), streams=streams, steps=20)
    assert counted.asked == 1
    by_hand = step_of(sign(1.0), Symmetrised(counted), torch.ones(4, 3), streams=streams, steps=20, full=counted.full)
    assert counted.asked > 20
    assert torch.equal(held.reach, by_hand.reach)
