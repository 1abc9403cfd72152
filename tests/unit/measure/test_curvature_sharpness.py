"""Sharpness at a finite distance: quadratics in closed form, random search, invariances."""

from __future__ import annotations

import math

import pytest
import torch
from descent.engine.streams import Purpose, Streams, replica_seeds
from descent.measure.curvature import hessian, value
from descent.measure.operators import flatten
from descent.measure.sharpness import Norm, average_case, worst_case
from descent.measure.spectra import top_eigenpairs
from descent.nets.dense import MLP, CrossEntropy, SquaredError
from descent.nets.supervised import Supervised
from torch import Tensor

Leaves = dict[str, Tensor]
R, P = 3, 8
STREAMS = Streams(replica_seeds(0, R), torch.float64)
CURVATURES = torch.linspace(0.5, 3.0, P, dtype=torch.float64)


def quadratic(rotated: bool) -> tuple[Supervised, Leaves]:
    """Return ½ Σ h_i δ_i² around its minimum, by linear regression with XᵀX/n = diag h, rotated on request."""
    roots = torch.diag((P * CURVATURES).sqrt())
    inputs = roots @ torch.linalg.qr(STREAMS.normal(Purpose.DATA, 0, (P, P))[0]).Q if rotated else roots
    weights = STREAMS.normal(Purpose.DATA, 1, (1, P))[:1]
    task = Supervised(MLP((P, 1), bias=False), SquaredError(), inputs, inputs @ weights[0].T, sampling="full")
    return task, {"0.weight": weights.expand(R, -1, -1)}


def network() -> tuple[Supervised, Leaves]:
    net = MLP((5, 9, 4))
    inputs = STREAMS.normal(Purpose.DATA, 2, (30, 5))[0]
    return Supervised(net, CrossEntropy(), inputs, torch.arange(30) % 4, sampling="full"), net.initial(STREAMS)


def test_worst_case_of_a_quadratic_is_its_top_eigenvalue() -> None:
    task, params = quadratic(rotated=True)
    found = worst_case(task, params, 0.3, STREAMS, steps=60)
    assert torch.allclose(found.increase, torch.full((R,), 0.5 * 0.09 * 3.0, dtype=torch.float64), rtol=1e-6)
    top = top_eigenpairs(hessian(task, params), 1, STREAMS).vectors[:, 0]
    cosine = (flatten(found.perturbation) * top).sum(dim=1).abs() / 0.3
    assert torch.allclose(cosine, torch.ones(R, dtype=torch.float64), atol=1e-4)


def test_round_off_does_not_choose_where_to_climb() -> None:
    """All that is left of the slope at the minimum points where the loss rises least."""
    task, params = quadratic(rotated=False)
    nearly = {"0.weight": params["0.weight"].clone()}
    nearly["0.weight"][..., 0] += 1e-13
    found = worst_case(task, nearly, 0.3, STREAMS, steps=60)
    assert torch.allclose(found.increase, torch.full((R,), 0.5 * 0.09 * 3.0, dtype=torch.float64), rtol=1e-6)


@pytest.mark.parametrize("adaptive", [False, True])
def test_worst_cases_of_a_diagonal_quadratic(adaptive: bool) -> None:
    task, params = quadratic(rotated=False)
    scaled = CURVATURES * (params["0.weight"][0, 0].square() if adaptive else 1.0)
    cube = worst_case(task, params, 0.3, STREAMS, norm="linf", adaptive=adaptive)
    assert torch.allclose(cube.increase, (0.5 * 0.09 * scaled.sum()).expand(R), rtol=1e-12)
    ball = worst_case(task, params, 0.3, STREAMS, adaptive=adaptive, steps=100)
    assert torch.allclose(ball.increase, (0.5 * 0.09 * scaled.max()).expand(R), rtol=1e-6)


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("adaptive", [False, True])
def test_worst_case_stays_inside_is_reached_and_beats_random_search(norm: Norm, adaptive: bool) -> None:
    task, params = network()
    base = value(task, params)
    scale = flatten(params).abs() if adaptive else torch.ones_like(flatten(params))
    for radius in (0.01, 0.3):
        found = worst_case(task, params, radius, STREAMS, norm=norm, adaptive=adaptive)
        moved = {k: leaf + found.perturbation[k] for k, leaf in params.items()}
        assert torch.allclose(value(task, moved) - base, found.increase, rtol=1e-9)
        inside = flatten(found.perturbation) / scale
        size = inside.norm(dim=1) if norm == "l2" else inside.abs().amax(dim=1)
        assert bool((size <= radius * (1 + 1e-12)).all())
        for index in range(200):
            g = STREAMS.normal(Purpose.NOISE, index, (scale.shape[1],))
            g = torch.sign(g) if norm == "linf" else torch.nn.functional.normalize(g, dim=1)
            place = hessian(task, params).leaves(radius * g * scale)
            assert bool((value(task, {k: w + place[k] for k, w in params.items()}) - base <= found.increase).all())


def test_more_climbs_never_find_less() -> None:
    task, params = network()
    once = worst_case(task, params, 0.5, STREAMS, steps=5).increase
    assert bool((worst_case(task, params, 0.5, STREAMS, steps=5, restarts=4).increase >= once).all())
    assert bool((worst_case(task, params, 0.5, STREAMS, steps=20).increase >= once).all())


@pytest.mark.parametrize("adaptive", [False, True])
def test_average_case_of_a_quadratic(adaptive: bool) -> None:
    task, params = quadratic(rotated=True)
    diagonal = (task.inputs.square().sum(dim=0) / P) * (params["0.weight"][0, 0].square() if adaptive else 1.0)
    found = average_case(task, params, 0.2, STREAMS, adaptive=adaptive, draws=400)
    error = float(found.samples.std()) / math.sqrt(found.samples.numel())
    assert abs(float(found.samples.mean() - 0.5 * 0.04 * diagonal.sum())) < 4.0 * error
    estimate = found.estimate(0)
    assert estimate.n == 400
    assert estimate.low < float(0.02 * diagonal.sum()) < estimate.high


def test_average_case_leaves_out_what_is_odd() -> None:
    """On a slope the plain mean would scatter by radius·‖∇L‖, far more than what is measured."""
    task, params = quadratic(rotated=True)
    away = {"0.weight": params["0.weight"] + 10.0}
    at_rest, on_slope = (average_case(task, at, 0.01, STREAMS).samples for at in (params, away))
    assert torch.allclose(at_rest, on_slope, rtol=1e-8)


def test_adaptive_sharpness_is_blind_to_rescaling_layers() -> None:
    task, params = network()
    scaled = params | {"0.weight": 5.0 * params["0.weight"], "0.bias": 5.0 * params["0.bias"]}
    scaled["2.weight"] = params["2.weight"] / 5.0
    for norm in ("l2", "linf"):
        for adaptive in (True, False):
            one, other = (worst_case(task, at, 0.1, STREAMS, norm=norm, adaptive=adaptive) for at in (params, scaled))
            assert torch.allclose(one.increase, other.increase, rtol=1e-9 if adaptive else 0.1) == adaptive
    ours, theirs = (average_case(task, at, 0.1, STREAMS, adaptive=True).samples for at in (params, scaled))
    assert torch.allclose(ours, theirs, rtol=1e-9)


def test_replicas_do_not_see_each_other() -> None:
    task, params = network()
    worst, average = worst_case(task, params, 0.2, STREAMS), average_case(task, params, 0.2, STREAMS)
    spoilt = params | {"0.bias": params["0.bias"].clone()}
    spoilt["0.bias"][1, 0] = torch.nan
    assert bool(worst_case(task, spoilt, 0.2, STREAMS).increase[1].isnan())
    assert torch.allclose(worst_case(task, spoilt, 0.2, STREAMS).increase[[0, 2]], worst.increase[[0, 2]], rtol=1e-12)
    assert bool(average_case(task, spoilt, 0.2, STREAMS).values[1].isnan())
    for r in range(R):
        rows = slice(r, r + 1)
        one, streams = {k: leaf[rows] for k, leaf in params.items()}, STREAMS.subset(rows)
        assert torch.allclose(worst_case(task, one, 0.2, streams).increase, worst.increase[rows], rtol=1e-9)
        assert torch.allclose(average_case(task, one, 0.2, streams).samples, average.samples[rows], rtol=1e-9)


def test_errors_say_what_to_change() -> None:
    task, params = network()
    with pytest.raises(ValueError, match="radius must be positive, got 0"):
        worst_case(task, params, 0.0, STREAMS)
    with pytest.raises(ValueError, match='norm must be "l2" or "linf"'):
        worst_case(task, params, 0.1, STREAMS, norm="l1")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="3 replicas and the streams 2"):
        average_case(task, params, 0.1, STREAMS.subset(slice(0, 2)))
