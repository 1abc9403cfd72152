"""The chapters open with an example in numbers: each follows from what the library computes."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from descent.experiments.margins.arms import EQUAL, LARGE, Task
from descent.measure.alignment import loss_alignment
from descent.theory.linear import mean_square_edge
from descent.theory.mode import stationary_variance

CHAPTERS = Path(__file__).parents[3] / "chapters"


def opening(chapter: str) -> str:
    text = (CHAPTERS / f"{chapter}.md").read_text(encoding="utf-8")
    return text[text.index("**With numbers.**") : text.index("**Claims on this page**")]


def steps_to_leave(lr: float, momentum: float) -> int:
    x = before = 0.01
    steps = 0
    while x < 1:
        x, before, steps = x + momentum * (x - before) + lr * x, x, steps + 1
    return steps


def test_saddles() -> None:
    text = opening("saddles")
    arms = {
        "after {} steps": (0.01, 0.0),
        "is there after {}.": (0.01, 0.9),
        "rate 0.1 is there after {} steps.": (0.1, 0.0),
    }
    for said, arm in arms.items():
        assert said.format(steps_to_leave(*arm)) in text
    for lr, momentum in arms.values():
        assert f"{float(stationary_variance(1.0, lr, momentum)):.4f}" in text


def test_flatness() -> None:
    text = opening("flatness")
    factors = torch.tensor([1 - 0.9 * 1, 1 - 0.9 * 3])
    assert f"grows by {factors.square().mean():.2f} per step" in text
    assert f"={factors.abs().log().mean().exp():.2f}$" in text
    edge = mean_square_edge(torch.tensor([[1.0], [3.0]]).sqrt().tolist(), 0.0)
    assert f"its threshold is {float(edge):.1f}." in text


def test_smoothing() -> None:
    text, momentum = opening("smoothing"), 0.9
    weights = momentum ** torch.arange(1000, dtype=torch.float64)
    heavy, average = weights.square().sum(), ((1 - momentum) * weights).square().sum()
    assert f"variance {average:.3f}, a nineteenth" in text
    assert f"variance {heavy:.1f}." in text
    assert float(1 / average) == pytest.approx(19)


def test_geometry() -> None:
    text = opening("geometry")
    rows = torch.diag(torch.tensor([2.0, 1.0], dtype=torch.float64))
    for said, residuals in (("is 1.\n", (1.0, 1.0)), ("is 0.12.", (0.0, 1.0)), ("it is 1.9.", (1.0, 0.0))):
        found = loss_alignment(rows @ rows.T, torch.tensor(residuals, dtype=torch.float64)).uncentred
        assert f"{float(found):.2g}" in said
        assert said in text


def test_margins() -> None:
    text, task = opening("margins"), Task()
    ratio = (task.large_margin / task.small_margin) ** 3
    assert ratio == pytest.approx(1000)
    assert ratio * (1 - task.share) / task.share == pytest.approx(9000)
    assert "nine-thousandth" in text
    assert pytest.approx(0.6, abs=0.01) == 0.99**50


def test_the_table_of_margins_is_that_of_its_tasks() -> None:
    text = (CHAPTERS / "margins.md").read_text(encoding="utf-8")
    small, large = Task(), LARGE
    rows = {
        "$d$": (small.dimension, large.dimension),
        "$N$": (small.examples, large.examples),
        "$pN$": (small.small, large.small),
        r"$\sigma$": tuple(f"{task.noise / math.sqrt(task.dimension):.1f}" for task in (small, large)),
        "$m$": (small.neurons, large.neurons),
        "$L$": (EQUAL, EQUAL),
    }
    for symbol, (here, there) in rows.items():
        assert f"| {symbol} | {here} | {there} |" in text
