"""Ways of taking a gradient: against formulas, in chunks, where replicas diverge, and in two runs in a row."""

from __future__ import annotations

import pytest
import torch
from descent.engine import Purpose, Streams, ema, every, heavy_ball, replica_seeds, sgd, stack, train
from descent.engine.gradients import Lagged, Svag, Uphill, adams_bashforth, stale
from descent.engine.rules import repeat
from descent.nets import MLP, SquaredError, Supervised

F64 = torch.float64


class Noisy:
    """A quartic ¼Σx⁴ with gradient noise of unit deviation."""

    def gradient(self, params: torch.Tensor, streams: Streams, step: int) -> torch.Tensor:
        return params**3 + streams.normal(Purpose.NOISE, step, tuple(params.shape[1:]))


def streams(replicas: int) -> Streams:
    return Streams(replica_seeds(2, replicas), F64)


def start(replicas: int) -> torch.Tensor:
    return streams(replicas).normal(Purpose.INIT, 0, (3,))


def net_and_start(replicas: int) -> tuple[Supervised, dict[str, torch.Tensor]]:
    given = streams(1).normal(Purpose.DATA, 0, (12, 4))[0]
    net = MLP((4, 5, 1), "tanh")
    objective = Supervised(net, SquaredError(), given, given[:, :1].sign(), batch_size=3)
    return objective, net.initial(streams(replicas))


def test_uphill_is_the_gradient_further_up_on_the_same_batch() -> None:
    x, noise = start(5), streams(5).normal(Purpose.NOISE, 7, (3,))
    found = Uphill(Noisy(), 0.1).gradient(x, streams(5), 7)
    torch.testing.assert_close(found, (x + 0.1 * (x**3 + noise)) ** 3 + noise, rtol=1e-12, atol=1e-12)


def test_svag_mixes_two_batches_drawn_apart() -> None:
    x, s = start(5), 3**0.5
    first, second = (Noisy().gradient(x, streams(5), step) for step in (14, 15))
    found = Svag(Noisy(), 2).gradient(x, streams(5), 7)
    torch.testing.assert_close(found, (1 + s) / 2 * first + (1 - s) / 2 * second, rtol=1e-12, atol=1e-12)
    assert torch.equal(Svag(Noisy(), 1).gradient(x, streams(5), 7), first)


def test_svag_has_the_mean_of_the_gradient_and_so_many_times_its_power() -> None:
    many = 40_000
    x = torch.zeros(many, 1, dtype=F64)
    for fine in (1, 3, 8):
        drawn = Svag(Noisy(), fine).gradient(x, streams(many), 0)
        assert float(drawn.var()) == pytest.approx(fine, rel=0.03)
        assert abs(float(drawn.mean())) < 5 * (fine / many) ** 0.5


def test_lagged_gradients_are_those_of_before() -> None:
    x, objective = start(4), Lagged(Noisy(), (0.5, 0.0, 1.0))
    points = [x * (1 + step) for step in range(5)]
    slopes = [Noisy().gradient(at, streams(4), step) for step, at in enumerate(points)]
    for step, at in enumerate(points):
        expected = 0.5 * slopes[step] + (slopes[step - 2] if step > 1 else 0)
        torch.testing.assert_close(objective.gradient(at, streams(4), step), expected, rtol=1e-12, atol=1e-12)


def test_a_new_run_begins_without_a_memory() -> None:
    objective = stale(Noisy(), 2)
    first, second = (train(objective, start(4), sgd([0.01] * 4), 9, streams(4)).params for _ in range(2))
    assert isinstance(first, torch.Tensor)
    assert torch.equal(first, torch.as_tensor(second))


def test_stale_with_no_delay_is_the_gradient_itself() -> None:
    plain = train(Noisy(), start(4), sgd([0.01] * 4), 20, streams(4)).params
    assert torch.equal(torch.as_tensor(train(stale(Noisy(), 0), start(4), sgd([0.01] * 4), 20, streams(4)).params),
                       torch.as_tensor(plain))  # fmt: skip


def test_adams_bashforth_follows_the_flow_to_second_order() -> None:
    class Cubic:
        def gradient(self, params: torch.Tensor, streams: Streams, step: int) -> torch.Tensor:
            return params**3

    def error(steps: int) -> float:  # x' = −x³ from 1 over one unit of time
        x = torch.ones(1, 1, dtype=F64)
        first = train(Cubic(), x, sgd(1 / steps), 1, streams(1))  # from rest its first step is half as long again
        end = train(adams_bashforth(Cubic()), first.params, sgd(1 / steps), steps, streams(1), begin=1).params
        return abs(float(torch.as_tensor(end)) - 3**-0.5)

    assert error(40) < 5e-3
    assert error(40) / error(80) == pytest.approx(2, rel=0.2)  # by the start alone, a shift in time of half a step


@pytest.mark.parametrize(
    "wrap", [lambda o: Uphill(o, 0.1), lambda o: Svag(o, 3), lambda o: stale(o, 2)], ids=["uphill", "svag", "stale"]
)
def test_chunks_change_nothing(wrap) -> None:  # type: ignore[no-untyped-def]
    objective, begin = net_and_start(24)
    hyper = repeat(stack(ema(0.1, 0.9), sgd(0.1)), 12)
    whole = train(wrap(objective), begin, hyper, 30, streams(24)).params
    pieces = train(wrap(objective), begin, hyper, 30, streams(24), budget=5_000).params
    assert len(wrap(objective).chunks(24, 5_000)) > 3
    assert isinstance(whole, dict)
    assert isinstance(pieces, dict)
    for name, leaf in whole.items():
        torch.testing.assert_close(pieces[name], leaf, rtol=1e-10, atol=1e-12)


def test_draws_of_the_data_are_those_of_the_objective_inside() -> None:
    objective, begin = net_and_start(6)
    rows = torch.arange(12).view(2, 6)
    of_draws = Supervised(objective.model, objective.loss, objective.inputs, objective.targets, 3, rows=rows)
    assert Svag(of_draws, 2).period == 2
    assert Svag(objective, 2).period == 1
    assert set(Svag(of_draws, 2).gradient(begin, streams(6), 0)) == set(begin)


def test_a_replica_that_diverges_leaves_its_neighbours_alone() -> None:
    x, rates = start(3), [0.01, 5.0, 0.01]
    x[1] = 30.0
    for objective in (stale(Noisy(), 2), adams_bashforth(Noisy()), Lagged(Noisy(), (0.0, -1.0, 2.0))):
        probes = {"x": every(1, lambda at: at)}
        run = train(objective, x, sgd(rates), 40, streams(3), probes=probes)
        alone = train(objective, x[[0, 2]], sgd([0.01, 0.01]), 40, streams(3).subset(torch.tensor([0, 2])))
        assert run.diverged_at[1] >= 0
        assert run.diverged_at[[0, 2]].tolist() == [-1, -1]
        assert torch.equal(torch.as_tensor(run.params)[[0, 2]], torch.as_tensor(alone.params))


def test_what_remembers_says_so() -> None:
    assert stale(Noisy(), 1).remembers
    assert Svag(stale(Noisy(), 1), 2).remembers
    assert not Uphill(Noisy(), 0.1).remembers


def test_any_rule_descends_them() -> None:
    run = train(Uphill(Noisy(), 0.05), start(2), heavy_ball(0.01, [0.5, 0.9]), 10, streams(2))
    assert run.diverged_at.tolist() == [-1, -1]


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="fineness counts the steps"):
        Svag(Noisy(), 0)
    with pytest.raises(ValueError, match="must sum to a positive step"):
        Lagged(Noisy(), (1.0, -1.0))
    with pytest.raises(ValueError, match="delay counts steps back"):
        stale(Noisy(), -1)
    objective, _ = net_and_start(1)
    epochs = Supervised(objective.model, objective.loss, objective.inputs, objective.targets, 3, "shuffled_epochs")
    with pytest.raises(ValueError, match="two batches of one epoch are not drawn apart"):
        Svag(epochs, 2)
