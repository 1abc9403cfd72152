"""Glyphs: a pure function of the streams, ten classes alike in number, and an order of networks."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from descent.engine.streams import Streams, replica_seeds
from descent.problems.glyphs import CLASSES, POINTS, glyphs
from torch.testing import assert_close


def streams(draws: int = 3, seed: int = 5, dtype: torch.dtype = torch.float32) -> Streams:
    return Streams(replica_seeds(seed, draws), dtype)


def test_a_set_is_a_pure_function_of_its_stream():
    inputs, targets = glyphs(streams(), 50)
    assert inputs.shape == (3, 50, POINTS)
    more, same = glyphs(streams(), 80)
    assert torch.equal(same[:, :50], targets)
    assert_close(more[:, :50], inputs)
    alone, label = glyphs(streams().subset(slice(1, 2)), 50)
    assert torch.equal(label[0], targets[1])
    assert_close(alone[0], inputs[1])
    assert not torch.equal(glyphs(streams(seed=6), 50)[1], targets)


def test_classes_are_equally_likely_and_signals_of_about_unit_deviation():
    inputs, targets = glyphs(streams(1), 20_000)
    counts = torch.bincount(targets[0], minlength=CLASSES)
    assert (counts - 2000).abs().max() < 5 * (20_000 * 0.09) ** 0.5
    assert float(inputs.std()) == pytest.approx(1.0, abs=0.2)
    assert inputs.isfinite().all()


def test_noise_is_correlated_and_of_the_stated_deviation():
    with_noise, without = (glyphs(streams(1, dtype=torch.float64), 4000, noise=n)[0][0] for n in (0.7, 0.0))
    noise = with_noise - without
    assert_close(noise.square().mean(0).sqrt(), torch.full((POINTS,), 0.7, dtype=torch.float64), rtol=0.06, atol=0)
    near, far = ((noise[:, k:] * noise[:, :-k]).mean() / 0.49 for k in (1, 10))
    assert near > 0.5
    assert abs(far) < 0.05


def test_without_noise_the_padding_is_empty_and_every_place_is_used():
    clean = glyphs(streams(1), 2000, noise=0.0)[0][0]
    assert (clean.abs() < 1e-3).float().mean() > 0.3
    assert (clean.abs() > 0.1).float().mean(0).min() > 0.02


@pytest.mark.slow
def test_a_linear_map_is_below_a_dense_net_and_that_below_a_convolution(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import glyphs as benchmark

    try:
        found = {name: benchmark.accuracy(name, 2, 2000, 12, 1000).mean() for name in benchmark.nets()}
    finally:
        sys.modules.pop("glyphs")
    assert found["linear"] > 20
    assert found["dense"] > found["linear"] + 15
    assert found["convolutional"] > found["dense"] + 8
