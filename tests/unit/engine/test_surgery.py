"""Operations on the momentum buffer against closed forms, on a quadratic where every run is known."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from descent.engine.probes import Params
from descent.engine.rules import ema, heavy_ball, repeat, sgd, stack
from descent.engine.streams import Streams, replica_seeds
from descent.engine.surgery import Bypass, Erase, Kick, Project, Surgery, Withhold
from descent.engine.train import train
from torch import Tensor

R, LR, MOMENTUM = 3, 0.3, 0.8
STREAMS = Streams(replica_seeds(0, R), torch.float64)
START = {"a": torch.tensor([[1.0], [2.0], [3.0]], dtype=torch.float64), "b": torch.ones(R, 2, dtype=torch.float64)}
ALL = slice(0, R)
HYPER = repeat(ema(LR, MOMENTUM), R)


@dataclass(frozen=True)
class Bowl:
    """L = (curved a² + b²)/2, or a constant slope on a."""

    curved: float = 2.0
    slope: float = 0.0

    def gradient(self, params: Params, streams: Streams, step: int) -> Params:
        assert isinstance(params, dict)
        return {"a": self.curved * params["a"] + self.slope, "b": params["b"].clone()}


def end(objective: object, steps: int, hyper: object = HYPER, start: dict[str, Tensor] = START) -> dict[str, Tensor]:
    found = train(objective, start, hyper, steps, STREAMS).params  # type: ignore[arg-type]
    assert isinstance(found, dict)
    return found


def test_without_operations_nothing_changes() -> None:
    for ours, theirs in zip(end(Surgery(Bowl(), []), 20).values(), end(Bowl(), 20).values(), strict=True):
        assert torch.equal(ours, theirs)


def test_forgetting_everything_is_plain_descent() -> None:
    whole = Bypass(ALL, lambda _, gradient: dict(gradient), 1 - MOMENTUM)
    for ours, theirs in zip(
        end(Surgery(Bowl(), [whole]), 25).values(), end(Bowl(), 25, repeat(sgd(LR), R)).values(), strict=True
    ):
        assert torch.allclose(ours, theirs, rtol=1e-12, atol=1e-14)


def test_forgetting_everything_in_a_heavy_ball() -> None:
    whole = Bypass(ALL, lambda _, gradient: dict(gradient), 1.0)
    found = end(Surgery(Bowl(), [whole]), 25, repeat(heavy_ball(LR, MOMENTUM), R))
    assert torch.allclose(found["a"], end(Bowl(), 25, repeat(sgd(LR), R))["a"], rtol=1e-12, atol=1e-14)


def test_forgetting_a_part_leaves_the_other_its_momentum() -> None:
    found = end(Surgery(Bowl(), [Bypass(ALL, lambda _, g: {"b": g["b"]}, 1 - MOMENTUM)]), 25)
    assert torch.equal(found["a"], end(Bowl(), 25)["a"])
    assert torch.allclose(found["b"], end(Bowl(), 25, repeat(sgd(LR), R))["b"], rtol=1e-12, atol=1e-14)


def test_parts_of_one_leaf_add_up() -> None:
    """Half of the gradient forgotten: x ← x − lr(m + g/2), m the average of the other half."""
    found = end(Surgery(Bowl(), [Bypass(ALL, lambda _, g: {"a": g["a"] / 2}, 1 - MOMENTUM)]), 12)["a"]
    x, m = START["a"].clone(), torch.zeros_like(START["a"])
    for _ in range(12):
        g = 2.0 * x
        m = MOMENTUM * m + (1 - MOMENTUM) * g / 2
        x = x - LR * (m + g / 2)
    assert torch.allclose(found, x, rtol=1e-12)


def test_a_rule_acts_replica_by_replica_and_once() -> None:
    """Erased when a first falls below one: the first replica at once, the others later, each like a fresh start."""
    found = train(Surgery(Bowl(), [Erase(ALL, lambda p: p["a"][:, 0] < 1.5)]), START, HYPER, 30, STREAMS).params
    assert isinstance(found, dict)
    for row, x in enumerate((1.0, 2.0, 3.0)):
        v, erased = 0.0, False
        for _ in range(30):
            if x < 1.5 and not erased:
                v, erased = 0.0, True
            v = MOMENTUM * v + (1 - MOMENTUM) * 2.0 * x
            x = x - LR * v
        assert float(found["a"][row]) == pytest.approx(x, rel=1e-12)


def test_withheld_gradients_let_the_buffer_run_out() -> None:
    """After n steps of slope one, v = 1 − μⁿ; with nothing more coming in the way left is lr·v·μ/(1 − μ)."""
    n = 5
    hold = Withhold(ALL, lambda _, g: {"a": g["a"]}, lambda p: p["a"][:, 0] < reach)
    x = START["a"].clone()
    v = torch.zeros_like(x)
    for _ in range(n):
        v = MOMENTUM * v + (1 - MOMENTUM)
        x = x - LR * v
    reach = x[:, 0] + 1e-9
    found = end(Surgery(Bowl(0.0, 1.0), [hold]), 400)["a"]
    assert torch.allclose(found, x - LR * v * MOMENTUM / (1 - MOMENTUM), rtol=1e-10)


def test_impulse_travels_the_learning_rate() -> None:
    """One unit gradient at step 0 displaces an EMA by lr(1 − μⁿ) after n updates."""
    for n in (1, 4, 50):
        moved = START["a"] - end(Surgery(Bowl(0.0, 1.0), [_after_the_first()]), n)["a"]
        assert torch.allclose(moved, torch.full_like(moved, LR * (1 - MOMENTUM**n)), rtol=1e-12)


def _after_the_first() -> Withhold:
    return Withhold(ALL, lambda _, g: {"a": g["a"]}, lambda p: p["a"][:, 0] < START["a"][:, 0] - 1e-12)


@pytest.mark.parametrize("keep", [True, False])
def test_projection_of_the_buffer(keep: bool) -> None:
    """Along b₁ only, or everything but b₁: the other coordinates move by their own fresh gradient alone."""
    direction = {"b": torch.tensor([[3.0, 0.0]], dtype=torch.float64)}
    found = end(Surgery(Bowl(), [Project(ALL, direction, keep=keep)]), 10)
    with_memory, without = end(Bowl(), 10), _memoryless(10)
    one, other = (with_memory, without) if keep else (without, with_memory)
    assert torch.allclose(found["b"][:, 0], one["b"][:, 0], rtol=1e-12)
    assert torch.allclose(found["b"][:, 1], other["b"][:, 1], rtol=1e-12)
    assert torch.allclose(found["a"], other["a"], rtol=1e-12)


def _memoryless(steps: int) -> dict[str, Tensor]:
    """Descend with weight 1 − μ and no buffer: what is left of a gradient whose memory is wiped before each step."""
    return end(Bowl(), steps, repeat(sgd(LR * (1 - MOMENTUM)), R))


def test_a_kick_moves_once_and_leaves_the_buffer() -> None:
    kick = Kick(slice(1, 3), lambda p: {"a": torch.full_like(p["a"], 5.0)}, lambda p: p["a"][:, 0] < 2.5)
    found = end(Surgery(Bowl(0.0, 1.0), [kick]), 40)["a"]
    calm = end(Bowl(0.0, 1.0), 40)["a"]
    assert torch.allclose(found - calm, torch.tensor([[0.0], [5.0], [5.0]], dtype=torch.float64), atol=1e-12)


def test_rows_of_other_arms_are_left_alone() -> None:
    hyper = stack(repeat(ema(LR, MOMENTUM), 1), repeat(ema(LR, 0.5), 2))
    found = end(Surgery(Bowl(), [Bypass(slice(1, 3), lambda _, g: dict(g), 0.5)]), 15, hyper)
    assert torch.equal(found["a"][:1], end(Bowl(), 15)["a"][:1])
    assert torch.allclose(found["a"][1:], end(Bowl(), 15, repeat(sgd(LR), R))["a"][1:], rtol=1e-12)
