"""Quadratic–circle sums: landscape, basins, thresholds and the section, against closed forms and simulation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from descent.engine.rules import heavy_ball, repeat, sgd
from descent.engine.streams import Streams, replica_seeds
from descent.engine.train import every, train
from descent.measure.growth import Descent, resampled_growth
from descent.problems.circle import Circle, Section
from descent.theory.weights import Gamma
from numpy.testing import assert_allclose

SHARP_RING, SHARP_BOWL = Circle(batch_size=None), Circle(bowl=10.0, ring=1.0, batch_size=None)
BOTH = pytest.mark.parametrize("circle", [SHARP_RING, SHARP_BOWL])


def streams(replicas: int) -> Streams:
    return Streams(replica_seeds(5, replicas), torch.float64)


def test_basins_meet_where_the_pieces_do() -> None:
    ring = [SHARP_RING.boundary, SHARP_RING.outer, SHARP_RING.room]
    assert_allclose(ring, [7.597469, 14.624753, 2.402531], atol=1e-6)
    assert_allclose([SHARP_BOWL.boundary, SHARP_BOWL.room], [2.402531, 2.402531], atol=1e-6)
    assert SHARP_BOWL.outer == np.inf
    for circle in (SHARP_RING, SHARP_BOWL):
        for edge in (circle.boundary, circle.outer):
            if edge < np.inf:
                assert circle.bowl * edge**2 == pytest.approx(circle.ring * (edge - circle.radius) ** 2)


@BOTH
def test_gradient_and_loss_belong_together(circle: Circle) -> None:
    x = (12 * torch.randn(40, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).requires_grad_()
    (slope,) = torch.autograd.grad(circle.loss(x).sum(), x)
    torch.testing.assert_close(circle.gradient(x.detach(), streams(40), 0), slope, rtol=1e-12, atol=1e-12)


@BOTH
def test_minimisers_have_no_slope_and_the_stated_hessian(circle: Circle) -> None:
    for far in circle.minimisers:
        point = far * torch.tensor([0.6, 0.8], dtype=torch.float64)
        assert circle.gradient(point[None], streams(1), 0).abs().max() < 1e-12
        nearby = point + 1e-9  # the loss has no derivative of |x| at the very centre
        numeric = torch.autograd.functional.hessian(lambda x: circle.loss(x[None]).sum(), nearby)
        torch.testing.assert_close(circle.hessian(point), numeric, rtol=1e-6, atol=1e-6)
        assert float(torch.linalg.eigvalsh(circle.hessian(point))[-1]) == pytest.approx(
            circle.curvatures.bowl if far == 0 else circle.curvatures.ring
        )


@BOTH
def test_gradient_flow_ends_in_the_basin_it_started_in(circle: Circle) -> None:
    far = torch.tensor([0.1, 0.99, 1.01, 1.5, 3.0], dtype=torch.float64) * circle.boundary
    start = far[:, None] * torch.tensor([[0.6, -0.8]], dtype=torch.float64)
    end = train(circle, start, repeat(sgd(0.01), 5), 3000, streams(5)).params
    assert isinstance(end, torch.Tensor)
    settled = circle.radius * (~circle.in_bowl(start)).double()
    torch.testing.assert_close(torch.linalg.vector_norm(end, dim=-1), settled, rtol=0, atol=1e-6)


@BOTH
def test_the_section_is_the_sum_along_a_line(circle: Circle) -> None:
    line = torch.linspace(-37, 37, 741, dtype=torch.float64)
    section = Section(circle)
    place = section.place(line)
    plane = place[:, None] * torch.tensor([[0.6, 0.8]], dtype=torch.float64)
    along = circle.slope(plane) @ torch.tensor([0.6, 0.8], dtype=torch.float64)
    torch.testing.assert_close(section.slope(line), along, rtol=1e-12, atol=1e-12)
    assert torch.equal(section.left(line), circle.in_bowl(plane) == circle.sharp_ring)
    assert not section.left(torch.zeros(1))


def test_exact_noise_never_leaves_the_line() -> None:
    """Runs in the plane against runs on the section, through an exit and beyond."""
    circle, way = replace(SHARP_RING, batch_size=1), torch.tensor([0.6, 0.8], dtype=torch.float64)
    distance = torch.full((30,), -0.5, dtype=torch.float64)
    hyper, probe = repeat(heavy_ball(0.22, 0.1), 30), {"x": every(5, lambda x: x)}
    plane = train(circle, (circle.radius + distance)[:, None] * way, hyper, 60, streams(30), probes=probe)
    line = train(Section(circle), distance, hyper, 60, streams(30), probes=probe).records["x"].values
    assert 0 < int(Section(circle).left(line[-1]).sum()) < 30
    torch.testing.assert_close(plane.records["x"].values @ way, line + circle.radius, rtol=0, atol=1e-8)


@BOTH
def test_the_section_knows_distances_no_position_could_hold(circle: Circle) -> None:
    tiny = torch.tensor([1e-200, -1e-200], dtype=torch.float64)
    assert torch.equal(Section(circle).slope(tiny), circle.sharpness * tiny)


def test_points_of_one_replica_share_their_luck_and_jitter_averages_over_the_batch() -> None:
    circle = Circle(batch_size=4, jitter=0.3)
    at_minimiser = torch.tensor([10.0, 0.0], dtype=torch.float64).expand(4000, 3, 2)
    noise = circle.gradient(at_minimiser, streams(4000), 0)
    assert torch.equal(noise[:, 0], noise[:, 2])
    assert_allclose(noise[:, 0].std(0).numpy(), 0.3 / 2, rtol=0.06)
    assert abs(float(torch.corrcoef(noise[:, 0].T)[0, 1])) < 0.07
    off = torch.full((4000, 3), 0.5, dtype=torch.float64)
    slope = Section(replace(circle, jitter=0.0)).gradient(off, streams(4000), 0)
    assert torch.equal(slope[:, 0], slope[:, 1])
    assert_allclose(float(slope[:, 0].var()), 25 / 4, rtol=0.1)


def test_blocks_of_replicas_may_have_their_own_batch_size() -> None:
    mixed, x = Circle(batch_size=(1, 16, None), jitter=0.3), torch.full((3000, 2), 5.0, dtype=torch.float64)
    seeds = Streams(replica_seeds(5, 1000).repeat(3), torch.float64)
    found = mixed.gradient(x, seeds, 7)
    for block, k in enumerate(mixed.batch_size):  # type: ignore[arg-type]
        alone = replace(mixed, batch_size=k).gradient(x[:1000], streams(1000), 7)
        assert torch.equal(found[1000 * block : 1000 * (block + 1)], alone)


def test_thresholds_of_exponential_weights_with_and_without_momentum() -> None:
    circle = Circle()
    for k in (1, 2, 4, 8, 32):
        assert 10 * circle.thresholds(k).ring == pytest.approx(2 * k / (k + 1))
    assert circle.thresholds(4).bowl == pytest.approx(1.6)
    known = {(1, 0.5): 0.75, (4, 0.5): 1.714286, (64, 0.5): 2.865672, (1, 0.9): 0.19, (16, 0.9): 1.737143,
             (256, 0.9): 3.537455, (None, 0.9): 3.8}  # fmt: skip
    for (k, momentum), edge in known.items():
        assert 10 * circle.thresholds(k, momentum).ring == pytest.approx(edge, abs=5e-7)


@pytest.mark.parametrize(("batch_size", "momentum"), [(1, 0.0), (16, 0.9)])
def test_mean_square_growth_vanishes_at_the_threshold(batch_size: int, momentum: float) -> None:
    circle = Circle(batch_size=batch_size)
    for multiple, sign in ((0.8, -1), (1.0, 0), (1.2, 1)):
        lr = multiple * circle.thresholds(batch_size, momentum).ring
        source = streams(3000)
        hyper = repeat(heavy_ball(lr, momentum), 3000)
        step = Descent(Section(circle), hyper, source)
        start = torch.full((3000, 1), 1e-3, dtype=torch.float64)
        found = resampled_growth(step, step.state(start), 250, source)[0].mean_square
        if sign:
            assert sign * found.value > 0.005
        else:
            assert found.value == pytest.approx(0, abs=0.004)


def test_finite_horizon_rule() -> None:
    circle = Circle(jitter=0.1)
    found = [10 * circle.finite_horizon(k, 2000) for k in (1, 2, 4, 8, 32)]
    assert_allclose(found, [1.230, 1.592, 1.828, 1.943, 1.997], atol=6e-4)
    mirror = Circle(bowl=10.0, ring=1.0, jitter=0.1)
    assert mirror.finite_horizon(4, 2000) == pytest.approx(circle.finite_horizon(4, 2000))


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="one piece sharper"):
        Circle(bowl=1.0, ring=1.0)
    with pytest.raises(ValueError, match="must be positive"):
        Circle(radius=-1.0)
    with pytest.raises(ValueError, match="jitter, which is 0"):
        Circle().finite_horizon(1, 100)
    assert Circle(weights=Gamma(0.5)).thresholds(1).ring == pytest.approx(2 / 30)
